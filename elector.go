package elector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/klog/v2"
)

const (
	// spread is what standbys scatter their writes over when a Lease falls free (L4). Twice as much would halve the
	// writes of a thousand standbys again, and cost a single one 5 ms more.
	spread = 10 * time.Millisecond

	// pulse is how often a leader looks at its clocks, so that it soon notices that its machine was suspended (S2).
	pulse = time.Second
)

// An Elector is one candidate for one Lease. Make it with New or NewForConfig. Its methods may be called from any
// goroutine.
type Elector struct {
	timing
	opts    Options
	lease   types.NamespacedName
	leases  coordinationv1client.LeaseInterface
	redial  func(sent time.Time) // see NewForConfig; sent is when the request was that was not answered
	running atomic.Bool
	state   atomic.Pointer[snapshot]
	current atomic.Pointer[leadership] // nil while standing by
}

// New returns a candidate that uses the caller's client. It sends no request. All mistakes in opts are reported at
// once, each with its field.
//
// The client should not share its rate limiter with the work of Run, or renewals wait behind that work; NewForConfig
// sees to that and to more.
func New(leases coordinationv1client.LeasesGetter, opts Options) (*Elector, error) {
	opts, err := opts.complete()
	if leases == nil {
		err = errors.Join(errors.New("leases: required: a client for coordination.k8s.io/v1, as clientset.CoordinationV1()"), err)
	}
	if err != nil {
		return nil, fmt.Errorf("elector: %w", err)
	}
	e := &Elector{
		timing: timing{opts.Identity, opts.LeaseDuration, opts.RenewDeadline},
		opts:   opts,
		lease:  types.NamespacedName{Namespace: opts.Namespace, Name: opts.Name},
		leases: leases.Leases(opts.Namespace),
		redial: func(time.Time) {},
	}
	e.state.Store(&snapshot{})
	return e, nil
}

// Run campaigns, leads while it holds the Lease, and campaigns again, until ctx ends or the callback returns by itself.
//
// It returns nil when ctx has ended and the callback has returned, with nil or ctx's error; nil when the callback
// returned nil by itself; the callback's error otherwise, wrapped; and with Options.SingleTerm the *LostError of a
// lost term, joined with the callback's error if it has one. (Without, an error returned after a loss is logged, and the
// election goes on.) Errors of the API never end it. A second call while one is running is refused; once it has returned, it may be called
// again.
//
// When ctx ends while the API is out of reach, Run tries to release the Lease for as long as it lasts, a LeaseDuration
// from the last renewal at most.
//
// It logs to the logger in ctx, klog.FromContext(ctx); for slog, run it with
// klog.NewContext(ctx, logr.FromSlogHandler(handler)).
func (e *Elector) Run(ctx context.Context) error {
	if !e.running.CompareAndSwap(false, true) {
		return errRunning
	}
	defer e.running.Store(false)
	c := newCandidate(e, ctx)
	defer c.close()
	e.opts.Metrics.Term(e.lease, Term{})
	for {
		if !c.standBy(ctx) {
			return nil
		}
		if again, err := c.lead(ctx); !again {
			return err
		}
	}
}

// StepDown gives leadership up: the callback's ctx ends with ReasonSteppedDown, and once the callback has returned the
// Lease is released, and StepDown returns. The candidate then sits out until another one leads, for one LeaseDuration
// at most, and campaigns again.
//
// It returns ErrNotLeader when there is nothing to give up, ctx's error if that ends first (the stepping down goes on),
// and an error when the Lease could not be released and others have to wait until it expires. Do not wait for it in
// the callback itself, for it waits for the callback: pass the callback's ctx there, which it ends.
func (e *Elector) StepDown(ctx context.Context) error {
	l := e.current.Load()
	if l == nil || !l.term.Valid() {
		return ErrNotLeader
	}
	l.askOnce.Do(func() { close(l.asked) })
	select {
	case <-l.done:
		return l.err
	case <-ctx.Done():
		return fmt.Errorf("elector: stepping down, but not waited for: %w", context.Cause(ctx))
	}
}

// A candidate is what one call of Run owns. Only its goroutine touches it.
type candidate struct {
	*Elector
	log    klog.Logger
	ctx    context.Context // for requests: with the values of Run's ctx, but without its end
	seen   observed
	own    tenure
	leader *leadership // nil while standing by
	call   *call       // the request under way, nil for none
	watch  watching

	notBefore time.Time     // no request before then, after a failed one
	pollAt    time.Time     // without a watch: when to look again
	asked     time.Time     // when the last GET was sent that is over
	jitter    time.Duration // this candidate's share of the spread, drawn anew for each record
	failures  int           // requests failed in a row
	contested int           // writes in a row that were refused as conflicts, or put right what another hand had changed

	news         announcer // of OnNewLeader
	events       announcer // of Events
	announced    string
	heldUntil    time.Time // when a hold on the Lease was last seen to be confirmed by another, or to be let go
	suspected    int64     // acquireTime of the record reported by suspect
	lastRenewal  time.Time
	loggedError  string
	loggedAt     time.Time
	lastError    error
	refusedVerb  string // what the API refuses this candidate, "" for nothing
	refusedSince time.Time
	timer        *time.Timer
}

func newCandidate(e *Elector, ctx context.Context) *candidate {
	return &candidate{
		Elector: e,
		log:     klog.FromContext(ctx).WithValues("lease", e.lease.String(), "identity", e.identity),
		ctx:     context.WithoutCancel(ctx),
		timer:   time.NewTimer(0),
	}
}

// close ends what Run has started.
func (c *candidate) close() {
	c.watch.stop()
	c.timer.Stop()
	if c.call != nil {
		c.call.cancel()
	}
	c.state.Store(&snapshot{leader: c.seen.holder(), lastRenewal: c.lastRenewal, lastError: c.lastError})
	c.news.wait()
	c.events.wait()
}

// standBy campaigns until the Lease is won, or until ctx ends: then it returns false.
func (c *candidate) standBy(ctx context.Context) bool {
	c.own = c.own.afterwards(c.seen, c.identity)
	for ctx.Err() == nil {
		now := time.Now()
		d := decide(c.timing, c.seen, c.own, now)
		if d.do == lead {
			return true
		}
		c.await(c.act(c.poll(d), now), ctx.Done(), nil, nil)
	}
	// A write may be under way, or its reply lost. If it wins, nobody would use the Lease, and everybody wait for it.
	c.own.phase = releasing
	if c.call != nil && c.call.do == look {
		c.drop()
	}
	if c.call == nil && len(c.own.doubt) > 0 {
		c.seen.stale = true // the watch may have more to tell
	}
	if err := c.letGo(time.Now().Add(c.renewDeadline / 3)); err != nil {
		c.log.Info("Stopped while acquiring the lease, and could not find out whether it was acquired", "err", err)
	}
	return false
}

// lead runs the callback once, from the win to the release. It reports whether to campaign again; if not, what Run
// returns.
func (c *candidate) lead(ctx context.Context) (again bool, err error) {
	l := c.becomeLeader(ctx)
	for !l.term.returned.Load() {
		now := time.Now()
		d := decide(c.timing, c.seen, c.own, now)
		if d.do == stop {
			l.lose(d.lost)
		}
		switch {
		case c.own.phase == draining:
			c.oversee(l, now)
			c.await(c.act(d, now), nil, nil, l.returned)
		case l.ctx.Err() != nil:
			c.becomeDraining(l)
		default:
			c.await(c.act(d, now), l.ctx.Done(), l.asked, l.returned)
		}
	}
	return c.becomeReleasing(l)
}

// becomeLeader starts the callback for the term just won.
func (c *candidate) becomeLeader(ctx context.Context) *leadership {
	c.own.phase, c.own.sitOut = leading, time.Time{}
	l := &leadership{
		log:      c.log.WithValues("term", c.own.version),
		asked:    make(chan struct{}),
		done:     make(chan struct{}),
		returned: make(chan struct{}),
		term:     newTerm(c.Elector, c.own.version, c.own.sent),
		outer:    ctx,
	}
	l.ctx, l.cancel = context.WithCancelCause(l.term.in(ctx))
	l.start(c.own.sent)
	c.leader = l
	c.current.Store(l)
	c.publish(time.Now())
	l.log.Info("Became leader")
	c.opts.Metrics.Term(c.lease, l.term)
	if !c.heldUntil.IsZero() {
		c.opts.Metrics.HandedOver(c.lease, time.Since(c.heldUntil))
	}
	c.record(corev1.EventTypeNormal, "became leader")
	go l.run(c.opts.Run)
	return l
}

// becomeDraining waits for a callback that was told to stop. The lease is kept alive meanwhile, if it is ours (S9).
func (c *candidate) becomeDraining(l *leadership) {
	c.own.phase = draining
	msg := "Lost the lease: the callback was told to stop"
	if l.term.Valid() {
		msg = "The callback was told to stop; the lease is kept until it has returned"
	}
	l.log.Info(msg, "reason", context.Cause(l.ctx).Error(), "leader", c.seen.holder())
}

// oversee sees to a term while its callback drains: it may be lost meanwhile, and overrun.
func (c *candidate) oversee(l *leadership, now time.Time) {
	if lost := overBy(c.timing, c.seen, c.own, now); lost != nil {
		l.term.end()
		c.tellEnd(l, lost)
	}
	if l.term.overruns(now) && !l.alarmed.Load() {
		go l.raise() // its timer stands still while the machine is suspended
	}
}

// becomeReleasing ends the term after the callback has returned: first for readers, then in the Lease (S8).
func (c *candidate) becomeReleasing(l *leadership) (again bool, err error) {
	c.own.phase = releasing
	l.end()
	c.tellEnd(l, l.cause)
	l.cancel(nil)
	c.leader = nil
	c.publish(time.Now())
	if l.err = c.letGo(c.own.sent.Add(c.leaseDuration)); l.err != nil {
		l.log.Error(l.err, "Could not release the lease; others wait until it expires")
	} else if c.own.wrote.holder == "" {
		l.log.Info("Released the lease")
	}
	c.current.Store(nil)
	close(l.done)
	return c.outcome(l)
}

// outcome is what follows from how the callback has ended.
func (c *candidate) outcome(l *leadership) (again bool, err error) {
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
	if h := c.seen.holder(); lost.Reason == ReasonSteppedDown && (h == "" || h == c.identity) { // nobody else leads yet
		c.own.sitOut = time.Now().Add(c.leaseDuration)
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

// letGo releases the Lease if it is this candidate's, and returns nil once there is nothing (more) to release.
func (c *candidate) letGo(until time.Time) error {
	for {
		now := time.Now()
		d := decide(c.timing, c.seen, c.own, now)
		switch {
		case d.do == leave && c.call == nil:
			return nil
		case !now.Before(until):
			c.drop()
			return cmp.Or(c.lastError, errUnreleased)
		}
		c.await(earliest(c.act(d, now), until), nil, nil, nil)
	}
}

// poll turns waiting into looking now and then, while there is no watch to tell of changes (L1).
func (c *candidate) poll(d decision) decision {
	if d.do != lead && !c.watch.open && (d.do == idle || c.pollAt.Before(d.at)) {
		return decision{do: look, at: c.pollAt}
	}
	return d
}

// act sends the request of a decision that is due. It returns when to decide again, if nothing happens before.
func (c *candidate) act(d decision, now time.Time) time.Time {
	at := latest(d.at, c.notBefore)
	switch d.do {
	case idle, leave:
		at = now.Add(c.leaseDuration)
	case take:
		// A Lease that is free is free from when that was seen; one that expires, from then on.
		at = latest(at, latest(d.at, c.seen.at).Add(c.jitter))
		fallthrough
	default:
		if c.call == nil && !now.Before(at) {
			c.send(d.do)
		}
	}
	return at
}

// await sleeps until the time given or until something happens, and takes in what did.
func (c *candidate) await(until time.Time, ended, asked, returned <-chan struct{}) {
	now := time.Now()
	if c.call != nil {
		until = c.call.giveUp // one request at a time
	}
	until = earliest(until, c.tend(now))
	if c.leader != nil {
		until = earliest(until, now.Add(pulse))
	}
	c.publish(until)
	c.timer.Reset(time.Until(until))
	select {
	case <-c.timer.C:
	case <-ended:
	case <-asked:
		c.leader.cancel(&LostError{Reason: ReasonSteppedDown, Holder: c.seen.holder()})
	case <-returned:
	case r := <-c.call.replies():
		c.settle(r)
	case ev := <-c.watch.events():
		c.notice(ev)
	}
	if c.call != nil && !time.Now().Before(c.call.giveUp) {
		c.abandon()
	}
}

// fold takes in what was seen.
func (c *candidate) fold(next observed) {
	before := c.seen
	c.seen = next
	if next.version == before.version && next.claim == before.claim && (next.lease == nil) == (before.lease == nil) && before.looked {
		return
	}
	c.own = c.own.settle(next, c.identity)
	c.jitter = rand.N(spread)
	if c.own.adopted >= maxAdopted {
		c.jitter += c.opts.RetryPeriod // after those who hear the replies to their writes
	}
	if c.own.phase == standingBy {
		c.notBefore = time.Time{}
		c.suspect(before)
	}
	holder := next.holder()
	if !c.own.owns(next, c.identity) || next.claim.released() {
		c.heldUntil = next.at
	}
	if holder != "" && holder != c.identity {
		c.own.sitOut = time.Time{} // another leads: nothing to sit out any more
		if c.refusedVerb == "create" || c.refusedVerb == "update" {
			c.forgive() // nothing to write any more either
		}
	}
	if next.lease == nil && c.leader != nil {
		c.leader.missing()
	}
	if next.lease != nil && holder != c.announced {
		c.announced = holder
		if holder != "" && c.opts.OnNewLeader != nil {
			c.news.tell(func() { c.opts.OnNewLeader(holder) })
		}
		if holder != "" && holder != c.identity {
			c.log.Info("New leader", "leader", holder)
		}
	}
}

// suspect reports a Lease that another process holds, or held, under this candidate's name.
func (c *candidate) suspect(before observed) {
	if c.seen.holder() != c.identity || c.own.owns(c.seen, c.identity) || len(c.own.past) > 0 {
		return
	}
	switch renewed := before.holder() == c.identity && before.claim.renewed != c.seen.claim.renewed; {
	case renewed && c.suspected != c.seen.claim.acquired:
		c.suspected = c.seen.claim.acquired
		c.log.Error(errNamesake, "Another process leads under this candidate's identity")
	case before.holder() != c.identity:
		c.log.Info("The lease is held under this candidate's identity, by an earlier process or by another one; waiting until it expires")
	}
}

// publish shows the state to readers in other goroutines. The loop means to be back at awake.
func (c *candidate) publish(awake time.Time) {
	s := &snapshot{
		leader:       c.seen.holder(),
		lastRenewal:  c.lastRenewal,
		lastError:    c.lastError,
		refusedSince: c.refusedSince,
		awake:        awake,
	}
	if c.leader != nil {
		s.term = c.leader.term
	}
	c.state.Store(s)
}

// leadership is one term being served: the callback, and the timers that end its authority whatever the loop waits for.
type leadership struct {
	log      klog.Logger
	term     Term
	ctx      context.Context // the callback's
	cancel   context.CancelCauseFunc
	told     bool            // why it has ended; the loop's
	returned chan struct{}   // closed when the callback has returned
	result   error           // of the callback, once it has
	cause    error           // why it had been told to stop by then, nil if it had not
	ctxErr   error           // likewise: ctx's own
	outer    context.Context // of Elector.Run
	asked    chan struct{}   // closed by StepDown
	askOnce  sync.Once
	done     chan struct{} // closed once released
	err      error         // of the release, once done

	deadline, alarm *time.Timer
	alarmed         atomic.Bool
}

// start starts the term's timers. Each looks at the clock again when it fires, so one that a renewal has overtaken
// does nothing.
func (l *leadership) start(sent time.Time) {
	l.deadline = time.AfterFunc(time.Until(sent.Add(l.term.renewDeadline)), l.expire)
	l.alarm = time.AfterFunc(time.Until(sent.Add(l.term.overrunAfter())), l.raise)
}

// renewed moves the end of the term's authority on. It does not bring back a term that is over, nor one that has run out
// though its timer has not told yet, as on waking from a suspension (S1).
func (l *leadership) renewed(sent time.Time) {
	l.expire()
	l.term.authority.Store(&authority{sent: sent})
	l.deadline.Reset(time.Until(sent.Add(l.term.renewDeadline)))
	l.alarm.Reset(time.Until(sent.Add(l.term.overrunAfter())))
}

func (l *leadership) missing() {
	l.term.authority.Store(&authority{sent: l.term.authority.Load().sent, missing: true})
}

// expire ends a term at its deadline (S2).
func (l *leadership) expire() {
	a := l.term.authority.Load()
	if age(a.sent, time.Now()) < l.term.renewDeadline {
		return
	}
	lost := &LostError{Reason: ReasonDeadlinePassed, Holder: l.term.identity}
	if a.missing {
		lost = &LostError{Reason: ReasonDeleted}
	}
	l.lose(lost)
}

// lose takes the authority away, then tells the callback why. The first reason stays.
func (l *leadership) lose(lost *LostError) {
	l.term.end()
	l.cancel(lost)
}

// raise reports a callback that still runs when the lease is about to end.
func (l *leadership) raise() {
	if !l.term.overruns(time.Now()) || !l.alarmed.CompareAndSwap(false, true) {
		return
	}
	e := l.term.of
	e.opts.Metrics.Overrun(e.lease)
	if e.opts.OnOverrun != nil {
		e.opts.OnOverrun(l.term)
		return
	}
	l.log.Error(context.Cause(l.ctx), "The callback was told to stop and still runs: the lease is about to end, and another replica may lead beside it")
}

// end ends the term after the callback has returned.
func (l *leadership) end() {
	l.term.end()
	l.deadline.Stop()
	l.alarm.Stop()
}

// run runs the callback. runtime.Goexit counts as an error. A panic is passed on as it is: in a process that is about
// to crash nothing may be released. It is caught only to be told from Goexit, which no deferred function can do
// otherwise.
func (l *leadership) run(callback func(context.Context) error) {
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
func (l *leadership) loss(cause error) *LostError {
	var lost, another *LostError
	errors.As(context.Cause(l.outer), &another)
	if errors.As(cause, &lost) && lost != another {
		return lost
	}
	return nil
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
