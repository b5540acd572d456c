package elector_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector/electortest"
)

// What is logged: every campaign, and every begin and end of a term with its reason.

func TestEveryBeginAndEndOfATermIsLoggedOnceWithItsReason(t *testing.T) {
	for what, end := range map[string]struct {
		does func(w *world, a *replica)
		line string
	}{
		"renew deadline passed": {func(_ *world, a *replica) { a.client.Partition(electortest.Both) }, "Lost the lease"},
		"stepped down":          {func(w *world, a *replica) { require.NoError(w, a.el.StepDown(w.Context())) }, "The callback has to stop"},
		"context canceled":      {func(_ *world, a *replica) { a.stop() }, "The callback has to stop"},
		"asked to step down":    {func(w *world, _ *replica) { w.annotate("") }, "The callback has to stop"},
	} {
		for _, drain := range []time.Duration{0, time.Second} {
			for range 20 { // whichever of loop and callback is first
				inWorld(t, func(w *world) {
					a := w.join("a", draining(drain))
					w.awaitLeader(time.Second)
					time.Sleep(time.Minute)
					end.does(w, a)
					time.Sleep(12 * time.Second)
					first := a.log()
					require.Equal(w, 1, count(first, end.line), what)
					assert.Equal(w, 1, count(first, `"reason"="`)+count(first, `reason=`), what)
					assert.Equal(w, 1, count(first, "Became leader"))
					assert.Equal(w, 1, count(first, what), "%s: %v", what, first)
				})
			}
		}
	}
}

func TestACallbackThatReturnsByItselfIsLogged(t *testing.T) {
	inWorld(t, func(w *world) {
		boom := errors.New("boom")
		a := w.join("a", working(func(context.Context) error { time.Sleep(time.Minute); return boom }))
		require.ErrorIs(w, a.awaitEnd(2*time.Minute), boom)
		assert.Equal(w, 1, count(a.log(), "The callback returned by itself"))
		assert.Equal(w, 1, count(a.log(), "Released the lease"))
	})
}

func TestTheStartOfEachCampaignIsLogged(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		require.NoError(w, a.el.StepDown(w.Context()))
		time.Sleep(time.Second)
		assert.Equal(w, 2, count(a.log(), "Campaigning"))
	})
}

func TestAPauseIsLoggedAsOne(t *testing.T) {
	inWorld(t, func(w *world) {
		replicas := []*replica{w.join("a"), w.join("b")}
		leader := w.awaitLeader(time.Second)
		time.Sleep(time.Minute)
		w.kubectl(func(l *coordinationv1.Lease) {
			now := metav1.NowMicro()
			l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds, l.Spec.RenewTime = ptr.To("paused"), ptr.To(int32(3600)), &now
		})
		time.Sleep(time.Minute)
		for _, r := range replicas {
			assert.Equal(w, 1, count(r.log(), "The election is paused"), r.name)
			assert.Zero(w, count(r.log(), `"leader"="paused"`)-count(r.log(), "Lost the lease"), r.name)
		}
		assert.Equal(w, 1, count(leader.log(), "taken over by a pause of the election"))
	})
}
