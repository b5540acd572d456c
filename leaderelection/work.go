package leaderelection

import (
	"context"
	"sync/atomic"
	"time"
)

// unheeded is how long a release waits for work whose end cannot be known: of a callback that has never asked its context
// whether it has ended, but may hear of it in another way, and of goroutines that a callback has left behind.
const unheeded = time.Second

// work is one call of OnStartedLeading. Its nil is one that is not waited for.
type work struct {
	asked    atomic.Bool // its context was asked whether it has ended, or another was made of it
	returned chan struct{}
	before   bool // it returned before it was asked to. Written before returned closes
}

func newWork() *work { return &work{returned: make(chan struct{})} }

// running reports whether the callback has not returned.
func (w *work) running() bool {
	if w == nil {
		return false
	}
	select {
	case <-w.returned:
		return false
	default:
		return true
	}
}

// deaf reports whether the callback runs and cannot hear that it should stop, as far as anybody knows.
func (w *work) deaf() bool { return w.running() && !w.asked.Load() }

// early reports whether the callback returned before it was asked to, so that goroutines of its own may work on.
func (w *work) early() bool { return w != nil && !w.running() && w.before }

// end is closed when the callback returns. It is nil if that is over.
func (w *work) end() <-chan struct{} {
	if !w.running() {
		return nil
	}
	return w.returned
}

// join returns callbacks that the lock knows the beginning and the end of.
func (l *Lock) join(callbacks LeaderCallbacks) LeaderCallbacks {
	started, stopped := callbacks.OnStartedLeading, callbacks.OnStoppedLeading
	callbacks.OnStartedLeading = func(ctx context.Context) {
		l.mu.Lock()
		r := l.round
		work := r.work
		l.follow(ctx, r)
		l.mu.Unlock()
		work.run(r.workContext(ctx, work), started)
	}
	callbacks.OnStoppedLeading = func() {
		l.settle()
		stopped()
	}
	return callbacks
}

// workContext returns the context of OnStartedLeading: client-go's, which ends with the term at the latest. It lives on
// when the callback returns, because the callback's goroutines may use it.
func (r *round) workContext(ctx context.Context, work *work) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	context.AfterFunc(r.ctx, func() { cancel(context.Cause(r.ctx)) })
	return &heeding{ctx, r.ctx, &work.asked}
}

// run calls the callback. A panic is passed on before anything is released; runtime.Goexit counts as a return.
func (w *work) run(ctx context.Context, started func(context.Context)) {
	defer func() {
		if r := recover(); r != nil {
			panic(r)
		}
		w.before = ctx.(*heeding).Context.Err() == nil
		close(w.returned)
	}()
	started(ctx)
}

// settle ends a campaign that client-go has ended while it slept between two calls of Get, and waits for a release that it
// has not asked for.
func (l *Lock) settle() {
	l.mu.Lock()
	r := l.round
	releasing := l.shows && r != nil && r.state == released
	l.mu.Unlock()
	switch {
	case releasing:
		_ = r.awaitRelease()
	case r != nil && l.abandon(r):
		<-r.ended
	}
}

// heeding is a context that notes whether it is asked for its end. Contexts made of it ask it at once, if they can end
// by themselves, or else when they are asked.
type heeding struct {
	context.Context
	term  context.Context // for its values: the Term
	asked *atomic.Bool
}

// Done is that of the context inside.
func (h *heeding) Done() <-chan struct{} {
	h.asked.Store(true)
	return h.Context.Done()
}

// Err is that of the context inside.
func (h *heeding) Err() error {
	h.asked.Store(true)
	return h.Context.Err()
}

// Value is that of the context inside, or of the term's.
func (h *heeding) Value(key any) any {
	if v := h.Context.Value(key); v != nil {
		return v
	}
	return h.term.Value(key)
}
