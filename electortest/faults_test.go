package electortest_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	. "github.com/elector-go/elector/electortest"
)

// bubble runs f in virtual time against a Server.
func bubble(t *testing.T, f func(t *testing.T, s *Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer()
		defer s.Close()
		f(t, s)
	})
}

func lease(holder string) *coordinationv1.Lease {
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "lease", Namespace: "ns"},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: ptr.To(int32(15))},
	}
}

func create(ctx context.Context, c kubernetes.Interface, holder string) (*coordinationv1.Lease, error) {
	return c.CoordinationV1().Leases("ns").Create(ctx, lease(holder), metav1.CreateOptions{})
}

func get(ctx context.Context, c kubernetes.Interface) (*coordinationv1.Lease, error) {
	return c.CoordinationV1().Leases("ns").Get(ctx, "lease", metav1.GetOptions{})
}

func mustCreate(t *testing.T, c kubernetes.Interface, holder string) *coordinationv1.Lease {
	t.Helper()
	l, err := create(t.Context(), c, holder)
	require.NoError(t, err)
	return l
}

func mustPut(t *testing.T, c kubernetes.Interface, l *coordinationv1.Lease, holder string) *coordinationv1.Lease {
	t.Helper()
	l = l.DeepCopy()
	l.Spec.HolderIdentity = &holder
	l, err := c.CoordinationV1().Leases("ns").Update(t.Context(), l, metav1.UpdateOptions{})
	require.NoError(t, err)
	return l
}

// always is an Intercept function: the same fault for every request.
func always(f Fault) func(Request) Fault { return func(Request) Fault { return f } }

// exists asks over a healthy link.
func exists(t *testing.T, s *Server) bool {
	t.Helper()
	_, err := get(t.Context(), s.Client("observer"))
	if err != nil {
		require.True(t, apierrors.IsNotFound(err), "%v", err)
	}
	return err == nil
}

func TestHalfOfTheLatencyPassesBeforeTheServerActs(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		a, began := s.Client("a"), time.Now()
		a.SetLatency(100 * time.Millisecond)
		go mustCreate(t, a, "a")
		time.Sleep(49 * time.Millisecond)
		require.False(t, exists(t, s))
		time.Sleep(2 * time.Millisecond)
		require.True(t, exists(t, s))
		_, err := get(t.Context(), a)
		require.NoError(t, err)
		require.Equal(t, 151*time.Millisecond, time.Since(began))
	})
}

func TestDelaysBeforeAndAfterTheServerActs(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		a, began := s.Client("a"), time.Now()
		a.Intercept(always(Fault{Before: 2 * time.Second, After: 3 * time.Second}))
		go func() {
			time.Sleep(2*time.Second - 1)
			require.False(t, exists(t, s))
			time.Sleep(2 * time.Nanosecond)
			require.True(t, exists(t, s))
		}()
		mustCreate(t, a, "a")
		require.Equal(t, 5*time.Second, time.Since(began))
	})
}

func TestALostRequestNeverReachesTheServerAndHangsUntilItsContextEnds(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		a, began := s.Client("a"), time.Now()
		a.Intercept(always(Fault{LoseRequest: true}))
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		_, err := create(ctx, a, "a")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 7*time.Second, time.Since(began))
		require.False(t, exists(t, s))
		require.Equal(t, 1, s.Requests("a", "create"), "it was sent")
	})
}

func TestALostReplyHangsAfterTheServerHasActed(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		a := s.Client("a")
		a.Intercept(always(Fault{LoseReply: true}))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := create(ctx, a, "a")
		require.ErrorIs(t, err, context.Canceled)
		require.True(t, exists(t, s))
	})
}

func TestAWriteUnderWayReachesTheServerThoughItsCallerHasGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		a := s.Client("a")
		a.Intercept(always(Fault{Before: 5 * time.Second}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := create(ctx, a, "a")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.False(t, exists(t, s))
		time.Sleep(3999 * time.Millisecond)
		require.False(t, exists(t, s))
		time.Sleep(2 * time.Millisecond)
		require.True(t, exists(t, s))
	})
}

func TestAHungClientDoesNotReturnWhenItsContextEnds(t *testing.T) {
	for name, fault := range map[string]Fault{
		"delayed before": {IgnoreContext: true, Before: 20 * time.Second},
		"delayed after":  {IgnoreContext: true, After: 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Server) {
				a, began := s.Client("a"), time.Now()
				a.Intercept(always(fault))
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := create(ctx, a, "a")
				require.NoError(t, err)
				require.Equal(t, 20*time.Second, time.Since(began))
			})
		})
	}
}

func TestALostCallThatIgnoresItsContextReturnsWhenTheServerIsClosed(t *testing.T) {
	for name, fault := range map[string]Fault{
		"request": {IgnoreContext: true, LoseRequest: true},
		"reply":   {IgnoreContext: true, LoseReply: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Server) {
				a, began := s.Client("a"), time.Now()
				a.Intercept(always(fault))
				time.AfterFunc(time.Hour, s.Close)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := create(ctx, a, "a")
				require.ErrorContains(t, err, "closed")
				require.NotErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, time.Hour, time.Since(began))
			})
		})
	}
}

func TestAnErrorIsAnsweredInsteadOfActing(t *testing.T) {
	tests := map[string]struct {
		err    error
		code   int32
		reason metav1.StatusReason
		retry  int
	}{
		"forbidden":         {Forbidden("create"), 403, metav1.StatusReasonForbidden, 0},
		"unauthorized":      {Unauthorized(), 401, metav1.StatusReasonUnauthorized, 0},
		"not found":         {NotFound(), 404, metav1.StatusReasonNotFound, 0},
		"already exists":    {AlreadyExists(), 409, metav1.StatusReasonAlreadyExists, 0},
		"conflict":          {Conflict(), 409, metav1.StatusReasonConflict, 0},
		"too many requests": {TooManyRequests(1500 * time.Millisecond), 429, metav1.StatusReasonTooManyRequests, 2},
		"internal error":    {InternalError(), 500, metav1.StatusReasonInternalError, 0},
		"unavailable":       {Unavailable(), 503, metav1.StatusReasonServiceUnavailable, 0},
		"timeout":           {Timeout(), 504, metav1.StatusReasonTimeout, 0},
		"policy":            {DeniedByPolicy("no"), 422, metav1.StatusReasonInvalid, 0},
		"webhook":           {DeniedByWebhook("no"), 403, metav1.StatusReasonForbidden, 0},
		"quota":             {QuotaExceeded(), 403, metav1.StatusReasonForbidden, 0},
		"terminating":       {NamespaceTerminating(), 403, metav1.StatusReasonForbidden, 0},
		"retry unavailable": {WithRetryAfter(Unavailable(), 2500*time.Millisecond), 503, metav1.StatusReasonServiceUnavailable, 3},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Server) {
				a, began := s.Client("a"), time.Now()
				a.Intercept(always(Fault{Err: tt.err, Before: time.Second, After: time.Second}))
				_, err := create(t.Context(), a, "a")
				require.Equal(t, 2*time.Second, time.Since(began))
				var status apierrors.APIStatus
				require.ErrorAs(t, err, &status)
				require.Equal(t, tt.code, status.Status().Code)
				require.Equal(t, tt.reason, status.Status().Reason)
				seconds, ok := apierrors.SuggestsClientDelay(err)
				require.Equal(t, tt.retry > 0, ok)
				require.Equal(t, tt.retry, seconds)
				require.False(t, exists(t, s))
			})
		})
	}
}

func TestAPartitionLosesWhatIsSentWhileItLasts(t *testing.T) {
	for name, tt := range map[string]struct {
		partition Partition
		acted     bool
	}{
		"outbound": {Outbound, false},
		"inbound":  {Inbound, true},
		"both":     {Both, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Server) {
				a := s.Client("a")
				a.Partition(tt.partition)
				time.AfterFunc(time.Second, func() { a.Partition(NoPartition) })
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				_, err := create(ctx, a, "a")
				require.ErrorIs(t, err, context.DeadlineExceeded, "what is lost stays lost after the partition")
				require.Equal(t, tt.acted, exists(t, s))
				_, err = get(t.Context(), a)
				require.Equal(t, tt.acted, err == nil, "the link is healed")
			})
		})
	}
}

func TestAPartitionLosesWhatIsUnderWay(t *testing.T) {
	for name, tt := range map[string]struct {
		cutAt time.Duration
		acted bool
	}{
		"the request":        {500 * time.Millisecond, false},
		"the reply":          {1500 * time.Millisecond, true},
		"nothing, too late.": {2500 * time.Millisecond, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Server) {
				a := s.Client("a")
				a.SetLatency(2 * time.Second)
				time.AfterFunc(tt.cutAt, func() { a.Partition(Both) })
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				_, err := create(ctx, a, "a")
				require.Equal(t, tt.cutAt > 2*time.Second, err == nil)
				require.Equal(t, tt.acted, exists(t, s))
			})
		})
	}
}

func TestFaultsOfOneClientLeaveTheOthersAlone(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		s.Client("a").Partition(Both)
		s.Client("a").ForbidWatch(true)
		s.Client("a").SetLatency(time.Hour)
		s.Client("a").Intercept(always(Fault{Err: InternalError()}))
		began := time.Now()
		mustCreate(t, s.Client("b"), "b")
		require.Zero(t, time.Since(began))
	})
}

func TestInterceptSeesEachRequestAndMayUseTheServer(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		a := s.Client("a")
		var seen []Request
		a.Intercept(func(r Request) Fault {
			seen = append(seen, r)
			if r.Lease != nil {
				*r.Lease.Spec.HolderIdentity = "spoilt"
			}
			require.Equal(t, len(seen), s.Requests("a", ""), "the request is counted already")
			_, _ = get(t.Context(), s.Client("b"))
			return Fault{}
		})
		stored := mustCreate(t, a, "me")
		require.Equal(t, "me", *stored.Spec.HolderIdentity, "the request has a copy")
		_, err := get(t.Context(), a)
		require.NoError(t, err)
		w, err := a.CoordinationV1().Leases("ns").Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=lease"})
		require.NoError(t, err)
		w.Stop()
		for i, want := range []string{"create", "get", "watch"} {
			require.Equal(t, want, seen[i].Verb)
			require.Equal(t, "a", seen[i].Client)
			require.Equal(t, "ns", seen[i].Namespace)
			require.Equal(t, "lease", seen[i].Name)
			require.Equal(t, want == "create", seen[i].Lease != nil)
		}
		a.Intercept(nil)
		_, err = get(t.Context(), a)
		require.NoError(t, err)
		require.Len(t, seen, 3)
	})
}

func TestRequestsAreCountedByClientAndVerb(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		a, b := s.Client("a"), s.Client("b")
		l := mustCreate(t, a, "a")
		l = mustPut(t, b, l, "b")
		mustPut(t, b, l, "c")
		api := a.CoordinationV1().Leases("ns")
		_, err := api.Patch(t.Context(), "lease", types.MergePatchType, []byte(`{}`), metav1.PatchOptions{})
		require.NoError(t, err)
		_, err = api.List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		require.NoError(t, api.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}))
		require.Error(t, api.Delete(t.Context(), "lease", metav1.DeleteOptions{}))
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = get(ended, a)
		require.ErrorIs(t, err, context.Canceled)

		for verb, want := range map[string]int{"create": 1, "patch": 1, "list": 1, "deletecollection": 1, "delete": 1, "update": 0, "get": 0} {
			require.Equal(t, want, s.Requests("a", verb), verb)
		}
		require.Equal(t, 5, s.Requests("a", ""))
		require.Equal(t, 2, s.Requests("", "update"))
		require.Equal(t, 7, s.Requests("", ""))
		s.ResetRequests()
		require.Zero(t, s.Requests("", ""))
	})
}

func TestAfterCloseNothingListens(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		s.Close()
		s.Close()
		_, err := create(t.Context(), s.Client("a"), "a")
		require.ErrorContains(t, err, "refused")
		var status apierrors.APIStatus
		require.False(t, errors.As(err, &status))
	})
}

func TestOtherResourcesAreClientGosFakesAndShared(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		require.Same(t, s.Client("a"), s.Client("a"))
		var a, b kubernetes.Interface = s.Client("a"), s.Client("b")
		s.Client("b").Partition(Both)
		_, err := a.CoreV1().Pods("ns").Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "pod"}}, metav1.CreateOptions{})
		require.NoError(t, err)
		_, err = b.CoreV1().Pods("ns").Get(t.Context(), "pod", metav1.GetOptions{})
		require.NoError(t, err)
	})
}

func TestWithCoordinatedLeaderElectionStrategyAndPreferredHolderAreKept(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		api := s.Client("a").CoordinationV1().Leases("ns")
		l := lease("a")
		l.Spec.Strategy, l.Spec.PreferredHolder = ptr.To(coordinationv1.OldestEmulationVersion), ptr.To("b")
		s.SetCoordinatedLeaderElection(true)
		stored, err := api.Create(t.Context(), l, metav1.CreateOptions{})
		require.NoError(t, err)
		require.Equal(t, l.Spec, stored.Spec)

		s.SetCoordinatedLeaderElection(false)
		stored = mustPut(t, s.Client("a"), stored, "c")
		require.NotNil(t, stored.Spec.Strategy, "what is in use is kept")

		s.SetCoordinatedLeaderElection(true)
		for _, bad := range []coordinationv1.LeaseSpec{
			{PreferredHolder: ptr.To("b")},
			{Strategy: ptr.To(coordinationv1.CoordinatedLeaseStrategy("Unknown"))},
			{Strategy: ptr.To(coordinationv1.CoordinatedLeaseStrategy("not ok/x"))},
		} {
			wrong := stored.DeepCopy()
			wrong.Spec = bad
			_, err = api.Update(t.Context(), wrong, metav1.UpdateOptions{})
			require.True(t, apierrors.IsInvalid(err), "%v", err)
		}
	})
}

func TestApplyIsNotSupported(t *testing.T) {
	bubble(t, func(t *testing.T, s *Server) {
		_, err := s.Client("a").CoordinationV1().Leases("ns").Patch(t.Context(), "lease", types.ApplyPatchType, []byte(`{}`), metav1.PatchOptions{})
		var status apierrors.APIStatus
		require.ErrorAs(t, err, &status)
		require.EqualValues(t, http.StatusMethodNotAllowed, status.Status().Code)
	})
}
