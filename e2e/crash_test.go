package e2e

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-go/elector/e2e/internal/event"
)

const leaseDuration = 15 * time.Second // the default

func TestAfterACrashTheNextReplicaLeadsWhenTheLeaseExpires(t *testing.T) {
	t.Parallel()
	repeat(t, 3, func(t *testing.T) {
		f := newFleet(t)
		gap := crashLeader(f, ours, ours)
		f.requireOneAtATime()
		figures.addTime(crash, ours, gap)
		requireNotBeforeExpiry(t, gap)
		require.Less(t, gap, leaseDuration+2*time.Second)
	})
}

func TestClientGoTakesOverAfterACrash(t *testing.T) {
	t.Parallel()
	repeat(t, 3, func(t *testing.T) {
		figures.addTime(crash, clientGo, crashLeader(newFleet(t), clientGo, clientGo))
	})
}

// crashLeader kills a leader and returns the time from its last renewal to the begin of the standby's work.
func crashLeader(f *fleet, kind, standbyKind electorKind) time.Duration {
	leader := f.start(kind)
	f.nextLeader(10 * time.Second)
	standby := f.start(standbyKind)
	f.settle(leader, standby)
	time.Sleep(4 * time.Second) // so that it has renewed at least once

	f.signal(leader, os.Kill)
	<-leader.proc.Done()
	renewed := f.getLease(f.t.Context()).Spec.RenewTime.Time
	_, begin := f.nextLeader(leaseDuration + 10*time.Second)
	return begin.At.Sub(renewed)
}

// requireNotBeforeExpiry is lenient by a little: a renewTime need not be true to the millisecond.
func requireNotBeforeExpiry(t *testing.T, sinceRenewal time.Duration) {
	t.Helper()
	require.Greater(t, sinceRenewal, leaseDuration-10*time.Millisecond, "nobody leads before the Lease expires")
}

func (f *fleet) getLease(ctx context.Context) *coordinationv1.Lease {
	f.t.Helper()
	lease, err := shared.cluster.Admin().CoordinationV1().Leases(f.namespace).Get(ctx, leaseName, metav1.GetOptions{})
	require.NoError(f.t, err)
	return lease
}

func TestALeaderThatWakesFromSuspensionEndsItsWorkAtOnce(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	leader, continued := suspendLeader(f, ours)

	woke := f.awaitFrom(leader, event.Woke, 10*time.Second)
	cancelled := f.awaitFrom(leader, event.Cancelled, 10*time.Second)
	end := f.awaitFrom(leader, event.End, 10*time.Second)
	figures.addTime(wakeActing, ours, end.At.Sub(continued))
	require.False(t, woke.Valid, "Term.Valid at the first call after the suspension")
	require.Zero(t, end.ValidLooks, "calls at which Term.Valid was true after the suspension")
	require.Less(t, end.At.Sub(continued), 2*time.Second, "end of the work after SIGCONT")
	require.Contains(t, cancelled.Err, "elector", "the cause is the elector's")
	t.Logf("cause: %s", cancelled.Err)

	// Leadership is a phase, not a process: it stands by again, and can lead again.
	f.settle(f.leaderNow(), leader)
	f.signal(f.leaderNow(), syscall.SIGTERM)
	again, _ := f.nextLeader(10 * time.Second)
	require.Equal(t, leader.id, again.id)
}

func TestClientGoActsOnAfterSuspension(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	leader, continued := suspendLeader(f, clientGo)
	end := f.awaitFrom(leader, event.End, 30*time.Second)
	figures.addTime(wakeActing, clientGo, end.At.Sub(continued))
}

// suspendLeader suspends the leader for 20 s, in which another takes over, and returns the time of its waking.
func suspendLeader(f *fleet, kind electorKind) (*replica, time.Time) {
	leader := f.start(kind)
	f.nextLeader(10 * time.Second)
	f.settle(leader, f.start(kind))

	suspended := f.signal(leader, syscall.SIGSTOP)
	next, begin := f.nextLeader(leaseDuration + 5*time.Second)
	require.NotEqual(f.t, leader.id, next.id)
	require.Less(f.t, begin.At.Sub(suspended), 20*time.Second)
	time.Sleep(time.Until(suspended.Add(20 * time.Second)))
	return leader, f.signal(leader, syscall.SIGCONT)
}

// leaderNow is the replica whose work has begun last.
func (f *fleet) leaderNow() *replica {
	f.mu.Lock()
	begin := findLast(f.events, func(e event.Event) bool { return e.Kind == event.Begin })
	f.mu.Unlock()
	return f.named(begin.Replica)
}
