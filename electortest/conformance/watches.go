package conformance

import (
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
)

var watchCases = []testCase{
	{"a watch by name sees this Lease added, modified and deleted, and no other", func(s *subject) {
		w := s.watch(metav1.ListOptions{})
		other := s.lease("a")
		other.Name = s.name + "-other"
		s.post(other)
		require.NoError(s, s.api.Delete(s.ctx, other.Name, metav1.DeleteOptions{}))

		created := s.post(s.lease("a"))
		require.Equal(s, created.ResourceVersion, s.next(w, watch.Added).ResourceVersion)
		changed := s.putHolder(created, "b")
		event := s.next(w, watch.Modified)
		require.Equal(s, changed.ResourceVersion, event.ResourceVersion)
		require.Equal(s, "b", *event.Spec.HolderIdentity)
		s.delete()
		gone := s.next(w, watch.Deleted)
		require.Greater(s, versionOf(s, gone), versionOf(s, changed), "the deletion has a version of its own")
		require.Equal(s, "b", *gone.Spec.HolderIdentity)
		require.Equal(s, created.UID, gone.UID)
		again := s.post(s.lease("c"))
		require.Greater(s, versionOf(s, again), versionOf(s, gone))
		require.Equal(s, again.UID, s.next(w, watch.Added).UID)
	}},
	{"a watch without a resourceVersion, or with 0, begins with what is there", func(s *subject) {
		lease := s.post(s.lease("a"))
		for _, from := range []string{"", "0"} {
			w := s.watch(metav1.ListOptions{ResourceVersion: from})
			require.Equal(s, lease.ResourceVersion, s.next(w, watch.Added).ResourceVersion)
			lease = s.putHolder(lease, "after "+from)
			require.Equal(s, lease.ResourceVersion, s.next(w, watch.Modified).ResourceVersion)
		}
	}},
	{"a watch from a resourceVersion sees what has happened since", func(s *subject) {
		first := s.post(s.lease("a"))
		second := s.putHolder(first, "b")
		s.delete()
		third := s.post(s.lease("c"))
		w := s.watch(metav1.ListOptions{ResourceVersion: first.ResourceVersion})
		require.Equal(s, second.ResourceVersion, s.next(w, watch.Modified).ResourceVersion)
		gone := s.next(w, watch.Deleted)
		require.Greater(s, versionOf(s, gone), versionOf(s, second))
		require.Equal(s, third.ResourceVersion, s.next(w, watch.Added).ResourceVersion)
	}},
	{"a watch can start at the resourceVersion of a list", func(s *subject) {
		lease := s.post(s.lease("a"))
		list, err := s.api.List(s.ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + s.name})
		require.NoError(s, err)
		w := s.watch(metav1.ListOptions{ResourceVersion: list.ResourceVersion})
		changed := s.putHolder(lease, "b")
		require.Equal(s, changed.ResourceVersion, s.next(w, watch.Modified).ResourceVersion)
	}},
	{"a write that changes nothing makes no event", func(s *subject) {
		lease := s.post(s.lease("a"))
		w := s.watch(metav1.ListOptions{ResourceVersion: lease.ResourceVersion})
		s.put(lease)
		changed := s.putHolder(lease, "b")
		require.Equal(s, changed.ResourceVersion, s.next(w, watch.Modified).ResourceVersion)
	}},
	{"a watch by label sees a Lease come and go with its label", func(s *subject) {
		with := func(lease *coordinationv1.Lease, value string) *coordinationv1.Lease {
			lease = lease.DeepCopy()
			lease.Labels = map[string]string{"conformance": value}
			return lease
		}
		w := s.watch(metav1.ListOptions{LabelSelector: "conformance=" + s.name})
		lease := s.post(with(s.lease("a"), "out"))
		lease = s.put(with(lease, s.name))
		require.Equal(s, lease.ResourceVersion, s.next(w, watch.Added).ResourceVersion)
		lease = s.put(with(lease, "out"))
		gone := s.next(w, watch.Deleted)
		require.Equal(s, lease.ResourceVersion, gone.ResourceVersion)
		require.Equal(s, s.name, gone.Labels["conformance"])
	}},
	{"a watch closes by itself after its time", func(s *subject) {
		began := time.Now()
		w := s.watch(metav1.ListOptions{TimeoutSeconds: ptr.To(int64(1))})
		select {
		case e, open := <-w.ResultChan():
			require.False(s, open, "%v", e)
		case <-s.ctx.Done():
			require.FailNow(s, "the watch is still open")
		}
		require.Greater(s, time.Since(began), 900*time.Millisecond)
	}},
	{"a watch closes when it is stopped", func(s *subject) {
		w := s.watch(metav1.ListOptions{})
		w.Stop()
		w.Stop()
		for range w.ResultChan() {
		}
	}},
}
