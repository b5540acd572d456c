package elector_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector/electortest"
)

// S3, S5, S8: other clients and policies that rewrite the Lease, and servers that go back in time.

func TestAClientThatCutsTheTimesToMillisecondsCostsNoTerm(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		w.join("b")
		for range 10 {
			time.Sleep(7 * time.Second)
			w.kubectl(func(l *coordinationv1.Lease) {
				l.Labels = map[string]string{"by": "javascript"}
				electortest.CutTimes(l)
			})
			w.pass(50 * time.Millisecond)
			assert.NotZero(w, w.lease().Spec.AcquireTime.UnixMicro()%1000, "put right at once")
		}
		w.oneTerm()
		assert.Zero(w, count(a.log(), "identity is used"))
		assert.Zero(w, count(a.log(), "Another process"))
	})
}

func TestAnOlderStateOfItsOwnTermCostsALeaderNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		w.awaitLeader(time.Second)
		w.join("b")
		time.Sleep(time.Second)
		old := w.lease().Spec
		for range 3 {
			time.Sleep(20 * time.Second)
			w.kubectl(func(l *coordinationv1.Lease) { l.Spec = *old.DeepCopy() })
		}
		time.Sleep(time.Minute)
		w.oneTerm()
	})
}

func TestALeadersNameWithoutTimesIsPutRight(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		w.awaitLeader(time.Second)
		w.join("b")
		for range 3 {
			time.Sleep(20 * time.Second)
			w.kubectl(func(l *coordinationv1.Lease) { l.Spec.AcquireTime, l.Spec.RenewTime = nil, nil })
			w.pass(50 * time.Millisecond)
			assert.NotNil(w, w.lease().Spec.AcquireTime)
		}
		w.oneTerm()
	})
}

func TestOtherTimesUnderALeadersNameAreAnotherProcesss(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		w.awaitLeader(time.Second)
		time.Sleep(time.Second)
		w.kubectl(func(l *coordinationv1.Lease) {
			now := metav1.NowMicro()
			l.Spec.AcquireTime, l.Spec.RenewTime = &now, &now
		})
		w.within(50*time.Millisecond, "the term ends", func() bool { return w.leader() == nil })
		assert.Equal(w, "duplicate identity", reason(w.last().cause))
	})
}

// raising has every write raised to a LeaseDuration of at least seconds, as by an admission policy.
func (w *world) raising(seconds int32) {
	w.api.SetAdmission(func(_ electortest.Request, l *coordinationv1.Lease) error {
		if d := l.Spec.LeaseDurationSeconds; d != nil && *d < seconds {
			l.Spec.LeaseDurationSeconds = ptr.To(seconds)
		}
		return nil
	})
}

func TestAReleaseThatAPolicyMakesLongerIsDone(t *testing.T) {
	for _, seconds := range []int32{2, 10, 60} {
		inWorld(t, func(w *world) {
			w.raising(seconds)
			a := w.join("a")
			w.awaitLeader(time.Second)
			w.join("b")
			time.Sleep(30 * time.Second)
			before := w.api.Requests("a", "update")
			stopped := time.Now()
			a.stop()
			require.NoError(w, a.awaitEnd(time.Second))
			assert.LessOrEqual(w, w.api.Requests("a", "update")-before, 3)
			w.awaitLeader(time.Duration(seconds)*time.Second+100*time.Millisecond, a)
			assert.GreaterOrEqual(w, time.Since(stopped), time.Duration(seconds)*time.Second, "the record says so")
			assert.Equal(w, 1, count(a.log(), "the API server has changed the release"))
		})
	}
}

func TestAReleaseThatIsRefusedForGoodIsTriedBriefly(t *testing.T) {
	for _, refusal := range []error{electortest.Forbidden("update"), electortest.DeniedByPolicy("no"), electortest.DeniedByWebhook("no")} {
		inWorld(t, func(w *world) {
			a := w.join("a")
			w.awaitLeader(time.Second)
			time.Sleep(time.Minute)
			a.client.Intercept(electortest.On(electortest.Fault{Err: refusal}, "update"))
			before, lines := w.api.Requests("a", ""), len(a.log())
			a.stop()
			require.NoError(w, a.awaitEnd(1100*time.Millisecond))
			assert.LessOrEqual(w, w.api.Requests("a", "")-before, 10)
			logged := a.log()[lines:]
			assert.LessOrEqual(w, len(logged), 2, "that it has to stop, and that it could not release: %s", strings.Join(logged, "\n"))
			assert.Equal(w, 1, count(logged, "Could not release"))
		})
	}
}

func TestAServerThatGoesBackToASnapshotTakesNothingBack(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.join("first")
		w.awaitLeader(time.Second)
		first.stop()
		require.NoError(w, first.awaitEnd(time.Second))
		released := w.api.Snapshot()
		a := w.join("a")
		w.awaitLeader(time.Second)
		b := w.join("b")
		time.Sleep(time.Minute)
		a.client.Partition(electortest.Both) // it goes on until its RenewDeadline
		cut := time.Now()
		time.Sleep(100 * time.Millisecond)
		w.restored = time.Now()
		w.api.Restore(released)
		w.awaitLeader(20*time.Second, a)
		assert.Equal(w, b.name, w.leader().name)
		assert.GreaterOrEqual(w, time.Since(cut), 10*time.Second)
		a.client.Partition(electortest.NoPartition)
		time.Sleep(time.Minute)
	})
}

func TestAStandbyWhoseLateWinWasOvertakenIsBoundByTheOther(t *testing.T) {
	inWorld(t, func(w *world) {
		w.aLease("", 1)
		a := w.join("a", draining(4*time.Second))
		held := make(chan struct{})
		a.client.Intercept(onWrites(func(n int, _ electortest.Request) electortest.Fault {
			if n == 1 {
				close(held)
			}
			return electortest.Fault{After: 9 * time.Second}
		}))
		<-held
		time.Sleep(100 * time.Millisecond)
		mine := w.lease().Spec
		require.Equal(w, "a", holder(w.lease()))
		now := metav1.NowMicro()
		w.kubectl(func(l *coordinationv1.Lease) {
			l.Spec.HolderIdentity, l.Spec.AcquireTime, l.Spec.RenewTime, l.Spec.LeaseDurationSeconds = ptr.To("x"), &now, &now, ptr.To(int32(15))
		})
		time.Sleep(time.Second)
		w.kubectl(func(l *coordinationv1.Lease) { l.Spec = mine })
		time.Sleep(9 * time.Second)
		assert.Nil(w, w.leader(), "x was promised 15 s")
	})
}

func TestABlankLeaseIsNotPutBackAfterItsOwnHasExpired(t *testing.T) {
	inWorld(t, func(w *world) {
		w.lenient = true
		a := w.join("a", draining(40*time.Second))
		w.awaitLeader(time.Second)
		b := w.join("b")
		time.Sleep(time.Minute)
		a.client.Partition(electortest.Both)
		w.within(20*time.Second, "b leads", func() bool { return len(w.spans()) == 2 })
		b.client.SilenceWatches(true)
		w.kubectl(func(l *coordinationv1.Lease) { l.Spec = coordinationv1.LeaseSpec{} })
		a.client.Partition(electortest.NoPartition)
		time.Sleep(8 * time.Second)
		assert.Equal(w, "b", holder(w.lease()))
		assert.Len(w, w.spans(), 2)
		assert.True(w, w.spans()[1].end.IsZero())
	})
}
