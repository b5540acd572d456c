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

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

func withoutWatch(r *replica) *replica {
	r.client.ForbidWatch(true)
	r.client.CloseWatches()
	return r
}

func TestATransferToNobodyEndsWithoutAWatchToo(t *testing.T) {
	inWorld(t, func(w *world) {
		a := withoutWatch(w.join("a"))
		w.awaitLeader(time.Second)
		b := withoutWatch(w.join("b"))
		time.Sleep(time.Minute)
		w.annotate("nobody-here")
		w.within(10*time.Second, "another leads", func() bool { return w.leader() == b })
		_ = a
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

func TestAHandThatInsistsOnATransferToTheHolderIsAnsweredEverSlower(t *testing.T) {
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

func TestAReplicaThatBecomesUnfitWhileItsWinIsUnderWayReleases(t *testing.T) {
	inWorld(t, func(w *world) {
		var sick atomic.Bool
		w.aLease("", 1)
		a := w.join("a", with(func(o *elector.Options) {
			o.Healthy = func(context.Context) error {
				if sick.Load() {
					return errors.New("sick")
				}
				return nil
			}
		}))
		a.client.Intercept(electortest.On(electortest.Fault{After: 3 * time.Second}, "update"))
		time.Sleep(100 * time.Millisecond)
		sick.Store(true)
		b := w.join("b")
		took := w.within(20*time.Second, "b leads", func() bool { return w.leader() == b })
		assert.Less(w, took, 7*time.Second)
	})
}

func TestAStandbyWithNothingToReleaseStopsAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		w.awaitLeader(time.Second)
		b := w.join("b")
		time.Sleep(time.Minute)
		b.client.Intercept(func(r electortest.Request) electortest.Fault {
			if r.Verb != "watch" {
				return electortest.Fault{LoseRequest: true}
			}
			return electortest.Fault{}
		})
		b.client.CloseWatches()
		time.Sleep(5 * time.Second)
		b.stop()
		require.NoError(w, b.awaitEnd(100*time.Millisecond))
	})
}

func TestABlankLeaseIsNotPutBackAfterItsOwnHasExpired(t *testing.T) {
	inWorld(t, func(w *world) {
		w.lenient = true
		a := w.join("a", draining(40*time.Second))
		w.awaitLeader(time.Second)
		b := w.join("b")
		time.Sleep(time.Minute)
		a.client.Partition(electortest.Both)
		w.within(20*time.Second, "b leads", func() bool { return len(w.spans()) == 2 })
		b.client.SilenceWatches(true)
		w.kubectl(func(l *coordinationv1.Lease) { l.Spec = coordinationv1.LeaseSpec{} })
		a.client.Partition(electortest.NoPartition)
		time.Sleep(8 * time.Second)
		assert.Equal(w, "b", holder(w.lease()))
		assert.Len(w, w.spans(), 2)
		assert.True(w, w.spans()[1].end.IsZero())
	})
}
