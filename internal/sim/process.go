package sim

import (
	"slices"
	"time"

	"github.com/elector-go/elector/internal/protocol"
)

// A process is one run of an election, from when it begins until it ends or is killed. It drives a machine as package
// elector does.
type process struct {
	world    *world
	index    int32
	slot     int
	identity string
	cfg      protocol.Config
	machine  *protocol.Machine
	clock    clock
	net      dice // of its network
	script   dice // of its callback
	luck     dice // of its machine

	link
	requests []int32
	watches  []int32
	place    *place // its StateDir, nil for none

	ended     bool // Run has returned
	killed    bool
	stopped   bool          // the ctx of Run has ended
	resigning bool          // it ends itself soon, whatever its callback does (S8)
	mark      protocol.Mark // what its container leaves behind (S13)
	listens   bool          // it is told of the end of others' containers
	sick      bool
	joined    time.Duration

	inbox   []protocol.Event // what is to be handed to the machine
	next    int              // of the inbox
	running bool
	rest    []protocol.Effect // what it was about to carry out when it was suspended

	wakeAt  time.Duration // when the machine wants to be called
	wakeGen uint32        // of the event for that
	armedAt time.Duration // when that event comes; 0 if there is none

	term term
	sleep
	watched
	copied
}

// gone reports whether nothing can happen in the process any more.
func (p *process) gone() bool { return p.ended || p.killed }

// A place is a StateDir: a file with marks, and the process that has locked it.
type place struct {
	marks  []protocol.Mark
	locked *process
	copied int32 // the family of the last process that was copied while it had the lock, 0 for none
}

// maxMarks is how many marks a file keeps.
const maxMarks = 16

// hand hands an event to the machine, after those that are waiting.
func (p *process) hand(ev protocol.Event) {
	p.inbox = append(p.inbox, ev)
	if !p.running {
		p.run()
	}
}

// run hands in what is waiting, and carries out what comes of it, until it is suspended.
func (p *process) run() {
	p.running = true
	for p.next < len(p.inbox) && !p.asleep && !p.gone() {
		ev := &p.inbox[p.next]
		p.next++
		if p.next%1024 == 0 {
			p.world.fail("spins", "%s takes in 1000 events at once", p.name())
			break
		}
		p.step(ev)
	}
	if p.next == len(p.inbox) {
		p.inbox, p.next = p.inbox[:0], 0
	}
	p.running = false
	p.arm()
}

// step hands one event in.
func (p *process) step(ev *protocol.Event) {
	p.world.note(noteEvent, p.index, int64(ev.Kind), int64(ev.ID), int64(ev.Outcome)<<56|int64(ev.Record.Version), ev.Record.Holder)
	p.world.tally.Steps++
	p.carryOut(p.machine.Step(*ev, p.clock.at(p.world.now)))
}

// carryOut carries effects out. It may be suspended before any of them.
func (p *process) carryOut(effects []protocol.Effect) {
	for i := range effects {
		if p.asleep || p.springs(momentStep) || isWrite(&effects[i]) && p.springs(momentSend) {
			p.rest = append(p.rest[:0], effects[i:]...)
			return
		}
		p.do(&effects[i])
	}
}

func isWrite(e *protocol.Effect) bool {
	return e.Kind == protocol.Send && e.Request.Verb != protocol.Get
}

func (p *process) do(e *protocol.Effect) {
	p.world.note(noteEffect, p.index, int64(e.Kind), int64(e.ID), e.Request.Claim.Renewed, e.Request.Claim.Holder)
	switch e.Kind {
	case protocol.Send:
		if e.Request.Wins {
			p.record(e.Request.Claim)
		}
		p.send(e.ID, &e.Request)
	case protocol.Cancel:
		p.cancel(e.ID)
	case protocol.Suspect:
		p.suspect(e.ID)
	case protocol.Watch:
		p.openWatch(e.ID)
	case protocol.Unwatch:
		p.closeWatch(e.ID)
	case protocol.AskYield:
		p.hand(protocol.Event{Kind: protocol.Yield, Delay: p.script.upTo(maxYield)})
	case protocol.BeginTerm:
		p.beginTerm(e)
	case protocol.RenewTerm:
		p.renewTerm(e.Sent)
	case protocol.LeaseMissing:
		p.term.missing = true
	case protocol.SuspendTerm:
		p.expire() // its timer may be about to
	case protocol.LoseTerm:
		p.loseTerm(e.Lost)
	case protocol.StopCallback:
		p.endCtx(e.Lost)
	case protocol.LetGo:
		p.world.released(p, e)
		p.letGo()
	case protocol.ForgetProof:
		if p.place != nil && p.place.locked == p {
			p.place.marks = p.place.marks[:0]
		}
	}
}

// maxYield is how much longer than others a candidate waits at the most.
const maxYield = 3 * time.Second

// arm sets the timer for the machine. It is left where it is if it comes earlier than it has to.
func (p *process) arm() {
	if p.asleep || p.gone() {
		return
	}
	p.wakeAt = max(p.clock.when(p.machine.Wake().Mono), p.world.now+1)
	if p.armedAt == 0 || p.wakeAt < p.armedAt {
		p.wakeGen++
		p.armedAt = p.wakeAt
		p.world.push(event{at: p.wakeAt, kind: evWake, who: p.index, gen: p.wakeGen})
	}
}

// wakes is the timer.
func (p *process) wakes(gen uint32) {
	if gen != p.wakeGen {
		return
	}
	p.armedAt = 0
	if p.wakeAt > p.world.now {
		p.armedAt = p.wakeAt
		p.world.push(event{at: p.wakeAt, kind: evWake, who: p.index, gen: p.wakeGen})
		return
	}
	p.hearsOthers()
	p.hand(protocol.Event{Kind: protocol.Tick})
}

// tryLock tries to lock the StateDir. What is written there then is by processes that are dead (S12).
func (p *process) tryLock() {
	switch pl := p.place; {
	case pl == nil || pl.locked == p:
	case pl.locked != nil && !pl.locked.gone():
		p.world.push(event{at: p.world.now + p.cfg.RetryPeriod, kind: evLock, who: p.index})
	default:
		pl.locked, p.inherits = p, pl.copied
		p.hand(protocol.Event{Kind: protocol.Proven, Marks: slices.Clone(pl.marks)})
	}
}

// record leaves in the StateDir what proves this process dead once it is.
func (p *process) record(c protocol.Claim) {
	pl := p.place
	m := protocol.Mark{Holder: c.Holder, Acquired: c.Acquired}
	if p.until == 0 {
		p.mark = m // otherwise it may be that of a copy, too: see doCopy
	}
	if pl == nil || pl.locked != p || slices.Contains(pl.marks, m) {
		return
	}
	if len(pl.marks) == maxMarks {
		pl.marks = append(pl.marks[:0], pl.marks[1:]...)
	}
	pl.marks = append(pl.marks, m)
}

// letGo follows from a release that is over.
func (p *process) letGo() {
	if p.machine.Status().Phase != protocol.Over || p.resigning {
		return // the campaign goes on, or the process is about to end itself
	}
	switch t := &p.term; {
	case p.stopped, t.begun && !t.lost():
		p.end()
	default:
		p.hand(protocol.Event{Kind: protocol.Campaign})
	}
	p.term = term{gen: p.term.gen}
}

// end ends the process in order.
func (p *process) end() {
	p.ended = true
	p.world.bury(p)
}

// stop ends the ctx of Run, and with it that of a callback.
func (p *process) stop() {
	if p.stopped {
		return
	}
	p.stopped = true
	if t := &p.term; t.begun && !t.returned {
		if !t.ctxEnded {
			p.endCtx(protocol.Lost{})
		}
		return
	}
	p.hand(protocol.Event{Kind: protocol.Stop})
}

// resign lets the process end itself, within a notice that it writes into the Lease (S8).
func (p *process) resign(d *dice) {
	t, w := &p.term, p.world
	if !t.begun || t.returned || p.asleep {
		return
	}
	notice := 2*time.Second + d.upTo(20*time.Second)
	p.resigning = true
	p.hand(protocol.Event{Kind: protocol.Resign, Delay: notice})
	last := notice << 10 / time.Duration(w.fastest) // the fastest clock there is says that it is over
	w.push(event{at: w.now + d.upTo(last), kind: evExit, who: p.index})
}

// kill kills the process.
func (p *process) kill() {
	p.killed = true
	p.leave()
	p.world.bury(p)
}
