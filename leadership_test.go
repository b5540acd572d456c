package elector

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
