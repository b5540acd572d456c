package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/elector-go/elector/e2e/internal/event"
)

// TestTheLeaseAsKubectlShowsIt reads the Lease as `kubectl get lease -o yaml` would print it.
func TestTheLeaseAsKubectlShowsIt(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	r := f.start(ours)
	_, begin := f.nextLeader(10 * time.Second)

	held := f.leaseYAML()
	t.Logf("held:\n%s", held)
	require.Contains(t, held, "\n  holderIdentity: "+r.id+"\n")
	require.Contains(t, held, "\n  leaseDurationSeconds: 15\n")
	spec := specOf(t, held)
	require.WithinDuration(t, begin.At, spec.time(t, "acquireTime"), 5*time.Second)
	require.False(t, spec.time(t, "renewTime").Before(spec.time(t, "acquireTime")))

	f.signal(r, syscall.SIGTERM)
	end := f.awaitFrom(r, event.End, 5*time.Second)
	f.exits(r, 10*time.Second)
	released := f.leaseYAML()
	t.Logf("released:\n%s", released)
	require.Contains(t, released, "\n  holderIdentity: \"\"\n")
	require.Contains(t, released, "\n  leaseDurationSeconds: 1\n")
	after := specOf(t, released)
	require.False(t, after.time(t, "renewTime").Before(end.At.Truncate(time.Millisecond)), "renewTime is fresh, and the release comes after the work's end")

	f.start(ours)
	f.nextLeader(10 * time.Second)
	again := specOf(t, f.leaseYAML())
	require.Greater(t, again["leaseTransitions"], spec["leaseTransitions"], "leaseTransitions grows with each term")
	require.True(t, again.time(t, "acquireTime").After(spec.time(t, "acquireTime")), "acquireTime is that of the new term")
}

// leaseYAML has the API server itself write the YAML, as it is stored.
func (f *fleet) leaseYAML() string {
	f.t.Helper()
	text, err := shared.cluster.Admin().CoordinationV1().RESTClient().Get().
		Namespace(f.namespace).Resource("leases").Name(leaseName).
		SetHeader("Accept", "application/yaml").DoRaw(f.t.Context())
	require.NoError(f.t, err)
	return string(text)
}

type leaseSpec map[string]any

func specOf(t *testing.T, text string) leaseSpec {
	t.Helper()
	var lease struct{ Spec leaseSpec }
	require.NoError(t, yaml.Unmarshal([]byte(text), &lease))
	return lease.Spec
}

// time is what a field says to the millisecond; what it has below that is random, to distinguish writes.
func (s leaseSpec) time(t *testing.T, field string) time.Time {
	t.Helper()
	require.IsType(t, "", s[field], field)
	at, err := time.Parse(time.RFC3339Nano, s[field].(string))
	require.NoError(t, err)
	return at.Truncate(time.Millisecond)
}
