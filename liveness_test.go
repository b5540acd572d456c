package elector_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

// The rules of PROTOCOL.md for liveness and load, in its order. More of L1 and L2 is in watch_test.go, of L3 in slow_test.go, of
// L5 in client_test.go. L6 is in fitness_test.go, L7 and L8 in stepdown_test.go, L9 in watch_test.go, L10 and L11 in
// recovery_test.go, L12 in many_test.go, L13 in beside_test.go.

// L1

func TestWithoutWatchAStandbyPollsAndSaysSoOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		a := w.awaitLeader(time.Second)
		w.api.Client("b").ForbidWatch(true)
		b := w.join("b")
		time.Sleep(10 * time.Minute)
		polls := w.api.Requests("b", "get")
		assert.InDelta(w, 10*60/3.2, polls, 20, "client-go waits as long on average: 1 to 2.2 times RetryPeriod")
		assert.Less(w, w.api.Requests("b", "watch"), 20, "tried again now and then")
		assert.Equal(w, 1, count(b.log(), "No watch on the lease"))
		a.stop()
		w.awaitLeader(4500*time.Millisecond, a)

		b.client.ForbidWatch(false)
		time.Sleep(20 * time.Minute) // what is refused is tried ever later
		assert.Equal(w, 1, count(b.log(), "The watch works again"))
	})
}

func TestASilentWatchDoesNotHideARelease(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		a := w.awaitLeader(time.Second)
		b := w.join("b")
		time.Sleep(time.Minute)
		b.client.SilenceWatches(true)
		a.stop()
		w.awaitLeader(20*time.Second, a)
	})
}

func TestALeaderNoticesThatItsWatchIsSilent(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		time.Sleep(time.Minute)
		before := w.api.Requests("a", "watch")
		a.client.SilenceWatches(true)
		a.client.SilenceWatches(false)
		time.Sleep(10 * time.Second)
		assert.Equal(w, before+1, w.api.Requests("a", "watch"))
	})
}

func TestAWatchThatClosesIsOpenedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		a := w.awaitLeader(time.Second)
		b := w.join("b")
		time.Sleep(time.Minute)
		b.client.CloseWatches()
		time.Sleep(time.Second)
		a.stop()
		w.awaitLeader(50*time.Millisecond, a)
	})
}

// A replica that learns by a GET what its watch should have shown opens a new watch.
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

// L2

func TestAQuietStandbySendsNothingButItsWatch(t *testing.T) {
	inWorld(t, func(w *world) {
		w.api.SetWatchLifetime(5*time.Minute, 10*time.Minute)
		w.join("a")
		w.awaitLeader(time.Second)
		w.join("b")
		time.Sleep(time.Second)
		w.api.ResetRequests()
		time.Sleep(4 * time.Minute)
		assert.Zero(w, w.api.Requests("b", ""))
		time.Sleep(10 * time.Hour)
		assert.Less(w, float64(w.api.Requests("b", ""))/604, 0.5)
	})
}

// L3

func TestAnOutageThatEndsInTimeDoesNotCostTheTerm(t *testing.T) {
	for _, partition := range []electortest.Partition{electortest.Outbound, electortest.Inbound, electortest.Both} {
		inWorld(t, func(w *world) {
			a := w.join("a")
			w.awaitLeader(time.Second)
			w.join("b")
			for i := range 40 {
				time.Sleep(20*time.Second + time.Duration(i)*83*time.Millisecond)
				a.client.Partition(partition)
				// The renewal just lost leaves two thirds of RenewDeadline, and the last attempt needs its own time.
				time.Sleep(10*time.Second - 10*time.Second/3 - 100*time.Millisecond)
				a.client.Partition(electortest.NoPartition)
			}
			time.Sleep(time.Minute)
			w.oneTerm()
		})
	}
}

func TestAnAPISlowByLessThanAThirdOfRenewDeadlineCanBeLedOn(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		a.client.SetLatency(3200 * time.Millisecond)
		w.awaitLeader(time.Minute)
		time.Sleep(10 * time.Minute)
		w.oneTerm()
	})
}

func TestOneHungRequestDoesNotCostTheTerm(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		a.client.Intercept(func(r electortest.Request) electortest.Fault {
			a.client.Intercept(nil)
			return electortest.Fault{LoseRequest: true, IgnoreContext: true}
		})
		time.Sleep(time.Minute)
		w.oneTerm()
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

func TestAWriterThatInsistsIsNotAnsweredWithoutEnd(t *testing.T) {
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

// L4

func TestAHerdOfStandbysSpendsAtMostOneWriteEachOnARelease(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		a := w.awaitLeader(time.Second)
		const standbys = 500
		for i := range standbys {
			w.join("s" + strings.Repeat("i", i))
		}
		for _, r := range w.replicas {
			r.client.SetLatency(10 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		w.api.ResetRequests()
		a.stop()
		gap := w.within(time.Second, "the next leads", func() bool { l := w.leader(); return l != nil && l != a })
		time.Sleep(2 * time.Second)
		writes := make([]int, 0, standbys)
		for _, r := range w.replicas[1:] {
			n := w.api.Requests(r.name, "update")
			if r == w.leader() {
				n-- // a renewal may be among them
			}
			writes = append(writes, n)
		}
		assert.LessOrEqual(w, slices.Max(writes), 1)
		assert.LessOrEqual(w, gap, 50*time.Millisecond)
		t.Logf("500 standbys: gap %v, %d writes, %d reads", gap, w.api.Requests("", "update"), w.api.Requests("", "get"))
	})
}

// writesOf returns when each standby's writes were sent.
func writesOf(w *world, standbys int) (sent func() []time.Time) {
	var mu sync.Mutex
	var all []time.Time
	for i := range standbys {
		who := "s" + strings.Repeat("i", i)
		w.api.Client(who).Intercept(onWrites(func(int, electortest.Request) electortest.Fault {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, time.Now())
			return electortest.Fault{}
		}))
		w.join(who)
	}
	return func() []time.Time {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

func TestStandbysSpreadTheirWritesAndStandBackWhenTheySeeAnothersWin(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		sent := writesOf(w, 100)
		for _, r := range w.replicas {
			r.client.SetLatency(time.Millisecond)
		}
		time.Sleep(20 * time.Second)
		a.stop()
		time.Sleep(50 * time.Millisecond)
		writes := sent()
		spread := writes[len(writes)-1].Sub(writes[0])
		assert.Greater(w, spread, 500*time.Microsecond)
		assert.Less(w, spread, 10*time.Millisecond)
		assert.Less(w, len(writes), 40, "the win is seen 1.5 ms after the first write, out of 10 ms")
	})
}

func TestAPollingStandbyThatLostTheRaceReadsBeforeItTriesAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		b := w.api.Client("b")
		b.ForbidWatch(true)
		b.Intercept(onWrites(func(n int, _ electortest.Request) electortest.Fault {
			return electortest.Fault{Before: 2 * time.Second}
		}))
		w.join("b")
		time.Sleep(time.Second)
		a.stop()
		w.within(5*time.Second, "b writes", func() bool { return w.api.Requests("b", "update") == 1 })
		c := w.join("c")
		assert.Same(w, c, w.awaitLeader(time.Second, a))
		time.Sleep(10 * time.Second)
		assert.Equal(w, 1, w.api.Requests("b", "update"))
	})
}

func TestAStandbyWaitsForItsWatchToExplainARefusalBeforeItAsks(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		b := w.join("b")
		c := w.join("c", with(func(o *elector.Options) { o.Yield = func() time.Duration { return 20 * time.Millisecond } }))
		time.Sleep(time.Second)
		var wrote, asked time.Time
		b.client.Intercept(func(r electortest.Request) electortest.Fault {
			switch {
			case r.Verb == "update" && wrote.IsZero():
				wrote = time.Now()
				b.client.SilenceWatches(true)
				return electortest.Fault{Before: 100 * time.Millisecond} // c is first
			case r.Verb == "get" && asked.IsZero():
				asked = time.Now()
			}
			return electortest.Fault{}
		})
		a.stop()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(w, c, w.leader())
		require.False(w, wrote.IsZero())
		assert.Greater(w, asked.Sub(wrote), 2*time.Second)
		assert.Less(w, asked.Sub(wrote), 5*time.Second)
		require.Len(w, w.spans(), 2)
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

func TestACandidateThatHasSteppedDownDoesNotSitOutIfItHasSeenAnotherLead(t *testing.T) {
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

// L5

func TestRetryAfterIsHonouredAsFarAsTheDeadlineAllows(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		time.Sleep(time.Minute)
		var tries []time.Time
		a.client.Intercept(onWrites(func(int, electortest.Request) electortest.Fault {
			tries = append(tries, time.Now())
			return electortest.Fault{Err: electortest.TooManyRequests(time.Second)}
		}))
		w.within(20*time.Second, "the term ends", func() bool { return w.leader() == nil })
		synctest.Wait()
		assert.Greater(w, tries[1].Sub(tries[0]), time.Second)
		assert.Greater(w, tries[2].Sub(tries[1]), time.Second)
		assert.Greater(w, len(tries), 6, "at the end it asks more often")
	})
}

func TestAStandbyHonoursRetryAfterForOneLeaseDurationAtMost(t *testing.T) {
	inWorld(t, func(w *world) {
		w.aLease("crashed", 15)
		a := w.join("a")
		a.client.Intercept(onWrites(func(int, electortest.Request) electortest.Fault {
			return electortest.Fault{Err: electortest.TooManyRequests(time.Hour)}
		}))
		time.Sleep(20 * time.Second)
		a.client.Intercept(nil)
		w.awaitLeader(16 * time.Second)
		assert.Less(w, w.api.Requests("a", "update"), 4)
	})
}
