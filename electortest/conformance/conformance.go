// Package conformance holds assertions on what an API server does with Leases. They run against electortest and
// against a real kube-apiserver, so that the former is known to answer as the latter.
package conformance

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/utils/ptr"
)

// Run checks a server with its defaults (CoordinatedLeaderElection off), as subtests of t. The namespace must exist,
// and the client must be allowed everything on its Leases. It creates Leases whose names begin with "conformance-"
// and deletes them. It takes a few seconds of real time, so it must not run inside a synctest bubble.
func Run(t *testing.T, leases coordinationv1client.LeasesGetter, namespace string) {
	run := time.Now().UnixNano() % 1e9
	for i, c := range slices.Concat(writeCases, fieldCases, watchCases) {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			s := &subject{
				T:         t,
				ctx:       ctx,
				api:       leases.Leases(namespace),
				namespace: namespace,
				name:      fmt.Sprintf("conformance-%d-%d", run, i),
			}
			t.Cleanup(func() {
				_ = s.api.Delete(context.Background(), s.name, metav1.DeleteOptions{})
			})
			c.check(s)
		})
	}
}

type testCase struct {
	name  string
	check func(*subject)
}

// subject is the server under test with a Lease name of the case's own.
type subject struct {
	*testing.T
	ctx       context.Context
	api       coordinationv1client.LeaseInterface
	namespace string
	name      string
}

// lease is a Lease as an elector would write it.
func (s *subject) lease(holder string) *coordinationv1.Lease {
	now := metav1.NowMicro()
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: s.name, Namespace: s.namespace},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity:       &holder,
			LeaseDurationSeconds: ptr.To(int32(15)),
			LeaseTransitions:     ptr.To(int32(0)),
			AcquireTime:          &now,
			RenewTime:            &now,
		},
	}
}

func (s *subject) get() *coordinationv1.Lease {
	s.Helper()
	lease, err := s.api.Get(s.ctx, s.name, metav1.GetOptions{})
	require.NoError(s, err)
	return lease
}

func (s *subject) post(lease *coordinationv1.Lease) *coordinationv1.Lease {
	s.Helper()
	created, err := s.api.Create(s.ctx, lease, metav1.CreateOptions{})
	require.NoError(s, err)
	return created
}

func (s *subject) tryPut(lease *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	return s.api.Update(s.ctx, lease, metav1.UpdateOptions{})
}

func (s *subject) put(lease *coordinationv1.Lease) *coordinationv1.Lease {
	s.Helper()
	updated, err := s.tryPut(lease)
	require.NoError(s, err)
	return updated
}

// putHolder updates the Lease with another holder.
func (s *subject) putHolder(lease *coordinationv1.Lease, holder string) *coordinationv1.Lease {
	s.Helper()
	changed := lease.DeepCopy()
	changed.Spec.HolderIdentity = &holder
	return s.put(changed)
}

func (s *subject) delete() {
	s.Helper()
	require.NoError(s, s.api.Delete(s.ctx, s.name, metav1.DeleteOptions{}))
}

// answers asserts the status that an error carries.
func (s *subject) answers(code int, reason metav1.StatusReason, err error) {
	s.Helper()
	require.Error(s, err)
	var status apierrors.APIStatus
	require.ErrorAs(s, err, &status)
	require.EqualValues(s, code, status.Status().Code, "%v", err)
	require.Equal(s, reason, status.Status().Reason, "%v", err)
}

func (s *subject) conflict(err error) {
	s.Helper()
	s.answers(http.StatusConflict, metav1.StatusReasonConflict, err)
}

func (s *subject) invalid(err error) {
	s.Helper()
	s.answers(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, err)
}

func (s *subject) watch(opts metav1.ListOptions) watch.Interface {
	s.Helper()
	if opts.FieldSelector == "" {
		opts.FieldSelector = "metadata.name=" + s.name
	}
	w, err := s.api.Watch(s.ctx, opts)
	require.NoError(s, err)
	s.Cleanup(w.Stop)
	return w
}

// next asserts the next event of a watch.
func (s *subject) next(w watch.Interface, change watch.EventType) *coordinationv1.Lease {
	s.Helper()
	select {
	case e, open := <-w.ResultChan():
		require.True(s, open, "the watch has closed")
		require.Equal(s, change, e.Type, "%v", e.Object)
		require.IsType(s, &coordinationv1.Lease{}, e.Object)
		return e.Object.(*coordinationv1.Lease)
	case <-s.ctx.Done():
		require.FailNow(s, "no event", "want %s", change)
		return nil
	}
}

// versionOf returns the resourceVersion of a Lease or a list as the number it is.
func versionOf(s *subject, obj interface{ GetResourceVersion() string }) int64 {
	s.Helper()
	v, err := strconv.ParseInt(obj.GetResourceVersion(), 10, 64)
	require.NoError(s, err)
	return v
}
