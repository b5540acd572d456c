package elector_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// What an adversary found, who read the code to break it.

// unseen lets a lead and renew while b, whose watch has gone silent, has seen an old renewal only; then it cuts a off.
func unseen(w *world) (a *replica) {
	a = w.join("a", draining(4900*time.Millisecond))
	w.awaitLeader(time.Second)
	b := w.join("b")
	time.Sleep(5 * time.Second)
	b.client.SilenceWatches(true)
	time.Sleep(12 * time.Second)
	a.client.Partition(electortest.Both)
	return a
}

func TestALeaseDeletedAfterARenewalThatWasNotSeenBindsFromItsDiscovery(t *testing.T) {
	inWorld(t, func(w *world) {
		a := unseen(w)
		w.deleteLease()
		w.awaitLeader(time.Minute, a)
	})
}

func TestAnEditAfterARenewalThatWasNotSeenShortensNothing(t *testing.T) {
	for _, holder := range []string{"a", "stranger"} {
		inWorld(t, func(w *world) {
			a := unseen(w)
			w.kubectl(func(l *coordinationv1.Lease) {
				l.Spec.HolderIdentity = &holder
				l.Spec.LeaseDurationSeconds = ptr.To(int32(1))
			})
			w.awaitLeader(time.Minute, a)
		})
	}
}

func TestAnEditThatLooksLikeARenewalForASecondShortensNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a", draining(4900*time.Millisecond))
		w.awaitLeader(time.Second)
		w.join("b")
		time.Sleep(5 * time.Second)
		w.kubectl(func(l *coordinationv1.Lease) {
			now := metav1.NowMicro()
			l.Spec.LeaseDurationSeconds, l.Spec.RenewTime, l.Spec.AcquireTime = ptr.To(int32(1)), &now, &now
		})
		w.within(time.Minute, "the next term", func() bool { return len(w.spans()) == 2 })
	})
}

func TestALeaseBoundForYearsByMistakeIsFreeOnceItsHolderHasRenewed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		a := w.awaitLeader(time.Second)
		w.join("b")
		time.Sleep(5 * time.Second)
		w.kubectl(func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = ptr.To(int32(1 << 30)) })
		time.Sleep(time.Second)
		a.crash()
		w.lenient = true // a runs on unseen
		w.awaitLeader(16*time.Second, a)
	})
}

func TestAPutBackThatIsRepeatedIsARenewalToo(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a", draining(4900*time.Millisecond))
		w.awaitLeader(time.Second)
		w.join("b")
		time.Sleep(5 * time.Second)
		a.client.Intercept(func(r electortest.Request) electortest.Fault { return electortest.Fault{LoseReply: r.Verb == "create"} })
		a.client.SilenceWatches(true)
		w.deleteLease()
		time.Sleep(6 * time.Second) // its POST is applied, unknown to a
		w.deleteLease()
		a.client.Intercept(nil)
		w.within(10*time.Second, "put back", func() bool {
			_, err := w.leases().Get(w.Context(), name, metav1.GetOptions{})
			return err == nil
		})
		time.Sleep(10 * time.Millisecond)
		a.client.Partition(electortest.Both)
		w.awaitLeader(time.Minute, a)
	})
}

func TestACandidateThatNeverHearsRepliesToItsWritesDoesNotKeepTheLeaseFromOthers(t *testing.T) {
	inWorld(t, func(w *world) {
		b := w.join("b")
		b.client.Intercept(func(r electortest.Request) electortest.Fault {
			return electortest.Fault{LoseReply: r.Lease != nil}
		})
		time.Sleep(time.Second)
		c := w.join("c")
		assert.Same(w, c, w.awaitLeader(45*time.Second))
	})
}

func TestConflictsWithoutEndAreNotAnsweredByWritesWithoutEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a", draining(time.Minute))
		w.awaitLeader(time.Second)
		time.Sleep(time.Second)
		w.api.ResetRequests()
		a.client.Intercept(func(r electortest.Request) electortest.Fault {
			if r.Verb == "update" {
				return electortest.Fault{Err: apierrors.NewConflict(coordinationv1.Resource("leases"), name, errors.New("a webhook says no"))}
			}
			return electortest.Fault{}
		})
		time.Sleep(20 * time.Second)
		assert.Less(w, w.api.Requests("a", ""), 300)
	})
}

func TestStepDownDoesNotSayReleasedWhenItWasNot(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		for range 20 {
			w.awaitLeader(time.Minute)
			a.client.Intercept(func(r electortest.Request) electortest.Fault {
				if r.Verb == "update" {
					return electortest.Fault{Err: electortest.InternalError()}
				}
				return electortest.Fault{}
			})
			err := a.el.StepDown(w.Context())
			assert.Equal(w, holder(w.lease()) == "a", err != nil, "%v", err)
			a.client.Intercept(nil)
		}
	})
}

func TestACandidateStoppedAfterItsWinningReplyWasLostReleases(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		a.client.ForbidWatch(true)
		a.client.Intercept(func(r electortest.Request) electortest.Fault {
			return electortest.Fault{LoseReply: r.Verb == "create"}
		})
		time.Sleep(3400 * time.Millisecond) // it has given up on the reply
		a.stop()
		require.NoError(w, a.awaitEnd(10*time.Second))
		assert.Empty(w, holder(w.lease()))
	})
}

func TestAnElectionInsideTheCallbackOfAnotherTellsItsOwnLossFromTheOthers(t *testing.T) {
	inWorld(t, func(w *world) {
		boom := errors.New("boom")
		outer, cancel := context.WithCancelCause(w.Context())
		el, err := elector.New(w.api.Client("x").CoordinationV1(), elector.Options{
			Namespace: namespace, Name: "inner", Identity: "x",
			Run: func(ctx context.Context) error { <-ctx.Done(); return boom },
		})
		require.NoError(w, err)
		got := make(chan error, 1)
		go func() { got <- el.Run(outer) }()
		time.Sleep(time.Second)
		cancel(&elector.LostError{Reason: elector.ReasonTakenOver, Holder: "y"})
		require.ErrorIs(w, <-got, boom)
	})
}

func TestTheHerdDoesNotReadAfterARelease(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		for i := range 8 {
			w.join(string(rune('b' + i)))
		}
		time.Sleep(10 * time.Second)
		w.api.ResetRequests()
		a.stop()
		time.Sleep(5 * time.Second)
		assert.Zero(w, w.api.Requests("", "get"))
		assert.Zero(w, w.api.Requests("", "watch"))
	})
}

// A replica that learns by a GET what its watch should have told opens a new one.
func TestAReplicaBackFromAPartitionDoesNotTrustItsOldWatch(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		b := w.join("b")
		for range 5 {
			time.Sleep(5 * time.Second)
			require.NoError(w, a.el.StepDown(w.Context()))
			w.awaitLeader(time.Second, a)
			time.Sleep(5 * time.Second)
			b.client.Partition(electortest.Both)
			w.awaitLeader(20*time.Second, b)
			time.Sleep(2 * time.Second)
			b.client.Partition(electortest.NoPartition)
			time.Sleep(12 * time.Second)
			require.NoError(w, a.el.StepDown(w.Context()))
			w.awaitLeader(100*time.Millisecond, a)
			b.stop()
			require.NoError(w, b.awaitEnd(time.Second))
			w.awaitLeader(20*time.Second, b)
			b = w.join("b")
		}
	})
}

// The model of the protocol (model/) found this one.
func TestACreateThatArrivesAfterAnothersLeaseWasSeenAndDeletedIsNoWin(t *testing.T) {
	inWorld(t, func(w *world) {
		b := w.api.Client("b")
		b.Intercept(func(r electortest.Request) electortest.Fault {
			if r.Verb == "create" {
				return electortest.Fault{Before: 2 * time.Second}
			}
			return electortest.Fault{}
		})
		w.join("b")
		time.Sleep(time.Second) // b's POST is under way
		a := w.join("a", draining(4900*time.Millisecond))
		w.awaitLeader(time.Second)
		time.Sleep(500 * time.Millisecond) // b sees a's Lease
		a.client.Partition(electortest.Both)
		w.deleteLease()
		w.awaitLeader(40*time.Second, a)
	})
}

// The reply to the last renewal is lost, and the release too. The candidate knows its own record when it comes back.
func TestACandidateDoesNotWaitForItsOwnLastRecord(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		time.Sleep(5 * time.Second)
		transitions := *w.lease().Spec.LeaseTransitions
		a.client.Partition(electortest.Inbound)
		time.Sleep(40 * time.Second)
		assert.Len(w, w.spans(), 1)
		a.client.Partition(electortest.NoPartition)
		w.awaitLeader(8 * time.Second)
		assert.Greater(w, *w.lease().Spec.LeaseTransitions, transitions, "it is a new term")
		assert.Zero(w, count(a.log(), "under this candidate's identity"))
	})
}

func TestRenewalsForASecondTakeNothingBack(t *testing.T) {
	for _, names := range [][2]string{{"a", "a"}, {"x", "x"}, {"x", "y"}, {"x", "a"}} {
		inWorld(t, func(w *world) {
			w.join("a", draining(4900*time.Millisecond))
			w.awaitLeader(time.Second)
			w.join("b")
			time.Sleep(5 * time.Second)
			for _, who := range names {
				w.kubectl(func(l *coordinationv1.Lease) {
					now := metav1.NowMicro()
					l.Spec.LeaseDurationSeconds, l.Spec.RenewTime, l.Spec.AcquireTime, l.Spec.HolderIdentity = ptr.To(int32(1)), &now, &now, &who
				})
				time.Sleep(100 * time.Millisecond)
			}
			w.within(time.Minute, "the next term", func() bool { return len(w.spans()) == 2 })
		})
	}
}

// pastHolder lets a overrun, while b leads, and returns b just before a has drained.
func pastHolder(w *world, drain, seen time.Duration) (a, b *replica) {
	w.lenient = true // that a overruns is its own fault
	a = w.join("a", draining(drain), with(func(o *elector.Options) { o.OnOverrun = func(elector.Term) {} }))
	w.awaitLeader(time.Second)
	b = w.join("b", draining(time.Millisecond))
	time.Sleep(time.Second)
	a.client.Partition(electortest.Both)
	w.within(20*time.Second, "b leads", func() bool { return len(w.spans()) == 2 })
	time.Sleep(seen)
	return a, b
}

func TestAPastHolderDoesNotPutBackALeaseThatWasAnothers(t *testing.T) {
	t.Run("which it has seen", func(t *testing.T) {
		inWorld(t, func(w *world) {
			a, b := pastHolder(w, 19500*time.Millisecond, 0)
			a.client.Partition(electortest.NoPartition)
			time.Sleep(14 * time.Second)
			require.Equal(w, "b", a.el.Leader())
			require.True(w, w.spans()[0].end.IsZero(), "a drains")
			b.client.Partition(electortest.Both)
			w.deleteLease()
			w.within(20*time.Second, "the third term", func() bool { return len(w.spans()) == 3 })
			assert.False(w, b.el.IsLeader())
		})
	})
	t.Run("which it has not", func(t *testing.T) {
		inWorld(t, func(w *world) {
			a, b := pastHolder(w, 20*time.Second, 9*time.Second)
			b.client.Partition(electortest.Both)
			w.deleteLease()
			a.client.Partition(electortest.NoPartition)
			w.within(40*time.Second, "the third term", func() bool { return len(w.spans()) == 3 })
			assert.False(w, b.el.IsLeader())
		})
	})
}

func TestATermThatIsOverBeforeItsCallbackHasBegunHasNone(t *testing.T) {
	inWorld(t, func(w *world) {
		b := w.join("b")
		w.awaitLeader(time.Second)
		var blocked atomic.Bool
		w.join("a", func(r *replica, _ *elector.Options) {
			r.gate = func() { // in its log, as if that were a full pipe
				if r.el != nil && r.el.IsLeader() && blocked.CompareAndSwap(false, true) {
					time.Sleep(20 * time.Second)
				}
			}
			r.decides = func() {}
		})
		time.Sleep(time.Second)
		b.stop()
		<-b.done
		time.Sleep(time.Second)
		require.True(w, blocked.Load(), "a has won, and its log blocks")
		c := w.join("c")
		time.Sleep(time.Minute)
		assert.Equal(w, c, w.leader())
		assert.Len(w, w.spans(), 2)
	})
}

func TestACallbackThatReturnedBeforeItsTermWasLostReturnedByItself(t *testing.T) {
	inWorld(t, func(w *world) {
		l := &ledger{}
		l.renewed = func(renewals int) {
			if renewals == 3 {
				time.Sleep(11 * time.Second) // the election's goroutine gets no CPU
			}
		}
		a := w.join("a", told(l), working(func(ctx context.Context) error {
			time.Sleep(12 * time.Second)
			term, _ := elector.TermFrom(ctx)
			assert.True(w, term.Valid())
			return nil
		}))
		time.Sleep(time.Minute)
		require.NoError(w, a.awaitEnd(time.Second))
		assert.Len(w, w.spans(), 1)
	})
}

func TestOneThatHasSteppedDownDoesNotSitOutIfItHasSeenAnotherLead(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		b := w.join("b")
		time.Sleep(time.Second)
		a.client.Intercept(func(r electortest.Request) electortest.Fault {
			if r.Lease != nil && holder(r.Lease) == "" {
				return electortest.Fault{After: 100 * time.Millisecond} // b's win is seen before
			}
			return electortest.Fault{}
		})
		require.NoError(w, a.el.StepDown(w.Context()))
		a.client.Intercept(nil)
		time.Sleep(time.Second)
		require.Same(w, b, w.leader())
		b.stop()
		<-b.done
		w.awaitLeader(100*time.Millisecond, b)
	})
}

func TestItsOwnErrorOfACtxWithACauseIsNone(t *testing.T) {
	inWorld(t, func(w *world) {
		e, err := elector.New(w.api.Client("a").CoordinationV1(), elector.Options{Namespace: namespace, Name: name,
			Run: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
		require.NoError(w, err)
		ctx, cancel := context.WithTimeoutCause(w.Context(), time.Minute, errors.New("the maintenance window is over"))
		defer cancel()
		assert.NoError(w, e.Run(ctx))
	})
}

func TestAHandThatInsistsIsNotAnsweredWithoutEnd(t *testing.T) {
	for what, insist := range map[string]func(w *world, k coordinationv1client.LeaseInterface, l *coordinationv1.Lease){
		"on a duration": func(w *world, k coordinationv1client.LeaseInterface, l *coordinationv1.Lease) {
			l.Spec.LeaseDurationSeconds = ptr.To(int32(30))
			_, _ = k.Update(w.Context(), l, metav1.UpdateOptions{})
		},
		"that there is no Lease": func(w *world, k coordinationv1client.LeaseInterface, l *coordinationv1.Lease) {
			_ = k.Delete(w.Context(), l.Name, metav1.DeleteOptions{})
		},
	} {
		t.Run(what, func(t *testing.T) {
			inWorld(t, func(w *world) {
				a := w.join("a")
				time.Sleep(time.Second)
				hand := w.api.Client("hand")
				hand.SetLatency(roundTrip)
				leases := hand.CoordinationV1().Leases(namespace)
				events, err := leases.Watch(w.Context(), metav1.ListOptions{})
				require.NoError(w, err)
				defer events.Stop()
				go func() {
					for ev := range events.ResultChan() {
						if l := ev.Object.(*coordinationv1.Lease); ev.Type != watch.Deleted && *l.Spec.LeaseDurationSeconds == 15 {
							insist(w, leases, l.DeepCopy())
						}
					}
				}()
				var requests atomic.Int32
				a.client.Intercept(func(electortest.Request) electortest.Fault { requests.Add(1); return electortest.Fault{} })
				time.Sleep(time.Minute)
				assert.Less(w, requests.Load(), int32(200))
				w.oneTerm()
			})
		})
	}
}
