package elector_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/elector-go/elector/electortest"
)

// L1, L2: watches that end, lag or go silent, and answers that are no answers.

func TestAWatchThatIsEndedSoonIsReopenedEverLater(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		w.awaitLeader(time.Second)
		b := w.join("b")
		b.client.Intercept(electortest.On(electortest.Fault{EndWatch: 300 * time.Millisecond}, "watch"))
		time.Sleep(10 * time.Minute)
		before, lines := w.api.Requests("b", "watch"), len(b.log())
		time.Sleep(time.Hour)
		assert.LessOrEqual(w, w.api.Requests("b", "watch")-before, 4*60)
		assert.LessOrEqual(w, len(b.log())-lines, 1)
		b.client.Intercept(nil)
		time.Sleep(3 * time.Minute)
		assert.Equal(w, 1, count(b.log(), "The watch works again"))
	})
}

func TestStandbysBehindALaggingWatchCacheAreQuiet(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("leader")
		w.awaitLeader(time.Second)
		standbys := 30
		for i := range standbys {
			r := w.join(string(rune('A' + i)))
			r.client.SetWatchLag(5 * time.Second)
			r.client.CloseWatches()
		}
		time.Sleep(5 * time.Minute)
		w.api.ResetRequests()
		time.Sleep(10 * time.Minute)
		sum := 0
		for i := range standbys {
			sum += w.api.Requests(string(rune('A'+i)), "")
		}
		assert.LessOrEqual(w, sum, 60*10, "requests of all standbys in ten minutes")
		w.oneTerm()
	})
}

func TestAStandbyWhoseWatchIsSilentAsksOnceWhenRenewalsStopComing(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		b, c := w.join("b"), w.join("c")
		time.Sleep(time.Minute)
		b.client.SilenceWatches(true)
		c.client.SilenceWatches(true)
		time.Sleep(300 * time.Millisecond)
		before := w.api.Requests("b", "get") + w.api.Requests("c", "get")
		a.stop()
		require.NoError(w, a.awaitEnd(time.Second))
		w.awaitLeader(8*time.Second, a)
		assert.LessOrEqual(w, w.api.Requests("b", "get")+w.api.Requests("c", "get")-before, 4)
	})
}

func TestAnAnswerAboutAnotherLeaseIsAFailedOne(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		a.client.ForbidWatch(true)
		a.client.Intercept(electortest.On(electortest.Fault{Answer: &coordinationv1.Lease{}}, "get", "create", "update"))
		time.Sleep(time.Minute)
		assert.Nil(w, w.leader())
		assert.ErrorContains(w, a.el.Status().LastError, "not about this Lease")
		a.client.Intercept(nil)
		w.awaitLeader(35 * time.Second)
	})
}

func TestAClientWithoutAWatchIsLikeAClientWhoseWatchFailed(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		a.client.CloseWatches()
		a.client.Intercept(electortest.On(electortest.Fault{NoWatch: true}, "watch"))
		w.awaitLeader(time.Second)
		time.Sleep(10 * time.Minute)
		w.oneTerm()
		assert.Equal(w, 1, count(a.log(), "No watch on the lease"))
	})
}

func TestAClientThatNeverReturnsIsAskedNoMoreThanFourTimes(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		time.Sleep(time.Minute)
		require.NoError(w, a.el.Check(nil))
		w.api.ResetRequests()
		a.client.CloseWatches()
		a.client.Intercept(electortest.On(electortest.Fault{LoseReply: true, IgnoreContext: true}))
		time.Sleep(6 * time.Hour)
		assert.LessOrEqual(w, w.api.Requests("a", ""), 5)
		assert.ErrorContains(w, a.el.Check(nil), "have not returned")
		assert.Equal(w, 1, count(a.log(), "No more requests are sent"))
	})
}

func TestStandbysWithSilentWatchesAskAtRandomMoments(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.awaitLeader(time.Second)
		var mu sync.Mutex
		asked := map[string]time.Time{}
		reopened := map[string]time.Time{}
		var standbys []*replica
		for i := range 20 {
			standbys = append(standbys, w.join(string(rune('A'+i))))
		}
		time.Sleep(time.Minute)
		for _, r := range standbys {
			r.client.SilenceWatches(true)
			r.client.Intercept(func(q electortest.Request) electortest.Fault {
				mu.Lock()
				defer mu.Unlock()
				if _, ok := asked[r.name]; q.Verb == "get" && !ok {
					asked[r.name] = time.Now()
				}
				if _, ok := reopened[r.name]; q.Verb == "watch" && !ok {
					reopened[r.name] = time.Now()
				}
				return electortest.Fault{}
			})
		}
		a.stop()
		require.NoError(w, a.awaitEnd(time.Second))
		w.awaitLeader(8*time.Second, a)
		w.pass(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		var moments []time.Time
		for who, when := range asked {
			moments = append(moments, when)
			assert.Less(w, reopened[who].Sub(when), 2100*time.Millisecond, "within RetryPeriod: its watch has not shown what the answer showed")
		}
		first, last := slices.MinFunc(moments, time.Time.Compare), slices.MaxFunc(moments, time.Time.Compare)
		assert.Greater(w, last.Sub(first), 100*time.Millisecond)
		assert.Greater(w, len(asked), 5)
	})
}
