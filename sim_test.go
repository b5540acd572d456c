package elector_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
	"github.com/elector-go/elector/internal/lockfile/lockfiletest"
)

var (
	simSeed  = flag.Uint64("sim.seed", 0, "run the simulation of this seed only")
	simFirst = flag.Uint64("sim.first", 1, "the first seed to run the simulation with")
	simSeeds = flag.Uint64("sim.seeds", 6, "how many seeds to run the simulation with")
	simHours = flag.Float64("sim.hours", 0.5, "simulated hours for each seed")
)

// TestSimulation lets several replicas live through storms of faults, with a calm after each, and checks what the
// library promises for every one of them. A seed fixes the storms. It does not fix the library's own jitter nor the
// scheduler, so a seed that has failed may need a few runs to fail again.
func TestSimulation(t *testing.T) {
	first, last := *simFirst, *simFirst+*simSeeds-1
	if *simSeed != 0 {
		first, last = *simSeed, *simSeed
	}
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inWorld(t, func(w *world) {
				s := &simulation{world: w, rng: rand.New(rand.NewPCG(seed, 0)), written: map[stamps]write{}, timings: map[string][3]time.Duration{}, rates: map[string]float64{}, forged: map[string]bool{}, tally: map[string]int{}}
				defer s.report(seed)
				s.play(time.Duration(*simHours * float64(time.Hour)))
			})
		})
	}
}

// A simulation is a world, the storms that a seed makes of it, and what is needed to judge what happens there.
type simulation struct {
	*world
	rng    *rand.Rand // the plan's; only play's goroutine uses it
	actors []*actor   // every replica that ever joined; likewise
	size   int        // how many are to be alive

	forged      map[string]bool             // identities that were put into the Lease by an edit
	twins       bool                        // whether two replicas may share an identity
	fastest     float64                     // the rate of the fastest clock, 1 if all run alike
	rates       map[string]float64          // of the clock of each identity
	timings     map[string][3]time.Duration // of each identity
	noJoinUntil time.Time                   // see canHurtNewcomers
	lastDelete  time.Time
	snapshots   []*electortest.Snapshot // the latest last
	others      int                     // Leases that were made for their versions only
	inherited   string                  // the StateDir of a replica that was killed, for the next that joins; "" for none

	lock        sync.Mutex // guards the rest, and what actors say is guarded by it
	events      []string
	frozen      bool             // no more events
	written     map[stamps]write // every write that was ever sent
	before      *coordinationv1.Lease
	history     []*coordinationv1.Lease // what the Lease was, the latest last
	since       time.Time               // when the present term began, or the present Lease was made
	lastRestore time.Time               // of the server
	underWay    time.Time               // until when late writes may arrive, whether their senders wait for them or not
	storm       bool                    // actors may be suspended
	tally       map[string]int
}

// stamps distinguish a write from every other, because their last digits are random.
type stamps struct{ acquired, renewed int64 }

// A write is a write that an actor has sent.
type write struct {
	by   *actor
	sent time.Time // the last time, if it was repeated
}

// An actor is one incarnation of a replica.
type actor struct {
	*replica
	rng          *rand.Rand // the link's and the callback's; guarded by simulation.lock, as the rest
	identity     string
	lease, renew time.Duration
	weather      weather
	applied      time.Time // when its last write that the server has taken was sent
	second       time.Time // the virtual second of the requests counted
	requests     int
	begun        int    // callbacks
	steps        int    // calls of StepDown that have not returned
	polls        bool   // may not watch
	sick         bool   // unfit to lead
	dir          string // its StateDir
	ambush       ambush
	asleep       chan struct{} // closed on waking; nil while awake
	hung         chan struct{} // half of its requests do not return before this is closed; nil while all do
	underWay     int           // requests that have not returned
	shown        string        // the version of the Lease that it was last shown
	slept, woke  time.Time     // when it last fell asleep, and when it last woke, or joined
	decided      time.Time     // when, as a standby, it last went to decide
	inside       *visit        // the callback that runs, nil for none
	writes       int           // under way, without the releases
	releases     int
	crashed      bool
	stopped      bool // its ctx was ended
	quit         error
	quits        bool
}

// weather is how likely each fault of a request is.
type weather struct {
	late, loseRequest, loseReply, refuse, ignore float64
	slow                                         time.Duration // every answer comes later by this
}

var errQuit = errors.New("the callback gives up")

func stampsOf(l *coordinationv1.Lease) stamps {
	micros := func(t *metav1.MicroTime) int64 {
		if t == nil {
			return 0
		}
		return t.UnixMicro()
	}
	return stamps{micros(l.Spec.AcquireTime), micros(l.Spec.RenewTime)}
}

// play alternates storm and calm. What has to hold at any time is checked where it happens.
func (s *simulation) play(length time.Duration) {
	s.observe()
	s.size = 2 + s.rng.IntN(4)
	s.twins = s.rng.IntN(2) == 0
	s.fastest = []float64{1, 1, 1.1, 1.25}[s.rng.IntN(4)]
	for time.Since(s.start) < length && !s.Failed() {
		s.lock.Lock()
		s.storm = true
		s.lock.Unlock()
		for range 3 + s.rng.IntN(10) {
			s.populate()
			s.snapshots = append(s.snapshots[max(0, len(s.snapshots)-10):], s.api.Snapshot())
			time.Sleep(time.Duration(s.rng.ExpFloat64() * float64(8*time.Second)))
			s.note(nil, "%s", s.mischief())
		}
		s.calm()
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	for _, a := range s.actors {
		a.weather, a.stopped = weather{}, true
		a.unhang()
	}
}

// calm heals everything, and then expects somebody to lead, and what has been asked for to be done.
func (s *simulation) calm() {
	s.awaitWaking()
	s.note(nil, "calm")
	for _, a := range s.living() {
		a.client.Partition(electortest.NoPartition)
		a.client.SilenceWatches(false)
		a.client.CloseWatches()
		a.client.SetLatency(roundTrip)
		s.set(a, weather{})
		s.lock.Lock()
		a.sick = false
		s.lock.Unlock()
	}
	s.populate()
	time.Sleep(75 * time.Second) // callbacks drain for up to a minute, and the Lease is theirs meanwhile
	s.populate()
	for wait := time.Duration(0); s.leader() == nil; wait += 10 * time.Millisecond {
		if wait > 45*time.Second {
			s.fail("nobody leads, %v after the last fault", wait+75*time.Second)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.lock.Lock()
	for _, a := range s.actors {
		if a.steps > 0 && !a.crashed { // one that was killed in its sleep does not return
			s.complain("%d calls of StepDown of %s have not returned", a.steps, a.name)
		}
	}
	s.lock.Unlock()
	switch s.rng.IntN(4) {
	case 0:
		s.takeover()
	case 1:
		s.longDrain()
	}
}

// takeover expects a healthy leader to learn at once that the Lease names somebody else (S7).
func (s *simulation) takeover() {
	a := s.leading()
	if a == nil || a.polls || !a.el.IsLeader() {
		return
	}
	time.Sleep(time.Second)
	s.lock.Lock()
	begun := a.begun
	s.lock.Unlock()
	if s.leading() != a || !a.el.IsLeader() {
		return
	}
	s.note(nil, "in the calm the Lease is given to a stranger")
	s.kubectl(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = ptr.To("stranger") })
	time.Sleep(100 * time.Millisecond)
	s.lock.Lock()
	same := a.begun == begun
	s.lock.Unlock()
	if same && a.el.IsLeader() {
		s.fail("%s still leads 100ms after another holder was written into the Lease", a.name)
	}
}

// longDrain expects the Lease to be kept for a callback that takes long to end after a clean stop (S9).
func (s *simulation) longDrain() {
	a := s.leading()
	if a == nil || !a.el.IsLeader() {
		return
	}
	s.lock.Lock()
	a.stopped = true
	begun := a.begun
	s.lock.Unlock()
	s.note(a, "is stopped in the calm")
	a.stop()
	for range 200 {
		time.Sleep(100 * time.Millisecond)
		s.lock.Lock()
		running := a.begun == begun && s.isRunning(a)
		s.lock.Unlock()
		if running && s.isRunning(a) && !a.el.IsLeader() && s.isRunning(a) {
			s.fail("%s has lost the Lease in the calm while its callback drains", a.name)
			return
		}
		if !running {
			return
		}
	}
}

func (s *simulation) isRunning(a *actor) bool { return s.world.leader() == a.replica }

// leading is the actor whose callback runs, nil if none.
func (s *simulation) leading() *actor {
	l := s.leader()
	for _, a := range s.living() {
		if a.replica == l {
			return a
		}
	}
	return nil
}

// living are the actors that have not ended, crashed or been stopped.
func (s *simulation) living() (living []*actor) {
	s.lock.Lock()
	defer s.lock.Unlock()
	for _, a := range s.actors {
		select {
		case <-a.done:
			continue
		default:
		}
		if !a.crashed {
			living = append(living, a)
		}
	}
	return living
}

// populate brings the number of actors back up. Somebody who never saw a Lease that was deleted, or edited to last
// shorter, cannot know of it, so nobody joins then (see canHurtNewcomers).
func (s *simulation) populate() {
	for len(s.living()) < s.size {
		if time.Now().Before(s.noJoinUntil) {
			return
		}
		s.enlist()
	}
}

func (s *simulation) enlist() {
	n := len(s.actors)
	a := &actor{rng: rand.New(rand.NewPCG(s.rng.Uint64(), 1)), identity: fmt.Sprintf("r%d", n)}
	if s.twins && n > 0 && s.rng.IntN(2) == 0 {
		a.identity = s.actors[s.rng.IntN(n)].identity
	}
	timings := [][3]time.Duration{{15, 10, 2}, {15, 10, 2}, {15, 10, 2}, {8, 5, 1}, {30, 20, 4}}
	d, ok := s.timings[a.identity]
	if !ok {
		d = timings[s.rng.IntN(len(timings))]
		s.timings[a.identity] = d
	}
	rate, ok := s.rates[a.identity]
	if !ok {
		rate = []float64{1, s.fastest}[s.rng.IntN(2)]
		s.rates[a.identity] = rate
	}
	clock := skewed{rate: rate, lease: d[0] * time.Second}
	a.lease, a.renew = d[0]*time.Second, clock.shrink(d[1]*time.Second)
	dir := s.inherited
	if s.inherited = ""; dir == "" {
		dir = s.TempDir()
	}
	client := s.api.Client(fmt.Sprintf("r%d", n))
	a.polls = s.rng.IntN(5) == 0
	client.ForbidWatch(a.polls)
	client.Intercept(func(r electortest.Request) electortest.Fault { return s.judge(a, r) })
	s.lock.Lock()
	defer s.lock.Unlock() // until the actor is complete nobody may use it
	client.SetLatency(roundTrip)
	clock.LeasesGetter = sleepers{client.CoordinationV1(), s, a}
	a.woke = time.Now()
	a.replica = s.joinOver(clock, client, fmt.Sprintf("r%d", n), func(r *replica, o *elector.Options) {
		o.Identity, o.LeaseDuration, o.RenewDeadline, o.RetryPeriod = a.identity, clock.own(), a.renew, clock.shrink(d[2]*time.Second)
		o.Run = func(ctx context.Context) error { return s.callback(a, ctx) }
		o.OnOverrun = func(elector.Term) {}
		o.StateDir, a.dir = dir, dir
		o.Healthy = func(context.Context) error {
			s.lock.Lock()
			defer s.lock.Unlock()
			if a.sick {
				return errors.New("unfit")
			}
			return nil
		}
		r.gate, r.decides = func() { s.step(a) }, func() { s.decides(a) }
		o.Metrics = gatedMetrics{gate: r.gate, begin: func() { s.comesTo(a, "term") }}
	})
	s.actors = append(s.actors, a)
	s.write(a, "joins as %s with %v/%v, and a clock that runs at %v", a.identity, a.lease, d[1]*time.Second, rate)
	go s.judgeEnd(a)
}

// judgeEnd checks what Run returns.
func (s *simulation) judgeEnd(a *actor) {
	<-a.done
	s.lock.Lock()
	quits, quit, stopped := a.quits, a.quit, a.stopped || a.crashed
	s.lock.Unlock()
	switch {
	case quits && quit != nil && !stopped && !errors.Is(a.err, errQuit):
		s.fail("%s: Run returned %v, not the callback's error", a.name, a.err)
	case a.err != nil && !(quits && errors.Is(a.err, errQuit)):
		s.fail("%s: Run returned %v", a.name, a.err)
	case !quits && !stopped && s.Context().Err() == nil:
		s.fail("%s: Run returned by itself", a.name)
	}
	s.note(a, "has ended: %v", a.err)
}

// callback is the work of an actor. It keeps to the contract: once it hears of a loss it returns within the stop
// budget, and after a clean stop it does what it likes while its term is valid.
func (s *simulation) callback(a *actor, ctx context.Context) error {
	v := s.begin(a, ctx)
	if v == nil {
		s.expectTold(a, ctx)
		return nil
	}
	defer s.end(a, v)
	s.lock.Lock()
	quitAfter := time.Duration(math.MaxInt64)
	if a.rng.IntN(8) == 0 {
		quitAfter = time.Duration(a.rng.IntN(200)) * time.Second
	}
	share, own := a.rng.Float64(), a.rng.IntN(2) == 0
	drain := []time.Duration{0, time.Duration(a.rng.Int64N(5e9)), time.Duration(a.rng.Int64N(60e9))}[a.rng.IntN(3)]
	s.lock.Unlock()
	s.note(a, "BEGINS, term %d", v.term.Token())
	s.stopClock()
	ended := make(chan struct{})
	defer close(ended)
	go s.guard(a, v, ended)
	select {
	case <-time.After(quitAfter):
		if s.stays(a, v) {
			return s.quit(a, ctx, own)
		}
		<-ctx.Done()
	case <-ctx.Done():
	}
	if s.stays(a, v) {
		cause := context.Cause(ctx)
		s.told(a, v, cause)
		// The candidate with the fastest clock is the first to take over.
		if budget := (skewed{rate: s.fastest, lease: a.lease}).own() - a.renew - time.Millisecond; lostAtOnce(cause) {
			s.drainAfterLoss(a, v, time.Duration(share*float64(budget)), budget)
		} else {
			s.drainWhileValid(a, v, drain, budget)
		}
	}
	s.note(a, "ENDS")
	if own {
		return ctx.Err()
	}
	return nil
}

// lostAtOnce reports whether cause is that of a loss: not of a term that was given up, for which the Lease is kept.
func lostAtOnce(cause error) bool {
	var lost *elector.LostError
	return errors.As(cause, &lost) && !slices.Contains([]elector.Reason{elector.ReasonSteppedDown, elector.ReasonRequested, elector.ReasonUnhealthy}, lost.Reason)
}

// quit ends a callback by itself.
func (s *simulation) quit(a *actor, ctx context.Context, failing bool) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	if ctx.Err() == nil {
		if a.quits = true; failing {
			a.quit = errQuit
		}
	}
	s.write(a, "ENDS by itself: %v", a.quit)
	return a.quit
}

func (s *simulation) told(a *actor, v *visit, cause error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	v.heard, v.late = true, a.late()
	s.write(a, "is told: %v", cause)
	s.spring(a, "loss", 2*time.Second)
}

// guard checks that the callback's ctx has ended whenever its term is not valid, and RenewDeadline after the sending of
// the last write that the server has taken, whatever the library makes of the replies (S1, S2). In a sleep nothing can be
// noticed; after it there is a millisecond for that.
func (s *simulation) guard(a *actor, v *visit, ended <-chan struct{}) {
	ctx, term := v.ctx, v.term
	for told := false; !told; {
		select {
		case <-ended:
			return
		case <-ctx.Done():
			told = true
		case <-time.After(min(max(time.Until(term.ValidUntil()), 0), time.Second) + time.Millisecond):
		}
		if s.pause(a) {
			time.Sleep(time.Millisecond)
		}
		valid := term.Valid()
		s.lock.Lock()
		late, asleep := a.late(), a.asleep != nil
		if v.heard {
			late = v.late // not when this is read, be it after a sleep
		}
		s.lock.Unlock()
		time.Sleep(time.Microsecond) // whoever has ended the term is about to end ctx
		select {
		case <-ended:
			return
		default:
		}
		switch {
		case asleep:
			told = false
		case late > 0:
			s.fail("%s works on %v after its RenewDeadline", a.name, late)
			return
		case !valid && ctx.Err() == nil:
			s.fail("%s works on without a valid term", a.name)
			return
		}
	}
}

// late is for how long its RenewDeadline has passed, with a millisecond to notice it in.
func (a *actor) late() time.Duration { return time.Since(a.applied) - a.renew - time.Millisecond }

// judge checks a request of an actor, and decides what becomes of it.
func (s *simulation) judge(a *actor, r electortest.Request) electortest.Fault {
	s.lock.Lock()
	defer s.lock.Unlock()
	now := time.Now()
	if now.Sub(a.second) >= time.Second {
		a.second, a.requests = now, 0
	}
	if a.requests++; a.requests == 41 {
		s.complain("%s has sent %d requests in a second", a.name, a.requests)
	}
	switch {
	case r.Lease != nil && holder(r.Lease) == "":
		s.spring(a, "release", 3*roundTrip/2)
	case r.Lease != nil:
		s.spring(a, "write", 3*roundTrip/2)
	}
	switch {
	case r.Verb == "update" && (r.Lease.ResourceVersion == "" || r.Lease.UID == ""):
		s.complain("%s updates without a condition", a.name)
	case r.Verb != "update" && r.Verb != "create" && r.Verb != "get" && r.Verb != "watch":
		s.complain("%s sends a %s", a.name, r.Verb)
	}
	f := a.fault()
	if arrives := now.Add(f.Before + 5*time.Second); r.Lease != nil && f.Before > 0 && arrives.After(s.underWay) {
		s.underWay = arrives
	}
	s.write(a, "%s %s", r.Verb, describe(r.Lease, f))
	return f
}

// fault draws what goes wrong with a request.
func (a *actor) fault() (f electortest.Fault) {
	hits := func(p float64) bool { return a.rng.Float64() < p }
	tail := func() time.Duration { return time.Duration(math.Pow(10, a.rng.Float64()*4.3-3) * float64(time.Second)) }
	w := a.weather
	if hits(w.late) {
		f.Before = tail()
	}
	if hits(w.late) {
		f.After = tail()
	}
	f.After += w.slow
	f.LoseRequest, f.LoseReply, f.IgnoreContext = hits(w.loseRequest), hits(w.loseReply), hits(w.ignore)
	if hits(w.refuse) {
		f.Err = []error{
			apierrors.NewInternalError(errors.New("etcdserver: request timed out")),
			apierrors.NewTooManyRequests("slow down", 1+a.rng.IntN(4)),
			apierrors.NewServerTimeout(coordinationv1.Resource("leases"), "update", 1),
			apierrors.NewForbidden(coordinationv1.Resource("leases"), name, errors.New("no")),
			&apierrors.StatusError{ErrStatus: metav1.Status{Code: http.StatusBadGateway, Message: "bad gateway"}},
			errors.New("connection refused"),
		}[a.rng.IntN(6)]
	}
	return f
}

// observe follows the Lease at the server: who wrote what, and whether a release was of the releaser's own record (S8).
// A restore of the server ends its watch, and is followed by another.
func (s *simulation) observe() {
	leases := s.api.Client("observer").CoordinationV1().Leases(namespace)
	open := func() watch.Interface {
		w, err := leases.Watch(s.Context(), metav1.ListOptions{TimeoutSeconds: ptr.To(int64(1e9)), FieldSelector: "metadata.name=" + name})
		if err != nil {
			return nil // the end
		}
		return w
	}
	w := open()
	go func() {
		for ; w != nil; w = open() {
			for ev := range w.ResultChan() {
				s.lock.Lock()
				s.follow(ev.Type, ev.Object.(*coordinationv1.Lease))
				s.lock.Unlock()
			}
		}
	}()
}

// follow takes in a change of the Lease, or what a restore has made of it. The lock is held.
func (s *simulation) follow(what watch.EventType, l *coordinationv1.Lease) {
	b := s.before
	wrote, known := s.written[stampsOf(l)]
	if known && what != watch.Deleted && wrote.sent.After(s.lastRestore) && (b == nil || stampsOf(b) != stampsOf(l)) {
		if a := wrote.by; wrote.sent.After(a.applied) {
			a.applied = wrote.sent
		}
		if holder(l) == "" && (b == nil || holder(b) != wrote.by.identity && holder(b) != "" || s.written[stampsOf(b)].by != wrote.by && holder(b) != "") {
			s.complain("%s has released what is not its own", wrote.by.name)
		}
	}
	if what == watch.Added || b == nil || holder(b) != holder(l) || stampsOf(b).acquired != stampsOf(l).acquired {
		s.since = time.Now()
	}
	s.write(nil, "%s %s", what, describe(l, electortest.Fault{}))
	s.before = l
	s.history = append(s.history[max(0, len(s.history)-50):], l)
}

func describe(l *coordinationv1.Lease, f electortest.Fault) string {
	var b strings.Builder
	if l != nil {
		st := stampsOf(l)
		fmt.Fprintf(&b, "%q rv=%s %ds acquired ..%06d renewed ..%06d", holder(l), l.ResourceVersion, *l.Spec.LeaseDurationSeconds, st.acquired%1e6, st.renewed%1e6)
	}
	if f.Before > 0 || f.After > 0 {
		fmt.Fprintf(&b, " late by %v+%v", f.Before.Round(time.Millisecond), f.After.Round(time.Millisecond))
	}
	for what, hit := range map[string]bool{"request lost": f.LoseRequest, "reply lost": f.LoseReply, "deaf": f.IgnoreContext} {
		if hit {
			b.WriteString(" " + what)
		}
	}
	if f.Err != nil {
		fmt.Fprintf(&b, " refused: %v", f.Err)
	}
	return b.String()
}

func (s *simulation) set(a *actor, w weather) {
	s.lock.Lock()
	defer s.lock.Unlock()
	a.weather = w
	a.unhang()
}

// note adds a line to the timeline; write does so with the lock held.
func (s *simulation) note(a *actor, format string, args ...any) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.write(a, format, args...)
}

func (s *simulation) write(a *actor, format string, args ...any) {
	if s.frozen {
		return
	}
	who := "-"
	if a != nil {
		who = a.name
	}
	s.events = append(s.events, fmt.Sprintf("%14v %-5s ", s.now().Round(10*time.Microsecond), who)+fmt.Sprintf(format, args...))
}

func (s *simulation) fail(format string, args ...any) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.complain(format, args...)
}

func (s *simulation) complain(format string, args ...any) {
	s.write(nil, "FAILS: "+format, args...)
	s.Errorf("at %v: "+format, append([]any{s.now()}, args...)...)
	s.frozen = true
}

// stopClock ends the timeline once something has failed, so that it shows what led to it.
func (s *simulation) stopClock() {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.frozen = s.frozen || s.Failed()
}

// report prints the end of the timeline of a seed that has failed.
func (s *simulation) report(seed uint64) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.Logf("suspensions: %v", s.tally)
	if !s.Failed() {
		return
	}
	s.Logf("the last events:\n%s", strings.Join(s.events[max(0, len(s.events)-400):], "\n"))
	s.Logf("again: go test -run 'TestSimulation' . -sim.seed=%d -sim.hours=%v -count=5", seed, *simHours)
}

// victim is half of the time the leader, because that hurts most.
func (s *simulation) victim() *actor {
	if a := s.leading(); a != nil && s.rng.IntN(2) == 0 {
		return a
	}
	living := s.living()
	return living[s.rng.IntN(len(living))]
}

// mischief does something bad, and says what.
func (s *simulation) mischief() string {
	if len(s.living()) == 0 {
		return "nobody there"
	}
	a := s.victim()
	switch s.rng.IntN(29) {
	case 20:
		s.lock.Lock()
		defer s.lock.Unlock()
		a.sick = !a.sick
		return fmt.Sprintf("unfit %v: %s", a.sick, a.name)
	case 21, 22:
		return s.annotateAtRandom()
	case 23:
		return s.rewrite()
	case 25, 26, 27:
		return s.restore()
	case 28:
		return s.hang(a)
	case 0, 1:
		p := electortest.Partition(1 + s.rng.IntN(3))
		a.client.Partition(p)
		return fmt.Sprintf("partition %d of %s", p, a.name)
	case 2, 3:
		a.client.Partition(electortest.NoPartition)
		s.set(a, weather{})
		return "healed: " + a.name
	case 4, 5:
		p := func() float64 { return max(0, s.rng.Float64()*1.2-0.4) }
		w := weather{p(), p() / 2, p() / 2, p() * 1.25, p() / 10, 0}
		switch s.rng.IntN(4) {
		case 0:
			w = weather{refuse: 1}
		case 1:
			w = weather{slow: time.Duration(s.rng.Int64N(int64(8 * time.Second)))}
		}
		s.set(a, w)
		return fmt.Sprintf("bad weather for %s: %.2v", a.name, w)
	case 6:
		d := time.Duration(s.rng.ExpFloat64() * float64(300*time.Millisecond))
		a.client.SetLatency(d)
		return fmt.Sprintf("round trips of %s take %v", a.name, d)
	case 7:
		a.client.SilenceWatches(s.rng.IntN(3) > 0)
		return "watches silenced or healed: " + a.name
	case 8:
		a.client.CloseWatches()
		return "watches closed: " + a.name
	case 9:
		s.lock.Lock()
		a.stopped = true
		s.lock.Unlock()
		a.stop()
		return "stopped: " + a.name
	case 10:
		return s.kill(a)
	case 11, 12:
		return s.stepDown(a)
	case 13:
		return s.edit()
	case 14, 15, 16, 17:
		return s.suspension(a)
	default:
		return s.drop()
	}
}

func (s *simulation) kill(a *actor) string {
	s.lock.Lock()
	a.crashed = true
	s.lock.Unlock()
	a.crash()
	if s.inherited == "" && s.rng.IntN(2) == 0 {
		s.inherited = s.bequeath(a.dir)
	}
	a.stop()
	return "crashed: " + a.name
}

func (s *simulation) stepDown(a *actor) string {
	s.lock.Lock()
	defer s.lock.Unlock()
	a.steps++
	go func() {
		s.pause(a) // it is the actor that calls
		err := a.el.StepDown(context.Background())
		s.lock.Lock()
		defer s.lock.Unlock()
		a.steps--
		s.write(a, "StepDown returned %v", err)
	}()
	return "asked to step down: " + a.name
}

// bequeath returns a StateDir as a dead process leaves it behind. In virtual time it still has the lock, so its file goes
// into another directory.
func (s *simulation) bequeath(dir string) string {
	heir := s.TempDir()
	require.NoError(s, lockfiletest.Inherit(stateFile(dir), stateFile(heir)))
	return heir
}

// annotateAtRandom asks the holder to step down, for anybody, for somebody, or for somebody who does not exist (L8).
func (s *simulation) annotateAtRandom() string {
	to := []string{"", s.victim().identity, "nobody"}[s.rng.IntN(3)]
	l, err := s.leases().Get(s.Context(), name, metav1.GetOptions{})
	if err != nil {
		return "nothing to annotate"
	}
	metav1.SetMetaDataAnnotation(&l.ObjectMeta, annotation, to)
	_, err = s.leases().Update(s.Context(), l, metav1.UpdateOptions{})
	return fmt.Sprintf("annotated for %q (%v)", to, err)
}

// rewrite changes the times in the Lease, but not whose it is (S5): another client cuts their digits off, or puts back an
// older state of the same term, or leaves them out.
func (s *simulation) rewrite() string {
	l, err := s.leases().Get(s.Context(), name, metav1.GetOptions{})
	if err != nil || holder(l) == "" || s.canHurtNewcomers(l) {
		return "nothing to rewrite"
	}
	what := ""
	switch s.rng.IntN(3) {
	case 0:
		what = "times cut"
		electortest.CutTimes(l)
	case 1:
		if !s.haveSeen(l) {
			return "nothing rewritten: a renewal that somebody has missed would be undone" // see doc.go
		}
		what = "an older state"
		s.lock.Lock()
		for _, old := range s.history {
			if holder(old) == holder(l) && stampsOf(old).acquired == stampsOf(l).acquired && s.rng.IntN(3) == 0 {
				l.Spec = *old.Spec.DeepCopy()
				break
			}
		}
		s.lock.Unlock()
	case 2:
		what = "no times"
		l.Spec.AcquireTime, l.Spec.RenewTime = nil, nil
	}
	s.noJoinUntil = time.Now().Add(40 * time.Second)
	s.cutOff()
	_, err = s.leases().Update(s.Context(), l, metav1.UpdateOptions{})
	return fmt.Sprintf("rewritten: %s (%v)", what, err)
}

// canHurtNewcomers reports whether somebody has not seen the present holder yet. What was promised in a Lease that is
// no more, or in one that was edited to last shorter, is known only to those who saw it before, so newcomers to the
// Lease or to the term are not part of the promise.
func (s *simulation) canHurtNewcomers(present *coordinationv1.Lease) bool {
	for _, a := range s.living() {
		// If the name was put in by an edit, or the duration with it, nobody knows whether the actor has seen a record that
		// this holder wrote.
		if a.el.Leader() != holder(present) || s.forged[holder(present)] || s.sleepsAsNewcomer(a) {
			return true
		}
	}
	return false
}

// edit changes the Lease as somebody outside the election.
func (s *simulation) edit() string {
	leases := s.leases()
	l, err := leases.Get(s.Context(), name, metav1.GetOptions{})
	if err != nil || s.canHurtNewcomers(l) {
		return "nothing to edit"
	}
	what := ""
	switch s.rng.IntN(5) {
	case 0:
		l.Labels = map[string]string{"edit": fmt.Sprint(s.rng.IntN(100))}
		what = "labels"
	case 1:
		l.Spec.HolderIdentity = ptr.To("stranger")
		what = "holder"
	case 2:
		l.Spec.HolderIdentity = ptr.To(s.victim().identity)
		s.forged[*l.Spec.HolderIdentity] = true
		what = "holder " + *l.Spec.HolderIdentity
	case 3:
		l.Spec.HolderIdentity = ptr.To("")
		what = "no holder"
	case 4:
		l.Spec.LeaseDurationSeconds = ptr.To(int32(1 + s.rng.IntN(40)))
		s.noJoinUntil = time.Now().Add(40 * time.Second)
		s.forged[holder(l)] = true
		what = fmt.Sprintf("duration %d", *l.Spec.LeaseDurationSeconds)
	}
	s.cutOff()
	_, err = leases.Update(s.Context(), l, metav1.UpdateOptions{})
	return fmt.Sprintf("edited: %s (%v)", what, err)
}

// drop deletes the Lease. Not twice in the time that it binds: who sees
// neither the second nor what it deleted is like a newcomer.
func (s *simulation) drop() string {
	l, err := s.leases().Get(s.Context(), name, metav1.GetOptions{})
	if err != nil || time.Since(s.lastDelete) < time.Minute || s.canHurtNewcomers(l) {
		return "nothing deleted"
	}
	s.lastDelete, s.noJoinUntil = time.Now(), time.Now().Add(40*time.Second)
	s.cutOff()
	return fmt.Sprintf("deleted (%v)", s.leases().Delete(s.Context(), name, metav1.DeleteOptions{}))
}

// cutOff now and then keeps the leader from hearing of what is about to happen to the Lease.
func (s *simulation) cutOff() {
	if a := s.leading(); a != nil && s.rng.IntN(2) == 0 {
		a.client.Partition(electortest.Both)
		s.note(a, "is cut off")
	}
}
