package e2e

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector/e2e/internal/event"
)

func TestWithoutTheRightToWatchReplicasPoll(t *testing.T) {
	t.Parallel()
	repeat(t, 3, func(t *testing.T) {
		f := newFleetWithout(t)
		require.NoError(t, shared.cluster.GrantLeases(t.Context(), pollOnly, f.namespace, "get", "create", "update"))
		leader := f.startAs(pollOnly, ours)
		f.nextLeader(10 * time.Second)
		standby := f.startAs(pollOnly, ours)
		f.settle(leader, standby)
		time.Sleep(5 * time.Second) // time to log the same line more than once, if it did

		f.signal(leader, syscall.SIGTERM)
		end := f.awaitFrom(leader, event.End, 5*time.Second)
		next, begin := f.nextLeader(10 * time.Second)
		f.exits(leader, 10*time.Second)
		f.requireOneAtATime()
		figures.addTime(pollingStop, ours, begin.At.Sub(end.At))
		require.Equal(t, standby.id, next.id)
		require.Less(t, begin.At.Sub(end.At), 3*time.Second, "a hand-over by polling at a RetryPeriod of 2 s")
		log := standby.log.String()
		require.Equal(t, 1, linesWith(log, "watch", "leases", f.namespace), "lines of log:\n%s", log)
	})
}

func TestTheErrorNamesTheRightThatIsMissing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, user string
		granted    []string
		missing    string
	}{
		{"a user with nothing", powerless, nil, "get"},
		{"a user that may only look", readOnly, []string{"get", "watch"}, "create"},
		{"a user that may not even watch", readOnly, []string{"get"}, "create"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFleetWithout(t)
			if c.granted != nil {
				require.NoError(t, shared.cluster.GrantLeases(t.Context(), c.user, f.namespace, c.granted...))
			}
			r := f.startAs(c.user, ours)
			failure := f.awaitFrom(r, event.Failure, 10*time.Second)
			for _, part := range []string{c.missing, "leases", f.namespace} {
				require.Contains(t, failure.Err, part, "the last error of the status")
			}
			t.Logf("Status().LastError: %s", failure.Err)
			require.Eventually(t, func() bool {
				return linesWith(r.log.String(), c.missing, "leases", f.namespace) > 0
			}, 5*time.Second, 10*time.Millisecond)

			time.Sleep(5 * time.Second) // a repeated error is logged once
			log := r.log.String()
			require.Equal(t, 1, linesWith(log, c.missing, "leases", f.namespace), "lines of log:\n%s", log)
			t.Logf("log:\n%s", log)
			f.signal(r, syscall.SIGTERM)
			f.exits(r, 5*time.Second)
			require.Empty(t, f.spans(), "it must not have led")
		})
	}
}

// A standby that may not update finds out when its turn comes; the Lease it cannot take stays as it is.
func TestAStandbyWithoutTheRightToUpdateSaysSoWhenItsTurnComes(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	require.NoError(t, shared.cluster.GrantLeases(t.Context(), readOnly, f.namespace, "get", "create", "watch"))
	leader := f.start(ours)
	f.nextLeader(10 * time.Second)
	standby := f.startAs(readOnly, ours)
	f.settle(leader, standby)
	f.signal(leader, syscall.SIGTERM)
	f.exits(leader, 10*time.Second)
	failure := f.awaitFrom(standby, event.Failure, 20*time.Second)
	for _, part := range []string{"update", "leases", f.namespace} {
		require.Contains(t, failure.Err, part)
	}
	require.Empty(t, *f.getLease(t.Context()).Spec.HolderIdentity)
}

// linesWith counts the lines that contain all parts.
func linesWith(text string, parts ...string) int {
	n := 0
	for line := range strings.Lines(text) {
		if containsAll(line, parts) {
			n++
		}
	}
	return n
}

func containsAll(line string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(line, part) {
			return false
		}
	}
	return true
}
