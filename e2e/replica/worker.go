package main

import (
	"context"
	"time"

	"github.com/elector-go/elector/e2e/internal/event"
)

const (
	// lookEvery is how often the callback asks whether its term is valid.
	lookEvery = 10 * time.Millisecond
	// jump is a gap between two looks that no scheduler explains: the process was suspended.
	jump = 2 * time.Second
)

// A worker is the work that must not run twice at once.
type worker struct {
	tell  func(event.Event)
	drain time.Duration
}

// work works until ctx ends and then for as long as it takes to drain. The token is that of its term; valid says
// whether the term holds, and is nil if the elector has no such thing.
func (w *worker) work(ctx context.Context, token uint64, valid func() bool) error {
	l := looker{worker: w, valid: valid, last: time.Now()}
	w.tell(event.Event{Kind: event.Begin, At: l.last, Token: token, Valid: l.look()})
	l.until(ctx.Done())
	w.tell(event.Event{Kind: event.Cancelled, Err: text(context.Cause(ctx))})

	drained, cancel := context.WithTimeout(context.Background(), w.drain)
	defer cancel()
	l.until(drained.Done())
	w.tell(event.Event{Kind: event.End, ValidLooks: l.validLooks})
	return nil
}

// A looker watches its own clock and its term, as careful work does before it acts.
type looker struct {
	*worker
	valid      func() bool
	last       time.Time
	woken      bool
	validLooks int // since it woke
}

// until looks again and again until done is closed, and once after that.
func (l *looker) until(done <-chan struct{}) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			l.look()
			return
		case <-tick.C:
			l.look()
		}
	}
}

func (l *looker) look() bool {
	before := time.Now()
	valid := l.valid != nil && l.valid()
	if time.Since(before) > jump {
		// Suspended in the middle: what was seen is from before, and the next look is the first one after.
		return valid
	}
	gap := before.Sub(l.last)
	l.last = before
	if gap > jump {
		l.woken = true
		l.tell(event.Event{Kind: event.Woke, At: before, Gap: gap, Valid: valid})
	}
	if l.woken && valid {
		l.validLooks++
	}
	return valid
}
