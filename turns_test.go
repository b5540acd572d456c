package elector

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// L12: what the requests of a Client wait for.

// queued lets requests wait for their turns before a server that has too much to do, and tells who has his.
type queued struct {
	*turns
	t   *testing.T
	ctx context.Context

	guard sync.Mutex // guards what follows
	names []string   // who has taken turns
	has   []*turn    // theirs
}

func waitForTurns(t *testing.T, f func(q *queued)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer stop()
		q := &queued{turns: &turns{}, t: t, ctx: ctx}
		q.serve(10 * time.Second)
		f(q)
	})
}

// takes lets n requests take turns at once.
func (q *queued) takes(n int) (all []*turn) {
	for range n {
		all = append(all, q.take(q.ctx, need{}))
	}
	return all
}

// takesFew lets as many take turns as there is room for, where the latest write has taken so long.
func (q *queued) takesFew(latest time.Duration) []*turn {
	under := q.takes(fewRequests)
	time.Sleep(latest)
	q.answered(under[0], true, false)
	q.steps = 0
	return under
}

// waits lets a request wait whose deadline is after that time, never if it is 0, and which presses a minute before.
func (q *queued) waits(who string, after time.Duration) {
	var n need
	if after > 0 {
		n.deadline = time.Now().Add(after)
		n.pressesAt = n.deadline.Add(-time.Minute)
	}
	go func() {
		if t := q.take(q.ctx, n); t != nil {
			q.guard.Lock()
			defer q.guard.Unlock()
			q.names, q.has = append(q.names, who), append(q.has, t)
		}
	}()
	synctest.Wait()
}

func (q *queued) taken() []string {
	q.guard.Lock()
	defer q.guard.Unlock()
	return q.names
}

func (q *queued) ends(turns ...*turn) {
	for _, t := range turns {
		q.end(t)
		synctest.Wait()
	}
}

func TestFewRequestsAreUnderWayAndTheOthersWaitInOrder(t *testing.T) {
	waitForTurns(t, func(q *queued) {
		under := q.takes(fewRequests)
		for _, who := range []string{"a", "b", "c"} {
			q.waits(who, 0)
		}
		assert.Empty(t, q.taken())
		q.ends(under[:2]...)
		assert.Equal(t, []string{"a", "b"}, q.taken())
	})
}

func TestWhatPressesComesFirst(t *testing.T) {
	waitForTurns(t, func(q *queued) {
		under := q.takes(fewRequests)
		q.waits("in order", 0)
		q.waits("presses, has more time", 61*time.Second+1)
		q.waits("presses", 61*time.Second)
		q.waits("does not press yet", time.Hour)
		time.Sleep(time.Second + 1)
		q.count = 0
		q.ends(under[:4]...)
		assert.Equal(t, []string{"presses", "presses, has more time", "in order", "does not press yet"}, q.taken())
	})
}

// It would be answered too late, and keep the next one waiting until that is too late, too.
func TestWhatCannotBeAnsweredInTimeDoesNotPress(t *testing.T) {
	waitForTurns(t, func(q *queued) {
		under := q.takesFew(time.Second)
		q.waits("too late", 2*time.Second+tolerance)
		q.waits("in time", 2*time.Second+tolerance+1)
		q.count = 0
		q.ends(under[:2]...)
		assert.Equal(t, []string{"in time", "too late"}, q.taken())
	})
}

// A RenewDeadline may be as short as 300 ms: its last third is shorter than tolerance.
func TestWhatHasAShortDeadlinePressesToo(t *testing.T) {
	waitForTurns(t, func(q *queued) {
		under := q.takesFew(time.Millisecond)
		q.waits("in order", 0)
		soon := need{time.Now(), time.Now().Add(minRenewDeadline / 3)}
		go q.take(q.ctx, soon)
		synctest.Wait()
		q.count = 0
		q.ends(under[0])
		assert.Empty(t, q.taken())
		q.ends(under[1])
		assert.Equal(t, []string{"in order"}, q.taken())
	})
}

func TestNobodyWaitsForEverThoughOthersPress(t *testing.T) {
	waitForTurns(t, func(q *queued) {
		under := q.takes(fewRequests)
		q.waits("in order", 0)
		for range outOfOrder {
			q.waits("presses", time.Second)
		}
		q.count = 0
		for len(q.taken()) < outOfOrder-1 {
			q.ends(append(under, q.has...)[len(q.taken())])
		}
		assert.NotContains(t, q.taken(), "in order")
		q.ends(q.has[len(q.has)-1])
		assert.Len(t, q.taken(), outOfOrder)
		assert.Equal(t, "in order", q.taken()[outOfOrder-1])
	})
}

func TestARequestThatIsSlowKeepsFewWaiting(t *testing.T) {
	waitForTurns(t, func(q *queued) {
		under := q.takes(fewRequests)
		q.waits("a", 0)
		time.Sleep(q.slowAfter - 1)
		synctest.Wait()
		assert.Empty(t, q.taken())
		time.Sleep(1)
		synctest.Wait()
		assert.Equal(t, []string{"a"}, q.taken())
		q.ends(under...)
		assert.Equal(t, 1, q.few, "a slow one that ends was not among the few any more")

		for range 2*maxRequests - 1 {
			q.waits("another", 0)
			time.Sleep(q.slowAfter)
		}
		synctest.Wait()
		assert.Len(t, q.taken(), 2*maxRequests)
		q.waits("too many", 0)
		time.Sleep(q.slowAfter)
		synctest.Wait()
		assert.Len(t, q.taken(), 2*maxRequests, "each link has room for so many")
		assert.Equal(t, [2]int{maxRequests, maxRequests}, q.under)
	})
}

func TestFewAreUnderWayWhereAServerHasTooMuchToDo(t *testing.T) {
	at := func(each ...time.Duration) func(int) time.Duration {
		return func(i int) time.Duration { return each[i%len(each)] }
	}
	for name, c := range map[string]struct {
		took func(i int) time.Duration
		room int
	}{
		"each write is as slow: a slow network, or a slow disk": {at(2*time.Second, 3*time.Second), 2 * maxRequests},
		"all are quick":                        {at(time.Millisecond, 20*time.Millisecond, 100*time.Millisecond), 2 * maxRequests},
		"they are slow because there are many": {at(300*time.Millisecond, 600*time.Millisecond, 900*time.Millisecond, 1200*time.Millisecond, 1500*time.Millisecond), fewRequests},
	} {
		waitForTurns(t, func(q *queued) {
			q.steps = (2*maxRequests - fewRequests) * perStep / 2
			for i := range 1500 {
				one := q.takes(1)[0]
				time.Sleep(c.took(i))
				q.answered(one, i%2 == 0, false)
				q.end(one)
			}
			q.waits("all", 0)
			for range 2 * maxRequests {
				q.waits("all", 0)
			}
			assert.InDelta(t, c.room, len(q.taken()), 1, name)
		})
	}
}

func TestWhatWaitsForATurnCanBeGivenUp(t *testing.T) {
	waitForTurns(t, func(q *queued) {
		under := q.takes(fewRequests)
		ctx, giveUp := context.WithCancel(q.ctx)
		go func() { assert.Nil(t, q.take(ctx, need{})) }()
		synctest.Wait()
		giveUp()
		synctest.Wait()
		q.ends(under...)
		assert.Zero(t, q.few)
		assert.Empty(t, q.waiting)
	})
}

func TestTheShortestRenewDeadlineSaysWhatIsSlow(t *testing.T) {
	waitForTurns(t, func(q *queued) {
		q.serve(16 * time.Second)
		q.serve(8 * time.Second)
		q.serve(32 * time.Second)
		q.takes(fewRequests)
		q.waits("a", 0)
		time.Sleep(time.Second)
		synctest.Wait()
		assert.Equal(t, []string{"a"}, q.taken())
	})
}
