package elector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector/internal/protocol"
)

// A candidate drives the election of one call of Run: it hands what happens to the protocol's machine, and carries out
// what that returns. Nothing is decided here. Only its goroutine touches it.
type candidate struct {
	*Elector
	log      logBeside
	ctx      context.Context    // for all that Run starts: with the values of its ctx, but without its end
	stop     context.CancelFunc // ends ctx
	machine  *protocol.Machine
	requests requests
	watches  watches
	active   *activeTerm // until its Lease is released; nil otherwise
	report   reporter
	health   *health            // nil without Options.Healthy
	yields   chan time.Duration // what Options.Yield returned
	asking   atomic.Bool        // it has not returned yet
	stateDir *stateDir          // nil without Options.StateDir
	deaths   *deaths            // nil without Options.Deaths
	reason   Reason             // why the last term was lost or given up
	lastErr  error              // why the last request failed; nil once there is no trouble
	timer    *time.Timer

	resigned bool  // the Lease is released although the callback may still run
	ended    bool  // Run returns
	err      error // what Run returns
	again    bool  // campaign again
}

func newCandidate(e *Elector, ctx context.Context, follows bool) *candidate {
	log := klog.FromContext(ctx).WithValues("lease", e.lease.String(), "identity", e.opts.Identity)
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	e.client.use(e.opts.RenewDeadline)
	report := newReporter(e, log)
	config := e.config()
	config.Follows = follows
	c := &candidate{
		Elector:  e,
		log:      report.log,
		ctx:      ctx,
		stop:     stop,
		machine:  protocol.New(config, rand.Int64N),
		requests: requests{under: map[int]*request{}, replies: make(chan reply, protocol.MaxCalls)},
		watches:  watches{events: make(chan watchEvent)},
		report:   report,
		timer:    time.NewTimer(0),
		yields:   make(chan time.Duration, 1),
	}
	c.health = newHealth(ctx, e.opts.Healthy, e.opts.RetryPeriod, e.opts.RenewDeadline)
	c.stateDir = newStateDir(c.log, e.opts.StateDir, e.lease)
	c.deaths = newDeaths(ctx, c.log, e.opts.Deaths, e.lease)
	return c
}

// close ends what Run has started.
func (c *candidate) close() {
	c.stop()
	c.timer.Stop()
	c.deaths.stop()
	c.stateDir.unlock(c.machine.Status().Holder == c.opts.Identity)
	c.client.unuse()
	s := c.machine.Status()
	c.state.Store(&snapshot{leader: s.Holder, lastRenewal: timeOf(s.LastRenewal), reason: c.reason, lastError: c.lastErr})
	c.report.wait()
}

// run takes part in the election until ctx ends or the callback returns by itself, and returns what Run returns.
func (c *candidate) run(ctx context.Context) error {
	c.log.Info("Campaigning")
	first := protocol.Event{Kind: protocol.Tick}
	if ctx.Err() != nil {
		first.Kind = protocol.Stop
	}
	c.step(ctx, first)
	for !c.ended {
		ev := protocol.Event{Kind: protocol.Campaign}
		if c.again {
			c.log.Info("Campaigning")
			c.again = false
		} else {
			ev = c.await(ctx)
		}
		c.step(ctx, ev)
	}
	return c.err
}

// step hands an event to the machine, with what has happened in silence before it, and carries out what follows.
func (c *candidate) step(ctx context.Context, ev protocol.Event) {
	for _, id := range c.watches.returned() {
		c.carryOut(ctx, c.machine.Step(protocol.Event{Kind: protocol.WatchEnded, ID: id}, now()))
	}
	for _, k := range c.requests.under {
		if left := k.leaves(c.opts.RenewDeadline / 3); left.Kind != protocol.Tick {
			c.carryOut(ctx, c.machine.Step(left, now()))
		}
	}
	if ev, ok := c.watches.heard(); ok {
		c.carryOut(ctx, c.machine.Step(ev, now()))
	}
	if c.machine.Status().Phase == protocol.StandingBy {
		if dead := c.stateDir.lock(); len(dead) > 0 {
			c.carryOut(ctx, c.machine.Step(protocol.Event{Kind: protocol.Proven, Marks: protocolMarks(dead...)}, now()))
		}
	}
	c.carryOut(ctx, c.machine.Step(ev, now()))
}

// await waits until something happens, or until the machine wants to be called, and returns what has happened.
func (c *candidate) await(ctx context.Context) protocol.Event {
	status, wake := c.machine.Status(), c.machine.Wake()
	if status.Phase == protocol.StandingBy && c.stateDir.waits() {
		wake = now().Add(min(until(wake), c.opts.RetryPeriod))
	}
	c.publish(status, wake)
	c.deaths.follow(c.whoMayDie(status))
	var ended, asked, returned <-chan struct{}
	var resign <-chan time.Duration
	switch status.Phase {
	case protocol.StandingBy, protocol.Following:
		ended = ctx.Done()
	case protocol.Leading:
		ended, asked, returned, resign = c.active.ctx.Done(), c.active.stepDown, c.active.returned, c.active.resign
	case protocol.Draining:
		c.oversee(timeOf(status.Draining))
		returned, resign = c.active.returned, c.active.resign
	case protocol.Over: // resigned
		returned = c.active.returned
	}
	c.timer.Reset(until(wake))
	select {
	case <-c.timer.C:
	case <-ended:
		return protocol.Event{Kind: protocol.Stop}
	case <-asked:
		return protocol.Event{Kind: protocol.StepDown}
	case notice := <-resign:
		c.resigned = true
		return protocol.Event{Kind: protocol.Resign, Delay: notice}
	case <-returned:
		return c.returned()
	case r := <-c.requests.replies:
		return c.answered(r)
	case ev := <-c.watches.events:
		return c.noticed(ev)
	case err := <-c.health.results():
		c.report.fitness(err)
		return protocol.Event{Kind: protocol.Health, OK: err == nil}
	case m := <-c.deaths.results():
		c.log.Info("The holder's process has ended, as its kubelet says: its lease is not waited for", "holder", m.Identity)
		return protocol.Event{Kind: protocol.Died, Marks: protocolMarks(m)}
	case d := <-c.yields:
		return protocol.Event{Kind: protocol.Yield, Delay: d}
	}
	return protocol.Event{Kind: protocol.Tick}
}

// carryOut does what the machine has decided, in order.
func (c *candidate) carryOut(ctx context.Context, effects []protocol.Effect) {
	for _, e := range effects {
		switch e.Kind {
		case protocol.Send:
			c.send(e.ID, e.Request)
		case protocol.Cancel:
			c.cancel(e.ID, e.OK)
		case protocol.Suspect:
			c.suspect(e.ID, timeOf(e.Sent))
		case protocol.Watch:
			c.watch(e.ID)
		case protocol.Unwatch:
			c.unwatch(e.ID)
		case protocol.AskYield:
			c.askYield()
		case protocol.ForgetProof:
			c.stateDir.forget()
		case protocol.BeginTerm:
			c.begin(ctx, e)
		case protocol.RenewTerm:
			c.active.renewed(e.Sent)
			if e.OK {
				c.report.renewed(e.Sent)
			}
		case protocol.LeaseMissing:
			c.active.missing()
		case protocol.LoseTerm:
			lost := lostError(e.Lost)
			c.active.lose(lost)
			c.reason = lost.Reason
			c.report.ended(c.active, lost, c.object())
		case protocol.SuspendTerm:
			c.active.suspend()
			c.report.suspended(c.active)
		case protocol.ResumeTerm:
			c.report.resumed(c.active)
		case protocol.StopCallback:
			c.drain(e.Lost)
		case protocol.LetGo:
			c.letGo(ctx, e)
		default:
			c.tell(e)
		}
	}
}

// tell passes on what is only to be reported.
func (c *candidate) tell(e protocol.Effect) {
	switch e.Kind {
	case protocol.PutsBack:
		c.log.Info("The lease was deleted; putting it back")
	case protocol.SawHolder:
		c.report.holder(e.Lost.Holder)
	case protocol.SawNamesake:
		c.log.Error(errNamesake, "Another process leads under this candidate's identity")
	case protocol.SawOwnName:
		c.log.Info("The lease is held under this candidate's identity, by an earlier process or by another one; waiting until it expires")
	case protocol.Trouble:
		c.lastErr = c.failure(e.ID)
		c.report.trouble(c.lastErr, e.OK, c.machine.Status().Phase == protocol.Releasing)
	case protocol.NoTrouble:
		c.lastErr = nil
		c.report.noTrouble()
	case protocol.NoWatch:
		c.log.Info("No watch on the lease: polling it instead, and trying the watch again now and then", "err", c.watches.failure(e.ID).Error())
	case protocol.WatchAgain:
		c.log.Info("The watch works again")
	}
}

// askYield calls Options.Yield beside the election, unless an earlier call has not returned (L13).
func (c *candidate) askYield() {
	if !c.asking.CompareAndSwap(false, true) {
		return
	}
	go func() {
		d := c.opts.Yield()
		c.asking.Store(false)
		select {
		case c.yields <- d:
		case <-c.ctx.Done():
		}
	}()
}

// whoMayDie is the term whose process a standby asks after (S13).
func (c *candidate) whoMayDie(status protocol.Status) heldTerm {
	if c.deaths == nil || status.Phase != protocol.StandingBy || status.Holder == "" {
		return heldTerm{}
	}
	return heldTerm{mark{status.Holder, time.UnixMicro(status.Acquired).UTC()}, timeOf(status.Late), timeOf(status.Expires)}
}

// protocolMarks are marks as the protocol has them.
func protocolMarks(marks ...mark) (out []protocol.Mark) {
	for _, m := range marks {
		out = append(out, protocol.Mark{Holder: m.Identity, Acquired: m.AcquireTime.UnixMicro()})
	}
	return out
}

// begin begins the callback of a term.
func (c *candidate) begin(ctx context.Context, e protocol.Effect) {
	c.stateDir.won()
	c.deaths.won()
	l := &activeTerm{
		log:      c.log.WithValues("term", e.Token),
		stepDown: make(chan struct{}),
		resign:   make(chan time.Duration, 1),
		done:     make(chan struct{}),
		returned: make(chan struct{}),
		term:     newTerm(c.Elector, e.Token, e.Sent),
		outer:    ctx,
	}
	l.ctx, l.cancel = context.WithCancelCause(l.term.in(ctx))
	l.start()
	c.active = l
	c.current.Store(l)
	c.publish(c.machine.Status(), c.machine.Wake())
	c.report.begun(l, e, c.object())
	go l.run(c.opts.Run)
}

// drain ends the callback's ctx.
func (c *candidate) drain(lost protocol.Lost) {
	l, since := c.active, time.Now()
	if lost.Reason != 0 {
		l.cancel(lostError(lost))
	}
	l.term.draining.Store(&since)
	c.report.stopping(l, context.Cause(l.ctx), c.machine.Status().Holder)
}

// oversee sees that a callback that drains is reported when it overruns, and each minute.
func (c *candidate) oversee(since time.Time) {
	if c.active.term.overruns(now()) && !c.active.alarmed.Load() {
		go c.active.raise() // its timer stands still while the machine is suspended
	}
	c.report.draining(c.active, since)
}

// returned ends the term after the callback has returned: first for readers, then in the Lease (S8).
func (c *candidate) returned() protocol.Event {
	l, holder := c.active, c.machine.Status().Holder
	l.close()
	c.report.stopping(l, l.cause, holder)
	c.report.ended(l, l.cause, c.object())
	l.cancel(nil)
	if c.resigned {
		c.current.Store(nil)
		c.ended, c.err = true, errResigned
		return protocol.Event{Kind: protocol.Tick}
	}
	lost := l.loss(l.cause)
	if lost != nil {
		c.reason = lost.Reason
	}
	return protocol.Event{Kind: protocol.Returned, OK: lost != nil && lost.givenUp()}
}

// letGo takes in that the Lease was released, or could not be.
func (c *candidate) letGo(ctx context.Context, e protocol.Effect) {
	var err error
	if !e.OK {
		err = cmp.Or(c.lastErr, errUnreleased)
	}
	l := c.active
	if l == nil {
		if err != nil {
			c.log.Info("Could not find out whether the lease was acquired, or could not release it; others may have to wait until it expires", "err", err.Error())
		}
		c.ended = ctx.Err() != nil
		return
	}
	l.err = err
	c.report.released(l, e, err, c.resigned)
	if c.resigned {
		c.publish(c.machine.Status(), c.machine.Wake())
		close(l.done)
		return // the process is about to end
	}
	c.active = nil
	c.publish(c.machine.Status(), c.machine.Wake()) // whoever has waited for StepDown sees that the Lease is free
	c.current.Store(nil)
	close(l.done)
	c.again, c.err = c.outcome(l)
	c.ended = !c.again
}

// outcome is what follows from how the callback has ended: whether to campaign again; if not, what Run returns.
func (c *candidate) outcome(l *activeTerm) (again bool, err error) {
	result, lost := l.result, l.loss(l.cause)
	if l.cause == nil {
		c.log.Info("The callback returned by itself; the election ends")
	} else if errors.Is(result, context.Canceled) || errors.Is(result, l.ctxErr) || errors.Is(result, l.cause) {
		result = nil // ctx's own error
	}
	if lost == nil {
		if result != nil {
			return false, fmt.Errorf("elector: the callback failed: %w", result)
		}
		return false, nil
	}
	if c.opts.SingleTerm && result != nil {
		return false, errors.Join(lost, result)
	} else if c.opts.SingleTerm {
		return false, lost
	}
	if result != nil {
		c.log.Error(result, "The callback returned an error after its term was lost")
	}
	return l.outer.Err() == nil, nil
}

// object is the Lease as last seen, nil for none.
func (c *candidate) object() *coordinationv1.Lease {
	lease, _ := c.machine.Status().Object.(*coordinationv1.Lease)
	return lease
}

// publish shows the state to readers in other goroutines. The loop means to be back at awake.
func (c *candidate) publish(status protocol.Status, awake protocol.Instant) {
	c.report.stuck(status.Stuck)
	s := &snapshot{
		leader:      status.Holder,
		lastRenewal: timeOf(status.LastRenewal),
		lastError:   c.lastErr,
		reason:      c.reason,
		awake:       awake,
		stuck:       status.Stuck,
	}
	if status.Phase == protocol.Leading || status.Phase == protocol.Draining {
		s.term = c.active.term
	}
	c.state.Store(s)
}
