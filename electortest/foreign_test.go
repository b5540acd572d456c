package electortest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	. "github.com/elector-go/elector/electortest"
)

func TestOnPlaysAFaultOnItsVerbsOnly(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		a := s.Client("a")
		a.Intercept(On(Fault{Err: Forbidden("create")}, "create", "update"))
		_, err := create(t.Context(), a, "a")
		require.True(t, apierrors.IsForbidden(err), "%v", err)
		_, err = get(t.Context(), a)
		require.True(t, apierrors.IsNotFound(err), "%v", err)
		a.Intercept(On(Fault{Err: InternalError()}))
		_, err = get(t.Context(), a)
		require.True(t, apierrors.IsInternalError(err), "%v", err)
	})
	require.PanicsWithValue(t,
		`electortest: On: verb "put" is not one of ["get" "list" "watch" "create" "update" "patch" "delete" "deletecollection"]`,
		func() { On(Fault{}, "put") })
}

func TestAnAnswerOfTheTestsOwnReplacesTheServers(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		a := s.Client("a")
		_, err := get(t.Context(), a)
		require.True(t, apierrors.IsNotFound(err))
		a.Intercept(On(Fault{Answer: &coordinationv1.Lease{}}))
		_, err = get(t.Context(), a)
		require.True(t, apierrors.IsNotFound(err), "errors stay")
		answer, err := create(t.Context(), a, "a")
		require.NoError(t, err)
		require.Equal(t, &coordinationv1.Lease{}, answer)
		require.True(t, exists(t, s), "the server acts all the same")
		answer, err = get(t.Context(), a)
		require.NoError(t, err)
		require.Equal(t, &coordinationv1.Lease{}, answer)
	})
}

func TestNoWatchIsANilWatchWithoutAnError(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		a := s.Client("a")
		a.Intercept(On(Fault{NoWatch: true}))
		w, err := a.CoordinationV1().Leases("ns").Watch(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		require.True(t, w == nil, "%#v", w)
		expectOpen(t, s, 0, 0)
	})
}

func TestEndWatchEndsAWatchWhateverTimeItAskedFor(t *testing.T) {
	for name, opts := range map[string]metav1.ListOptions{
		"its own time": {TimeoutSeconds: ptr.To(int64(60))},
		"no time":      {},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Server) {
				s.SetWatchLifetime(0, 0)
				a := s.Client("a")
				a.Intercept(On(Fault{EndWatch: 300 * time.Millisecond}))
				w := startWatch(t, t.Context(), a, opts)
				a.Intercept(On(Fault{EndWatch: time.Hour}))
				long := startWatch(t, t.Context(), a, metav1.ListOptions{TimeoutSeconds: ptr.To(int64(7))})
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				require.Equal(t, 300*time.Millisecond, w.closed)
				require.Equal(t, 7*time.Second, long.closed, "it does not lengthen a watch")
			})
		})
	}
}

func TestAdmissionChangesAndRefusesWrites(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		var asked []string
		s.SetAdmission(func(req Request, lease *coordinationv1.Lease) error {
			asked = append(asked, req.Client+" "+req.Verb)
			_, _ = get(t.Context(), s.Client("observer")) // it may use the server
			if *lease.Spec.HolderIdentity == "refused" {
				return DeniedByPolicy("no such holder")
			}
			if *lease.Spec.LeaseDurationSeconds < 60 {
				*lease.Spec.LeaseDurationSeconds = 60
			}
			return nil
		})
		api := s.Client("a").CoordinationV1().Leases("ns")
		stored := mustCreate(t, s.Client("a"), "a")
		require.EqualValues(t, 60, *stored.Spec.LeaseDurationSeconds)
		changed := stored.DeepCopy()
		changed.Spec.LeaseDurationSeconds = ptr.To(int32(1))
		stored = mustPut(t, s.Client("a"), changed, "b")
		require.EqualValues(t, 60, *stored.Spec.LeaseDurationSeconds)
		require.EqualValues(t, 1, *changed.Spec.LeaseDurationSeconds, "the caller's object is its own")
		stored, err := api.Patch(t.Context(), "lease", types.MergePatchType, []byte(`{"spec":{"leaseDurationSeconds":2}}`), metav1.PatchOptions{})
		require.NoError(t, err)
		require.EqualValues(t, 60, *stored.Spec.LeaseDurationSeconds)

		stored.Spec.HolderIdentity = ptr.To("refused")
		answer, err := api.Update(t.Context(), stored, metav1.UpdateOptions{})
		require.True(t, apierrors.IsInvalid(err), "%v", err)
		require.Equal(t, &coordinationv1.Lease{}, answer)
		now, err := get(t.Context(), s.Client("observer"))
		require.NoError(t, err)
		require.Equal(t, "b", *now.Spec.HolderIdentity)
		require.NoError(t, api.Delete(t.Context(), "lease", metav1.DeleteOptions{}))
		require.Equal(t, []string{"a create", "a update", "a patch", "a update"}, asked)

		s.SetAdmission(nil)
		require.EqualValues(t, 15, *mustCreate(t, s.Client("a"), "a").Spec.LeaseDurationSeconds)
	})
}

func TestAPatchThatOthersOvertakeIsAppliedToWhatIsThereThen(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		mustCreate(t, s.Client("a"), "a")
		overtaken := false
		s.SetAdmission(func(req Request, lease *coordinationv1.Lease) error {
			if req.Client == "a" && !overtaken {
				overtaken = true
				return s.Edit("ns", "lease", func(l *coordinationv1.Lease) { l.Spec.LeaseTransitions = ptr.To(int32(7)) })
			}
			return nil
		})
		stored, err := s.Client("a").CoordinationV1().Leases("ns").Patch(t.Context(), "lease", types.MergePatchType, []byte(`{"spec":{"holderIdentity":"b"}}`), metav1.PatchOptions{})
		require.NoError(t, err)
		require.Equal(t, "b", *stored.Spec.HolderIdentity)
		require.EqualValues(t, 7, *stored.Spec.LeaseTransitions)
	})
}

func TestAnEditIsAWriteOfSomebodyElse(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		a := s.Client("a")
		first := mustCreate(t, a, "a")
		w := startWatch(t, t.Context(), a, metav1.ListOptions{ResourceVersion: first.ResourceVersion})
		first.Spec.RenewTime = ptr.To(metav1.NewMicroTime(time.UnixMicro(1_700_000_000_123_456)))
		second := mustPut(t, a, first, "b")
		require.NoError(t, s.Edit("ns", "lease", CutTimes))
		cut, err := get(t.Context(), a)
		require.NoError(t, err)
		require.EqualValues(t, 123_000_000, cut.Spec.RenewTime.Nanosecond())
		require.Nil(t, cut.Spec.AcquireTime)
		_, err = a.CoordinationV1().Leases("ns").Update(t.Context(), second, metav1.UpdateOptions{})
		require.True(t, apierrors.IsConflict(err), "%v", err)

		require.NoError(t, s.Edit("ns", "lease", func(l *coordinationv1.Lease) { l.Spec = first.Spec }))
		w.expect(t, "b@0s", "b@0s", "a@0s")
		require.ErrorContains(t, s.Edit("ns", "lease", func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = ptr.To(int32(0)) }), "leaseDurationSeconds")
		require.True(t, apierrors.IsNotFound(s.Edit("ns", "none", CutTimes)))
	})
}

func TestARestoreGoesBackToTheSnapshotAndEndsWatches(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		a, b := s.Client("a"), s.Client("b")
		first := mustCreate(t, a, "a")
		snapshot := s.Snapshot()
		second := mustPut(t, a, first, "b")
		w := startWatch(t, t.Context(), b, metav1.ListOptions{ResourceVersion: second.ResourceVersion})
		silent := s.Client("silent")
		silent.SilenceWatches(true)
		quiet := startWatch(t, t.Context(), silent, metav1.ListOptions{})
		require.NoError(t, a.CoordinationV1().Leases("ns").Delete(t.Context(), "lease", metav1.DeleteOptions{}))
		time.Sleep(time.Second)

		s.Restore(snapshot)
		got, err := get(t.Context(), a)
		require.NoError(t, err)
		require.Equal(t, first, got)
		synctest.Wait()
		require.Equal(t, time.Second, w.closed)
		require.Equal(t, time.Second, quiet.closed)

		_, err = a.CoordinationV1().Leases("ns").Get(t.Context(), "lease", metav1.GetOptions{ResourceVersion: second.ResourceVersion})
		require.True(t, apierrors.IsTimeout(err), "%v", err)
		future := startWatch(t, t.Context(), b, metav1.ListOptions{ResourceVersion: second.ResourceVersion})
		again := mustPut(t, a, got, "again")
		require.Equal(t, second.ResourceVersion, again.ResourceVersion, "it is given out a second time")
		mustPut(t, a, again, "later")
		future.expect(t, "later@0s") // a watch from the future sees nothing up to there

		s.Restore(snapshot)
		got, err = get(t.Context(), a)
		require.NoError(t, err)
		require.Equal(t, first, got, "a snapshot can be restored again")
		require.Panics(t, func() { NewServer().Restore(snapshot) })
	})
}

func TestALaggingWatchIsLateFromItsFirstEventOn(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		a, other := s.Client("a"), s.Client("other")
		a.SetWatchLag(5 * time.Second)
		before := startWatch(t, t.Context(), a, metav1.ListOptions{})
		l := mustCreate(t, other, "1")
		time.Sleep(3 * time.Second)
		l = mustPut(t, other, l, "2")
		time.Sleep(3 * time.Second)
		l = mustPut(t, other, l, "3")
		opened := startWatch(t, t.Context(), a, metav1.ListOptions{}) // at 6 s: begins with what there was at 1 s
		got, err := get(t.Context(), a)
		require.NoError(t, err)
		require.Equal(t, "3", *got.Spec.HolderIdentity, "other requests are not late")
		opened.expect(t, "1@0s")
		time.Sleep(time.Minute)
		before.expect(t, "1@5s", "2@8s", "3@11s")
		opened.expect(t, "1@0s", "2@2s", "3@5s")

		mustPut(t, other, l, "4")
		time.Sleep(time.Second)
		a.CloseWatches()
		synctest.Wait()
		before.expect(t, "1@5s", "2@8s", "3@11s") // what was not sent yet is not sent any more
		require.Equal(t, 67*time.Second, before.closed)
	})
}

func TestALaggingWatchThatOpensDoesNotKnowWhatIsNew(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		a, other := s.Client("a"), s.Client("other")
		a.SetWatchLag(5 * time.Second)
		mustCreate(t, other, "1")
		time.Sleep(time.Minute)
		require.NoError(t, other.CoordinationV1().Leases("ns").Delete(t.Context(), "lease", metav1.DeleteOptions{}))
		mustCreate(t, other, "2")
		w := startWatch(t, t.Context(), a, metav1.ListOptions{})
		w.expect(t, "1@0s") // deleted since, but not for the watch cache
		time.Sleep(5 * time.Second)
		w.expect(t, "1@0s", "1@5s", "2@5s")
	})
}
