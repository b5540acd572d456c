package e2e

import (
	"bytes"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/elector-go/elector/e2e/internal/event"
)

// TestTheRoleOfTheReadmeSuffices runs before the parallel tests too. All other fleets live on this Role as well, and
// the tests below take parts of it away.
func TestTheRoleOfTheReadmeSuffices(t *testing.T) {
	f := newFleetWithout(t)
	require.NoError(t, shared.cluster.Grant(t.Context(), operator, f.namespace, readmeRole...))
	leader := f.start(ours)
	f.nextLeader(10 * time.Second)
	standby := f.start(ours)
	f.settle(leader, standby)
	for range 3 {
		time.Sleep(retryPeriod / 2)
		f.signal(leader, syscall.SIGTERM)
		end := f.awaitFrom(leader, event.End, 5*time.Second)
		next, begin := f.nextLeader(10 * time.Second)
		require.Equal(t, standby.id, next.id)
		figures.addTime(readmeStop, ours, begin.At.Sub(end.At))
		require.Less(t, begin.At.Sub(end.At), retryPeriod/4, "a hand-over by the watch")
		f.exits(leader, 10*time.Second)
		leader, standby = next, f.start(ours)
		f.settle(leader, standby)
	}
	f.requireOneAtATime()
	require.Zero(t, f.countOf(event.Failure), "nothing was refused")
	for _, r := range f.replicas {
		require.NotContains(t, r.log.String(), "No watch on the lease")
	}
}

func TestTheRoleOfTheReadmeAllowsNothingElse(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	client := clientOf(t, shared.cluster, operator)
	leases := client.CoordinationV1().Leases(f.namespace)
	_, err := leases.Create(t.Context(), newLease(leaseName), metav1.CreateOptions{})
	require.NoError(t, err)
	another, err := leases.Create(t.Context(), newLease("another"), metav1.CreateOptions{})
	require.NoError(t, err, "create cannot be limited to a name")
	_, get := leases.Get(t.Context(), "another", metav1.GetOptions{})
	_, update := leases.Update(t.Context(), another, metav1.UpdateOptions{})
	_, patch := leases.Patch(t.Context(), leaseName, types.MergePatchType, []byte("{}"), metav1.PatchOptions{})
	for what, err := range map[string]error{
		"get another":    get,
		"update another": update,
		"watch another":  tryWatch(t, client, f.namespace, "another"),
		"watch all":      tryWatch(t, client, f.namespace, ""),
		"list":           tryList(t, client, f.namespace, leaseName),
		"patch":          patch,
		"delete":         leases.Delete(t.Context(), leaseName, metav1.DeleteOptions{}),
		"events":         tryEvent(t, client, f.namespace),
	} {
		require.True(t, apierrors.IsForbidden(err), "%s: %v", what, err)
	}
}

func TestTheRoleOfTheReadmeIsTheOneTested(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	_, text, found := bytes.Cut(text, []byte("\nkind: Role\n"))
	require.True(t, found, "the README has no Role")
	text, _, _ = bytes.Cut(text, []byte("\n---\n"))
	var role rbacv1.Role
	require.NoError(t, yaml.UnmarshalStrict(text, &role))
	for _, rule := range role.Rules {
		for i := range rule.ResourceNames {
			rule.ResourceNames[i] = leaseName
		}
	}
	require.Equal(t, readmeRole, role.Rules)
}

func TestWithoutTheRightToWatchReplicasPoll(t *testing.T) {
	t.Parallel()
	repeat(t, 8, func(t *testing.T) {
		f := newFleetWithout(t)
		require.NoError(t, shared.cluster.GrantLeases(t.Context(), pollOnly, f.namespace, "get", "create", "update"))
		leader := f.startAs(pollOnly, ours)
		f.nextLeader(10 * time.Second)
		standby := f.startAs(pollOnly, ours)
		f.settle(leader, standby)
		// Time to log the same line more than once, if it did; and the stop is not to come at the same point of each poll.
		time.Sleep(5*time.Second + rand.N(retryPeriod))

		f.signal(leader, syscall.SIGTERM)
		end := f.awaitFrom(leader, event.End, 5*time.Second)
		next, begin := f.nextLeader(10 * time.Second)
		f.exits(leader, 10*time.Second)
		f.requireOneAtATime()
		figures.addTime(pollingStop, ours, begin.At.Sub(end.At))
		require.Equal(t, standby.id, next.id)
		require.Less(t, begin.At.Sub(end.At), 5*time.Second, "a hand-over by polling at a RetryPeriod of 2 s, as client-go's")
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
		{"a user that may only read", readOnly, []string{"get", "watch"}, "create"},
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
