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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// The safety rules of PROTOCOL.md, in its order. More of S3, S5 and S8 is in oddwriter_test.go and resign_test.go. S12 is in
// statedir_test.go, S13 in deaths_test.go, S14 in recovery_test.go.

// onWrites injects a fault into what a client writes, and leaves the rest alone.
func onWrites(f func(n int, r electortest.Request) electortest.Fault) func(electortest.Request) electortest.Fault {
	var n atomic.Int64
	return func(r electortest.Request) electortest.Fault {
		if r.Lease == nil {
			return electortest.Fault{}
		}
		return f(int(n.Add(1)), r)
	}
}

// S1

func TestALateReplyDoesNotLengthenTheTerm(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		time.Sleep(time.Minute)
		var sent time.Time
		a.client.Intercept(onWrites(func(int, electortest.Request) electortest.Fault {
			sent = time.Now()
			a.client.Intercept(onWrites(func(int, electortest.Request) electortest.Fault { return electortest.Fault{LoseRequest: true} }))
			return electortest.Fault{After: 3 * time.Second}
		}))
		w.within(20*time.Second, "the term ends", func() bool { return w.leader() == nil })
		assert.Equal(w, 10*time.Second, w.last().told.Sub(sent))
	})
}

func TestAWinWhoseReplyCameTooLateIsConfirmedBeforeAnybodyLeads(t *testing.T) {
	for _, ignore := range []bool{false, true} {
		inWorld(t, func(w *world) {
			w.join("b")
			b := w.awaitLeader(time.Second)
			a := w.join("a")
			time.Sleep(time.Second)
			a.client.Intercept(onWrites(func(n int, _ electortest.Request) electortest.Fault {
				if n == 1 {
					return electortest.Fault{After: 9500 * time.Millisecond, IgnoreContext: ignore}
				}
				return electortest.Fault{LoseRequest: n < 6}
			}))
			b.stop()
			w.within(time.Minute, "a leads", func() bool { return w.leader() == a })
			assert.True(w, w.last().term.Valid())
			assert.Greater(w, time.Until(w.last().term.ValidUntil()), 9*time.Second)
		})
	}
}

func TestAReplyLateFollowedByACutDoesNotOverlap(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a", draining(4900*time.Millisecond))
		w.awaitLeader(time.Second)
		w.join("b")
		w.join("c")
		time.Sleep(time.Minute)
		a.client.Intercept(onWrites(func(n int, _ electortest.Request) electortest.Fault {
			return electortest.Fault{After: 9500 * time.Millisecond, IgnoreContext: true}
		}))
		time.Sleep(9600 * time.Millisecond)
		a.client.Partition(electortest.Both)
		w.awaitLeader(30*time.Second, a)
	})
}

// S2

func TestATermEndsOnTimeThoughEveryRequestHangs(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		time.Sleep(time.Minute)
		last := a.el.Status().LastRenewal
		a.client.Intercept(func(electortest.Request) electortest.Fault {
			return electortest.Fault{LoseRequest: true, IgnoreContext: true}
		})
		w.within(20*time.Second, "the term ends", func() bool { return w.leader() == nil })
		assert.Equal(w, 10*time.Second, w.last().told.Sub(last))
		assert.False(w, a.el.IsLeader())
	})
}

func TestIsLeaderAndValidEndAtTheVeryDeadline(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a", draining(time.Second))
		w.awaitLeader(time.Second)
		time.Sleep(time.Minute)
		term := w.last().term
		a.client.Partition(electortest.Both)
		time.Sleep(time.Until(term.ValidUntil()) - time.Nanosecond)
		assert.True(w, term.Valid())
		assert.True(w, a.el.IsLeader())
		time.Sleep(time.Nanosecond)
		assert.False(w, term.Valid())
		assert.False(w, a.el.IsLeader())
	})
}

// S3

func TestAStandbyWaitsForAsLongAsTheRecordSays(t *testing.T) {
	for _, seconds := range []int32{2, 60} {
		inWorld(t, func(w *world) {
			w.aLease("elsewhere", seconds)
			time.Sleep(time.Hour) // however old the record is
			begin := time.Now()
			w.join("a")
			w.awaitLeader(2 * time.Minute)
			gap := time.Since(begin) - time.Duration(seconds)*time.Second
			assert.Positive(w, gap)
			assert.Less(w, gap, 50*time.Millisecond)
		})
	}
}

func TestTimesInTheRecordAreNotComparedWithTheLocalClock(t *testing.T) {
	for _, skew := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		inWorld(t, func(w *world) {
			w.aLease("elsewhere", 15)
			w.kubectl(func(l *coordinationv1.Lease) { l.Spec.RenewTime.Time = l.Spec.RenewTime.Add(skew) })
			w.join("a")
			time.Sleep(14900 * time.Millisecond)
			assert.Nil(w, w.leader())
			w.awaitLeader(200 * time.Millisecond)
		})
	}
}

func TestEditingLabelsIsNoRenewal(t *testing.T) {
	inWorld(t, func(w *world) {
		w.aLease("crashed", 15)
		w.join("a")
		stop := time.AfterFunc(0, func() {})
		defer stop.Stop()
		for i := range 149 {
			time.Sleep(100 * time.Millisecond)
			w.kubectl(func(l *coordinationv1.Lease) { l.Labels = map[string]string{"n": string(rune('a' + i%26))} })
		}
		w.awaitLeader(300 * time.Millisecond)
	})
}

func TestAnEditThatShortensTheRecordDoesNotShortenWhatTheHolderWasPromised(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a", draining(4900*time.Millisecond))
		w.awaitLeader(time.Second)
		w.join("b")
		time.Sleep(time.Minute)
		a.client.Partition(electortest.Both)
		w.kubectl(func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = ptr.To(int32(1)) })
		w.awaitLeader(20*time.Second, a)
	})
}

func TestBlankingOutTheHolderFreesNobody(t *testing.T) {
	for name, connected := range map[string]bool{"leader connected": true, "leader cut off": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				a := w.join("a", draining(4900*time.Millisecond))
				w.awaitLeader(time.Second)
				w.join("b")
				time.Sleep(time.Minute)
				if !connected {
					a.client.Partition(electortest.Both)
				}
				w.kubectl(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = ptr.To("") })
				time.Sleep(100 * time.Millisecond)
				if connected {
					assert.Equal(w, "a", holder(w.lease()), "the leader puts its name back")
					time.Sleep(time.Minute)
					w.oneTerm()
					return
				}
				w.awaitLeader(20*time.Second, a)
			})
		})
	}
}

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

func TestAnEditLikeARenewalForASecondShortensNothing(t *testing.T) {
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

// S4

func TestEveryWriteIsConditional(t *testing.T) {
	inWorld(t, func(w *world) {
		check := func(r electortest.Request) electortest.Fault {
			switch r.Verb {
			case "update":
				assert.NotEmpty(w, r.Lease.ResourceVersion)
				assert.NotEmpty(w, r.Lease.UID)
			case "create":
				assert.Empty(w, r.Lease.ResourceVersion)
			case "get", "watch":
			default:
				assert.Fail(w, "unexpected verb", r.Verb)
			}
			return electortest.Fault{}
		}
		for _, who := range []string{"a", "b", "c"} {
			w.api.Client(who).Intercept(check)
			w.join(who)
		}
		for i := range 20 {
			l := w.awaitLeader(20 * time.Second)
			time.Sleep(7 * time.Second)
			switch i % 4 {
			case 0:
				require.NoError(w, l.el.StepDown(w.Context()))
			case 1:
				w.deleteLease()
			case 2:
				w.kubectl(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = ptr.To("someone") })
			}
		}
	})
}

// S5

func TestReplicasOfOneIdentityAreBothSafeAndReported(t *testing.T) {
	inWorld(t, func(w *world) {
		same := with(func(o *elector.Options) { o.Identity = "pod" })
		a := w.join("a", same, draining(4*time.Second))
		w.awaitLeader(time.Second)
		b := w.join("b", same, draining(4*time.Second))
		time.Sleep(10 * time.Minute)
		w.oneTerm()
		assert.Equal(w, 1, count(b.log(), "Another process leads under this candidate's identity"))
		a.client.Partition(electortest.Both)
		assert.Same(w, b, w.awaitLeader(20*time.Second, a))
		a.client.Partition(electortest.NoPartition)
		time.Sleep(time.Minute)
		assert.Len(w, w.spans(), 2)
	})
}

func TestATermEndsWhenAnotherProcessWritesItsIdentity(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		w.awaitLeader(time.Second)
		time.Sleep(time.Second)
		w.kubectl(func(l *coordinationv1.Lease) {
			now := metav1.NowMicro()
			l.Spec.AcquireTime, l.Spec.RenewTime = &now, &now
		})
		w.within(50*time.Millisecond, "the term ends", func() bool { return w.leader() == nil })
		assert.Equal(w, "duplicate identity", reason(w.last().cause))
	})
}

func TestARestartedCandidateWaitsForTheLeaseOfItsPredecessor(t *testing.T) {
	inWorld(t, func(w *world) {
		w.aLease("a", 15)
		a := w.join("a")
		time.Sleep(14900 * time.Millisecond)
		assert.Nil(w, w.leader())
		w.awaitLeader(200 * time.Millisecond)
		assert.Equal(w, 1, count(a.log(), "held under this candidate's identity"))
	})
}

func TestAWinWhoseReplyWasLostIsAdoptedByOneMoreWrite(t *testing.T) {
	for _, verb := range []string{"create", "update"} {
		t.Run(verb, func(t *testing.T) {
			inWorld(t, func(w *world) {
				if verb == "update" {
					w.aLease("crashed", 1)
				}
				a := w.api.Client("a")
				a.Intercept(onWrites(func(n int, r electortest.Request) electortest.Fault { return electortest.Fault{LoseReply: n == 1} }))
				w.join("a")
				w.awaitLeader(10 * time.Second)
				assert.Equal(w, 2, w.api.Requests("a", "create")+w.api.Requests("a", "update"))
			})
		})
	}
}

func TestARenewalWhoseReplyWasLostDoesNotCostTheTerm(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		a.client.ForbidWatch(true)
		a.client.CloseWatches()
		a.client.Intercept(onWrites(func(n int, _ electortest.Request) electortest.Fault { return electortest.Fault{LoseReply: n%3 == 1} }))
		time.Sleep(10 * time.Minute)
		w.oneTerm()
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

// S6

func TestADeletedLeaseIsPutBackAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		w.awaitLeader(time.Second)
		w.join("b")
		for range 10 {
			time.Sleep(5 * time.Second)
			w.deleteLease()
			time.Sleep(10 * time.Millisecond)
			assert.Equal(w, "a", holder(w.lease()))
		}
		time.Sleep(time.Minute)
		w.oneTerm()
	})
}

func TestADeletedLeaseBindsWhoSawItUntilItWouldHaveExpired(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a", draining(4900*time.Millisecond))
		w.awaitLeader(time.Second)
		w.join("b")
		time.Sleep(time.Minute)
		last := a.el.Status().LastRenewal
		a.client.Partition(electortest.Both)
		w.deleteLease()
		w.awaitLeader(20*time.Second, a)
		gap := time.Since(last)
		assert.Greater(w, gap, 15*time.Second)
		assert.Less(w, gap, 15100*time.Millisecond)
	})
}

func TestALeaseThatSomebodyElseMadeAnewStillBinds(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a", draining(4900*time.Millisecond))
		w.awaitLeader(time.Second)
		w.join("b")
		time.Sleep(time.Minute)
		a.client.Partition(electortest.Both)
		w.deleteLease()
		_, err := w.leases().Create(w.Context(), &coordinationv1.Lease{ObjectMeta: objectMeta(name)}, createOptions)
		require.NoError(w, err)
		w.awaitLeader(20*time.Second, a)
	})
}

func TestALeaseThatCannotBePutBackEndsTheTermAsDeleted(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		time.Sleep(time.Second)
		a.client.Intercept(onWrites(func(int, electortest.Request) electortest.Fault {
			return electortest.Fault{Err: electortest.Forbidden("create")}
		}))
		w.deleteLease()
		w.within(15*time.Second, "the term ends", func() bool { return w.leader() == nil })
		assert.Equal(w, "lease deleted", reason(w.last().cause))
	})
}

func TestALeaseDeletedAfterARenewalThatWasNotSeenBindsFromItsDiscovery(t *testing.T) {
	inWorld(t, func(w *world) {
		a := unseen(w)
		w.deleteLease()
		w.awaitLeader(time.Minute, a)
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

// S7

func TestAnotherHoldersNameEndsTheCallbackAtOnce(t *testing.T) {
	for name, watch := range map[string]bool{"seen by the watch": true, "seen by a conflict": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.api.Client("a").ForbidWatch(!watch)
				a := w.join("a", draining(3*time.Second))
				w.awaitLeader(time.Second)
				time.Sleep(time.Minute)
				w.kubectl(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = ptr.To("b") })
				limit := 50 * time.Millisecond
				if !watch {
					limit += 10 * time.Second / 3 // its next renewal
				}
				w.within(limit, "the callback's ctx ends", func() bool { return w.last().cause != nil })
				assert.Same(w, a, w.leader(), "it drains")
				assert.False(w, a.el.IsLeader())
				assert.False(w, w.last().term.Valid())
				assert.Equal(w, "taken over", reason(w.last().cause))
				assert.ErrorContains(w, w.last().cause, `taken over by "b"`)
			})
		})
	}
}

// A virtual machine that was paused may go on with both clocks where they were: to it, another's term has begun in no time.
func TestATermIsValidWhereBothClocksStoodStillUntilTheAPISaysThatItIsNot(t *testing.T) {
	for name, away := range map[string]bool{"the API answers": false, "the API is away": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.api.Client("a").ForbidWatch(true)
				a := w.join("a")
				w.awaitLeader(time.Second)
				time.Sleep(time.Minute)
				if away {
					a.client.Partition(electortest.Both)
				}
				term := w.last().term
				left := time.Until(term.ValidUntil())
				w.kubectl(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = ptr.To("b") })
				assert.True(w, term.Valid())
				limit := 2*time.Second + 50*time.Millisecond // RetryPeriod, and an answer
				if away {
					limit = left
				}
				took := w.within(limit, "the term is not valid", func() bool { return !term.Valid() })
				assert.True(w, !away || took > left-10*time.Millisecond, "%v of %v", took, left)
			})
		})
	}
}

func TestErrorsAndTimeoutsAreNotLoss(t *testing.T) {
	errs := []error{electortest.TooManyRequests(time.Second), electortest.InternalError(), electortest.Unavailable(), electortest.Timeout(),
		electortest.Forbidden("update"), electortest.Unauthorized(), errors.New("connection refused")}
	for _, err := range errs {
		inWorld(t, func(w *world) {
			a := w.join("a")
			w.awaitLeader(time.Second)
			w.join("b")
			for offset := range 7 {
				time.Sleep(20*time.Second + time.Duration(offset)*500*time.Millisecond)
				a.client.Intercept(func(electortest.Request) electortest.Fault { return electortest.Fault{Err: err} })
				time.Sleep(6 * time.Second)
				a.client.Intercept(nil)
			}
			time.Sleep(20 * time.Second)
			w.oneTerm()
		})
	}
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

// S8

func TestTheLeaseIsReleasedOnlyAfterTheCallbackHasReturned(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a", draining(30*time.Second))
		w.awaitLeader(time.Second)
		released := 0
		a.client.Intercept(onWrites(func(_ int, r electortest.Request) electortest.Fault {
			if holder(r.Lease) == "" {
				released++
				assert.Nil(w, w.leader(), "released while the callback ran")
				assert.False(w, w.last().term.Valid())
				assert.Equal(w, int32(1), *r.Lease.Spec.LeaseDurationSeconds)
				assert.Equal(w, time.Now().UnixMilli(), r.Lease.Spec.RenewTime.UnixMilli(), "a fresh renewTime")
			}
			return electortest.Fault{}
		}))
		time.Sleep(time.Minute)
		require.NoError(w, a.el.StepDown(w.Context()))
		w.awaitLeader(20 * time.Second)
		a.stop()
		require.NoError(w, a.awaitEnd(time.Minute))
		assert.Equal(w, 2, released)
	})
}

func TestAReleaseTouchesNobodyElsesLease(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a", draining(3*time.Second))
		w.awaitLeader(time.Second)
		time.Sleep(time.Second)
		a.client.SilenceWatches(true)
		a.stop()
		time.Sleep(2999 * time.Millisecond)
		w.kubectl(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = ptr.To("b") })
		require.NoError(w, a.awaitEnd(time.Minute))
		assert.Equal(w, "b", holder(w.lease()))
	})
}

func TestACleanDrainHasNoAuthorityAnyMoreOnceAnotherHolderIsSeen(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a", draining(5*time.Second))
		w.awaitLeader(time.Second)
		time.Sleep(time.Second)
		a.stop()
		time.Sleep(time.Second)
		assert.True(w, a.el.IsLeader())
		w.kubectl(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = ptr.To("b") })
		time.Sleep(10 * time.Millisecond)
		assert.False(w, a.el.IsLeader())
	})
}

func TestAReleaseSurvivesAnEditOfLabelsAndALostReply(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		time.Sleep(time.Second)
		a.client.SilenceWatches(true)
		time.Sleep(time.Second)
		n := 0
		a.client.Intercept(onWrites(func(_ int, r electortest.Request) electortest.Fault {
			if holder(r.Lease) != "" {
				return electortest.Fault{}
			}
			if n++; n == 1 {
				w.kubectl(func(l *coordinationv1.Lease) { l.Labels = map[string]string{"a": "b"} })
			}
			return electortest.Fault{LoseReply: n == 2}
		}))
		a.stop()
		require.NoError(w, a.awaitEnd(10*time.Second))
		assert.Empty(w, holder(w.lease()))
		assert.LessOrEqual(w, n, 3)
	})
}

func TestARunThatCannotReleaseEndsWhenTheLeaseHasExpired(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		time.Sleep(time.Minute)
		a.client.Partition(electortest.Both)
		a.stop()
		require.NoError(w, a.awaitEnd(16*time.Second))
		assert.Equal(w, 1, count(a.log(), "Could not release the lease"))
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

// S9

func TestTheLeaseIsKeptWhileACallbackDrainsForWhateverReason(t *testing.T) {
	ways := map[string]func(w *world, a *replica){
		"the end of ctx": func(_ *world, a *replica) { a.stop() },
		"StepDown":       func(w *world, a *replica) { go func() { _ = a.el.StepDown(w.Context()) }() },
		"its deadline": func(w *world, a *replica) {
			a.client.Partition(electortest.Outbound)
			w.within(12*time.Second, "the deadline", func() bool { return !a.el.IsLeader() })
			a.client.Partition(electortest.NoPartition)
		},
	}
	for name, end := range ways {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				a := w.join("a", draining(2*time.Minute))
				w.awaitLeader(time.Second)
				b := w.join("b")
				time.Sleep(time.Minute)
				end(w, a)
				time.Sleep(time.Minute)
				w.deleteLease()
				w.within(3*time.Minute, "it has drained", func() bool { return w.leader() != a })
				if next := w.awaitLeader(100 * time.Millisecond); name != "its deadline" {
					assert.Same(w, b, next)
				}
			})
		})
	}
}

func TestADrainThatOutlastsAnOutageKeepsTheLeaseIfNobodyTookIt(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a", draining(3*time.Minute))
		w.awaitLeader(time.Second)
		time.Sleep(time.Second)
		a.client.Partition(electortest.Both)
		time.Sleep(time.Minute) // long expired, but nobody else is there
		a.client.Partition(electortest.NoPartition)
		time.Sleep(10 * time.Second)
		b := w.join("b")
		w.within(3*time.Minute, "it has drained", func() bool { return w.leader() == nil })
		_ = b
		w.awaitLeader(time.Second)
	})
}

// S10 stands in TestACallbackThatIgnoresItsContextIsReportedAndNeverJoinedByAnother, and the world checks it everywhere.

// S11

func TestWhatOthersOwnSurvives(t *testing.T) {
	inWorld(t, func(w *world) {
		w.api.SetCoordinatedLeaderElection(true)
		w.aLease("elsewhere", 1)
		theirs := func(l *coordinationv1.Lease) {
			l.Spec.Strategy = ptr.To(coordinationv1.OldestEmulationVersion)
			l.Spec.PreferredHolder = ptr.To("c")
			l.Labels = map[string]string{"theirs": "1", "ours": "old"}
			l.Annotations = map[string]string{"theirs": "2"}
			l.Finalizers = []string{"example.com/keep"}
			l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "u"}}
		}
		w.kubectl(theirs)
		a := w.join("a", with(func(o *elector.Options) { o.Labels = map[string]string{"ours": "new"} }))
		check := func() {
			l := w.lease()
			assert.Equal(w, coordinationv1.OldestEmulationVersion, *l.Spec.Strategy)
			assert.Equal(w, "c", *l.Spec.PreferredHolder)
			assert.Equal(w, map[string]string{"theirs": "1", "ours": "new"}, l.Labels)
			assert.Equal(w, map[string]string{"theirs": "2"}, l.Annotations)
			assert.Equal(w, []string{"example.com/keep"}, l.Finalizers)
			assert.Len(w, l.OwnerReferences, 1)
		}
		w.awaitLeader(3 * time.Second)
		check()
		w.kubectl(theirs)
		time.Sleep(time.Minute)
		check()
		a.stop()
		require.NoError(w, a.awaitEnd(time.Second))
		check()
	})
}

func TestAClientThatEditsLabelsTenTimesASecondNeitherCostsTheTermNorLosesItsLabels(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		w.awaitLeader(time.Second)
		w.join("b")
		lost := 0
		for i := range 1200 {
			time.Sleep(100 * time.Millisecond)
			key := "l" + string(rune('a'+i%26))
			l := w.lease()
			if i >= 26 && l.Labels[key] == "" {
				lost++
			}
			l.Labels = merged(l.Labels, key)
			if _, err := w.leases().Update(w.Context(), l, metav1.UpdateOptions{}); err != nil {
				lost++
			}
		}
		assert.Zero(w, lost)
		w.oneTerm()
	})
}

func merged(labels map[string]string, key string) map[string]string {
	if labels == nil {
		labels = map[string]string{}
	}
	labels[key] = "x"
	return labels
}

func TestAcquireTimeAndTransitionsChangeWithEachWinOnly(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		first := w.lease()
		assert.Equal(w, int32(0), *first.Spec.LeaseTransitions)
		time.Sleep(time.Minute)
		assert.Equal(w, first.Spec.AcquireTime, w.lease().Spec.AcquireTime)
		assert.True(w, first.Spec.RenewTime.Before(w.lease().Spec.RenewTime))
		a.stop()
		require.NoError(w, a.awaitEnd(time.Second))
		assert.Equal(w, int32(0), *w.lease().Spec.LeaseTransitions)
		w.join("b")
		w.awaitLeader(time.Second)
		assert.Equal(w, int32(1), *w.lease().Spec.LeaseTransitions)
		assert.True(w, first.Spec.AcquireTime.Before(w.lease().Spec.AcquireTime))
		assert.Equal(w, int32(15), *w.lease().Spec.LeaseDurationSeconds)
	})
}
