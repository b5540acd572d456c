package conformance

import (
	"fmt"
	"net/http"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

var writeCases = []testCase{
	{"a PUT with a stale resourceVersion is a conflict", func(s *subject) {
		first := s.post(s.lease("a"))
		s.putHolder(first, "b")
		_, err := s.tryPut(first)
		s.conflict(err)
		require.Equal(s, "b", *s.get().Spec.HolderIdentity)
	}},
	{"a PUT with another UID is a conflict", func(s *subject) {
		lease := s.post(s.lease("a"))
		lease.UID = "11111111-1111-4111-8111-111111111111"
		_, err := s.tryPut(lease)
		s.conflict(err)
	}},
	{"a PUT without a UID is accepted and keeps the UID", func(s *subject) {
		lease := s.post(s.lease("a"))
		changed := lease.DeepCopy()
		changed.UID = ""
		require.Equal(s, lease.UID, s.putHolder(changed, "b").UID)
	}},
	{"a PUT with the version of a deleted namesake is a conflict", func(s *subject) {
		first := s.post(s.lease("a"))
		s.delete()
		s.post(s.lease("b"))
		_, err := s.tryPut(first)
		s.conflict(err)
		first.UID = ""
		_, err = s.tryPut(first)
		s.conflict(err)
	}},
	{"a POST of a name that exists is refused as existing", func(s *subject) {
		s.post(s.lease("a"))
		_, err := s.api.Create(s.ctx, s.lease("b"), metav1.CreateOptions{})
		s.answers(http.StatusConflict, metav1.StatusReasonAlreadyExists, err)
		require.Equal(s, "a", *s.get().Spec.HolderIdentity)
	}},
	{"a POST with a resourceVersion is refused", func(s *subject) {
		lease := s.lease("a")
		lease.ResourceVersion = "7"
		_, err := s.api.Create(s.ctx, lease, metav1.CreateOptions{})
		var status apierrors.APIStatus
		require.ErrorAs(s, err, &status)
		require.EqualValues(s, http.StatusInternalServerError, status.Status().Code)
	}},
	{"a PUT with an empty resourceVersion to a Lease that exists is invalid", func(s *subject) {
		lease := s.post(s.lease("a"))
		lease.ResourceVersion = ""
		_, err := s.tryPut(lease)
		s.invalid(err)
	}},
	{"a PUT to a name that does not exist, with a UID, is a conflict", func(s *subject) {
		lease := s.post(s.lease("a"))
		s.delete()
		_, err := s.tryPut(lease)
		s.conflict(err)
		_, err = s.api.Get(s.ctx, s.name, metav1.GetOptions{})
		s.answers(http.StatusNotFound, metav1.StatusReasonNotFound, err)
	}},
	{"a PUT to a name that does not exist, without a UID, creates it", func(s *subject) {
		require.NotEmpty(s, s.put(s.lease("a")).UID)
	}},
	{"a PUT to a name that does not exist, with a stale version and no UID, creates it", func(s *subject) {
		lease := s.post(s.lease("a"))
		s.delete()
		uid := lease.UID
		lease.UID = ""
		again := s.put(lease)
		require.NotEmpty(s, again.UID)
		require.NotEqual(s, uid, again.UID)
		require.Greater(s, versionOf(s, again), versionOf(s, lease))
	}},
	{"a PUT that changes nothing leaves the resourceVersion as it is", func(s *subject) {
		lease := s.post(s.lease("a"))
		again := s.put(lease)
		require.Equal(s, lease.ResourceVersion, again.ResourceVersion)
		require.Equal(s, lease.ResourceVersion, s.get().ResourceVersion)
	}},
	{"a PUT that changes something raises the resourceVersion", func(s *subject) {
		lease := s.post(s.lease("a"))
		changed := s.putHolder(lease, "b")
		require.Greater(s, versionOf(s, changed), versionOf(s, lease))
		require.Equal(s, changed.ResourceVersion, s.get().ResourceVersion)
	}},
	{"a PUT cannot change UID and creation time", func(s *subject) {
		lease := s.post(s.lease("a"))
		changed := lease.DeepCopy()
		changed.CreationTimestamp = metav1.Unix(1, 0)
		changed = s.putHolder(changed, "b")
		require.Equal(s, lease.UID, changed.UID)
		require.True(s, lease.CreationTimestamp.Equal(&changed.CreationTimestamp))
	}},
	{"a PATCH with a stale resourceVersion is a conflict", func(s *subject) {
		first := s.post(s.lease("a"))
		s.putHolder(first, "b")
		merge := fmt.Sprintf(`{"metadata":{"resourceVersion":%q},"spec":{"holderIdentity":"c"}}`, first.ResourceVersion)
		json := fmt.Sprintf(`[{"op":"replace","path":"/metadata/resourceVersion","value":%q},{"op":"replace","path":"/spec/holderIdentity","value":"c"}]`, first.ResourceVersion)
		for pt, body := range map[types.PatchType]string{types.MergePatchType: merge, types.StrategicMergePatchType: merge, types.JSONPatchType: json} {
			_, err := s.api.Patch(s.ctx, s.name, pt, []byte(body), metav1.PatchOptions{})
			s.conflict(err)
		}
		require.Equal(s, "b", *s.get().Spec.HolderIdentity)
	}},
	{"a PATCH without a resourceVersion is applied to what is there", func(s *subject) {
		lease := s.post(s.lease("a"))
		bodies := map[types.PatchType]string{
			types.MergePatchType:          `{"metadata":{"labels":{"merge":"yes"}}}`,
			types.StrategicMergePatchType: `{"metadata":{"labels":{"strategic":"yes"}}}`,
			types.JSONPatchType:           `[{"op":"replace","path":"/spec/holderIdentity","value":"b"}]`,
		}
		for pt, body := range bodies {
			_, err := s.api.Patch(s.ctx, s.name, pt, []byte(body), metav1.PatchOptions{})
			require.NoError(s, err)
		}
		now := s.get()
		require.Equal(s, map[string]string{"merge": "yes", "strategic": "yes"}, now.Labels)
		require.Equal(s, "b", *now.Spec.HolderIdentity)
		require.Equal(s, lease.UID, now.UID)
	}},
	{"a PATCH that changes nothing leaves the resourceVersion as it is", func(s *subject) {
		lease := s.post(s.lease("a"))
		same, err := s.api.Patch(s.ctx, s.name, types.MergePatchType, []byte(`{"spec":{"holderIdentity":"a"}}`), metav1.PatchOptions{})
		require.NoError(s, err)
		require.Equal(s, lease.ResourceVersion, same.ResourceVersion)
	}},
	{"a GET, PATCH or DELETE of a name that does not exist is not found", func(s *subject) {
		_, err := s.api.Get(s.ctx, s.name, metav1.GetOptions{})
		s.answers(http.StatusNotFound, metav1.StatusReasonNotFound, err)
		_, err = s.api.Patch(s.ctx, s.name, types.MergePatchType, []byte(`{}`), metav1.PatchOptions{})
		s.answers(http.StatusNotFound, metav1.StatusReasonNotFound, err)
		err = s.api.Delete(s.ctx, s.name, metav1.DeleteOptions{})
		s.answers(http.StatusNotFound, metav1.StatusReasonNotFound, err)
	}},
	{"a DELETE with a precondition that does not hold is a conflict", func(s *subject) {
		lease := s.post(s.lease("a"))
		changed := s.putHolder(lease, "b")
		other := types.UID("11111111-1111-4111-8111-111111111111")
		for _, pre := range []*metav1.Preconditions{{UID: &other}, {ResourceVersion: &lease.ResourceVersion}} {
			s.conflict(s.api.Delete(s.ctx, s.name, metav1.DeleteOptions{Preconditions: pre}))
		}
		pre := &metav1.Preconditions{UID: &changed.UID, ResourceVersion: &changed.ResourceVersion}
		require.NoError(s, s.api.Delete(s.ctx, s.name, metav1.DeleteOptions{Preconditions: pre}))
	}},
	{"a dry run changes nothing", func(s *subject) {
		dry := []string{metav1.DryRunAll}
		_, err := s.api.Create(s.ctx, s.lease("a"), metav1.CreateOptions{DryRun: dry})
		require.NoError(s, err)
		lease := s.post(s.lease("a"))
		changed := lease.DeepCopy()
		changed.Spec.LeaseTransitions = ptr.To(int32(7))
		changed, err = s.api.Update(s.ctx, changed, metav1.UpdateOptions{DryRun: dry})
		require.NoError(s, err)
		require.EqualValues(s, 7, *changed.Spec.LeaseTransitions)
		require.NoError(s, s.api.Delete(s.ctx, s.name, metav1.DeleteOptions{DryRun: dry}))
		require.Equal(s, lease.ResourceVersion, s.get().ResourceVersion)
	}},
	{"resourceVersions grow through deletion and across Leases", func(s *subject) {
		first := s.post(s.lease("a"))
		other := s.lease("a")
		other.Name = s.name + "-other"
		second := s.post(other)
		s.delete()
		third := s.post(s.lease("a"))
		require.NoError(s, s.api.Delete(s.ctx, other.Name, metav1.DeleteOptions{}))
		require.Greater(s, versionOf(s, second), versionOf(s, first))
		require.Greater(s, versionOf(s, third), versionOf(s, second)+1, "the deletion has a version of its own")
		require.NotEqual(s, first.UID, third.UID)
	}},
}
