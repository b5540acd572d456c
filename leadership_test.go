package elector

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector/internal/protocol"
)

// A term being served, without an election around it.

func anElector(recovery time.Duration) *Elector {
	e := &Elector{opts: Options{
		Identity: "me", LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
		RecoveryDeadline: recovery, Metrics: NoMetrics{},
	}}
	e.metrics = newMetricsBeside(e)
	return e
}

// serve is a term whose last renewal was sent so long ago.
func serve(ctx context.Context, e *Elector, ago time.Duration) *activeTerm {
	l := &activeTerm{log: newReporter(e, logr.Discard()).log, term: newTerm(e, 1, now().Add(-ago)), outer: ctx, returned: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	l.start()
	return l
}

func TestAReplyTakenInBeforeTheTimerThatItComesTooLateForDoesNotReviveTheTerm(t *testing.T) {
	l := serve(t.Context(), anElector(0), 10*time.Second)
	require.False(t, l.term.Valid())
	l.renewed(now())
	assert.False(t, l.term.Valid())
	assert.ErrorIs(t, context.Cause(l.ctx), ErrLost)
}

func TestAnOverrunIsReportedOnWakingThoughItsTimerStoodStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		e := anElector(0)
		e.opts.OnOverrun = func(Term) { told++ }
		c := newCandidate(e, t.Context(), false)
		defer c.stop()
		c.active = serve(t.Context(), e, 20*time.Second)
		for range 2 {
			c.oversee(time.Now())
			synctest.Wait()
		}
		assert.Equal(t, 1, told)
	})
}

// Its user may wait for it, as after StepDown.
func TestATermThatIsGivenUpAsItBeginsHasItsCallback(t *testing.T) {
	for name, test := range map[string]struct {
		recovery time.Duration
		end      func(l *activeTerm)
		want     bool
	}{
		"given up":                {0, func(l *activeTerm) { l.cancel(&LostError{Reason: ReasonSteppedDown}) }, true},
		"given up, with recovery": {time.Hour, func(l *activeTerm) { l.cancel(&LostError{Reason: ReasonSteppedDown}) }, true},
		"lost":                    {0, func(l *activeTerm) { l.lose(&LostError{Reason: ReasonTakenOver}) }, false},
		"run out before it has begun": {0, func(l *activeTerm) {
			l.term.authority.Store(&authority{sent: now().Add(-11 * time.Second)})
		}, false},
		"lost while it is suspended": {time.Hour, func(l *activeTerm) {
			l.term.authority.Store(&authority{sent: now().Add(-11 * time.Second)})
			l.expire()
			l.lose(&LostError{Reason: ReasonTakenOver})
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := serve(t.Context(), anElector(test.recovery), 0)
			test.end(l)
			called := false
			l.run(func(context.Context) error { called = true; return nil })
			assert.Equal(t, test.want, called)
			assert.NoError(t, l.result)
			assert.ErrorIs(t, l.cause, ErrLost)
		})
	}
}

// S14: the timers of a suspended term.

func suspendedTerm(t *testing.T, recovery time.Duration) *activeTerm {
	l := serve(t.Context(), anElector(recovery), 30*time.Second)
	l.expire()
	require.False(t, l.term.Suspended().IsZero())
	return l
}

func TestALateConfirmationSetsTheDeadlineOfASuspendedTermAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := suspendedTerm(t, time.Minute)
		l.renewed(now().Add(-11 * time.Second)) // older than RenewDeadline: no authority
		assert.False(t, l.term.Valid())
		time.Sleep(59*time.Second - time.Nanosecond)
		synctest.Wait()
		assert.NoError(t, l.ctx.Err())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		assert.ErrorIs(t, context.Cause(l.ctx), ErrLost)
		assert.ErrorIs(t, l.term.Await(t.Context()), ErrLost)
	})
}

func TestATermThatWasResumedIsSuspendedAgainAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := suspendedTerm(t, time.Minute)
		since := l.term.Suspended()
		l.renewed(now().Add(-time.Second))
		assert.True(t, l.term.Valid())
		assert.True(t, l.term.Suspended().IsZero())
		time.Sleep(9 * time.Second)
		synctest.Wait()
		assert.Equal(t, 9*time.Second, l.term.Suspended().Sub(since))
		assert.NoError(t, l.ctx.Err())
	})
}

func TestATermWhoseCallbackHasToStopIsNotResumed(t *testing.T) {
	l := suspendedTerm(t, time.Hour)
	l.cancel(&LostError{Reason: ReasonSteppedDown})
	l.renewed(now())
	assert.False(t, l.term.Valid())
	assert.True(t, l.term.Suspended().IsZero(), "it is over")
}

func TestAwaitHasTheReasonOfALossBeforeTheCallbacksContextEnds(t *testing.T) {
	l := suspendedTerm(t, time.Hour)
	lost := &LostError{Reason: ReasonTakenOver, Holder: "else"}
	l.term.end(lost) // as lose does first
	require.NoError(t, l.ctx.Err())
	assert.Equal(t, lost, l.term.Await(l.ctx))
	held, cancel := l.term.Context(l.ctx)
	defer cancel()
	assert.Equal(t, lost, context.Cause(held))
	l.term.end(nil)
	assert.Equal(t, lost, l.term.Await(l.ctx), "the first reason stays")
	assert.ErrorIs(t, Term{}.Await(t.Context()), ErrNotLeader)
}

// Whatever meets in one moment, nobody who waits is left waiting, and nobody is told that a term is valid that is over.
func TestWhatMeetsInTheMomentThatATermIsSuspendedResumedOrLost(t *testing.T) {
	for round := range 60 {
		e := anElector(time.Hour)
		e.opts.RenewDeadline, e.opts.LeaseDuration = 2*time.Millisecond, 4*time.Millisecond
		l := serve(t.Context(), e, time.Duration(round%4)*time.Millisecond)
		var all sync.WaitGroup
		gate := (&gate{elector: e, next: roundTripperFunc(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done() // cut off, or this test hangs
			return nil, context.Cause(req.Context())
		})}).RoundTrip
		for range 4 {
			all.Go(func() {
				for l.term.alive.Err() == nil {
					if err := l.term.Await(context.Background()); err != nil {
						assert.ErrorIs(t, err, ErrLost)
					}
					held, cancel := l.term.Context(context.Background())
					<-held.Done()
					cancel()
					l.term.Suspended()
				}
			})
			all.Go(func() {
				for l.term.alive.Err() == nil {
					req, _ := http.NewRequestWithContext(context.WithValue(context.Background(), e, l.term), http.MethodPut, "https://api/x", nil)
					_, err := gate(req)
					assert.ErrorIs(t, err, ErrNotLeader)
				}
			})
		}
		all.Go(func() {
			for range 5 {
				l.renewed(now())
				time.Sleep(time.Duration(round%5) * time.Millisecond)
				l.expire()
			}
			l.lose(&LostError{Reason: ReasonTakenOver})
			l.renewed(now())
			assert.False(t, l.term.Valid())
		})
		all.Wait()
		assert.ErrorIs(t, context.Cause(l.ctx), ErrLost)
	}
}

type roundTripperFunc func(req *http.Request) (*http.Response, error)

func (f roundTripperFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// S14: suspension, as the term's own timer and readers see it.
func TestASpellOfATermEndsWithItsAuthorityAndTheNextBeginsWithARenewal(t *testing.T) {
	taken := func(ago time.Duration) protocol.Instant { return now().Add(-ago) }
	for name, test := range map[string]struct {
		change    func(l *activeTerm)
		valid     bool
		suspended bool
		same      bool // the spell
	}{
		"a renewal in time":                   {func(l *activeTerm) { l.renewed(taken(0)) }, true, false, true},
		"the protocol has read another clock": {func(l *activeTerm) { l.suspend() }, false, true, true},
		"a renewal while it is suspended":     {func(l *activeTerm) { l.suspend(); l.renewed(taken(0)) }, true, false, false},
		"one that is too old itself":          {func(l *activeTerm) { l.suspend(); l.renewed(taken(11 * time.Second)) }, false, true, true},
		"one of a term that has to stop": {func(l *activeTerm) {
			l.suspend()
			l.cancel(&LostError{Reason: ReasonSteppedDown})
			l.renewed(taken(0))
		}, false, true, true},
		"it runs out": {func(l *activeTerm) {
			l.term.authority.Store(&authority{sent: taken(11 * time.Second)})
			l.expire()
		}, false, true, true},
		"it runs out while the Lease is missing": {func(l *activeTerm) {
			l.term.authority.Store(&authority{sent: taken(11 * time.Second), missing: true})
			l.expire()
		}, false, false, true},
	} {
		l := serve(t.Context(), anElector(time.Hour), 0)
		spell := l.term.spell.Load()
		test.change(l)
		assert.Equal(t, test.valid, l.term.Valid(), name)
		assert.Equal(t, test.suspended, !l.term.Suspended().IsZero(), name)
		assert.Equal(t, test.same, l.term.spell.Load() == spell, name)
	}
}
