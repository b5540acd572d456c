package e2e

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector/e2e/internal/event"
)

// TestOnACleanStopTheNextReplicaLeadsAtOnce runs before the parallel tests, so that nothing disturbs its milliseconds.
func TestOnACleanStopTheNextReplicaLeadsAtOnce(t *testing.T) {
	f := newFleet(t)
	stopLeaders(f, ours, 20)
	f.requireOneAtATime()
	requireGrowingTokens(f)
	median, _, _ := figures.summary(cleanStop, ours)
	require.Less(t, median, 0.5, "seconds of hand-over, median")
}

func TestClientGoNeedsLongerForACleanStop(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	stopLeaders(f, clientGo, 5)
	theirs, _, _ := figures.summary(cleanStop, clientGo)
	if median, _, n := figures.summary(cleanStop, ours); n > 0 {
		require.Less(t, median, theirs, "seconds of hand-over, medians of elector and client-go")
	}
}

// stopLeaders stops the leader of three replicas n times, each time with a new replica in its place.
func stopLeaders(f *fleet, kind electorKind, n int) {
	alive := map[*replica]bool{f.start(kind): true, f.start(kind): true, f.start(kind): true}
	leader, _ := f.nextLeader(10 * time.Second)
	for range n {
		delete(alive, leader)
		for standby := range alive {
			f.settle(leader, standby)
		}
		// client-go polls: at which point of its period the stop comes decides about the gap.
		time.Sleep(rand.N(500 * time.Millisecond))

		f.signal(leader, syscall.SIGTERM)
		end := f.awaitFrom(leader, event.End, 5*time.Second)
		next, begin := f.nextLeader(10 * time.Second)
		figures.addTime(cleanStop, kind, begin.At.Sub(end.At))
		f.exits(leader, 10*time.Second)
		leader, alive[f.start(kind)] = next, true
	}
}

func requireGrowingTokens(f *fleet) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	last := uint64(0)
	for _, e := range f.events {
		if e.Kind != event.Begin {
			continue
		}
		require.Greater(f.t, e.Token, last, "token of the term of %s", e.Replica)
		require.True(f.t, e.Valid, "the term of %s is valid when it begins", e.Replica)
		last = e.Token
	}
}

func TestNobodyLeadsWhileTheOldLeadersWorkDrains(t *testing.T) {
	t.Parallel()
	repeat(t, 3, func(t *testing.T) {
		f := newFleet(t)
		gap := stopWhileDraining(f, ours)
		f.requireOneAtATime()
		figures.addTime(drainGap, ours, gap)
		require.Less(t, gap, 2*time.Second, "hand-over after the drain")
	})
}

func TestClientGoHandsOverBeforeTheWorkHasDrained(t *testing.T) {
	t.Parallel()
	repeat(t, 3, func(t *testing.T) { stopWhileDraining(newFleet(t), clientGo) })
}

// stopWhileDraining returns the time from the end of the old leader's work to the beginning of the next leader's.
func stopWhileDraining(f *fleet, kind electorKind) time.Duration {
	const drain = 8 * time.Second
	a := f.start(kind, "-drain="+drain.String())
	b := f.start(kind, "-drain="+drain.String())
	leader, _ := f.nextLeader(10 * time.Second)
	standby := b
	if leader == b {
		standby = a
	}
	f.settle(leader, standby)

	stopped := f.signal(leader, syscall.SIGTERM)
	_, begin := f.nextLeader(drain + 10*time.Second)
	end := f.awaitFrom(leader, event.End, drain+5*time.Second)
	require.GreaterOrEqual(f.t, end.At.Sub(stopped), drain)
	f.exits(leader, 10*time.Second)
	figures.addTime(drainOverlap, kind, longestOverlap(f.spans()))
	return begin.At.Sub(end.At)
}
