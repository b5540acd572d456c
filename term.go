package elector

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// A Term is one period of leadership, from the write that won the Lease to the release or loss. It is a small value
// to pass around and to keep; what it says of validity is always that of the moment of the call. The zero Term was
// never valid. All methods may be called from any goroutine.
type Term struct{ *term }

// term is the state behind a Term. The election's goroutine writes it; everybody reads it.
type term struct {
	timing
	of        *Elector // the candidate that leads
	token     uint64
	authority atomic.Pointer[authority]
	alive     context.Context           // ends when the term is lost, or about to be released
	end       func()                    // ends alive: before the callback is told, and before a release is sent
	draining  atomic.Pointer[time.Time] // since when the callback has been asked to stop
	returned  atomic.Bool               // the callback is not running any more
}

func newTerm(e *Elector, token uint64, sent time.Time) Term {
	t := &term{timing: e.timing, of: e, token: token}
	t.alive, t.end = context.WithCancel(context.Background())
	t.authority.Store(&authority{sent: sent})
	return Term{t}
}

// authority is what a term rests on.
type authority struct {
	sent    time.Time // just before the last write known to have been applied was sent (S1)
	missing bool      // the Lease was deleted since, and has not been put back
}

type termKey struct{}

// in returns a ctx that carries the term, for TermFrom and for the write gate of its own Elector: ctx may be that of
// another Elector's callback already.
func (t Term) in(ctx context.Context) context.Context {
	return context.WithValue(context.WithValue(ctx, termKey{}, t), t.of, t)
}

// TermFrom returns the term that the callback's ctx was made for, or any ctx derived from it. Where a framework makes
// contexts of its own for the work, as a controller-runtime manager does, Elector.Status tells the term.
func TermFrom(ctx context.Context) (Term, bool) {
	t, ok := ctx.Value(termKey{}).(Term)
	return t, ok
}

// Token is a number that grows with every term on this Lease, whoever leads, and through deletion of the Lease: the
// resourceVersion of the write that won the term (comparable within a cluster, KEP-5504). Store it beside what you
// write, and refuse a write with a smaller one: then no past leader can do harm (a fencing token). 0 in the zero Term,
// and with an API that has no numeric versions, as client-go's plain fake clientset.
func (t Term) Token() uint64 {
	if t.term == nil {
		return 0
	}
	return t.token
}

// Identity is the candidate that leads in this term, "" in the zero Term.
func (t Term) Identity() string {
	if t.term == nil {
		return ""
	}
	return t.identity
}

// String is the term in words, for logs.
func (t Term) String() string {
	if t.term == nil {
		return "no term"
	}
	return fmt.Sprintf("term %d of %s", t.token, t.identity)
}

// Valid reports whether the term has authority at this moment: it has not ended, and neither the monotonic nor the
// wall clock has passed RenewDeadline since the last renewal. It stays true while a callback drains that was told to
// stop for another reason than loss, for the lease is kept until it has returned.
func (t Term) Valid() bool { return t.term != nil && t.validAt(time.Now()) }

// ValidUntil is the time at which the term ends if it is not renewed again: RenewDeadline after the last renewal was
// sent. The zero time if it has ended.
func (t Term) ValidUntil() time.Time {
	if t.term == nil || t.alive.Err() != nil {
		return time.Time{}
	}
	return t.authority.Load().sent.Add(t.renewDeadline)
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

func (t *term) validAt(now time.Time) bool {
	return t.alive.Err() == nil && age(t.authority.Load().sent, now) < t.renewDeadline
}

// overruns reports whether the callback still runs when the lease is about to end.
func (t *term) overruns(now time.Time) bool {
	return !t.returned.Load() && age(t.authority.Load().sent, now) >= t.overrunAfter()
}
