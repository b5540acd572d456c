package elector_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// What Run does, event by event.

func TestRunReturnsNilWhenItsContextEndsWhileStandingBy(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		leader := w.awaitLeader(time.Second)
		standby := w.join("b")
		time.Sleep(5 * time.Second)
		before := w.api.Requests("b", "update")
		standby.stop()
		assert.NoError(w, standby.awaitEnd(10*time.Millisecond))
		assert.Equal(w, before, w.api.Requests("b", "update"), "a standby has nothing to release")
		assert.Same(w, leader, w.leader())
	})
}

func TestRunReturnsNilAtOnceWhenItsContextHasEndedBefore(t *testing.T) {
	inWorld(t, func(w *world) {
		e, err := elector.New(w.api.Client("a").CoordinationV1(), elector.Options{Namespace: namespace, Name: name, Run: func(context.Context) error { return nil }})
		require.NoError(w, err)
		ctx, cancel := context.WithCancel(w.Context())
		cancel()
		assert.NoError(w, e.Run(ctx))
		assert.Zero(w, w.api.Requests("", ""))
	})
}

func TestAStandbyStoppedWhileItsWinningWriteIsUnderWayReleasesWhatItWon(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.join("a")
		r.client.Intercept(func(req electortest.Request) electortest.Fault {
			if req.Verb == "create" {
				return electortest.Fault{After: 100 * time.Millisecond}
			}
			return electortest.Fault{}
		})
		w.within(time.Second, "the POST was sent", func() bool { return w.api.Requests("a", "create") == 1 })
		time.Sleep(20 * time.Millisecond)
		r.stop()
		assert.NoError(w, r.awaitEnd(time.Second))
		assert.Empty(w, w.spans(), "the callback must not start")
		assert.Empty(w, holder(w.lease()))
	})
}

func TestRunDrainsTheCallbackAndThenReleasesWhenItsContextEndsWhileLeading(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.join("a", draining(20*time.Second))
		w.awaitLeader(time.Second)
		time.Sleep(time.Minute)
		stopped := time.Now()
		r.stop()
		time.Sleep(19 * time.Second)
		assert.Equal(w, stopped, w.last().told, "the callback's ctx ends at once")
		assert.Equal(w, "a", holder(w.lease()), "kept while the callback drains")
		assert.True(w, r.el.IsLeader(), "nobody else leads yet")
		assert.NoError(w, r.awaitEnd(2*time.Second))
		assert.Equal(w, 20*time.Second, w.last().end.Sub(stopped))
		assert.Empty(w, holder(w.lease()))
		assert.False(w, r.el.IsLeader())
	})
}

func TestRunReturnsTheCallbacksErrorWhenItsContextEndsUnlessThatIsTheContextsOwn(t *testing.T) {
	broken := errors.New("could not flush")
	shutdown := errors.New("shutting down")
	for name, test := range map[string]struct{ returned, want error }{
		"its own error":         {broken, broken},
		"the context's error":   {context.Canceled, nil},
		"the context's cause":   {shutdown, nil},
		"wrapped context error": {errors.Join(errors.New("manager"), context.Canceled), nil},
		"nothing":               {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				client := w.api.Client("a")
				e, err := elector.New(client.CoordinationV1(), elector.Options{Namespace: namespace, Name: "x", Run: func(ctx context.Context) error {
					<-ctx.Done()
					return test.returned
				}})
				require.NoError(w, err)
				ctx, cancel := context.WithCancelCause(w.Context())
				time.AfterFunc(time.Second, func() { cancel(shutdown) })
				err = e.Run(ctx)
				if test.want == nil {
					assert.NoError(w, err)
				} else {
					assert.ErrorIs(w, err, test.want)
					assert.ErrorContains(w, err, "elector: ")
				}
			})
		})
	}
}

func TestACallbackThatReturnsByItselfReleasesTheLeaseAndEndsRun(t *testing.T) {
	failed := errors.New("out of disk")
	for name, result := range map[string]error{"with nil": nil, "with an error": failed, "with an error of a context of its own": context.Canceled} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				r := w.join("a", working(func(context.Context) error { time.Sleep(3 * time.Second); return result }))
				err := r.awaitEnd(4 * time.Second)
				assert.ErrorIs(w, err, result)
				if result != nil {
					assert.ErrorContains(w, err, "elector: the callback failed: ")
				}
				assert.Empty(w, holder(w.lease()))
				assert.False(w, r.el.IsLeader())
			})
		})
	}
}

func TestALostLeaseCancelsWithACauseAndTheCandidateCampaignsAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.join("a", working(func(ctx context.Context) error { <-ctx.Done(); return errors.New("ignored") }))
		w.awaitLeader(time.Second)
		time.Sleep(5 * time.Second)
		r.client.Partition(electortest.Both)
		w.within(11*time.Second, "the term ends", func() bool { return w.leader() == nil })
		assert.ErrorIs(w, w.last().cause, elector.ErrLost)
		assert.Equal(w, "renew deadline passed", reason(w.last().cause))
		r.client.Partition(electortest.NoPartition)
		w.awaitLeader(20 * time.Second)
		assert.Len(w, w.spans(), 2)
	})
}

func TestSingleTermReturnsTheLostErrorInsteadOfCampaigningAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.join("a", with(func(o *elector.Options) { o.SingleTerm = true }), draining(time.Second))
		w.awaitLeader(time.Second)
		w.kubectl(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = ptr.To("b") })
		err := r.awaitEnd(5 * time.Second)
		var lost *elector.LostError
		require.ErrorAs(w, err, &lost)
		assert.Equal(w, elector.LostError{Reason: elector.ReasonTakenOver, Holder: "b"}, *lost)
		assert.False(w, w.last().end.IsZero(), "not before the callback has returned")
	})
}

func TestStepDownHandsOverAndSitsOutUntilAnotherLeads(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a", draining(2*time.Second))
		w.awaitLeader(time.Second)
		b := w.join("b")
		time.Sleep(time.Second)
		begin := time.Now()
		require.NoError(w, a.el.StepDown(w.Context()))
		assert.InDelta(w, 2.0, time.Since(begin).Seconds(), 0.1, "returns once the lease is released")
		assert.Equal(w, "stepped down", reason(w.spans()[0].cause))
		assert.Same(w, b, w.awaitLeader(100*time.Millisecond))

		b.stop()
		require.NoError(w, b.awaitEnd(time.Second))
		assert.Same(w, a, w.awaitLeader(100*time.Millisecond), "once another has led, it takes part again")
	})
}

func TestStepDownOfALonelyCandidateSitsOutOneLeaseDuration(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		time.Sleep(time.Second)
		require.NoError(w, a.el.StepDown(w.Context()))
		gap := w.within(20*time.Second, "leads again", func() bool { return w.leader() == a })
		assert.InDelta(w, 15.0, gap.Seconds(), 0.1)
	})
}

func TestStepDownIsRefusedWhenThereIsNothingToGiveUp(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		b := w.join("b")
		time.Sleep(time.Second)
		assert.ErrorIs(w, b.el.StepDown(w.Context()), elector.ErrNotLeader)
		a.stop()
		require.NoError(w, a.awaitEnd(time.Second))
		assert.ErrorIs(w, a.el.StepDown(w.Context()), elector.ErrNotLeader)
	})
}

func TestStepDownGivesUpWaitingWithItsContext(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a", draining(time.Minute))
		w.awaitLeader(time.Second)
		w.join("b")
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		assert.ErrorIs(w, a.el.StepDown(ctx), context.DeadlineExceeded)
		w.awaitLeader(61*time.Second, a) // it goes on
	})
}

func TestErrorsOfTheAPIAreRetriedAndVisible(t *testing.T) {
	inWorld(t, func(w *world) {
		client := w.api.Client("a")
		client.Intercept(func(electortest.Request) electortest.Fault {
			return electortest.Fault{Err: electortest.Forbidden("get")}
		})
		r := w.join("a")
		time.Sleep(time.Minute)
		err := r.el.Status().LastError
		require.Error(w, err)
		assert.ErrorContains(w, err, `get lease shop/order-controller: forbidden: grant the verb "get" on resource "leases"`)
		assert.ErrorContains(w, err, `in namespace "shop"`)
		assert.NoError(w, r.el.Check(nil), "a restart would not help")
		assert.Equal(w, 1, count(r.log(), "A request failed"), "an error that repeats is logged once")
		assert.Less(w, w.api.Requests("a", "get"), 40)
		time.Sleep(10 * time.Minute)
		assert.InDelta(w, 11, count(r.log(), "A request failed"), 1.5, "one that somebody has to do something about, once a minute")

		client.Intercept(nil)
		w.awaitLeader(10 * time.Second)
		assert.NoError(w, r.el.Status().LastError)
		assert.NoError(w, r.el.Check(nil))
	})
}

// Credentials or a Role that are wrong for two minutes. A restart helps nothing, and takes away the webhooks of standbys.
func TestAnAPIThatRefusesIsNoReasonToRestartAnybody(t *testing.T) {
	for name, refusal := range map[string]error{"401": electortest.Unauthorized(), "403": electortest.Forbidden("update")} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				first := w.join("a")
				w.awaitLeader(time.Second)
				all := []*replica{first, w.join("b")}
				time.Sleep(time.Minute)
				for _, r := range all {
					r.client.Intercept(func(electortest.Request) electortest.Fault { return electortest.Fault{Err: refusal} })
				}
				for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
					for _, r := range all {
						require.NoError(w, r.el.Check(nil))
					}
				}
				assert.False(w, first.el.IsLeader())
				for _, r := range all {
					assert.ErrorContains(w, r.el.Status().LastError, map[string]string{"401": "unauthorized", "403": "grant the verb"}[name])
					r.client.Intercept(nil)
				}
				w.awaitLeader(10 * time.Second)
			})
		})
	}
}

func TestAnAPIOutOfReachIsNoReasonToRestartAStandby(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.join("a")
		r.client.Partition(electortest.Both)
		time.Sleep(time.Hour)
		assert.Equal(w, 1, count(r.log(), "A request failed"), "it is news once")
		assert.ErrorContains(w, r.el.Status().LastError, "no answer")
		assert.NoError(w, r.el.Check(nil))
	})
}

func TestACallbackThatIgnoresItsContextIsReportedAndNeverJoinedByAnother(t *testing.T) {
	inWorld(t, func(w *world) {
		var overran []time.Time
		r := w.join("a", draining(time.Minute), with(func(o *elector.Options) {
			o.OnOverrun = func(term elector.Term) {
				overran = append(overran, time.Now())
				assert.False(w, term.Valid())
				assert.NotZero(w, term.Token())
			}
		}))
		w.awaitLeader(time.Second)
		time.Sleep(time.Minute)
		r.client.Partition(electortest.Both)
		time.Sleep(13 * time.Second)
		assert.Equal(w, "renew deadline passed", reason(w.last().cause))
		assert.NoError(w, r.el.Check(nil), "within the stop budget all is well")
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(w, overran, 1)
		assert.Less(w, overran[0].Sub(r.el.Status().LastRenewal), 15*time.Second, "before the lease ends")
		assert.ErrorContains(w, r.el.Check(nil), "overruns its lease")

		r.client.Partition(electortest.NoPartition)
		time.Sleep(40 * time.Second)
		assert.Len(w, w.spans(), 1, "no second callback while the first runs")
		w.within(20*time.Second, "the callback returns", func() bool { return w.leader() == nil })
		w.awaitLeader(20 * time.Second)
		assert.NoError(w, r.el.Check(nil))
	})
}

func TestAnOverrunIsLoggedWhereNobodyListens(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.join("a", draining(20*time.Second))
		w.awaitLeader(time.Second)
		r.client.Partition(electortest.Both)
		time.Sleep(16 * time.Second)
		assert.Equal(w, 1, count(r.log(), "The callback had to stop and still runs"))
	})
}

func TestACallbackThatCallsGoexitCountsAsAnError(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.join("a", working(func(context.Context) error { runtime.Goexit(); return nil }))
		assert.ErrorContains(w, r.awaitEnd(time.Second), "runtime.Goexit")
		assert.Empty(w, holder(w.lease()))
	})
}

// A panic has to end the process with the callback's own stack, and must not release the Lease on the way.
func TestACallbacksPanicCrashesTheProcessAndReleasesNothing(t *testing.T) {
	if os.Getenv("ELECTOR_TEST_PANIC") != "" {
		panicWhileLeading(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestACallbacksPanicCrashesTheProcessAndReleasesNothing$")
	cmd.Env = append(os.Environ(), "ELECTOR_TEST_PANIC=1")
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), "panic: deep trouble")
	assert.Contains(t, string(out), "explode(", "the stack of the callback is shown")
	assert.NotContains(t, string(out), "released")
}

func panicWhileLeading(t *testing.T) {
	api := electortest.NewServer()
	client := api.Client("a")
	client.Intercept(func(r electortest.Request) electortest.Fault {
		if r.Lease != nil && holder(r.Lease) == "" {
			os.Stdout.WriteString("released\n")
		}
		return electortest.Fault{}
	})
	e, err := elector.New(client.CoordinationV1(), elector.Options{Namespace: namespace, Name: name, Run: func(context.Context) error {
		explode()
		return nil
	}})
	require.NoError(t, err)
	_ = e.Run(t.Context())
}

//go:noinline
func explode() { panic(trouble{}) }

// trouble takes a while to be printed, in a process that is about to crash: time in which nothing may be released.
type trouble struct{}

func (trouble) Error() string {
	time.Sleep(300 * time.Millisecond)
	return "deep trouble"
}

func TestASecondConcurrentRunIsRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.join("a")
		w.awaitLeader(time.Second)
		assert.ErrorContains(w, r.el.Run(w.Context()), "has not returned")
		r.stop()
		require.NoError(w, r.awaitEnd(time.Second))
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		assert.NoError(w, r.el.Run(ctx), "one after the other is fine")
		assert.Len(w, w.spans(), 2)
	})
}

// The rest of the API.

func TestOnNewLeaderIsCalledInOrderAndNeverHoldsUpTheElection(t *testing.T) {
	inWorld(t, func(w *world) {
		var heard []string
		slow := with(func(o *elector.Options) {
			o.OnNewLeader = func(identity string) {
				time.Sleep(30 * time.Second)
				heard = append(heard, identity)
			}
		})
		w.join("a")
		w.awaitLeader(time.Second)
		watcher := w.join("z", slow, with(func(o *elector.Options) { o.RetryPeriod = 5 * time.Second }))
		time.Sleep(100 * time.Millisecond)
		a := w.leader()
		w.join("b")
		time.Sleep(time.Second)
		require.NoError(w, a.el.StepDown(w.Context()))
		second := w.awaitLeader(time.Second, a)
		time.Sleep(time.Second)
		if second == watcher {
			require.NoError(w, watcher.el.StepDown(w.Context()))
			w.awaitLeader(time.Second, watcher)
			time.Sleep(time.Second)
		}
		watcher.stop()
		require.NoError(w, watcher.awaitEnd(5*time.Minute))
		var want []string
		for _, s := range w.spans() {
			want = append(want, s.who)
		}
		assert.Equal(w, want, heard)
	})
}

func TestStatusIsASnapshot(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		assert.Equal(w, elector.Status{Identity: "a"}, a.el.Status())
		w.awaitLeader(time.Second)
		b := w.join("b")
		time.Sleep(time.Second)
		s := a.el.Status()
		assert.True(w, s.Leading)
		assert.Equal(w, "a", s.Leader)
		assert.Equal(w, w.last().term, s.Term)
		assert.WithinDuration(w, w.start, s.LastRenewal, 30*time.Millisecond)
		assert.Equal(w, elector.Status{Identity: "b", Leader: "a"}, b.el.Status())
		assert.Equal(w, "a", b.el.Leader())
		assert.False(w, b.el.IsLeader())
	})
}

func TestATermReportsItsTokenIdentityAndValidity(t *testing.T) {
	var none elector.Term
	assert.False(t, none.Valid())
	assert.Zero(t, none.Token())
	assert.Empty(t, none.Identity())
	assert.Zero(t, none.ValidUntil())
	_, ok := elector.TermFrom(t.Context())
	assert.False(t, ok)

	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		term := w.last().term
		assert.Equal(w, "a", term.Identity())
		time.Sleep(time.Minute)
		assert.Equal(w, a.el.Status().LastRenewal.Add(10*time.Second), term.ValidUntil())
		a.stop()
		require.NoError(w, a.awaitEnd(time.Second))
		assert.False(w, term.Valid())
		assert.Zero(w, term.ValidUntil())
	})
}

func TestTokensGrowThroughDeletionOfTheLease(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		for range 5 {
			w.awaitLeader(20 * time.Second)
			a.stop()
			require.NoError(w, a.awaitEnd(time.Second))
			w.deleteLease()
			a = w.join("a")
		}
		assert.GreaterOrEqual(w, len(w.spans()), 5) // the world checks the order
	})
}

func TestTheFirstLeaderIsElectedWithinMilliseconds(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		assert.Less(w, w.within(time.Second, "a leader", func() bool { return w.leader() != nil }), 30*time.Millisecond)
	})
}

func TestALeaseMadeBlankForRBACIsTakenAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		_, err := w.leases().Create(w.Context(), &coordinationv1.Lease{ObjectMeta: objectMeta(name)}, createOptions)
		require.NoError(w, err)
		w.join("a")
		w.awaitLeader(50 * time.Millisecond)
	})
}

func TestSeveralElectionsRunInOneProcess(t *testing.T) {
	inWorld(t, func(w *world) {
		client := w.api.Client("a")
		const many = 50
		running := make(chan string, many)
		ctx, cancel := context.WithCancel(w.Context())
		ended := make(chan error, many)
		for i := range many {
			e, err := elector.New(client.CoordinationV1(), elector.Options{Namespace: namespace, Name: "shard-" + string(rune('a'+i%26)) + strings.Repeat("x", i/26),
				Run: func(ctx context.Context) error { running <- ""; <-ctx.Done(); return ctx.Err() }})
			require.NoError(w, err)
			go func() { ended <- e.Run(ctx) }()
		}
		time.Sleep(time.Minute)
		assert.Len(w, running, many)
		cancel()
		for range many {
			assert.NoError(w, <-ended)
		}
	})
}

func TestNewForConfigRefusesWhatNewRefuses(t *testing.T) {
	_, err := elector.NewForConfig(nil, elector.Options{})
	assert.ErrorContains(t, err, "cfg: required")
	assert.ErrorContains(t, err, "Options.Name: required")
	_, err = elector.NewForConfig(&rest.Config{Host: "http://127.0.0.1:1"}, elector.Options{Namespace: "x"})
	assert.ErrorContains(t, err, "Options.Name: required")
	_, err = elector.NewForConfig(&rest.Config{Host: "http://%zz"}, elector.Options{Namespace: "x"})
	assert.ErrorContains(t, err, "cfg")
}

func count(lines []string, part string) (n int) {
	for _, l := range lines {
		if strings.Contains(l, part) {
			n++
		}
	}
	return n
}
