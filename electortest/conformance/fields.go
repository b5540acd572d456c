package conformance

import (
	"net/http"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

var fieldCases = []testCase{
	{"leaseDurationSeconds 0 and leaseTransitions -1 are invalid", func(s *subject) {
		stored := s.post(s.lease("a"))
		for _, spoil := range []func(*coordinationv1.LeaseSpec){
			func(spec *coordinationv1.LeaseSpec) { spec.LeaseDurationSeconds = ptr.To(int32(0)) },
			func(spec *coordinationv1.LeaseSpec) { spec.LeaseDurationSeconds = ptr.To(int32(-1)) },
			func(spec *coordinationv1.LeaseSpec) { spec.LeaseTransitions = ptr.To(int32(-1)) },
		} {
			bad := stored.DeepCopy()
			spoil(&bad.Spec)
			_, err := s.tryPut(bad)
			s.invalid(err)
			bad = s.lease("a")
			bad.Name += "-bad"
			spoil(&bad.Spec)
			_, err = s.api.Create(s.ctx, bad, metav1.CreateOptions{})
			s.invalid(err)
		}
	}},
	{"an empty holder with a duration of 1 is accepted and reads back as empty", func(s *subject) {
		lease := s.post(s.lease("a"))
		lease.Spec.HolderIdentity = ptr.To("")
		lease.Spec.LeaseDurationSeconds = ptr.To(int32(1))
		s.put(lease)
		got := s.get()
		require.NotNil(s, got.Spec.HolderIdentity)
		require.Empty(s, *got.Spec.HolderIdentity)
		require.EqualValues(s, 1, *got.Spec.LeaseDurationSeconds)
	}},
	{"a Lease with an empty spec is accepted", func(s *subject) {
		lease := s.lease("")
		lease.Spec = coordinationv1.LeaseSpec{}
		s.post(lease)
		require.Equal(s, coordinationv1.LeaseSpec{}, s.get().Spec)
	}},
	{"strategy and preferredHolder are dropped without a word", func(s *subject) {
		lease := s.lease("a")
		lease.Spec.Strategy = ptr.To(coordinationv1.OldestEmulationVersion)
		lease.Spec.PreferredHolder = ptr.To("b")
		for _, stored := range []*coordinationv1.Lease{s.post(lease), s.get()} {
			require.Nil(s, stored.Spec.Strategy)
			require.Nil(s, stored.Spec.PreferredHolder)
		}
		again := s.get()
		again.Spec.Strategy, again.Spec.PreferredHolder = lease.Spec.Strategy, lease.Spec.PreferredHolder
		after := s.put(again)
		require.Nil(s, after.Spec.Strategy)
		require.Nil(s, after.Spec.PreferredHolder)
		require.Equal(s, again.ResourceVersion, after.ResourceVersion, "nothing is left to change")
	}},
	{"times are kept to the microsecond", func(s *subject) {
		lease := s.lease("a")
		sent := metav1.NewMicroTime(time.Unix(1700000000, 123456789))
		lease.Spec.RenewTime = &sent
		s.post(lease)
		require.EqualValues(s, 123456000, s.get().Spec.RenewTime.Nanosecond())
		require.Equal(s, sent.Unix(), s.get().Spec.RenewTime.Unix())
	}},
	{"a new Lease has a UID, a creation time, and no generation", func(s *subject) {
		lease := s.lease("a")
		lease.UID = "11111111-1111-4111-8111-111111111111"
		lease.CreationTimestamp = metav1.Unix(1, 0)
		created := s.post(lease)
		require.NotEmpty(s, created.UID)
		require.NotEqual(s, lease.UID, created.UID)
		require.WithinDuration(s, time.Now(), created.CreationTimestamp.Time, time.Minute)
		require.Zero(s, created.Generation)
	}},
	{"labels, annotations and owners are kept", func(s *subject) {
		lease := s.lease("a")
		lease.Labels = map[string]string{"app": "x"}
		lease.Annotations = map[string]string{"example.com/note": "y"}
		lease.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "z", UID: "22222222-2222-4222-8222-222222222222"}}
		s.post(lease)
		got := s.get()
		require.Equal(s, lease.Labels, got.Labels)
		require.Equal(s, lease.Annotations, got.Annotations)
		require.Equal(s, lease.OwnerReferences, got.OwnerReferences)
	}},
	{"names and labels that are not valid are refused as invalid", func(s *subject) {
		for _, name := range []string{"Upper", "under_score", "-dash", strings.Repeat("a", 254), ""} {
			lease := s.lease("a")
			lease.Name = name
			_, err := s.api.Create(s.ctx, lease, metav1.CreateOptions{})
			s.invalid(err)
		}
		lease := s.lease("a")
		lease.Labels = map[string]string{"not a label": ""}
		_, err := s.api.Create(s.ctx, lease, metav1.CreateOptions{})
		s.invalid(err)
	}},
	{"an object of another namespace than the request's is a bad request", func(s *subject) {
		lease := s.lease("a")
		lease.Namespace = "elsewhere"
		_, err := s.api.Create(s.ctx, lease, metav1.CreateOptions{})
		s.answers(http.StatusBadRequest, metav1.StatusReasonBadRequest, err)
	}},
	{"a list selects by name and by label", func(s *subject) {
		lease := s.lease("a")
		lease.Labels = map[string]string{"conformance": s.name}
		lease = s.post(lease)
		for selector, want := range map[metav1.ListOptions]int{
			{FieldSelector: "metadata.name=" + s.name}:                                          1,
			{LabelSelector: "conformance=" + s.name}:                                            1,
			{LabelSelector: "conformance=none"}:                                                 0,
			{FieldSelector: "metadata.name=" + s.name, LabelSelector: "!conformance"}:           0,
			{FieldSelector: "metadata.name=" + s.name + ",metadata.namespace=conformance-none"}: 0,
		} {
			list, err := s.api.List(s.ctx, selector)
			require.NoError(s, err)
			require.Len(s, list.Items, want, "%+v", selector)
			require.GreaterOrEqual(s, versionOf(s, list), versionOf(s, lease))
		}
		_, err := s.api.List(s.ctx, metav1.ListOptions{FieldSelector: "spec.holderIdentity=a"})
		s.answers(http.StatusBadRequest, metav1.StatusReasonBadRequest, err)
	}},
}
