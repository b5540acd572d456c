package elector_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// The recipes of the README, as they are there.

func yieldingByAge(started time.Time) elector.Options {
	return elector.Options{
		Yield: func() time.Duration { // started is when the process was
			return min(time.Since(started)/6000, 100*time.Millisecond)
		},
	}
}

func yieldingByLoad(held *atomic.Int64, work func(context.Context) error) elector.Options {
	return elector.Options{
		Run: func(ctx context.Context) error { // held is an atomic.Int64 of this process
			held.Add(1)
			defer held.Add(-1)
			return work(ctx)
		},
		Yield: func() time.Duration { return time.Duration(held.Load()) * 50 * time.Millisecond },
	}
}

func TestTheReadmesRecipesAreTested(t *testing.T) {
	source, err := os.ReadFile("recipes_test.go")
	require.NoError(t, err)
	for _, block := range goBlocks(t)[2:4] {
		assert.Contains(t, string(source), block)
	}
}

// rollingUpdate replaces three pods, in any order, by new pods with a maxSurge of 1, and returns how often leadership
// moved.
func rollingUpdate(t *testing.T, yield bool) (moves int) {
	inWorld(t, func(w *world) {
		join := func(who string) *replica {
			started := time.Now()
			return w.join(who, with(func(o *elector.Options) {
				if yield {
					o.Yield = yieldingByAge(started).Yield
				}
			}))
		}
		pods := []*replica{join("old-0"), join("old-1"), join("old-2")}
		w.awaitLeader(time.Second)
		time.Sleep(12 * time.Minute) // until they yield all of the 0.1 s
		for i, pod := range rand.Perm(len(pods)) {
			join(fmt.Sprint("new-", i))
			time.Sleep(10 * time.Second)
			pods[pod].stop()
			require.NoError(w, pods[pod].awaitEnd(time.Second))
			time.Sleep(10 * time.Second)
		}
		moves = len(w.spans()) - 1
	})
	return moves
}

func TestWherePodsYieldByTheirAgeARollingUpdateMovesLeadershipOnce(t *testing.T) {
	const times = 40
	with, without, worst := 0, 0, 0
	for range times {
		with += rollingUpdate(t, true)
		n := rollingUpdate(t, false)
		without, worst = without+n, max(worst, n)
	}
	t.Logf("moves in a rolling update of three, mean of %d: %.2f; without Yield %.2f, at most %d",
		times, float64(with)/times, float64(without)/times, worst)
	assert.Equal(t, times, with)
	assert.Greater(t, without, times, "without Yield there is something to gain")
}

func TestWhereReplicasYieldByWhatTheyHoldManyLeasesAreSpreadOverThem(t *testing.T) {
	const replicas, leases = 3, 12
	inWorld(t, func(w *world) {
		var held [replicas]atomic.Int64
		var ended []chan struct{}
		ctx, stop := context.WithCancel(w.Context())
		for i := range replicas {
			client := w.api.Client(fmt.Sprint("replica-", i))
			client.SetLatency(roundTrip)
			for n := range leases {
				o := yieldingByLoad(&held[i], func(ctx context.Context) error { <-ctx.Done(); return nil })
				o.Namespace, o.Name, o.Identity = namespace, fmt.Sprint("shard-", n), fmt.Sprint("replica-", i)
				el, err := elector.New(client.CoordinationV1(), o)
				require.NoError(w, err)
				done := make(chan struct{})
				ended = append(ended, done)
				go func() { defer close(done); _ = el.Run(ctx) }()
			}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		var first [replicas]int64
		for i := range held {
			first[i] = held[i].Load()
		}
		w.api.Client("replica-0").Partition(electortest.Both)
		time.Sleep(time.Minute)
		t.Logf("leases that each of %d replicas holds: %v at first, %d and %d when replica 0 is gone", replicas, first, held[1].Load(), held[2].Load())
		assert.EqualValues(w, leases, held[1].Load()+held[2].Load())
		assert.InDelta(w, held[1].Load(), held[2].Load(), leases/3)
		stop()
		for _, done := range ended {
			<-done
		}
	})
}
