package e2e

import (
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-go/elector/e2e/internal/event"
	"github.com/elector-go/elector/e2e/internal/proxy"
)

// retryPeriod is the default.
const retryPeriod = 2 * time.Second

func TestATermOutlivesTheConnectionsItWasWonOn(t *testing.T) {
	t.Parallel()
	repeat(t, 5, func(t *testing.T) {
		f, p := newFleet(t), newProxy(t)
		leader, standby := silencePair(f, p, ours)
		lost := f.countOf(event.Cancelled) > 0
		f.addLost(deadTerms, ours, lost)
		require.False(t, lost, "the term of %s", leader.id)
		require.Len(t, f.spans(), 1)
		require.GreaterOrEqual(t, p.Open(), 2, "both have new connections")
		figures.addTime(deadLeaders, ours, 0)

		f.signal(leader, syscall.SIGTERM)
		end := f.awaitFrom(leader, event.End, 5*time.Second)
		next, begin := f.nextLeader(10 * time.Second)
		require.Equal(t, standby.id, next.id)
		require.Less(t, begin.At.Sub(end.At), retryPeriod, "the standby's watch lives again")
		f.exits(leader, 10*time.Second)
		f.requireOneAtATime()
	})
}

func TestClientGoLosesATermWithItsConnections(t *testing.T) {
	t.Parallel()
	repeat(t, 5, func(t *testing.T) {
		f := newFleet(t)
		leader, _ := silencePair(f, newProxy(t), clientGo)
		lost := f.countOf(event.Cancelled) > 0
		f.addLost(deadTerms, clientGo, lost)
		if !lost {
			return
		}
		end := f.awaitFrom(leader, event.End, 5*time.Second)
		_, begin := f.nextLeader(time.Minute)
		figures.addTime(deadLeaders, clientGo, begin.At.Sub(end.At))
	})
}

// silencePair makes all connections of a leader and its standby go silent at some time between two renewals, and
// returns 20 s later.
func silencePair(f *fleet, p *proxy.Proxy, kind electorKind) (leader, standby *replica) {
	leader = f.startThrough(p, kind)
	f.nextLeader(10 * time.Second)
	standby = f.startThrough(p, kind)
	f.settle(leader, standby)
	time.Sleep(4*time.Second + rand.N(4*time.Second))

	silent := f.silence(p, 2)
	if renewed, ok := f.nextRenewal(15 * time.Second); ok {
		figures.addTime(deadRenewal, kind, renewed.Sub(silent))
	}
	time.Sleep(time.Until(silent.Add(20 * time.Second)))
	return leader, standby
}

func TestAStandbyWhoseConnectionsWentSilentStillTakesOver(t *testing.T) {
	t.Parallel()
	for _, c := range silentStandbys {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			gap := c.stopLeader(f, newProxy(t), ours)
			f.requireOneAtATime()
			figures.addTime(deadStandby, ours, gap)
			t.Logf("gap: %v", gap)
			require.Less(t, gap, c.bound)
		})
	}
}

func TestClientGoTakesOverOnceItsConnectionsAreFoundDead(t *testing.T) {
	t.Parallel()
	for _, c := range silentStandbys {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			gap := c.stopLeader(newFleet(t), newProxy(t), clientGo)
			figures.addTime(deadStandby, clientGo, gap)
			t.Logf("gap: %v", gap)
		})
	}
}

// A silentStandby is the stop of a leader some time after the connections of its standby went silent.
type silentStandby struct {
	name      string
	leaderToo bool
	stopAfter time.Duration
	bound     time.Duration // of the gap
}

// A standby notices when the record that it knows expires: after LeaseDuration, and an attempt that has no answer.
var silentStandbys = []silentStandby{
	{"stopped at once", false, 0, leaseDuration + 5*time.Second},
	{"stopped at once, the leader's are silent too", true, 0, leaseDuration + 5*time.Second},
	{"stopped after 10 s", false, 10 * time.Second, leaseDuration - 5*time.Second},
	{"stopped after 25 s", false, 25 * time.Second, retryPeriod},
}

// stopLeader returns the time from the end of the leader's work to the beginning of the standby's.
func (c silentStandby) stopLeader(f *fleet, p *proxy.Proxy, kind electorKind) time.Duration {
	var leader *replica
	if c.leaderToo {
		leader = f.startThrough(p, kind)
	} else {
		leader = f.start(kind)
	}
	f.nextLeader(10 * time.Second)
	standby := f.startThrough(p, kind)
	f.settle(leader, standby)
	time.Sleep(4*time.Second + rand.N(4*time.Second))

	silent := f.silence(p, 1)
	time.Sleep(time.Until(silent.Add(c.stopAfter)))
	f.signal(leader, syscall.SIGTERM)
	end := f.awaitFrom(leader, event.End, 5*time.Second)
	next, begin := f.nextLeader(90 * time.Second)
	require.Equal(f.t, standby.id, next.id)
	f.exits(leader, 20*time.Second)
	return begin.At.Sub(end.At)
}

// newProxy makes a proxy to the API server.
func newProxy(t *testing.T) *proxy.Proxy {
	p, err := proxy.Start(strings.TrimPrefix(shared.cluster.AdminConfig().Host, "https://"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

// startThrough adds a replica that reaches the API server through p. The server's certificate is for the address of
// loopback, whatever the port, so it is verified as ever.
func (f *fleet) startThrough(p *proxy.Proxy, kind electorKind, flags ...string) *replica {
	f.t.Helper()
	cfg := shared.cluster.UserConfig(operator)
	cfg.Host = "https://" + p.Addr()
	return f.startWith(cfg, kind, flags...)
}

// silence silences the connections, of which there must be some, and returns the time just before.
func (f *fleet) silence(p *proxy.Proxy, atLeast int) time.Time {
	f.t.Helper()
	now := time.Now()
	require.GreaterOrEqual(f.t, p.Silence(), atLeast, "open connections")
	return now
}

// nextRenewal waits for the next change of the Lease and returns when it was seen; false if there is none.
func (f *fleet) nextRenewal(limit time.Duration) (time.Time, bool) {
	f.t.Helper()
	leases := shared.cluster.Admin().CoordinationV1().Leases(f.namespace)
	w, err := leases.Watch(f.t.Context(), metav1.ListOptions{ResourceVersion: f.getLease(f.t.Context()).ResourceVersion})
	require.NoError(f.t, err)
	defer w.Stop()
	select {
	case _, open := <-w.ResultChan():
		require.True(f.t, open, "the test's own watch has closed")
		return time.Now(), true
	case <-time.After(limit):
		return time.Time{}, false
	}
}

// countOf is how many events of the kind there have been.
func (f *fleet) countOf(kind event.Kind) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, e := range f.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

func (f *fleet) addLost(figure figure, kind electorKind, lost bool) {
	sample := 0.0
	if lost {
		sample = 1
	}
	figures.add(figure, kind, sample)
}
