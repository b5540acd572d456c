package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-go/elector/e2e/internal/event"
)

func TestAClientThatCutsTheTimesToMillisecondsCostsNoTerm(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	leader := cutTimes(f, ours, 10)
	require.Zero(t, f.countOf(event.Cancelled), "terms lost")
	require.Eventually(t, func() bool { // the renewal of a moment ago may have been cut as well
		spec := f.getLease(t.Context()).Spec
		return spec.AcquireTime.Nanosecond()%1e6 != 0 && spec.RenewTime.Nanosecond()%1e6 != 0
	}, 15*time.Second, 10*time.Millisecond, "the leader puts both times right")
	spec := f.getLease(t.Context()).Spec
	require.Equal(t, leader.id, *spec.HolderIdentity)
	require.Len(t, f.spans(), 1, "the term of %s goes on", leader.id)
	for _, r := range f.replicas {
		require.NotContains(t, r.log.String(), "Another process leads under this candidate's identity")
		require.NotContains(t, r.log.String(), "is held under this candidate's identity")
	}
}

func TestAClientThatCutsTheTimesCostsClientGoNoTermEither(t *testing.T) {
	t.Parallel()
	cutTimes(newFleet(t), clientGo, 10)
}

// cutTimes writes the Lease n times as a client does that knows milliseconds only, a JavaScript one for instance,
// while a replica leads and another stands by. It returns the leader, when what the edits cost has been paid.
func cutTimes(f *fleet, kind electorKind, n int) (leader *replica) {
	leader = f.start(kind)
	f.nextLeader(20 * time.Second)
	f.settle(leader, f.start(kind))
	for range n {
		f.cutTimesOnce()
		time.Sleep(700 * time.Millisecond) // sometimes before the next renewal, sometimes after
	}
	time.Sleep(leaseDuration) // a standby that waits for the expiry would have led by now
	f.addLost(editedTerms, kind, f.countOf(event.Cancelled) > 0)
	return leader
}

func (f *fleet) cutTimesOnce() {
	f.t.Helper()
	leases := shared.cluster.Admin().CoordinationV1().Leases(f.namespace)
	require.Eventually(f.t, func() bool { // a renewal may come between
		lease := f.getLease(f.t.Context())
		for _, at := range []*metav1.MicroTime{lease.Spec.AcquireTime, lease.Spec.RenewTime} {
			at.Time = at.Truncate(time.Millisecond)
		}
		_, err := leases.Update(f.t.Context(), lease, metav1.UpdateOptions{})
		return err == nil
	}, 5*time.Second, time.Millisecond)
}
