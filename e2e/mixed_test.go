package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector/e2e/internal/event"
)

// TestInAMixedFleetLeadershipGoesBothWays runs before the parallel tests too.
func TestInAMixedFleetLeadershipGoesBothWays(t *testing.T) {
	f := newFleet(t)
	leader := f.start(clientGo)
	f.nextLeader(10 * time.Second)
	for range 3 {
		leader = f.handOver(leader, ours, fromClientGo)
		leader = f.handOver(leader, clientGo, toClientGo)
	}
	f.requireOneAtATime()
}

// handOver stops the leader next to a new standby of the given kind, which must lead then.
func (f *fleet) handOver(leader *replica, kind electorKind, figure figure) *replica {
	f.t.Helper()
	standby := f.start(kind)
	f.settle(leader, standby)
	f.signal(leader, syscall.SIGTERM)
	end := f.awaitFrom(leader, event.End, 5*time.Second)
	next, begin := f.nextLeader(10 * time.Second)
	require.Equal(f.t, standby.id, next.id)
	figures.addTime(figure, ours, begin.At.Sub(end.At))
	f.exits(leader, 10*time.Second)
	return standby
}

func TestInAMixedFleetACrashIsWaitedOutByTheOtherKind(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name             string
		crashed, standby electorKind
	}{
		{"client-go crashes", clientGo, ours},
		{"elector crashes", ours, clientGo},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			gap := crashLeader(f, c.crashed, c.standby)
			f.requireOneAtATime()
			requireNotBeforeExpiry(t, gap)
			require.Less(t, gap, leaseDuration+7*time.Second)
		})
	}
}
