package elector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/klog/v2"
)

// refusedReleaseLimit is how long a release is tried that the API refuses.
const refusedReleaseLimit = time.Second

// A candidate is what one call of Run owns. Only its goroutine touches it.
type candidate struct {
	*Elector
	log      klog.Logger
	ctx      context.Context // for requests: with the values of Run's ctx, but without its end
	seen     observed
	own      tenure
	active   *activeTerm // nil while standing by
	calls    calls
	pace     pace
	watch    watching
	trouble  trouble
	report   reporter
	health   *health   // nil without Options.Healthy
	stateDir *stateDir // nil without Options.StateDir

	changes     int // of the record, as far as seen
	lastRenewal time.Time
	timer       *time.Timer
}

func newCandidate(e *Elector, ctx context.Context) *candidate {
	log := klog.FromContext(ctx).WithValues("lease", e.lease.String(), "identity", e.identity)
	ctx = context.WithoutCancel(ctx)
	e.client.use()
	c := &candidate{
		Elector: e,
		log:     log,
		ctx:     ctx,
		calls:   calls{replies: make(chan reply, maxCalls)},
		watch:   watching{Elector: e, log: log, ctx: ctx},
		report:  reporter{Elector: e, log: log},
		timer:   time.NewTimer(0),
	}
	c.health = newHealth(ctx, e.opts.Healthy, e.timing)
	c.stateDir = newStateDir(log, e.opts.StateDir, e.lease)
	return c
}

// close ends what Run has started.
func (c *candidate) close() {
	c.watch.stop()
	c.timer.Stop()
	c.calls.drop()
	c.health.stop()
	c.stateDir.unlock()
	c.client.unuse()
	c.state.Store(&snapshot{leader: c.seen.holder(), lastRenewal: c.lastRenewal, lastError: c.trouble.err})
	c.report.wait()
}

// standBy campaigns until the Lease is won, or until ctx ends: then it returns false.
func (c *candidate) standBy(ctx context.Context) bool {
	c.own = c.own.afterwards(c.seen, c.identity)
	c.log.Info("Campaigning")
	for ctx.Err() == nil {
		c.proveDead()
		if c.own.unfit && c.seen.holder() == c.identity && c.own.owns(c.seen, c.identity) {
			c.handBack()
		}
		now := time.Now()
		d := decide(c.timing, c.seen, c.own, now)
		if d.do == lead {
			return true
		}
		until := c.act(c.watch.check(c.watch.poll(c.behind(d)), c.seen, c.pace.jitter), now)
		if c.stateDir.waits() {
			until = earliest(until, now.Add(c.opts.RetryPeriod))
		}
		c.await(until, ctx.Done(), nil, nil)
	}
	// A write may be under way, or its reply lost. If it wins, nobody would use the Lease, and everybody wait for it.
	c.own.phase = releasing
	if !c.calls.writing() && len(c.own.unconfirmed) > 0 {
		c.seen.stale = true // the watch may have more to show
	}
	if err := c.releaseLease(time.Now().Add(c.renewDeadline / 3)); err != nil {
		c.log.Info("Stopped while acquiring the lease, and could not find out whether it was acquired", "err", err)
	}
	return false
}

// handBack releases a Lease that was won by a write that was under way when this replica became unfit (L6): nobody would
// use it, and everybody wait for it.
func (c *candidate) handBack() {
	c.own.phase = releasing
	if err := c.releaseLease(time.Now().Add(c.renewDeadline / 3)); err != nil {
		c.log.Info("Became unhealthy while acquiring the lease, and could not release it; others wait until it expires", "err", err)
	}
	c.own = c.own.afterwards(c.seen, c.identity)
}

// proveDead takes in what the file in StateDir proves, as soon as this process has its lock (S12).
func (c *candidate) proveDead() {
	if dead := c.stateDir.lock(); len(dead) > 0 {
		c.own.dead = dead
		if c.seen.lease != nil {
			c.forgetDead()
		}
	}
}

// forgetDead ends the proof once a record is seen that no dead process has written, even if an old one comes back.
func (c *candidate) forgetDead() {
	if !c.own.isDead(c.seen) {
		c.own.dead = nil
		c.stateDir.forget()
	}
}

// behind puts an acquisition off by this candidate's share of the spread (L4), and by Yield (L7). A Lease that is free is
// free from when that was seen; one that expires, from then on.
func (c *candidate) behind(d decision) decision {
	if d.do != acquire {
		return d
	}
	d.at = latest(d.at, c.seen.since).Add(c.pace.jitter)
	if c.opts.Yield != nil && c.seen.holder() != c.identity {
		d.at = d.at.Add(max(c.opts.Yield(), 0))
	}
	return d
}

// lead runs the callback once, from the win to the release. It reports whether to campaign again; if not, what Run
// returns.
func (c *candidate) lead(ctx context.Context) (again bool, err error) {
	l := c.becomeLeader(ctx)
	for !l.term.returned.Load() {
		now := time.Now()
		d := decide(c.timing, c.seen, c.own, now)
		switch d.do {
		case stop:
			l.lose(d.lost)
		case stepDown:
			l.cancel(d.lost)
		}
		switch {
		case c.own.phase == draining:
			c.oversee(l, now)
			c.await(c.act(d, now), nil, nil, l.returned)
		case l.ctx.Err() != nil:
			c.becomeDraining(l)
		default:
			c.await(c.act(d, now), l.ctx.Done(), l.stepDown, l.returned)
		}
	}
	return c.becomeReleasing(l)
}

// becomeLeader starts the callback for the term just won.
func (c *candidate) becomeLeader(ctx context.Context) *activeTerm {
	c.own.phase, c.own.sitOut, c.own.adopted = leading, time.Time{}, 0
	c.stateDir.won()
	l := &activeTerm{
		log:      c.log.WithValues("term", c.own.version),
		stepDown: make(chan struct{}),
		done:     make(chan struct{}),
		returned: make(chan struct{}),
		term:     newTerm(c.Elector, c.own.version, c.own.sent),
		outer:    ctx,
	}
	l.ctx, l.cancel = context.WithCancelCause(l.term.in(ctx))
	l.start(c.own.sent)
	c.active = l
	c.current.Store(l)
	c.publish(time.Now())
	c.report.begun(l, c.seen)
	go l.run(c.opts.Run)
	return l
}

// becomeDraining waits for a callback that has to stop. The lease is kept alive meanwhile, if it is ours (S9).
func (c *candidate) becomeDraining(l *activeTerm) {
	now := time.Now()
	c.own.phase, c.own.drainSince = draining, now
	l.term.draining.Store(&now)
	c.report.stopping(l, context.Cause(l.ctx), c.seen)
}

// oversee sees to a term while its callback drains: it may be lost meanwhile, and overrun.
func (c *candidate) oversee(l *activeTerm, now time.Time) {
	if lost := overBy(c.timing, c.seen, c.own, now); lost != nil {
		l.term.end()
		c.report.ended(l, lost, c.seen)
	}
	if l.term.overruns(now) && !l.alarmed.Load() {
		go l.raise() // its timer stands still while the machine is suspended
	}
	c.report.draining(l, c.own.drainSince, now)
}

// becomeReleasing ends the term after the callback has returned: first for readers, then in the Lease (S8).
func (c *candidate) becomeReleasing(l *activeTerm) (again bool, err error) {
	c.own.phase = releasing
	l.end()
	c.report.stopping(l, l.cause, c.seen)
	c.report.ended(l, l.cause, c.seen)
	l.cancel(nil)
	c.active = nil
	c.publish(time.Now())
	l.err = c.releaseLease(c.own.sent.Add(c.leaseDuration))
	c.report.released(l, c.own.wrote, l.err)
	c.publish(time.Now()) // whoever has waited for StepDown sees that the Lease is free
	c.current.Store(nil)
	close(l.done)
	return c.outcome(l)
}

// outcome is what follows from how the callback has ended.
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
	if lost.givenUp() {
		c.own.sitOut, c.own.gaveUp = time.Now().Add(c.leaseDuration), c.own.wrote.acquired
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

// releaseLease releases the Lease if it is this candidate's, and returns nil once there is nothing (more) to release.
// What the API refuses, and will go on to refuse, is tried briefly (S8).
func (c *candidate) releaseLease(until time.Time) error {
	defer c.calls.drop()
	start := time.Now()
	for {
		now := time.Now()
		d := decide(c.timing, c.seen, c.own, now)
		switch {
		case c.trouble.refused != "":
			until = earliest(until, start.Add(refusedReleaseLimit))
		case d.do == done && c.own.wrote.holder == "" && c.own.wrote.renewed != 0:
			return nil // released: whatever is under way comes too late
		case d.do == done && !c.calls.writing():
			return nil
		case d.do == done:
			until = earliest(until, start.Add(c.renewDeadline/3))
			d = decision{do: get, at: latest(c.calls.awaited().sent, c.watch.asked).Add(c.renewDeadline / 6)} // has the write won?
		}
		if !now.Before(until) {
			return cmp.Or(c.trouble.err, errUnreleased)
		}
		c.await(earliest(c.act(d, now), until), nil, nil, nil)
	}
}

// act sends the request of a decision that is due. It returns when to decide again, if nothing happens before.
func (c *candidate) act(d decision, now time.Time) time.Time {
	at := latest(d.at, c.pace.notBefore)
	switch d.do {
	case idle, done, lead, stop, stepDown:
		return now.Add(c.leaseDuration)
	}
	if now.Before(at) {
		return at
	}
	if c.makeRoom(d.do, now) {
		c.send(d.do, now)
		if c.calls.asking && len(c.calls.all)+c.watch.underWay() < maxCalls {
			c.send(get, now)
		}
		c.calls.asking = false
	}
	return c.nextCall(now)
}

// await sleeps until the time given or until something happens, and takes in what did.
func (c *candidate) await(until time.Time, ended, asked, returned <-chan struct{}) {
	now := time.Now()
	until = earliest(until, c.nextCall(now))
	until = earliest(until, c.watch.tend(now, c.calls.awaited() != nil, len(c.calls.all)))
	if c.active != nil {
		until = earliest(until, now.Add(pulse))
	}
	c.publish(until)
	c.timer.Reset(time.Until(until))
	select {
	case <-c.timer.C:
	case <-ended:
	case <-asked:
		c.active.cancel(&LostError{Reason: ReasonSteppedDown, Holder: c.seen.holder()})
	case <-returned:
	case r := <-c.calls.replies:
		c.answered(r)
	case ev := <-c.watch.events():
		c.notice(ev)
	case err := <-c.health.results():
		c.own.unfit = err != nil
		c.report.fitness(err)
	}
	c.expire(time.Now())
}

// notice takes in what the watch reports.
func (c *candidate) notice(ev watchEvent) {
	now := time.Now()
	c.watch.notice(ev, now)
	switch {
	case ev.opened && c.own.phase == standingBy && c.seen.lease != nil:
		c.seen.stale = true // the watch does not show a deletion from before it began
	case ev.lease != nil && ev.change == watch.Deleted:
		c.observe(c.seen.gone(versionOf(ev.lease), time.Time{}, now))
	case ev.lease != nil:
		c.observe(c.seen.see(ev.lease, time.Time{}, now))
	}
}

// observe takes in what was seen.
func (c *candidate) observe(next observed) {
	before := c.seen
	c.seen = next
	if next.version == before.version && next.claim == before.claim && (next.lease == nil) == (before.lease == nil) && before.known() {
		return
	}
	c.changes++
	c.own = c.own.saw(next, c.identity)
	if own, ok := c.own.seenApplied(next); ok && !c.calls.awaits(own.sent) {
		c.own = own
		c.lastRenewal = c.own.sent
		c.active.renewed(c.own.sent)
		if !c.calls.repeats(next.claim) {
			c.report.renewed(c.own.sent, next.at)
		}
	}
	if next.lease != nil && (next.claim.blank() || !c.own.owns(next, c.identity)) {
		c.calls.void()
		c.forgetDead()
	}
	c.pace.jitter = rand.N(spread)
	if c.own.adopted >= maxAdopted {
		c.pace.jitter += c.opts.RetryPeriod // after those who hear the replies to their writes
	}
	if c.own.phase == standingBy {
		c.pace.notBefore = time.Time{}
	}
	if holder := next.holder(); holder != "" && holder != c.identity {
		if c.trouble.refused == "create" || c.trouble.refused == "update" {
			c.trouble.forgive() // nothing to write any more either
		}
	}
	if next.lease == nil && c.active != nil {
		c.active.missing()
	}
	c.report.changed(before, next, c.own)
}

// publish shows the state to readers in other goroutines. The loop means to be back at awake.
func (c *candidate) publish(awake time.Time) {
	s := &snapshot{
		leader:       c.seen.holder(),
		lastRenewal:  c.lastRenewal,
		lastError:    c.trouble.err,
		refusedSince: c.trouble.since,
		awake:        awake,
		stuck:        c.stuck(time.Now()),
	}
	if c.active != nil {
		s.term = c.active.term
	}
	c.state.Store(s)
}

// stuck reports whether so many clients have not returned from requests that no more are sent (L9).
func (c *candidate) stuck(now time.Time) bool {
	stuck := c.calls.stuck(now)+c.watch.lingering() >= maxCalls
	c.trouble.stuck(c.log, stuck)
	return stuck
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
