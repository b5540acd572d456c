package sim

import (
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/elector-go/elector/internal/protocol"
)

// A world is everything that a plan is played in.
type world struct {
	plan  *Plan
	now   time.Duration
	seq   uint64
	queue queue

	server    server
	awayUntil time.Duration // nobody reaches the server before
	processes []*process
	alive     []*process
	slots     []slot
	fastest   int64 // the rate of the fastest clock

	requests     []*request
	spare        []int32
	watches      []*watch
	spareWatches []int32

	storm      bool // there may be suspensions
	quiet      bool // standbys may send nothing
	leadBy     time.Duration
	tested     *process // by a check of the calm
	testedTerm uint32
	told       *process // was shown another holder just now

	inside  []*process
	terms   []served
	writes  []written // the last ones that the server has taken
	changes []change
	tally   Tally
	timeline
	failure *Failure
}

// A slot is where one process after the other runs: a pod.
type slot struct {
	place *place
	runs  uint64
	taken bool
}

// A Tally is what has happened in a run.
type Tally struct {
	Events, Steps, Terms, Requests, Sleeps, Faults, Quiet, Resumed int
	Excused                                                        map[string]int // overlaps that doc.go does not promise to prevent
}

// A Result is what a run has come to.
type Result struct {
	Failure *Failure
	Hash    uint64 // of all that has happened
	Tally   Tally
	Length  time.Duration
	world   *world
}

// A Failure is a promise that was not kept.
type Failure struct {
	At   time.Duration
	Rule string
	What string
}

func (f *Failure) String() string { return fmt.Sprintf("at %v: %s: %s", f.At, f.Rule, f.What) }

// Run plays a plan.
func Run(plan *Plan) Result {
	w := &world{plan: plan, fastest: plan.Fastest, slots: make([]slot, plan.Size), storm: true}
	w.tally.Excused = map[string]int{}
	w.server.past = make([]lease, 0, 64)
	for i := range w.slots {
		w.push(event{at: time.Duration(i) * 100 * time.Millisecond, kind: evJoin, arg: int32(i)})
	}
	if len(plan.Faults) > 0 {
		w.push(event{at: plan.Faults[0].At, kind: evFault})
	}
	w.play()
	w.tally.Terms = len(w.terms)
	return Result{w.failure, w.hash, w.tally, w.now, w}
}

func (w *world) play() {
	defer func() {
		if r := recover(); r != nil {
			if w.failure != nil || fmt.Sprint(r)[:4] != "bug:" {
				panic(r)
			}
			w.fail("bug", "%v", r)
		}
	}()
	for len(w.queue) > 0 && w.failure == nil {
		ev := w.queue.pop()
		if ev.at > w.plan.Length {
			return
		}
		w.now = ev.at
		if w.tally.Events++; w.tally.Events%4096 == 0 {
			runtime.Gosched() // so that the scheduler need not send a signal, which costs more
		}
		w.dispatch(&ev)
		if w.told != nil {
			w.checkTold()
		}
	}
}

func (w *world) push(ev event) {
	w.seq++
	ev.seq = w.seq
	w.queue.push(ev)
}

func (w *world) fail(rule, format string, args ...any) {
	if w.failure == nil {
		w.failure = &Failure{w.now, rule, fmt.Sprintf(format, args...)}
	}
}

// dispatch lets an event happen. What happens in a process that sleeps waits until it wakes.
func (w *world) dispatch(ev *event) {
	switch ev.kind {
	case evFault:
		w.mischief(int(ev.arg))
		return
	case evJoin:
		w.join(int(ev.arg))
		return
	case evCheck:
		w.check(checkKind(ev.arg), ev.gen)
		return
	}
	p := w.processes[ev.who]
	switch ev.kind {
	case evArrive:
		if w.requestComes(ev) && w.now >= w.awayUntil {
			w.arrives(ev.arg)
		}
		w.letGo(ev.arg)
		return
	case evOpen:
		if w.watches[ev.arg].gen == ev.gen && w.now >= w.awayUntil {
			w.opens(ev.arg)
		}
		return
	}
	if p.gone() {
		if ev.kind == evLeave || ev.kind == evReply || ev.kind == evCancelled {
			w.requestComes(ev)
			w.letGo(ev.arg)
		}
		return
	}
	switch ev.kind {
	case evAwake:
		p.awake()
	case evSuspend:
		if p.moment == momentNow {
			p.springs(momentNow)
		}
	case evCopies:
		w.checkCopies(p)
	case evGuard:
		p.guards(ev.gen)
	case evExit:
		p.kill()
	default:
		if p.asleep {
			p.mail = append(p.mail, *ev)
			return
		}
		p.happens(ev)
	}
}

// requestComes notes that an event about a request has come.
func (w *world) requestComes(ev *event) bool {
	q := w.requests[ev.arg]
	if q.gen != ev.gen {
		return false
	}
	q.travels--
	return true
}

// happens lets an event happen in a process that is awake.
func (p *process) happens(ev *event) {
	w := p.world
	switch ev.kind {
	case evWake:
		p.wakes(ev.gen)
	case evDeadline:
		p.deadlineComes(ev.gen)
	case evLeave, evReply, evCancelled:
		if !w.requestComes(ev) {
			return
		}
		switch ev.kind {
		case evLeave:
			p.leaves(ev.arg)
		case evReply:
			p.replies(ev.arg)
		default:
			p.returns(ev.arg, protocol.Event{Outcome: protocol.Unanswered})
		}
		w.letGo(ev.arg)
	case evShow:
		if w.watches[ev.arg].gen == ev.gen {
			p.brings(ev.arg)
		}
	case evUnwatched:
		if w.watches[ev.arg].gen == ev.gen {
			p.watchReturns(ev.arg)
		}
	case evWork:
		p.works(ev)
	case evNotice:
		p.notices(ev.gen)
	case evReturned:
		p.noticesReturn(ev.gen)
	case evLock:
		p.tryLock()
	case evStop:
		p.stop()
	case evWord:
		p.hand(protocol.Event{Kind: protocol.Died, Marks: []protocol.Mark{w.processes[ev.arg].mark}})
	}
}

// in and out count the processes that are inside.
func (w *world) in(p *process) { w.inside = append(w.inside, p) }

func (w *world) out(p *process) {
	w.inside = slices.DeleteFunc(w.inside, func(o *process) bool { return o == p })
	w.quiet = false
}

// leading is the process whose callback runs and need not stop, nil if there is none.
func (w *world) leading() *process {
	for _, p := range w.inside {
		if !p.term.ctxEnded {
			return p
		}
	}
	return nil
}

// spread lets the kubelet's word that a process has ended come to those who listen: soon, or late, or twice, or never.
func (w *world) spread(dead *process) {
	for _, p := range w.alive {
		if !p.listens || dead.mark == (protocol.Mark{}) {
			continue
		}
		for range p.net.n(3) {
			w.push(event{at: w.now + p.net.tail(time.Minute), kind: evWord, who: p.index, arg: dead.index})
		}
	}
}

// bury takes a process out of the world. Soon another one comes to its slot.
func (w *world) bury(p *process) {
	w.note(noteGone, p.index, b2i(p.killed), 0, 0, "")
	w.out(p)
	w.alive = slices.DeleteFunc(w.alive, func(o *process) bool { return o == p })
	for _, ev := range p.mail {
		if ev.kind == evLeave || ev.kind == evReply || ev.kind == evCancelled {
			w.requestComes(&ev)
		}
	}
	for _, i := range p.watches {
		w.watches[i].closed = true
	}
	for _, i := range slices.Clone(p.requests) {
		w.letGo(i)
	}
	if p.place != nil && p.place.locked == p {
		p.place.locked = nil
	}
	w.spread(p)
	if p.slot == noSlot {
		p.machine, p.inbox, p.rest, p.mail = nil, nil, nil, nil
		return
	}
	p.machine, p.inbox, p.rest, p.mail = nil, nil, nil, nil
	w.slots[p.slot].taken = false
	after := p.script.upTo(200 * time.Millisecond)
	if p.script.one(2) {
		after = p.script.upTo(20 * time.Second)
	}
	w.push(event{at: w.now + after, kind: evJoin, arg: int32(p.slot)})
}
