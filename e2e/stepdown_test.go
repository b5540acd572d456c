package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-go/elector/e2e/internal/event"
)

const stepDownAnnotation = "elector-go.github.io/step-down"

func TestAnAnnotationHandsTheLeaseOver(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	leader := f.start(ours)
	f.nextLeader(20 * time.Second)
	f.settle(leader, f.start(ours), f.start(ours), f.start(clientGo))
	for range 5 {
		terms := f.countOf(event.End)
		f.annotate("")
		cancelled, end := f.awaitNth(event.Cancelled, terms+1), f.awaitNth(event.End, terms+1)
		require.Contains(t, cancelled.Err, "asked to step down")
		next, begin := f.nextLeader(20 * time.Second)
		require.NotEqual(t, leader.id, next.id, "the one that was asked sits out")
		figures.addTime(byAnnotation, ours, begin.At.Sub(end.At))
		if next.kind == clientGo { // its poll may be due just then; it heeds no annotation and removes none
			f.signal(next, syscall.SIGTERM)
			f.exits(next, 10*time.Second)
			next, _ = f.nextLeader(20 * time.Second)
		}
		f.requireNoAnnotation(next)
		leader = next
	}
	f.requireOneAtATime()
}

func TestAnAnnotationTransfersTheLeaseToTheReplicaItNames(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	replicas := []*replica{f.start(ours), f.start(ours), f.start(ours), f.start(ours)}
	leader, _ := f.nextLeader(20 * time.Second)
	for range 2 {
		for _, to := range replicas {
			if to == leader {
				continue
			}
			for _, r := range replicas {
				if r != leader {
					f.settle(leader, r)
				}
			}
			asked := f.annotate(to.id)
			next, begin := f.nextLeader(20 * time.Second)
			require.Equal(t, to.id, next.id)
			figures.addTime(transferTime, ours, begin.At.Sub(asked))
			f.requireNoAnnotation(next)
			leader = next
		}
	}
	f.requireOneAtATime()
}

func TestAnAnnotationThatNamesTheLeaderIsRemovedAndNothingElse(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	leader := f.start(ours)
	f.nextLeader(20 * time.Second)
	f.settle(leader, f.start(ours))
	for range 3 {
		f.annotate(leader.id)
		f.requireNoAnnotation(leader)
	}
	time.Sleep(retryPeriod)
	require.Zero(t, f.countOf(event.Cancelled))
	require.Equal(t, 1, f.countOf(event.Begin))
}

// TestAnAnnotationThatNamesNobodyDelaysTheHandOver has no client-go in the fleet: that would not wait.
func TestAnAnnotationThatNamesNobodyDelaysTheHandOver(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	leader := f.start(ours)
	f.nextLeader(20 * time.Second)
	f.settle(leader, f.start(ours), f.start(ours))
	f.annotate("nobody")
	end := f.awaitFrom(leader, event.End, 10*time.Second)
	next, begin := f.nextLeader(20 * time.Second)
	t.Logf("nobody led for %v", begin.At.Sub(end.At))
	require.NotEqual(t, leader.id, next.id)
	require.GreaterOrEqual(t, begin.At.Sub(end.At), renewDeadline/3, "the Lease was left to the one who was named")
	require.Less(t, begin.At.Sub(end.At), leaseDuration, "and not for as long as a Lease binds")
	f.requireNoAnnotation(next)
	f.requireOneAtATime()
}

// TestAnAnnotationDuringADrainAsksForNothingNew asks a leader that is stepping down already, this time for a replica.
func TestAnAnnotationDuringADrainAsksForNothingNew(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	leader := f.start(ours, "-drain=3s")
	f.nextLeader(20 * time.Second)
	named := f.start(ours)
	f.settle(leader, named, f.start(ours))
	f.annotate("")
	cancelled := f.awaitFrom(leader, event.Cancelled, 10*time.Second)
	f.annotate(named.id)
	end := f.awaitFrom(leader, event.End, 20*time.Second)
	next, _ := f.nextLeader(20 * time.Second)
	require.Equal(t, named.id, next.id, "the last request names it")
	require.GreaterOrEqual(t, end.At.Sub(cancelled.At), 3*time.Second, "the Lease was kept until the work had ended")
	f.requireNoAnnotation(next)
	require.Equal(t, 1, f.countOf(event.Cancelled))
	f.requireOneAtATime()
}

// TestClientGoKeepsTheLeaseThatAnAnnotationAsksFor ends with the annotation that client-go has left on the Lease: it is
// no request to the replica that wins it.
func TestClientGoKeepsTheLeaseThatAnAnnotationAsksFor(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	leader := f.start(clientGo)
	f.nextLeader(20 * time.Second)
	next := f.start(ours)
	f.settle(leader, next)
	f.annotate("")
	time.Sleep(2 * retryPeriod)
	require.Zero(t, f.countOf(event.Cancelled), "it does not heed annotations")

	f.signal(leader, syscall.SIGTERM)
	f.awaitFrom(next, event.Begin, 20*time.Second)
	f.requireNoAnnotation(next)
	time.Sleep(retryPeriod)
	require.Equal(t, 1, f.countOf(event.Cancelled), "that of client-go")
	f.requireOneAtATime()
}

func TestWithoutTheRightToWatchAnAnnotationIsHeededAtTheNextRenewal(t *testing.T) {
	t.Parallel()
	f := newFleetWithout(t)
	require.NoError(t, shared.cluster.GrantLeases(t.Context(), pollOnly, f.namespace, "get", "create", "update"))
	leader := f.startAs(pollOnly, ours)
	f.nextLeader(20 * time.Second)
	named := f.startAs(pollOnly, ours)
	f.settle(leader, named, f.startAs(pollOnly, ours))
	f.annotate(named.id)
	next, _ := f.nextLeader(20 * time.Second)
	require.Equal(t, named.id, next.id)
	f.requireNoAnnotation(next)
	f.requireOneAtATime()
}

// annotate does what `kubectl annotate --overwrite lease controller elector-go.github.io/step-down=value` does, and
// returns the time just before.
func (f *fleet) annotate(value string) time.Time {
	f.t.Helper()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{stepDownAnnotation: value}}})
	require.NoError(f.t, err)
	now := time.Now()
	leases := shared.cluster.Admin().CoordinationV1().Leases(f.namespace)
	_, err = leases.Patch(f.t.Context(), leaseName, types.MergePatchType, patch, metav1.PatchOptions{})
	require.NoError(f.t, err)
	return now
}

// awaitNth waits for the nth event of a kind, whichever replica it comes from.
func (f *fleet) awaitNth(kind event.Kind, n int) event.Event {
	f.t.Helper()
	return f.await(fmt.Sprintf("%s number %d", kind, n), 20*time.Second, func(events []event.Event) *event.Event {
		seen := 0
		return find(events, func(e event.Event) bool {
			if e.Kind == kind {
				seen++
			}
			return e.Kind == kind && seen == n
		})
	})
}

// requireNoAnnotation waits until holder holds a Lease that asks for nothing.
func (f *fleet) requireNoAnnotation(holder *replica) {
	f.t.Helper()
	require.Eventually(f.t, func() bool {
		lease := f.getLease(f.t.Context())
		_, asks := lease.Annotations[stepDownAnnotation]
		return !asks && *lease.Spec.HolderIdentity == holder.id
	}, 5*time.Second, 10*time.Millisecond, "%s removes the annotation", holder.id)
}

// logged reports whether the replica's log says what.
func logged(r *replica, what string) bool { return strings.Contains(r.log.String(), what) }
