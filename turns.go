package elector

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// maxRequests are under way on a link, those that are slow among them.
	maxRequests = 45

	// fewRequests of a Client are under way at a time to begin with, and where a server has too much to do. So many keep it
	// busy. More would only wait in it, each of them the longer; here they cost it nothing, can be taken back, and the most
	// pressing goes first. A server has too much to do while most answers take more than half as long again as the fastest,
	// and tolerance. When each takes as long, as over a slow network or to a slow disk, it is not because there are many.
	fewRequests = 8
	tolerance   = 150 * time.Millisecond

	// perStep answers make it one more or one less: a disk that is slow all at once shows the first of many after a while.
	// Before the first slow one, each makes it one more.
	perStep = 4

	// window is for how long an answer is the fastest, and up to twice that.
	window = 5 * time.Second

	// outOfOrder is how many turns there are for one that is given in order, whatever presses, so that nobody waits for ever.
	outOfOrder = 32
)

// turns are what the requests of a Client wait for, in the order in which they come, but for those that press. A turn is on
// one of two links, the first if it has room.
type turns struct {
	mu      sync.Mutex // guards what follows
	under   [2]int     // requests under way on each link
	few     int        // those of them that are not slow
	steps   int        // perStep of them make it one more than fewRequests
	slowed  bool       // there was a slow answer
	waiting []*turn
	count   int // of turns that were given

	// slowAfter is how long a request counts among the few: an eighth of the shortest RenewDeadline of all Runs that there
	// were. One that hangs would keep the others waiting.
	slowAfter time.Duration

	reads, writes pace
}

// A pace is how long answers have taken.
type pace struct {
	fastest [2]time.Duration // in this window, and in the one before; zero before the first
	since   time.Time        // when this one began
	latest  time.Duration
}

// A need is when a request is needed. That of the zero need is over: it comes in order.
type need struct {
	pressesAt time.Time // from then on it comes before others
	deadline  time.Time // an answer after it is worth nothing
}

// A turn is that of one request.
type turn struct {
	need
	given chan struct{} // closed when it is given
	link  int
	at    time.Time   // when it was given
	few   bool        // it counts among the few
	slow  *time.Timer // ends that
}

// serve takes in the RenewDeadline of a Run.
func (ts *turns) serve(renewDeadline time.Duration) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.slowAfter = min(cmp.Or(ts.slowAfter, renewDeadline/8), renewDeadline/8)
}

// take waits for a turn. It is nil when ctx has ended before.
func (ts *turns) take(ctx context.Context, n need) *turn {
	t := &turn{need: n, given: make(chan struct{})}
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
	for len(ts.waiting) > 0 && ts.few < fewRequests+ts.steps/perStep {
		link := slices.IndexFunc(ts.under[:], func(n int) bool { return n < maxRequests })
		if link < 0 {
			return
		}
		now := time.Now()
		i := ts.first(now)
		t := ts.waiting[i]
		ts.waiting = slices.Delete(ts.waiting, i, i+1)
		t.link, t.at, t.few = link, now, true
		t.slow = time.AfterFunc(ts.slowAfter, func() { ts.isSlow(t) })
		ts.under[link]++
		ts.few++
		close(t.given)
	}
}

// first is which of those that wait comes next: of those that press the one whose deadline is next, or else the one that came
// first. So is one of many, whatever presses.
func (ts *turns) first(now time.Time) (first int) {
	if ts.count++; ts.count%outOfOrder == 0 {
		return 0
	}
	pressing := false
	for i, t := range ts.waiting {
		if ts.presses(t, now) && (!pressing || t.deadline.Before(ts.waiting[first].deadline)) {
			first, pressing = i, true
		}
	}
	return first
}

// presses reports whether a request comes before others. One whose answer would come too late does not: where a server cannot
// keep up, it would take the place of one that is in time, and so would each after it.
func (ts *turns) presses(t *turn, now time.Time) bool {
	margin := min(tolerance, t.deadline.Sub(t.pressesAt)/4) // a third of a short RenewDeadline is less than tolerance
	return !now.Before(t.pressesAt) && now.Add(2*ts.writes.latest+margin).Before(t.deadline)
}

// isSlow lets another request come in the place of one that is slow.
func (ts *turns) isSlow(t *turn) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.isNotFew(t)
	ts.next()
}

// isNotFew takes a request out of the few, once.
func (ts *turns) isNotFew(t *turn) {
	if t.few {
		t.few = false
		ts.few--
	}
}

// answered takes in how long an answer has taken. A refusal is quick, and says the same as a slow one.
func (ts *turns) answered(t *turn, write, refused bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	p, step := &ts.reads, 1
	if write {
		p = &ts.writes
	}
	if refused || p.took(t.at, time.Now()) {
		ts.steps, ts.slowed = max(ts.steps-1, 0), true
		return
	}
	if !ts.slowed {
		step = perStep
	}
	ts.steps = min(ts.steps+step, (2*maxRequests-fewRequests)*perStep)
}

// took takes in an answer, and reports whether it was slow.
func (p *pace) took(since, now time.Time) bool {
	p.latest = now.Sub(since)
	if now.Sub(p.since) >= window {
		p.since = now
		p.fastest = [2]time.Duration{p.latest, cmp.Or(p.fastest[0], p.latest)}
	}
	p.fastest[0] = min(p.fastest[0], p.latest)
	fastest := min(p.fastest[0], p.fastest[1])
	return p.latest > fastest+fastest/2+tolerance
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
	ts.isNotFew(t)
	ts.next()
}
