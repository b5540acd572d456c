package elector

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/utils/ptr"

	"github.com/elector-go/elector/internal/protocol"
)

// activeTerm is one term being served: the callback, and the timers that end its authority whatever the loop waits for.
type activeTerm struct {
	log          logBeside
	term         Term
	ctx          context.Context // the callback's
	cancel       context.CancelCauseFunc
	reportedEnd  bool               // Events and Metrics why it has ended; the reporter's
	reportedStop bool               // the log that it has to stop; the reporter's
	drained      int                // minutes of the drain that were logged; the reporter's
	returned     chan struct{}      // closed when the callback has returned
	result       error              // of the callback, once it has
	cause        error              // why its ctx had ended by then, nil if it had not
	ctxErr       error              // ctx's own error by then
	outer        context.Context    // of Elector.Run
	stepDown     chan struct{}      // closed by StepDown
	resign       chan time.Duration // what Resign is called with
	stepDownOnce sync.Once
	done         chan struct{} // closed once released
	err          error         // of the release, once done

	mu              sync.Mutex // held while the term's authority begins or ends
	deadline, alarm *time.Timer
	alarmed         atomic.Bool
}

// start starts the term's timers. Each reads the clock again when it fires, so one that a renewal has overtaken
// does nothing.
func (l *activeTerm) start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deadline, l.alarm = time.AfterFunc(time.Hour, l.expire), time.AfterFunc(time.Hour, l.raise)
	l.arm()
}

// renewed moves the end of the term's authority on. It does not bring back a term that is lost, nor one that has run out
// though its timer has not fired yet, as on waking from a suspension of the machine (S1). One that is suspended is
// resumed, if the renewal is not too old itself (S14).
func (l *activeTerm) renewed(sent protocol.Instant) {
	l.expire()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.term.authority.Store(&authority{sent: sent})
	if last := l.term.spell.Load(); last.ctx.Err() != nil && l.ctx.Err() == nil && !l.term.runOut(now()) {
		l.term.spell.Store(newSpell(l.term.alive))
		close(last.resumed)
	}
	l.arm()
}

// arm sets the timers anew.
func (l *activeTerm) arm() {
	end := l.term.authority.Load().sent.Add(l.term.renewDeadline())
	if l.term.spell.Load().ctx.Err() != nil {
		end = end.Add(l.term.of.opts.RecoveryDeadline)
	}
	l.deadline.Reset(until(end))
	l.alarm.Reset(until(l.term.overrunAt()))
}

func (l *activeTerm) missing() {
	l.term.authority.Store(&authority{sent: l.term.authority.Load().sent, missing: true})
}

// expire ends a term's authority at its deadline (S2): for good, or for the time being, if it may be suspended and its
// callback was not asked to stop (S14).
func (l *activeTerm) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.term.authority.Load()
	switch age := protocol.Age(a.sent, now()); {
	case age < l.term.renewDeadline():
		return
	case a.missing:
		l.end(&LostError{Reason: ReasonDeleted})
	case age >= l.term.renewDeadline()+l.term.of.opts.RecoveryDeadline, l.ctx.Err() != nil:
		l.end(&LostError{Reason: ReasonDeadlinePassed, Holder: l.term.Identity()})
	default:
		l.pause()
	}
}

// suspend takes the authority away for the time being: the protocol has read the clocks, and one of them may have been set
// back since (S2).
func (l *activeTerm) suspend() {
	l.expire()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pause()
}

// pause is suspend, with the lock held.
func (l *activeTerm) pause() {
	if s := l.term.spell.Load(); s.ctx.Err() == nil {
		s.suspend(time.Now())
		l.arm()
	}
}

// lose takes the authority away, then ends the callback's ctx with the reason. The first reason stays.
func (l *activeTerm) lose(lost *LostError) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end(lost)
}

// end is lose, with the lock held. A callback whose term was suspended has its stop budget from now on.
func (l *activeTerm) end(lost *LostError) {
	if l.term.alive.Err() == nil && l.term.spell.Load().ctx.Err() != nil {
		l.term.lostAt.Store(ptr.To(now()))
	}
	l.term.end(lost)
	l.cancel(lost)
	l.alarm.Reset(until(l.term.overrunAt()))
}

// raise reports a callback that still runs when the lease is about to end.
func (l *activeTerm) raise() {
	if !l.term.overruns(now()) || !l.alarmed.CompareAndSwap(false, true) {
		return
	}
	e := l.term.of
	e.metrics.Overrun(e.lease)
	if e.opts.OnOverrun != nil {
		e.opts.OnOverrun(l.term)
		return
	}
	l.log.Error(context.Cause(l.ctx), "The callback had to stop and still runs: the lease is about to end, and then another replica may lead at the same time")
}

// close ends the term after the callback has returned.
func (l *activeTerm) close() {
	l.term.end(nil)
	l.deadline.Stop()
	l.alarm.Stop()
}

// run runs the callback. runtime.Goexit counts as an error. A panic is passed on as it is: in a process that is about
// to crash nothing may be released. It is caught only to distinguish it from Goexit, which no deferred function can do
// otherwise.
func (l *activeTerm) run(callback func(context.Context) error) {
	l.result = errGoexit
	defer func() {
		if r := recover(); r != nil {
			panic(r)
		}
		l.cause, l.ctxErr = context.Cause(l.ctx), l.ctx.Err()
		l.term.returned.Store(true)
		close(l.returned)
	}()
	if l.expire(); l.term.Await(l.ctx) != nil {
		<-l.ctx.Done() // lost before it has begun, be it by a suspension just now
		l.result = nil
		return
	}
	l.result = callback(l.ctx)
}

// loss returns cause if it is that of a loss of this term. Run's ctx may be that of another election's callback, and then
// its end is another's loss.
func (l *activeTerm) loss(cause error) *LostError {
	var lost, another *LostError
	errors.As(context.Cause(l.outer), &another)
	if errors.As(cause, &lost) && lost != another {
		return lost
	}
	return nil
}
