package e2e

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/elector-go/elector/electortest/conformance"
)

func TestARealServerAnswersAsElectortest(t *testing.T) {
	t.Parallel()
	f := newFleetWithout(t)
	conformance.Run(t, shared.cluster.Admin().CoordinationV1(), f.namespace)
}

func TestGetCreateAndUpdateAllowNothingElse(t *testing.T) {
	t.Parallel()
	f := newFleetWithout(t)
	require.NoError(t, shared.cluster.GrantLeases(t.Context(), pollOnly, f.namespace, "get", "create", "update"))
	client := clientOf(t, shared.cluster, pollOnly)
	leases := client.CoordinationV1().Leases(f.namespace)
	lease, err := leases.Create(t.Context(), newLease(leaseName), metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = leases.Update(t.Context(), lease, metav1.UpdateOptions{})
	require.NoError(t, err)
	_, err = leases.Get(t.Context(), leaseName, metav1.GetOptions{})
	require.NoError(t, err)

	for what, err := range map[string]error{
		"watch":  tryWatch(t, client, f.namespace, leaseName),
		"list":   tryList(t, client, f.namespace, leaseName),
		"delete": leases.Delete(t.Context(), leaseName, metav1.DeleteOptions{}),
		"events": tryEvent(t, client, f.namespace),
	} {
		require.True(t, apierrors.IsForbidden(err), "%s: %v", what, err)
	}
}

func TestARoleLimitedToANameAllowsToWatchThatName(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	client := clientOf(t, shared.cluster, operator)
	require.NoError(t, tryWatch(t, client, f.namespace, leaseName))
	for _, other := range []string{"", "another"} {
		err := tryWatch(t, client, f.namespace, other)
		require.True(t, apierrors.IsForbidden(err), "%q: %v", other, err)
	}
}

// tryWatch watches the Lease of that name, or all of them without one.
func tryWatch(t *testing.T, client kubernetes.Interface, namespace, name string) error {
	w, err := client.CoordinationV1().Leases(namespace).Watch(t.Context(), byName(name))
	if err == nil {
		w.Stop()
	}
	return err
}

func tryList(t *testing.T, client kubernetes.Interface, namespace, name string) error {
	_, err := client.CoordinationV1().Leases(namespace).List(t.Context(), byName(name))
	return err
}

func tryEvent(t *testing.T, client kubernetes.Interface, namespace string) error {
	e := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: "test", Namespace: namespace},
		InvolvedObject: corev1.ObjectReference{Kind: "Lease", Namespace: namespace, Name: leaseName},
	}
	_, err := client.CoreV1().Events(namespace).Create(t.Context(), e, metav1.CreateOptions{})
	return err
}

func byName(name string) metav1.ListOptions {
	if name == "" {
		return metav1.ListOptions{}
	}
	return metav1.ListOptions{FieldSelector: "metadata.name=" + name}
}
