package leaderelection

import (
	"context"
	"sync/atomic"
	"time"
)

// unheeded is how long a callback is waited for that has never asked its context whether it has ended: it cannot hear
// that it should stop, but it may hear of it in another way.
const unheeded = time.Second

// work is one call of OnStartedLeading.
type work struct {
	asked    atomic.Bool // its context was asked whether it has ended, or another was made of it
	returned chan struct{}
	early    bool // it returned before it was asked to: goroutines of its own may work on. Written before returned closes
}

func newWork() *work { return &work{returned: make(chan struct{})} }

// over reports whether the callback has returned.
func (w *work) over() bool {
	select {
	case <-w.returned:
		return true
	default:
		return false
	}
}

// drain waits until the callback has returned, as long as it may hear that it should, until the term is lost, or until the
// limit, if there is one.
func (w *work) drain(lost <-chan struct{}, limit time.Duration) {
	deaf := time.NewTimer(unheeded)
	defer deaf.Stop()
	var over <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		over = timer.C
	}
	for {
		select {
		case <-w.returned:
			return
		case <-lost:
			return
		case <-over:
			return
		case <-deaf.C:
			if !w.asked.Load() {
				return
			}
		}
	}
}

// join returns callbacks that the lock knows the beginning and the end of.
func (l *Lock) join(callbacks LeaderCallbacks) LeaderCallbacks {
	started, stopped := callbacks.OnStartedLeading, callbacks.OnStoppedLeading
	callbacks.OnStartedLeading = func(ctx context.Context) {
		l.mu.Lock()
		s := l.session
		work := s.work
		l.mu.Unlock()
		work.run(l.workContext(ctx, s, work), started)
	}
	callbacks.OnStoppedLeading = func() {
		l.settle()
		stopped()
	}
	return callbacks
}

// workContext returns the context of OnStartedLeading: client-go's, which ends with the term at the latest. It lives on
// when the callback returns, because the callback's goroutines may use it.
func (l *Lock) workContext(ctx context.Context, s *session, work *work) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
	return &heeding{ctx, s.ctx, &work.asked}
}

// run calls the callback. A panic is passed on before anything is released; runtime.Goexit counts as a return.
func (w *work) run(ctx context.Context, started func(context.Context)) {
	defer func() {
		if r := recover(); r != nil {
			panic(r)
		}
		w.early = ctx.(*heeding).Context.Err() == nil
		close(w.returned)
	}()
	started(ctx)
}

// settle ends a campaign that client-go has ended while it slept between two calls of Get.
func (l *Lock) settle() {
	l.mu.Lock()
	s := l.session
	l.mu.Unlock()
	if s != nil && l.giveUp(s) {
		<-s.ended
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
