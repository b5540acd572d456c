package leaderelection

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/elector-go/elector"
)

// phase is where a session stands.
type phase int

const (
	campaigning phase = iota
	won               // the Elector leads, and client-go has not heard of it
	granted           // client-go leads, or did
	left              // client-go has stopped without a release, and the term goes on until it expires
	released          // client-go has let go: the Lease is released once the work is over
)

// A session is one Run of the Elector: a campaign, and a term if it is won. The lock's mu guards phase, term and ctx;
// the Elector's callback sets term and ctx.
type session struct {
	phase   phase
	term    elector.Term
	ctx     context.Context // of the term: it ends when the term is lost
	refused bool            // the last Update was refused, so that client-go may be about to stop
	stop    context.CancelFunc
	letGo   chan struct{} // closed when a term that client-go had left is to be released
	lost    chan struct{} // closed when the term is lost, or given up
	ended   chan struct{} // closed when the Elector's Run has returned
	work    *work         // Upgrade's, else nil
}

// over reports whether the Elector's Run has returned.
func (s *session) over() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// begin starts a campaign for the client-go elector whose acquire has the context ctx. The caller holds mu.
func (l *Lock) begin(ctx context.Context) *session {
	outer, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &session{stop: stop, letGo: make(chan struct{}), lost: make(chan struct{}), ended: make(chan struct{})}
	if l.joins {
		s.work = newWork()
	}
	l.session, l.reported = s, ""
	l.gate.closed.Store(false)
	context.AfterFunc(ctx, func() { l.giveUp(s) })
	go func() {
		_ = l.elector.Run(outer) // what it returns is a loss, which the callback has seen, or nil
		stop()
		l.mu.Lock()
		defer l.mu.Unlock()
		close(s.ended)
		l.wake()
	}()
	return s
}

// giveUp ends a campaign that client-go has given up, because its acquire has ended without a term. It reports whether
// there was one.
func (l *Lock) giveUp(s *session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.phase != campaigning && s.phase != won {
		return false
	}
	s.stop()
	return true
}

// wake lets those who wait decide again. The caller holds mu.
func (l *Lock) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// see takes in the holder seen in the Lease.
func (l *Lock) see(holder string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holder = holder
	l.wake()
}

// lead is the Elector's callback: it lasts as long as client-go leads, and as long as Upgrade's callbacks run.
func (l *Lock) lead(ctx context.Context) error {
	l.mu.Lock()
	s := l.session
	s.phase, s.ctx = won, ctx
	s.term, _ = elector.TermFrom(ctx)
	l.wake()
	l.mu.Unlock()

	select {
	case <-s.letGo:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	asked, led, work := s.phase == released, s.phase == granted || s.phase == left, s.work
	close(s.lost)
	l.wake()
	l.mu.Unlock()
	if asked && work != nil {
		work.drain(nil, 0)
	}
	if !led {
		return nil
	}
	if work != nil {
		if <-work.returned; !work.early {
			return nil
		}
	}
	l.outlive(s)
	return nil
}

// outlive stays in a term that is over and whose work may go on, because nobody can know when that has ended: the Lease
// is not released but expires, unless client-go campaigns anew.
func (l *Lock) outlive(s *session) {
	l.mu.Lock()
	if s.phase == granted || s.phase == left {
		l.gate.closed.Store(true)
	}
	l.mu.Unlock()
	if l.overruns && !l.joins {
		<-s.letGo
		return
	}
	for s.term.Valid() { // given up by StepDown: until it has run out
		select {
		case <-s.letGo:
			return
		case <-time.After(time.Until(s.term.ValidUntil())):
		}
	}
}

// valid reports whether client-go may go on leading. The caller holds mu.
func (l *Lock) valid(s *session) bool {
	return s.term.Valid() && s.ctx.Err() == nil && time.Until(s.term.ValidUntil()) > l.margin
}

// grant makes a term that is won client-go's, and reports whether it did.
func (l *Lock) grant(s *session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.phase != won || !l.valid(s) {
		return false
	}
	s.phase, l.reported = granted, l.identity
	return true
}

// release stops the Elector, which keeps the Lease while the work of Upgrade's callbacks drains, and returns when the
// Lease is released. Client-go asks for it after a loss too, before it ends the context of the work: that is refused.
func (l *Lock) release(s *session) error {
	l.mu.Lock()
	if s.phase != granted || s.refused || s.ctx.Err() != nil {
		l.mu.Unlock()
		return fmt.Errorf("leaderelection: not released: %w", elector.ErrNotLeader)
	}
	s.phase = released
	until := s.term.ValidUntil()
	s.stop()
	l.mu.Unlock()
	for ; time.Now().Before(until); until = s.term.ValidUntil() { // which renewals move on while the work drains
		select {
		case <-s.ended:
			return nil
		case <-time.After(time.Until(until)):
		}
	}
	if s.work != nil && s.work.over() && !s.work.early {
		<-s.ended // as long as it takes: there is nothing that another leader could meet
		return nil
	}
	if s.over() {
		return nil
	}
	return errors.New("leaderelection: the Lease could not be released in time; others wait until it expires")
}

// stopped takes in that client-go has stopped leading. Unless it has released the Lease, or lost it, nobody knows whether
// the work is over. So the Lease is kept until a callback that is waited for has returned, and then left to expire.
func (l *Lock) stopped() {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.session
	if s == nil || s.phase != granted {
		return
	}
	s.phase = left
	work := s.work
	if work == nil {
		l.gate.closed.Store(true)
		return
	}
	go func() {
		work.drain(s.lost, l.drainLimit)
		l.mu.Lock()
		defer l.mu.Unlock()
		if s.phase == left && s.work == work && s.ctx.Err() == nil { // else it is lost, or being given up
			l.gate.closed.Store(true)
		}
	}()
}

// resume takes up a term again that client-go had left, because it campaigns anew: as with its own lock, there is
// nobody to wait for but a callback that still runs. A term that is over ends first. The caller holds mu.
func (l *Lock) resume(ctx context.Context, s *session, valid bool) {
	l.gate.closed.Store(false)
	idle := s.work == nil || s.work.over()
	if valid && idle {
		s.phase = won
		if l.joins {
			s.work = newWork()
		}
		context.AfterFunc(ctx, func() { l.giveUp(s) })
		return
	}
	s.phase = released
	if idle {
		close(s.letGo)
		return
	}
	work := s.work
	var limit <-chan time.Time
	if l.drainLimit > 0 {
		limit = time.After(l.drainLimit)
	}
	go func() {
		select {
		case <-work.returned:
		case <-limit:
			l.mu.Lock()
			if l.session == s { // else the gate is another's
				l.gate.closed.Store(true)
			}
			l.mu.Unlock()
			<-work.returned
		}
		close(s.letGo)
	}()
}
