package elector

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"

	"github.com/elector-go/elector/internal/protocol"
)

// activeTerm is one term being served: the callback, and the timers that end its authority whatever the loop waits for.
type activeTerm struct {
	log          klog.Logger
	term         Term
	ctx          context.Context // the callback's
	cancel       context.CancelCauseFunc
	reportedEnd  bool            // Events and Metrics why it has ended; the reporter's
	reportedStop bool            // the log that it has to stop; likewise
	drained      int             // minutes of the drain that were logged; likewise
	returned     chan struct{}   // closed when the callback has returned
	result       error           // of the callback, once it has
	cause        error           // why its ctx had ended by then, nil if it had not
	ctxErr       error           // likewise: ctx's own
	outer        context.Context // of Elector.Run
	stepDown     chan struct{}   // closed by StepDown
	stepDownOnce sync.Once
	done         chan struct{} // closed once released
	err          error         // of the release, once done

	deadline, alarm *time.Timer
	alarmed         atomic.Bool
}

// start starts the term's timers. Each reads the clock again when it fires, so one that a renewal has overtaken
// does nothing.
func (l *activeTerm) start(sent protocol.Instant) {
	l.deadline = time.AfterFunc(until(sent.Add(l.term.renewDeadline())), l.expire)
	l.alarm = time.AfterFunc(until(sent.Add(l.term.overrunAfter())), l.raise)
}

// renewed moves the end of the term's authority on. It does not bring back a term that is over, nor one that has run out
// though its timer has not fired yet, as on waking from a suspension (S1).
func (l *activeTerm) renewed(sent protocol.Instant) {
	l.expire()
	l.term.authority.Store(&authority{sent: sent})
	l.deadline.Reset(until(sent.Add(l.term.renewDeadline())))
	l.alarm.Reset(until(sent.Add(l.term.overrunAfter())))
}

func (l *activeTerm) missing() {
	l.term.authority.Store(&authority{sent: l.term.authority.Load().sent, missing: true})
}

// expire ends a term at its deadline (S2).
func (l *activeTerm) expire() {
	a := l.term.authority.Load()
	if protocol.Age(a.sent, now()) < l.term.renewDeadline() {
		return
	}
	lost := &LostError{Reason: ReasonDeadlinePassed, Holder: l.term.Identity()}
	if a.missing {
		lost = &LostError{Reason: ReasonDeleted}
	}
	l.lose(lost)
}

// lose takes the authority away, then ends the callback's ctx with the reason. The first reason stays.
func (l *activeTerm) lose(lost *LostError) {
	l.term.end()
	l.cancel(lost)
}

// raise reports a callback that still runs when the lease is about to end.
func (l *activeTerm) raise() {
	if !l.term.overruns(now()) || !l.alarmed.CompareAndSwap(false, true) {
		return
	}
	e := l.term.of
	e.opts.Metrics.Overrun(e.lease)
	if e.opts.OnOverrun != nil {
		e.opts.OnOverrun(l.term)
		return
	}
	l.log.Error(context.Cause(l.ctx), "The callback had to stop and still runs: the lease is about to end, and then another replica may lead at the same time")
}

// end ends the term after the callback has returned.
func (l *activeTerm) end() {
	l.term.end()
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
	if l.expire(); !l.term.Valid() {
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
