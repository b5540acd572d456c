package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector/e2e/internal/event"
)

func TestAQuietFleetSendsFewRequests(t *testing.T) {
	t.Parallel()
	leader, standbys := countRequests(newFleet(t), ours)
	require.LessOrEqual(t, leader, 31.0, "requests of the leader in a minute")
	require.LessOrEqual(t, standbys, 1.0, "requests of a standby in a minute")
}

func TestClientGoSendsMore(t *testing.T) {
	t.Parallel()
	countRequests(newFleet(t), clientGo)
}

// countRequests returns what the leader and what the busier of two standbys send in a quiet minute.
func countRequests(f *fleet, kind electorKind) (leading, standingBy float64) {
	leader := f.start(kind)
	f.nextLeader(10 * time.Second)
	standbys := []*replica{f.start(kind), f.start(kind)}
	f.settle(leader, standbys...)
	time.Sleep(3 * time.Second) // whatever belongs to the start is over

	before := map[*replica]event.Event{}
	for _, r := range append(standbys, leader) {
		before[r] = f.lastRequests(r)
	}
	time.Sleep(time.Minute)
	leading = f.perMinute(leader, before[leader])
	figures.add(leaderLoad, kind, leading)
	for _, r := range standbys {
		load := f.perMinute(r, before[r])
		figures.add(standbyLoad, kind, load)
		standingBy = max(standingBy, load)
	}
	return leading, standingBy
}

func (f *fleet) lastRequests(r *replica) event.Event {
	f.t.Helper()
	return f.await("count of requests", 5*time.Second, func(events []event.Event) *event.Event {
		return findLast(events, func(e event.Event) bool { return e.Replica == r.id && e.Kind == event.Requests })
	})
}

func (f *fleet) perMinute(r *replica, before event.Event) float64 {
	f.t.Helper()
	now := f.lastRequests(r)
	return float64(total(now)-total(before)) / now.At.Sub(before.At).Minutes()
}

func total(e event.Event) int {
	n := 0
	for _, count := range e.RequestsNow {
		n += count
	}
	return n
}
