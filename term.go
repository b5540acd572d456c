package elector

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/elector-go/elector/internal/protocol"
)

// A Term is one period of leadership: from the write that won the Lease until its release or loss. It is a small value
// that can be copied and kept. Its methods report the state at the moment of the call, and may be called from any
// goroutine. The zero Term is never valid.
type Term struct{ *term }

// term is the state behind a Term. The election's goroutine writes it; everybody reads it.
type term struct {
	of        *Elector // the candidate that leads
	token     uint64
	authority atomic.Pointer[authority]
	alive     context.Context                  // ends when the term is lost, or about to be released
	end       context.CancelCauseFunc          // ends alive: before the callback's ctx ends, and before a release is sent
	spell     atomic.Pointer[spell]            // the present one, or the last
	lostAt    atomic.Pointer[protocol.Instant] // when the term was lost, if it was suspended then
	draining  atomic.Pointer[time.Time]        // since when the callback has been asked to stop
	returned  atomic.Bool                      // the callback is not running any more
}

func newTerm(e *Elector, token uint64, sent protocol.Instant) Term {
	t := &term{of: e, token: token}
	t.alive, t.end = context.WithCancelCause(context.Background())
	t.authority.Store(&authority{sent: sent})
	t.spell.Store(newSpell(t.alive))
	return Term{t}
}

// A spell is a time in which a term has authority without a gap. A term that is never suspended has one.
type spell struct {
	ctx     context.Context // ends when the term is suspended, or over
	end     context.CancelFunc
	since   atomic.Pointer[time.Time] // when the term was suspended
	resumed chan struct{}             // closed when the next spell has begun
}

func newSpell(alive context.Context) *spell {
	s := &spell{resumed: make(chan struct{})}
	s.ctx, s.end = context.WithCancel(alive)
	return s
}

func (s *spell) suspend(since time.Time) {
	s.since.Store(&since)
	s.end()
}

// authority is what a term rests on.
type authority struct {
	sent    protocol.Instant // just before the last write known to have been applied was sent (S1)
	missing bool             // the Lease was deleted since, and has not been put back
}

type termKey struct{}

// in returns a ctx that carries the term for TermFrom, and for the write gate of the term's own Elector. The two differ
// when ctx is already that of another Elector's callback.
func (t Term) in(ctx context.Context) context.Context {
	return context.WithValue(context.WithValue(ctx, termKey{}, t), t.of, t)
}

// TermFrom returns the term that a callback's ctx, or a ctx derived from it, belongs to, and false if there is none. A
// framework that makes its own contexts for the work, such as a controller-runtime manager, loses the term; use
// Elector.Status there.
func TermFrom(ctx context.Context) (Term, bool) {
	t, ok := ctx.Value(termKey{}).(Term)
	return t, ok
}

// IsZero reports whether t is the zero Term, as of a Follow or before a first term.
func (t Term) IsZero() bool { return t.term == nil }

// Token returns a number that grows with every term on this Lease, whoever leads, and even if the Lease is deleted in
// between. It is a fencing token: store it with the data you write, and refuse a write whose token is smaller than the
// stored one. Then no past leader can do harm.
//
// The token is the resourceVersion of the write that won the term, which is comparable within a cluster (KEP-5504). After
// the cluster's etcd was restored from a backup, tokens can be smaller than before, or repeat. The token is 0 in the zero
// Term, and with an API whose versions are not numbers, such as client-go's plain fake clientset.
func (t Term) Token() uint64 {
	if t.term == nil {
		return 0
	}
	return t.token
}

// Identity returns the identity of the candidate that leads in this term, and "" for the zero Term.
func (t Term) Identity() string {
	if t.term == nil {
		return ""
	}
	return t.of.opts.Identity
}

// String describes the term, for logs.
func (t Term) String() string {
	if t.term == nil {
		return "no term"
	}
	return fmt.Sprintf("term %d of %s", t.token, t.Identity())
}

// Valid reports whether the term has authority at this moment: it has not ended, and less than RenewDeadline has passed
// since the last successful renewal was sent, by the monotonic clock and by the wall clock. It stays true while a
// callback drains for another reason than a loss, because the Lease is kept until the callback has returned.
//
// It reads the clocks at each call, so it is false on the first call after a process or a machine was suspended for longer
// than the authority lasts. Where both clocks stood still meanwhile, as in a virtual machine that was paused and whose wall
// clock nobody has set since, the first calls return true, though another replica may lead: until the API says so, by
// the watch or by an answer to the next renewal, and without the API for what was left of RenewDeadline at the pause. There
// only the Token protects what is written.
func (t Term) Valid() bool { return t.term != nil && t.validAt(now()) }

// Await returns nil once the term is valid: at once, unless it is suspended (see Options.RecoveryDeadline). It returns the
// *LostError of a term that was lost, and ErrNotLeader for one that has ended otherwise, and for the zero Term. If ctx ends
// first, it returns the cause of that.
func (t Term) Await(ctx context.Context) error {
	for t.term != nil {
		s := t.spell.Load()
		switch {
		case t.Valid():
			return nil
		case t.alive.Err() != nil:
			return t.whyNot()
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		var change <-chan struct{} = s.resumed
		if s.ctx.Err() == nil {
			change = s.ctx.Done() // it has run out this moment, and its timer is about to notice
		}
		select {
		case <-change:
		case <-t.alive.Done():
		case <-ctx.Done():
		}
	}
	return ErrNotLeader
}

// Context returns a context made of ctx that also ends as soon as the term is suspended, with the cause ErrSuspended, or is
// over, with its *LostError, or ErrNotLeader. Cancel it to free what it holds. For a term that is not valid it has ended.
func (t Term) Context(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if t.term == nil {
		cancel(ErrNotLeader)
		return ctx, func() {}
	}
	s := t.spell.Load()
	if !t.Valid() {
		cancel(t.whyNot())
	}
	stop := context.AfterFunc(s.ctx, func() { cancel(t.whyNot()) })
	return ctx, func() { stop(); cancel(nil) }
}

// Suspended returns since when the term is suspended; the zero time if it is not, or is over, and for the zero Term.
func (t Term) Suspended() time.Time {
	if t.term == nil || t.alive.Err() != nil {
		return time.Time{}
	}
	if since := t.spell.Load().since.Load(); since != nil {
		return *since
	}
	return time.Time{}
}

// ValidUntil returns when the term ends if it is not renewed again: RenewDeadline after the last successful renewal was
// sent. It returns the zero time if the term has ended, and for the zero Term.
func (t Term) ValidUntil() time.Time {
	if t.term == nil || t.alive.Err() != nil {
		return time.Time{}
	}
	return timeOf(t.authority.Load().sent.Add(t.renewDeadline()))
}

// Draining is since when the callback has been asked to stop without having returned; the zero time if it was not
// asked, or has returned.
func (t Term) Draining() time.Time {
	if t.term == nil || t.returned.Load() {
		return time.Time{}
	}
	if since := t.draining.Load(); since != nil {
		return *since
	}
	return time.Time{}
}

func (t *term) renewDeadline() time.Duration { return t.of.opts.RenewDeadline }

// overrunAfter is how long after the sending of the last renewal OnOverrun is due: when three quarters of the stop
// budget are spent. The last quarter is for OnOverrun itself, and for clocks that run at different rates.
func (t *term) overrunAfter() time.Duration {
	return t.of.opts.LeaseDuration - (t.of.opts.LeaseDuration-t.of.opts.RenewDeadline)/4
}

// whyNot is why a term that is not valid has no authority: it is suspended, was lost, or has ended otherwise.
func (t *term) whyNot() error {
	var lost *LostError
	switch {
	case t.alive.Err() == nil && t.of.opts.RecoveryDeadline > 0:
		return ErrSuspended
	case errors.As(context.Cause(t.alive), &lost):
		return lost
	default:
		return ErrNotLeader
	}
}

func (t *term) validAt(now protocol.Instant) bool {
	return t.spell.Load().ctx.Err() == nil && !t.runOut(now)
}

// runOut reports whether the term's authority has ended by the clock.
func (t *term) runOut(now protocol.Instant) bool {
	return protocol.Age(t.authority.Load().sent, now) >= t.renewDeadline()
}

// overrunAt is when OnOverrun is due. A term that was suspended has no Lease any more when it is lost; its callback has
// not been asked to stop before that.
func (t *term) overrunAt() protocol.Instant {
	if lost := t.lostAt.Load(); lost != nil {
		return lost.Add(t.overrunAfter() - t.renewDeadline())
	}
	at := t.authority.Load().sent.Add(t.overrunAfter())
	if t.of.opts.RecoveryDeadline > 0 && t.alive.Err() == nil {
		at = at.Add(t.of.opts.RecoveryDeadline)
	}
	return at
}

// overruns reports whether the callback still runs when the Lease is about to end.
func (t *term) overruns(now protocol.Instant) bool {
	at := t.overrunAt()
	return !t.returned.Load() && protocol.Age(at, now) >= 0
}
