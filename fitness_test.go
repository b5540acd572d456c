package elector_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// L6 and S9: leaders that are unfit, or do not return.

func TestAnUnhealthyLeaderStepsDownAndStandsBackUntilItIsHealthy(t *testing.T) {
	inWorld(t, func(w *world) {
		var sick atomic.Bool
		a := w.join("a", with(func(o *elector.Options) {
			o.Healthy = func(context.Context) error {
				if sick.Load() {
					return errors.New("queue stuck")
				}
				return nil
			}
		}))
		w.awaitLeader(3 * time.Second)
		b := w.join("b")
		time.Sleep(time.Minute)
		sick.Store(true)
		w.within(2100*time.Millisecond, "b leads", func() bool { return w.leader() == b })
		assert.Equal(w, "unhealthy", reason(w.spans()[0].cause))
		before := w.api.Requests("a", "update")
		b.crash()
		w.lenient = true
		time.Sleep(time.Minute)
		assert.Equal(w, before, w.api.Requests("a", "update"), "while unhealthy it writes nothing")
		sick.Store(false)
		w.within(2100*time.Millisecond, "a leads again", func() bool { return w.leader() == a })
		assert.Equal(w, 1, count(a.log(), "Unhealthy"))
		assert.Equal(w, 1, count(a.log(), "Healthy again"))
	})
}

func TestACandidateWhoseHealthDoesNotAnswerIsUnhealthy(t *testing.T) {
	inWorld(t, func(w *world) {
		hang := make(chan struct{})
		var hanging atomic.Bool
		w.join("a", with(func(o *elector.Options) {
			o.Healthy = func(context.Context) error {
				if hanging.Load() {
					<-hang // and ignores its ctx
				}
				return nil
			}
		}))
		defer close(hang)
		w.awaitLeader(3 * time.Second)
		b := w.join("b")
		time.Sleep(time.Minute)
		hanging.Store(true)
		w.within(12100*time.Millisecond, "b leads", func() bool { return w.leader() == b })
	})
}

func TestADrainThatLastsLongerThanDrainLimitIsAnOrdinaryLoss(t *testing.T) {
	inWorld(t, func(w *world) {
		var overran atomic.Bool
		a := w.join("a", draining(time.Hour), with(func(o *elector.Options) {
			o.DrainLimit = 20 * time.Second
			o.OnOverrun = func(elector.Term) { overran.Store(true) }
		}))
		w.awaitLeader(time.Second)
		b := w.join("b")
		time.Sleep(time.Minute)
		go func() { _ = a.el.StepDown(w.Context()) }()
		time.Sleep(19 * time.Second)
		assert.True(w, a.el.IsLeader(), "the lease is kept")
		assert.WithinDuration(w, time.Now().Add(-19*time.Second), a.el.Status().Draining, 10*time.Millisecond)
		time.Sleep(11 * time.Second)
		assert.False(w, a.el.IsLeader())
		w.lenient = true // its callback does not return
		w.within(6*time.Second, "b leads", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return len(w.running) == 2 && w.running[1] == b
		})
		assert.True(w, overran.Load(), "before another led")
		assert.Error(w, a.el.Check(nil))
	})
}

func TestADrainWithoutLimitIsLoggedEachMinute(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a", draining(time.Hour))
		w.awaitLeader(time.Second)
		time.Sleep(time.Minute)
		assert.Zero(w, a.el.Status().Draining)
		go func() { _ = a.el.StepDown(w.Context()) }()
		time.Sleep(10*time.Minute + 5*time.Second)
		assert.Equal(w, 10, count(a.log(), "The callback has not returned yet"))
		require.True(w, a.el.IsLeader())
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

func TestALonelyUnhealthyLeaderDoesNotLeadAgainBeforeItIsHealthy(t *testing.T) {
	inWorld(t, func(w *world) {
		began := time.Now()
		w.join("a", with(func(o *elector.Options) {
			o.Healthy = func(context.Context) error {
				if time.Since(began) > time.Minute {
					return errors.New("queue stuck")
				}
				return nil
			}
		}))
		w.awaitLeader(3 * time.Second)
		time.Sleep(3 * time.Minute)
		assert.Len(w, w.spans(), 1)
		assert.Nil(w, w.leader())
	})
}

func TestHealthThatAnswersTooLateIsNoHealth(t *testing.T) {
	inWorld(t, func(w *world) {
		fast, over := time.Now().Add(time.Minute), make(chan struct{})
		defer close(over)
		w.join("a", with(func(o *elector.Options) {
			o.Healthy = func(context.Context) error {
				if time.Now().After(fast) {
					select {
					case <-time.After(11 * time.Second): // RenewDeadline is 10 s
					case <-over:
					}
				}
				return nil
			}
		}))
		w.awaitLeader(3 * time.Second)
		time.Sleep(10 * time.Minute)
		assert.Len(w, w.spans(), 1)
		assert.Nil(w, w.leader())
	})
}
