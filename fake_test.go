package elector_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector"
)

// Users test on client-go's plain fake clientset. It has no resourceVersions and accepts every write, so nothing about
// two replicas that race can be shown on it; all else should work. (NewSimpleClientset, not NewClientset: the latter's
// field manager takes seconds to set up under the race detector, and answers Leases no differently.)

func onPlainFake(t *testing.T, f func(w *world, leases coordinationv1client.LeaseInterface, join func(who string, opts ...option) *replica)) {
	t.Helper()
	inWorld(t, func(w *world) {
		client := fake.NewSimpleClientset().CoordinationV1()
		f(w, client.Leases(namespace), func(who string, opts ...option) *replica {
			return w.joinOver(client, w.api.Client(who), who, opts...)
		})
	})
}

func TestOnAPlainFakeTheLeaseIsReleasedAndHandedOver(t *testing.T) {
	onPlainFake(t, func(w *world, leases coordinationv1client.LeaseInterface, join func(string, ...option) *replica) {
		a := join("a", draining(20*time.Second))
		w.awaitLeader(time.Second)
		b := join("b")
		time.Sleep(time.Hour)
		a.stop()
		require.NoError(w, a.awaitEnd(21*time.Second))
		assert.Same(w, b, w.awaitLeader(100*time.Millisecond))
		time.Sleep(time.Hour)
		b.stop()
		require.NoError(w, b.awaitEnd(time.Second))
		assert.Len(w, w.spans(), 2)
		l, err := leases.Get(w.Context(), name, metav1.GetOptions{})
		require.NoError(w, err)
		assert.Empty(w, holder(l))
		assert.Equal(w, int32(1), *l.Spec.LeaseDurationSeconds)
	})
}

func TestOnAPlainFakeACallbacksReturnEndsRun(t *testing.T) {
	failed := errors.New("out of disk")
	for _, result := range []error{nil, failed} {
		onPlainFake(t, func(w *world, _ coordinationv1client.LeaseInterface, join func(string, ...option) *replica) {
			a := join("a", working(func(context.Context) error { return result }))
			assert.ErrorIs(w, a.awaitEnd(time.Second), result)
		})
	}
}

func TestOnAPlainFakeAnotherHoldersNameEndsTheTerm(t *testing.T) {
	onPlainFake(t, func(w *world, leases coordinationv1client.LeaseInterface, join func(string, ...option) *replica) {
		join("a")
		w.awaitLeader(time.Second)
		time.Sleep(time.Minute)
		l, err := leases.Get(w.Context(), name, metav1.GetOptions{})
		require.NoError(w, err)
		l.Spec.HolderIdentity = ptr.To("b")
		_, err = leases.Update(w.Context(), l, metav1.UpdateOptions{})
		require.NoError(w, err)
		w.within(50*time.Millisecond, "the callback ends", func() bool { return w.leader() == nil })
		assert.Equal(w, "taken over", reason(w.last().cause))
		w.awaitLeader(20 * time.Second) // once b's lease has expired
	})
}

func TestOnAPlainFakeADeletedLeaseIsPutBack(t *testing.T) {
	onPlainFake(t, func(w *world, leases coordinationv1client.LeaseInterface, join func(string, ...option) *replica) {
		join("a")
		w.awaitLeader(time.Second)
		time.Sleep(time.Minute)
		require.NoError(w, leases.Delete(w.Context(), name, metav1.DeleteOptions{}))
		time.Sleep(10 * time.Millisecond)
		l, err := leases.Get(w.Context(), name, metav1.GetOptions{})
		require.NoError(w, err)
		assert.Equal(w, "a", holder(l))
		time.Sleep(time.Minute)
		w.oneTerm()
	})
}

func TestOnAPlainFakeStepDownHandsOver(t *testing.T) {
	onPlainFake(t, func(w *world, _ coordinationv1client.LeaseInterface, join func(string, ...option) *replica) {
		a := join("a")
		w.awaitLeader(time.Second)
		b := join("b", with(func(o *elector.Options) { o.SingleTerm = true }))
		time.Sleep(time.Second)
		assert.ErrorIs(w, b.el.StepDown(w.Context()), elector.ErrNotLeader)
		require.NoError(w, a.el.StepDown(w.Context()))
		assert.Same(w, b, w.awaitLeader(100*time.Millisecond, a))
		require.NoError(w, b.el.StepDown(w.Context()))
		assert.Same(w, a, w.awaitLeader(100*time.Millisecond, b))
		assert.ErrorIs(w, b.awaitEnd(time.Second), elector.ErrLost)
	})
}
