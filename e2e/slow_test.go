package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector/e2e/internal/event"
)

func TestAnAPIThatTakesFourSecondsForEachAnswerIsLedOn(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	gap := leadSlowly(f, ours)
	f.requireOneAtATime()
	require.Zero(t, f.countOf(event.Cancelled), "terms lost")
	require.Zero(t, gap, "time without a leader")
}

func TestClientGoLeadsOnASlowAPIToo(t *testing.T) {
	t.Parallel()
	leadSlowly(newFleet(t), clientGo)
}

// leadSlowly has three replicas that lead or stand by get every answer 4 s late for a minute, and returns how long
// nobody led.
func leadSlowly(f *fleet, kind electorKind) time.Duration {
	p := newProxy(f.t)
	leader := f.startThrough(p, kind)
	f.nextLeader(20 * time.Second)
	f.settle(leader, f.startThrough(p, kind), f.startThrough(p, kind))

	p.SetReplyDelay(4 * time.Second)
	before := f.getLease(f.t.Context()).ResourceVersion
	time.Sleep(time.Minute)
	require.NotEqual(f.t, before, f.getLease(f.t.Context()).ResourceVersion, "the leader has renewed over the slow line")
	now := time.Now()
	gap := leaderless(f.spans(), now)
	f.addLost(slowTerms, kind, f.countOf(event.Cancelled) > 0)
	figures.addTime(slowLeaders, kind, gap)
	return gap
}
