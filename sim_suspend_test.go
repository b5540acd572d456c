package elector_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/elector-go/elector"
)

// This file suspends the simulation's actors, as SIGSTOP or a paused machine does. Virtual time cannot freeze
// goroutines, so it is done at an actor's edges, the gates: no request leaves and nothing arrives, the callback neither
// does nor sees anything, and the election's loop stops where it next asks its ctx, logs, or calls its Metrics. Timers
// do run, those of a term among them; but what comes of that is seen only on waking. So one thing is not simulated:
// that on waking a reply is taken in before a timer that was due in the sleep.

// A visit is one call of an actor's callback.
type visit struct {
	*span
	ctx   context.Context
	heard bool          // that it has to end
	late  time.Duration // when it did, see actor.late
	out   chan struct{} // closed on waking without the right to be inside
	isOut bool          // it has been closed
	until time.Time     // how long it may stay after it heard of a loss; zero before
}

// over reports whether the callback may not be inside any more.
func (v *visit) over() bool { return !v.term.Valid() && !time.Now().Before(v.until) }

// leave has the callback return as soon as its ctx has ended. The simulation's lock is held.
func (v *visit) leave() {
	if !v.isOut {
		v.isOut = true
		close(v.out)
	}
}

// An ambush is a suspension that waits for its moment.
type ambush struct {
	moment string // see suspension; "" for none
	skip   int    // how often the moment is let pass
	length time.Duration
}

// moments are when chance would seldom suspend: around a write, a release and a loss; with a reply or an event that has
// just come in, and that the loop takes in on waking; at any step of the loop; and before a callback begins.
var moments = []string{"write", "release", "loss", "reply", "event", "step", "term"}

// suspension plans one: from a millisecond to minutes, at once or at one of the moments.
func (s *simulation) suspension(a *actor) string {
	d := time.Duration(math.Pow(10, s.rng.Float64()*5.3-3) * float64(time.Second))
	moment, skip, now := moments[s.rng.IntN(len(moments))], s.rng.IntN(4), s.rng.IntN(3) == 0
	s.lock.Lock()
	defer s.lock.Unlock()
	if !now {
		a.ambush = ambush{moment, 0, d}
		if moment == "step" || moment == "event" {
			a.ambush.skip = skip
		}
		return fmt.Sprintf("to be suspended for %v at its next %s: %s", d, moment, a.name)
	}
	s.suspend(a, d)
	return "suspended: " + a.name
}

// spring suspends an actor that has come to the moment of its ambush: within the time given, or at once. The lock is
// held.
func (s *simulation) spring(a *actor, moment string, within time.Duration) {
	if a.ambush.moment != moment {
		return
	}
	if a.ambush.skip--; a.ambush.skip >= 0 {
		return
	}
	d := a.ambush.length
	a.ambush = ambush{}
	if within == 0 {
		s.suspend(a, d)
		return
	}
	time.AfterFunc(time.Duration(a.rng.Float64()*float64(within)), func() {
		s.lock.Lock()
		defer s.lock.Unlock()
		s.suspend(a, d)
	})
}

// comesTo is spring at once, for a caller that does not hold the lock.
func (s *simulation) comesTo(a *actor, moment string) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.spring(a, moment, 0)
}

// decides notes that a standby's loop is about to decide.
func (s *simulation) decides(a *actor) {
	s.lock.Lock()
	defer s.lock.Unlock()
	a.decided = time.Now()
}

// step is the gate of the election's loop.
func (s *simulation) step(a *actor) {
	s.comesTo(a, "step")
	s.pause(a)
}

// suspend puts an actor to sleep. While it sleeps it is not inside. The lock is held.
func (s *simulation) suspend(a *actor, d time.Duration) {
	if a.asleep != nil || a.crashed || !s.storm {
		return
	}
	if v := a.inside; v != nil && v.term.Valid() && a.rng.IntN(5) == 0 {
		d = time.Until(v.term.ValidUntil()) // to wake at the same time as the timer that ends the term, maybe before it: the clock decides
	}
	phase := a.phase()
	s.tally["asleep while "+phase]++
	s.write(a, "is SUSPENDED for %v while %s", d, phase)
	a.asleep, a.slept = make(chan struct{}), time.Now()
	s.mu.Lock()
	s.running = slices.DeleteFunc(s.running, func(r *replica) bool { return r == a.replica })
	s.mu.Unlock()
	time.AfterFunc(d, func() { s.wake(a) })
}

// phase says where an actor stands. The simulation's lock is held.
func (a *actor) phase() string {
	switch {
	case a.inside != nil && a.inside.ctx.Err() == nil:
		return "leading"
	case a.inside != nil:
		return "draining"
	case a.releases > 0:
		return "releasing"
	case a.writes > 0:
		return "winning"
	default:
		return "standing by"
	}
}

// wake wakes an actor. Its first call of Valid reports whether its term is valid. If so, it is inside again, and has to
// be alone there; and so it has to be after a loss that it heard of in time, for the rest of the stop budget. If not,
// it does nothing more, and has to be out at once.
func (s *simulation) wake(a *actor) {
	s.lock.Lock()
	defer s.lock.Unlock()
	asleep := a.asleep
	a.asleep, a.woke = nil, time.Now()
	defer close(asleep)
	v := a.inside
	switch {
	case v == nil:
		s.write(a, "WAKES")
		return
	case a.crashed: // in its sleep, so it does not wake
		v.leave()
		return
	}
	until := v.term.ValidUntil()
	valid := v.term.Valid()
	if valid && !until.IsZero() && !time.Now().Before(until) {
		s.complain("%s wakes with a term that ended at %v, and it is valid", a.name, until.Sub(s.start))
	}
	s.write(a, "WAKES inside, term %d, valid: %v", v.term.Token(), valid)
	if leads := a.el.IsLeader(); leads != valid {
		s.complain("%s wakes, IsLeader is %v and Valid is %v", a.name, leads, valid)
	}
	if v.over() {
		s.tally["awake without a valid term"]++
		v.leave()
		time.AfterFunc(time.Millisecond, func() { s.expectOut(a, v) })
		return
	}
	s.tally[fmt.Sprintf("awake and inside, valid: %v", valid)]++
	s.reenter(a, v)
}

// reenter counts an actor as inside again. The lock is held.
func (s *simulation) reenter(a *actor, v *visit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.running) > 0 {
		s.complain("%s wakes while %s works, and may work on, in term %d", a.name, s.running[0].name, v.term.Token())
	}
	if last := s.terms[len(s.terms)-1]; last != v.span {
		s.complain("%s wakes and may work on in term %d, but term %d has begun", a.name, v.term.Token(), last.term.Token())
	}
	s.running = append(s.running, a.replica)
}

// expectOut checks that a callback has returned that has woken without a valid term.
func (s *simulation) expectOut(a *actor, v *visit) {
	s.lock.Lock()
	defer s.lock.Unlock()
	if a.inside == v && a.asleep == nil && !a.crashed {
		s.complain("%s works on 1ms after it has woken without a valid term: it is %v, its ctx: %v", a.name, v.term.Valid(), v.ctx.Err())
	}
}

// pause waits while an actor sleeps, and reports whether it did.
func (s *simulation) pause(a *actor) (slept bool) {
	for {
		s.lock.Lock()
		asleep := a.asleep
		s.lock.Unlock()
		if asleep == nil {
			return slept
		}
		<-asleep
		slept = true
	}
}

// begin enters. It returns nil if the term has run out in the actor's sleep before that, be it that the loop slept
// between deciding to lead and starting the callback. Deciding that on waking is a mistake.
func (s *simulation) begin(a *actor, ctx context.Context) *visit {
	term, _ := elector.TermFrom(ctx)
	for slept := false; ; {
		slept = s.pause(a) || slept
		s.lock.Lock()
		switch {
		case a.asleep != nil:
			s.lock.Unlock()
			continue
		case (slept || a.woke.Equal(time.Now()) && a.decided.Before(a.woke)) && (a.crashed || !term.Valid()):
			s.tally["awake too late to begin"]++
			s.write(a, "does not begin: term %d has run out in its sleep", term.Token())
			s.lock.Unlock()
			return nil
		}
		defer s.lock.Unlock()
		a.inside = &visit{span: s.enter(a.replica, ctx), ctx: ctx, out: make(chan struct{})}
		a.begun++
		return a.inside
	}
}

func (s *simulation) end(a *actor, v *visit) {
	s.lock.Lock()
	defer s.lock.Unlock()
	a.inside = nil
	s.leave(a.replica, v.span)
}

// expectTold waits for the ctx of a term that is not valid to end.
func (s *simulation) expectTold(a *actor, ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Millisecond):
		if !s.pause(a) {
			s.fail("%s wakes without a valid term, and its ctx does not end", a.name)
		}
		<-ctx.Done()
	}
}

// stays waits while the actor sleeps, and reports whether its callback may still be inside.
func (s *simulation) stays(a *actor, v *visit) bool {
	s.pause(a)
	select {
	case <-v.out:
		return false
	default:
		return true
	}
}

// pass takes d to return, and longer if the actor sleeps then. It reports whether the callback may go on.
func (s *simulation) pass(a *actor, v *visit, d time.Duration) bool {
	select {
	case <-time.After(d):
	case <-v.out:
	}
	return s.stays(a, v)
}

// drainStep is how often a draining callback checks its term.
const drainStep = 100 * time.Millisecond

// drainAfterLoss takes d of the actor's waking time to return, but no longer than the stop budget.
func (s *simulation) drainAfterLoss(a *actor, v *visit, d, budget time.Duration) {
	until := time.Now().Add(budget)
	s.lock.Lock()
	v.until = until
	s.lock.Unlock()
	for d > 0 && time.Now().Before(until) {
		step := min(d, time.Until(until), drainStep)
		if !s.pass(a, v, step) {
			return
		}
		if d -= step; v.term.Valid() {
			s.fail("%s was told of a loss, and its term is valid again", a.name)
		}
	}
}

// drainWhileValid takes d of the actor's waking time to return, or less if the term ends meanwhile: then as long as the
// stop budget allows, less the time after which that is noticed.
func (s *simulation) drainWhileValid(a *actor, v *visit, d, budget time.Duration) {
	for ; d > 0; d -= drainStep {
		if !v.term.Valid() {
			s.drainAfterLoss(a, v, d, budget-drainStep-10*time.Millisecond)
			return
		}
		if !s.pass(a, v, min(d, drainStep)) {
			return
		}
	}
}

// awaitWaking waits until nobody sleeps and nobody is going to.
func (s *simulation) awaitWaking() {
	s.lock.Lock()
	s.storm = false
	for _, a := range s.actors {
		a.ambush = ambush{}
	}
	s.lock.Unlock()
	for _, a := range s.living() {
		s.pause(a)
	}
}

// sleepsAsNewcomer reports whether a sleeper may not have taken in the present term, or the present Lease, before it
// fell asleep. What it had taken in at the last moment its snapshot does not show, because its loop may have been
// stopped just before it published that; and the answer to a request takes up to a third of the longest RenewDeadline.
// On waking it is like a newcomer if the Lease is deleted or edited in its sleep: it knows no more than that an earlier
// Lease was deleted long ago, or only an earlier holder's promise (doc.go, "What is not promised"). The leader knows
// its own.
func (s *simulation) sleepsAsNewcomer(a *actor) bool {
	s.lock.Lock()
	defer s.lock.Unlock()
	if a.asleep == nil || a.inside != nil && a.inside.term.Valid() {
		return false
	}
	const settled = 10 * time.Second
	return a.slept.Sub(s.since) < settled || a.slept.Sub(a.woke) < settled
}

// gated is the ctx of a replica that can be suspended: whoever asks whether it has ended waits until the replica wakes.
type gated struct {
	context.Context
	gate func()
	open func() // notes that it has not ended, and that a standby's loop is about to decide
}

func (g gated) Err() error {
	g.gate()
	err := g.Context.Err()
	if err == nil {
		g.open()
	}
	return err
}

// gatedMetrics stop the election's loop of a suspended replica.
type gatedMetrics struct {
	elector.NoMetrics
	gate  func()
	begin func() // a term
}

func (g gatedMetrics) Term(_ types.NamespacedName, term elector.Term) {
	if term.Token() > 0 {
		g.begin()
	}
	g.gate()
}

func (g gatedMetrics) Lost(types.NamespacedName, elector.Reason)             { g.gate() }
func (g gatedMetrics) Renewed(_ types.NamespacedName, _, _, _ time.Duration) { g.gate() }
func (g gatedMetrics) HandedOver(types.NamespacedName, time.Duration)        { g.gate() }
func (g gatedMetrics) Overrun(types.NamespacedName)                          { g.gate() }
func (g gatedMetrics) Request(types.NamespacedName, string, error)           { g.gate() }

// A sleeper's client sends nothing and hears nothing while its actor sleeps.
type sleepers struct {
	coordinationv1client.LeasesGetter
	sim *simulation
	a   *actor
}

func (c sleepers) Leases(namespace string) coordinationv1client.LeaseInterface {
	return sleepersLeases{c.LeasesGetter.Leases(namespace), c.sim, c.a}
}

type sleepersLeases struct {
	coordinationv1client.LeaseInterface
	sim *simulation
	a   *actor
}

// send notes a write as its sender does, before it leaves, and holds it back while the actor sleeps. What has long been
// given up may leave all the same on waking, because nobody knows how far it had got.
func (c sleepersLeases) send(ctx context.Context, l *coordinationv1.Lease) context.Context {
	s, a := c.sim, c.a
	s.lock.Lock()
	s.written[stampsOf(l)] = write{a, time.Now()}
	*a.kind(l)++
	s.lock.Unlock()
	hung := s.request(a)
	if slept := s.pause(a); !slept && !hung {
		return ctx
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	if a.rng.IntN(2) == 0 {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// sent waits until the actor can take in the reply.
func (c sleepersLeases) sent(l *coordinationv1.Lease, reply *coordinationv1.Lease) {
	c.sim.pause(c.a)
	c.sim.lock.Lock()
	defer c.sim.lock.Unlock()
	c.a.underWay--
	c.a.shows(reply)
	*c.a.kind(l)--
	c.sim.spring(c.a, "reply", 0)
}

// kind counts the writes of the kind of l that have no reply yet.
func (a *actor) kind(l *coordinationv1.Lease) *int {
	if holder(l) == "" {
		return &a.releases
	}
	return &a.writes
}

func (c sleepersLeases) Get(ctx context.Context, name string, opts metav1.GetOptions) (*coordinationv1.Lease, error) {
	c.sim.request(c.a)
	c.sim.pause(c.a)
	l, err := c.LeaseInterface.Get(ctx, name, opts)
	c.sim.pause(c.a)
	c.sim.comesTo(c.a, "reply")
	c.sim.returned(c.a, l)
	return l, err
}

func (c sleepersLeases) Create(ctx context.Context, l *coordinationv1.Lease, opts metav1.CreateOptions) (*coordinationv1.Lease, error) {
	ctx = c.send(ctx, l)
	reply, err := c.LeaseInterface.Create(ctx, l, opts)
	c.sent(l, reply)
	return reply, err
}

func (c sleepersLeases) Update(ctx context.Context, l *coordinationv1.Lease, opts metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	ctx = c.send(ctx, l)
	reply, err := c.LeaseInterface.Update(ctx, l, opts)
	c.sent(l, reply)
	return reply, err
}

// Watch holds events back as a connection does: on waking they come in order, all at once.
func (c sleepersLeases) Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	c.sim.request(c.a)
	c.sim.pause(c.a)
	defer c.sim.pause(c.a)
	w, err := c.LeaseInterface.Watch(ctx, opts)
	c.sim.returned(c.a, nil)
	if err != nil {
		return nil, err
	}
	out := make(chan watch.Event)
	proxy := watch.NewProxyWatcher(out)
	go func() {
		defer close(out)
		defer w.Stop()
		for {
			select {
			case ev, more := <-w.ResultChan():
				c.sim.pause(c.a)
				if !more {
					return
				}
				c.sim.comesTo(c.a, "event")
				select {
				case out <- ev:
					l, _ := ev.Object.(*coordinationv1.Lease)
					c.sim.show(c.a, l)
				case <-proxy.StopChan():
					return
				}
			case <-proxy.StopChan():
				return
			}
		}
	}()
	return proxy, nil
}
