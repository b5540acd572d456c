package elector_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// What only a mutant showed to be untested.

func TestStandbysWithSilentWatchesAskAtRandomMoments(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		var mu sync.Mutex
		asked := map[string]time.Time{}
		reopened := map[string]time.Time{}
		var standbys []*replica
		for i := range 20 {
			standbys = append(standbys, w.join(string(rune('A'+i))))
		}
		time.Sleep(time.Minute)
		for _, r := range standbys {
			r.client.SilenceWatches(true)
			r.client.Intercept(func(q electortest.Request) electortest.Fault {
				mu.Lock()
				defer mu.Unlock()
				if _, ok := asked[r.name]; q.Verb == "get" && !ok {
					asked[r.name] = time.Now()
				}
				if _, ok := reopened[r.name]; q.Verb == "watch" && !ok {
					reopened[r.name] = time.Now()
				}
				return electortest.Fault{}
			})
		}
		a.stop()
		require.NoError(w, a.awaitEnd(time.Second))
		w.awaitLeader(8*time.Second, a)
		w.pass(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		var moments []time.Time
		for who, when := range asked {
			moments = append(moments, when)
			assert.Less(w, reopened[who].Sub(when), 100*time.Millisecond, "the answer showed what its watch has missed")
		}
		first, last := slices.MinFunc(moments, time.Time.Compare), slices.MaxFunc(moments, time.Time.Compare)
		assert.Greater(w, last.Sub(first), 100*time.Millisecond)
		assert.Greater(w, len(asked), 5)
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

func TestAFileThatIsNotWhollyWhatItShouldBeProvesNothing(t *testing.T) {
	dir := t.TempDir()
	inWorld(t, func(w *world) {
		w.left(dir)
		data, err := os.ReadFile(stateFile(dir))
		require.NoError(w, err)
		data = append(data[:len(data)-1], `,{"identity":5}]`...)
		require.NoError(w, os.WriteFile(stateFile(dir), data, 0o600))
		began := time.Now()
		again := w.join("again", inDir(dir))
		w.within(20*time.Second, "it leads", func() bool { return w.leader() == again })
		assert.Greater(w, time.Since(began), 10*time.Second)
	})
}

func TestTheLockIsLetGoWithTheEndOfRun(t *testing.T) {
	dir := t.TempDir()
	inWorld(t, func(w *world) {
		a := w.join("a", inDir(dir))
		w.awaitLeader(time.Second)
		a.stop()
		require.NoError(w, a.awaitEnd(time.Second))
		b := w.join("b", inDir(dir))
		w.awaitLeader(time.Second)
		assert.Zero(w, count(b.log(), "Another process has locked the file"))
	})
}
