package elector

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// fewRequests of a Client are under way at a time, and one more for each perRequest that the fastest answer takes. So
	// many keep a server busy. More would only wait in it, each of them the longer; here they cost it nothing, can be taken
	// back, and the most pressing goes first. Over a long way it takes more of them for as many a second.
	fewRequests = 20
	perRequest  = 20 * time.Millisecond

	// slowAfter is how long a request counts among the few. One that hangs would keep the others waiting.
	slowAfter = 3 * time.Second

	// maxRequests are under way on a link, those that hang among them.
	maxRequests = 45
)

// turns are what the requests of a Client wait for, in the order in which they come, but for those that press. A turn is on
// one of two links, the first if it has room.
type turns struct {
	mu      sync.Mutex // guards what follows
	under   [2]int     // requests under way on each link
	few     int        // those of them that are not slow
	waiting []*turn

	fastest [2]time.Duration // answer of this minute, and of the one before; zero before the first
	minute  time.Time        // when this one began
}

// A turn is that of one request.
type turn struct {
	presses time.Time     // from then on it comes before others; zero for never
	given   chan struct{} // closed when it is given
	link    int
	at      time.Time   // when it was given
	few     bool        // it counts among the few
	slow    *time.Timer // ends that
}

// take waits for a turn. It is nil when ctx has ended before.
func (ts *turns) take(ctx context.Context, presses time.Time) *turn {
	t := &turn{presses: presses, given: make(chan struct{})}
	ts.mu.Lock()
	ts.waiting = append(ts.waiting, t)
	ts.next()
	ts.mu.Unlock()
	select {
	case <-t.given:
		return t
	case <-ctx.Done():
		ts.end(t)
		return nil
	}
}

// next gives turns while there is room.
func (ts *turns) next() {
	limit := fewRequests + int(min(ts.fastest[0], ts.fastest[1])/perRequest)
	for len(ts.waiting) > 0 && ts.few < limit {
		link := slices.IndexFunc(ts.under[:], func(n int) bool { return n < maxRequests })
		if link < 0 {
			return
		}
		i := ts.first(time.Now())
		t := ts.waiting[i]
		ts.waiting = slices.Delete(ts.waiting, i, i+1)
		t.link, t.at, t.few = link, time.Now(), true
		t.slow = time.AfterFunc(slowAfter, func() { ts.isSlow(t) })
		ts.under[link]++
		ts.few++
		close(t.given)
	}
}

// first is which of those that wait comes next: the one that has pressed for longest, or else the one that came first.
func (ts *turns) first(now time.Time) (first int) {
	for i, t := range ts.waiting {
		before := ts.waiting[first].presses
		if !t.presses.IsZero() && !t.presses.After(now) && (before.IsZero() || t.presses.Before(before)) {
			first = i
		}
	}
	return first
}

// isSlow takes a request out of the few.
func (ts *turns) isSlow(t *turn) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t.few {
		t.few = false
		ts.few--
		ts.next()
	}
}

// answered takes in how long an answer has taken.
func (ts *turns) answered(t *turn) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	now := time.Now()
	took := now.Sub(t.at)
	if now.Sub(ts.minute) >= time.Minute {
		ts.minute = now
		ts.fastest = [2]time.Duration{took, cmp.Or(ts.fastest[0], took)}
	}
	ts.fastest[0] = min(ts.fastest[0], took)
}

// end ends a turn, or the wait for it.
func (ts *turns) end(t *turn) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if i := slices.Index(ts.waiting, t); i >= 0 {
		ts.waiting = slices.Delete(ts.waiting, i, i+1)
		return
	}
	t.slow.Stop()
	ts.under[t.link]--
	if t.few {
		t.few = false
		ts.few--
	}
	ts.next()
}
