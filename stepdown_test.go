package elector_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// L7, L8, and stepping down in a fleet that polls.

const annotation = "elector-go.github.io/step-down"

func (w *world) annotate(value string) {
	w.Helper()
	w.kubectl(func(l *coordinationv1.Lease) {
		if l.Annotations == nil {
			l.Annotations = map[string]string{}
		}
		l.Annotations[annotation] = value
	})
}

func TestAnAnnotationAsksTheHolderToStepDown(t *testing.T) {
	for _, watches := range []bool{true, false} {
		inWorld(t, func(w *world) {
			a := w.join("a", draining(time.Second))
			w.awaitLeader(time.Second)
			b := w.join("b")
			if !watches {
				for _, r := range []*replica{a, b} {
					r.client.ForbidWatch(true)
					r.client.CloseWatches()
				}
			}
			time.Sleep(time.Minute)
			w.annotate("")
			w.within(10*time.Second, "b leads", func() bool { return w.leader() == b })
			assert.Equal(w, "asked to step down", reason(w.spans()[0].cause))
			w.pass(time.Minute)
			assert.NotContains(w, w.lease().Annotations, annotation, "the write that wins removes it")
			assert.Len(w, w.spans(), 2)
		})
	}
}

func TestAnAnnotationThatNamesACandidateIsATransfer(t *testing.T) {
	for range 10 {
		inWorld(t, func(w *world) {
			w.join("a", with(func(o *elector.Options) { o.Identity = "pod-a_1" }))
			w.awaitLeader(time.Second)
			for _, who := range []string{"b", "c", "d"} {
				w.join(who, with(func(o *elector.Options) { o.Identity = "pod-" + who + "_1" }))
			}
			time.Sleep(time.Minute)
			w.annotate("pod-c")
			w.within(100*time.Millisecond, "c leads", func() bool { return w.leader() != nil && w.leader().name == "c" })
		})
	}
}

func TestATransferToNobodyIsAHandOverAfterAWhile(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		b := w.join("b")
		time.Sleep(time.Minute)
		w.annotate("nobody-here")
		took := w.within(4*time.Second, "another leads", func() bool { return w.leader() == b })
		assert.Greater(w, took, 3*time.Second, "it was left to the one that was named")
		require.NotSame(w, a, w.leader())
	})
}

func TestWaitingForOthersEndsInAFleetThatPolls(t *testing.T) {
	inWorld(t, func(w *world) {
		var fleet []*replica
		for _, who := range []string{"a", "b"} {
			r := w.join(who, with(func(o *elector.Options) { o.Yield = func() time.Duration { return 5 * time.Second } }))
			r.client.ForbidWatch(true)
			r.client.CloseWatches()
			fleet = append(fleet, r)
		}
		first := w.awaitLeader(8 * time.Second)
		time.Sleep(time.Minute)
		w.annotate("nobody-here")
		next := w.awaitLeader(15*time.Second, first)
		assert.Contains(w, fleet, next)
	})
}

func TestATransferToTheHolderIsOnlyRemoved(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		w.awaitLeader(time.Second)
		w.join("b")
		time.Sleep(time.Minute)
		w.annotate("a")
		w.pass(3 * time.Second) // with the next renewal
		assert.NotContains(w, w.lease().Annotations, annotation)
		w.oneTerm()
	})
}

func TestAnAnnotationWhileTheCallbackDrainsChangesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a", draining(5*time.Second))
		w.awaitLeader(time.Second)
		b := w.join("b")
		time.Sleep(time.Minute)
		w.annotate("")
		time.Sleep(time.Second)
		w.annotate("b")
		time.Sleep(time.Second)
		w.annotate("")
		w.within(4*time.Second, "b leads", func() bool { return w.leader() == b })
		require.NoError(w, a.el.Check(nil))
	})
}

func TestTwoStepDownsInARowWithoutWatchLeaveNobodySittingOut(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.join("a"), w.join("b")
		for _, r := range []*replica{a, b} {
			r.client.ForbidWatch(true)
			r.client.CloseWatches()
		}
		time.Sleep(time.Minute)
		for range 2 {
			first := w.leader()
			require.NoError(w, first.el.StepDown(w.Context()))
			w.awaitLeader(4500*time.Millisecond, first) // at its next poll
		}
	})
}

func TestAFreeLeaseGoesToThoseWhoDoNotYield(t *testing.T) {
	for range 60 {
		inWorld(t, func(w *world) {
			old := with(func(o *elector.Options) { o.Yield = func() time.Duration { return 100 * time.Millisecond } })
			pods := []*replica{w.join("old-1", old)}
			w.awaitLeader(time.Second)
			pods = append(pods, w.join("old-2", old), w.join("old-3", old))
			time.Sleep(time.Minute)
			for i, name := range []string{"new-1", "new-2", "new-3"} { // a rolling update with maxSurge 1
				w.join(name)
				time.Sleep(5 * time.Second)
				pods[i].stop()
				require.NoError(w, pods[i].awaitEnd(time.Second))
				time.Sleep(5 * time.Second)
			}
			assert.Len(w, w.spans(), 2, "leadership moves once")
		})
	}
}

func TestWhenStepDownReturnsTheReleasedLeaseIsSeen(t *testing.T) {
	inWorld(t, func(w *world) {
		el, err := elector.New(w.api.Client("a").CoordinationV1(), elector.Options{
			Namespace: namespace, Name: name, Identity: "a", Run: func(ctx context.Context) error { <-ctx.Done(); return nil },
		})
		require.NoError(w, err)
		campaigns, checked := 0, make(chan struct{})
		log := funcr.New(func(_, line string) {
			if strings.Contains(line, "Campaigning") {
				if campaigns++; campaigns == 2 {
					<-checked // the loop goes no further
				}
			}
		}, funcr.Options{})
		ctx, stop := context.WithCancel(klog.NewContext(w.Context(), log))
		ended := make(chan error)
		go func() { ended <- el.Run(ctx) }()
		w.pass(time.Minute)
		require.NoError(w, el.StepDown(w.Context()))
		assert.Empty(w, el.Leader())
		close(checked)
		stop()
		require.NoError(w, <-ended)
	})
}

func TestIfAllYieldTheShortestLeads(t *testing.T) {
	inWorld(t, func(w *world) {
		yield := func(d time.Duration) option {
			return with(func(o *elector.Options) { o.Yield = func() time.Duration { return d } })
		}
		b := w.join("b", yield(300*time.Millisecond))
		w.join("a", yield(600*time.Millisecond))
		took := w.within(time.Second, "b leads", func() bool { return w.leader() == b })
		assert.Greater(w, took, 300*time.Millisecond)
	})
}

func TestACandidateThatYieldsAndHasNoWatchGoesOnToReadTheLease(t *testing.T) {
	inWorld(t, func(w *world) {
		a := withoutWatch(w.join("a", with(func(o *elector.Options) { o.Yield = func() time.Duration { return time.Hour } })))
		w.pass(time.Minute)
		w.aLease("b", 15)
		w.pass(5 * time.Second)
		assert.Equal(w, "b", a.el.Leader())
	})
}

func withoutWatch(r *replica) *replica {
	r.client.ForbidWatch(true)
	r.client.CloseWatches()
	return r
}

func TestATransferToNobodyEndsWithoutAWatchToo(t *testing.T) {
	inWorld(t, func(w *world) {
		withoutWatch(w.join("a"))
		w.awaitLeader(time.Second)
		b := withoutWatch(w.join("b"))
		time.Sleep(time.Minute)
		w.annotate("nobody-here")
		w.within(10*time.Second, "another leads", func() bool { return w.leader() == b })
	})
}

func TestAPolicyThatKeepsAStepDownAnnotationCostsOneTermAtMost(t *testing.T) {
	for _, value := range []string{"", "a", "b", "nobody-here"} {
		inWorld(t, func(w *world) {
			w.join("a")
			w.awaitLeader(time.Second)
			w.join("b")
			w.api.SetAdmission(func(_ electortest.Request, l *coordinationv1.Lease) error {
				l.Annotations = map[string]string{annotation: value}
				return nil
			})
			time.Sleep(time.Minute)
			before := w.api.Requests("a", "") + w.api.Requests("b", "")
			time.Sleep(time.Minute)
			assert.Less(w, w.api.Requests("a", "")+w.api.Requests("b", "")-before, 60)
			assert.LessOrEqual(w, len(w.spans()), 2)
			assert.NotNil(w, w.leader())
			w.api.SetAdmission(nil)
			time.Sleep(time.Minute)
			w.kubectl(func(l *coordinationv1.Lease) { delete(l.Annotations, annotation) })
			time.Sleep(3 * time.Second)
			first := w.leader()
			w.annotate("")
			w.awaitLeader(time.Second, first) // a request of its own is heeded again
		})
	}
}

func TestRepeatedTransfersToTheHolderAreAnsweredEverSlower(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		w.awaitLeader(time.Second)
		for range 400 {
			w.annotate("a")
			time.Sleep(25 * time.Millisecond)
		}
		w.oneTerm()
		assert.Less(w, w.api.Requests("a", "update"), 60, "in ten seconds")
	})
}

func TestARequestToStepDownThatNamesNobodyHandsOverAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		w.awaitLeader(time.Second)
		b := w.join("b")
		time.Sleep(time.Minute)
		w.annotate("")
		w.within(100*time.Millisecond, "b leads", func() bool { return w.leader() == b })
	})
}

func TestACandidateDoesNotYieldToAWinOfItsOwn(t *testing.T) {
	inWorld(t, func(w *world) {
		w.aLease("", 1)
		a := w.join("a", with(func(o *elector.Options) { o.Yield = func() time.Duration { return 20 * time.Second } }))
		a.client.Intercept(onWrites(func(n int, _ electortest.Request) electortest.Fault {
			return electortest.Fault{LoseReply: n == 1}
		}))
		took := w.within(time.Minute, "a leads", func() bool { return w.leader() == a })
		assert.Greater(w, took, 20*time.Second)
		assert.Less(w, took, 36*time.Second, "it yielded once")
	})
}

func TestANegativeYieldIsNone(t *testing.T) {
	inWorld(t, func(w *world) {
		eager := with(func(o *elector.Options) { o.Yield = func() time.Duration { return -time.Hour } })
		a := w.join("a", eager)
		w.awaitLeader(time.Second)
		var standbys []*replica
		for i := range 20 {
			standbys = append(standbys, w.join(string(rune('A'+i)), eager))
		}
		time.Sleep(time.Minute)
		w.api.ResetRequests()
		a.stop()
		w.awaitLeader(time.Second, a)
		w.pass(100 * time.Millisecond)
		writes := 0
		for _, r := range standbys {
			writes += w.api.Requests(r.name, "update")
		}
		assert.Less(w, writes, 20, "not all at the same moment")
	})
}
