package sim

import (
	"time"

	"github.com/elector-go/elector/internal/protocol"
)

// A term is one that a process serves, and its callback.
type term struct {
	gen       uint32
	begun     bool // there is a term
	token     uint64
	sent      protocol.Instant // since when its authority counts
	alive     bool             // it was not lost
	suspended bool             // it has no authority for the time being (S14)
	missing   bool             // the Lease was deleted, and has not been put back
	ctxEnded  bool
	endedAt   time.Duration
	cause     protocol.Lost // why; zero if the process has to stop
	gaveUp    bool          // the cause is that the term was given up
	inside    bool          // the callback runs
	returned  bool          // it has returned, or was never begun

	stage    stage
	heard    bool          // the callback has noticed that its ctx has ended
	lossMode bool          // it knows that its term is not valid
	until    time.Duration // when it has to have returned, after a loss
	leaveAt  time.Duration // when it means to return
	share    float64       // of the stop budget
	quitAt   time.Duration // when it returns by itself; 0 for never
	drain    time.Duration // how long it takes to return while its term is valid
	workAt   time.Duration // when the next event of the callback comes
	timerAt  time.Duration // when the term's timer fires; 0 if it is not set
	guard    bool          // the checker's timer is set
}

type stage uint8

const (
	stageBegin stage = iota
	stageWork
	stageDrain
)

// lost reports whether the term was lost or given up, not stopped or returned from.
func (t *term) lost() bool { return t.cause.Reason != 0 }

// givenUp reports whether a reason is one for which the Lease is kept until the callback has returned.
func givenUp(r protocol.Reason) bool {
	return r == protocol.SteppedDown || r == protocol.Requested || r == protocol.Unhealthy
}

// valid is Term.Valid.
func (p *process) valid() bool {
	t := &p.term
	return t.alive && !t.suspended && protocol.Age(t.sent, p.clock.at(p.world.now)) < p.cfg.RenewDeadline
}

// beginTerm starts the callback, in a goroutine of its own, and the term's timer.
func (p *process) beginTerm(e *protocol.Effect) {
	w := p.world
	if t := &p.term; t.begun && !t.returned {
		w.fail("S10", "%s begins a term while its callback runs", p.name())
	}
	if p.place != nil && p.place.locked == p && len(p.place.marks) > 1 {
		p.place.marks = append(p.place.marks[:0], p.place.marks[len(p.place.marks)-1])
	}
	p.term = term{gen: p.term.gen + 1, begun: true, token: e.Token, sent: e.Sent, alive: true}
	d := &p.script
	t := &p.term
	if d.one(8) {
		t.quitAt = w.now + d.upTo(200*time.Second)
	}
	t.share = d.unit()
	t.drain = []time.Duration{0, d.upTo(5 * time.Second), d.upTo(maxDrain)}[d.n(3)]
	p.checkAuthority(e.Sent)
	p.armDeadline()
	p.armGuard()
	p.work(stageBegin, w.now+d.upTo(200*time.Microsecond))
	p.springs(momentTerm)
}

// maxDrain is how long a callback takes to return at the most, while its term is valid.
const maxDrain = time.Minute

// work plans the callback's next event.
func (p *process) work(s stage, at time.Duration) {
	t := &p.term
	t.stage, t.workAt = s, at
	p.world.push(event{at: at, kind: evWork, who: p.index, gen: t.gen})
}

// works is the callback's event.
func (p *process) works(ev *event) {
	t := &p.term
	if ev.gen != t.gen || !t.begun || t.returned || ev.at < t.workAt {
		return
	}
	switch t.stage {
	case stageBegin:
		p.begin()
	case stageWork:
		t.cause, t.gaveUp = protocol.Lost{}, false
		p.world.note(noteQuits, p.index, int64(t.token), 0, 0, "")
		p.returnFrom()
	case stageDrain:
		p.drained()
	}
}

// begin lets the callback begin, if the term is still valid.
func (p *process) begin() {
	t := &p.term
	p.expire()
	if t.suspended && t.alive && !t.ctxEnded {
		p.work(stageBegin, p.world.now+noticing)
		return
	}
	if !p.valid() {
		if !t.ctxEnded {
			p.world.fail("S2", "%s begins without a valid term, and its ctx has not ended", p.name())
		}
		p.returnFrom()
		return
	}
	p.enter()
	if t.ctxEnded {
		p.hear()
	} else if t.quitAt > 0 {
		p.work(stageWork, max(t.quitAt, p.world.now))
	}
}

// armDeadline sets the term's timer. It is left where it is if it fires earlier than it has to.
func (p *process) armDeadline() {
	t := &p.term
	end := t.sent.Mono + p.cfg.RenewDeadline
	if t.suspended {
		end += p.cfg.Recovery
	}
	at := max(p.clock.when(end), p.world.now)
	if !t.alive || t.timerAt != 0 && t.timerAt <= at {
		return
	}
	t.timerAt = at
	p.world.push(event{at: at, kind: evDeadline, who: p.index, gen: t.gen})
}

// deadlineComes is the term's timer: it ends the term if no renewal has overtaken it.
func (p *process) deadlineComes(gen uint32) {
	t := &p.term
	if gen != t.gen || !t.begun {
		return
	}
	if t.timerAt <= p.world.now {
		t.timerAt = 0
	}
	if !t.returned {
		p.expire()
		p.armDeadline()
	}
}

// expire ends the term's authority if its time is over (S2): for good, or for the time being, if it may be suspended and
// its callback was not asked to stop (S14).
func (p *process) expire() {
	t := &p.term
	switch age := protocol.Age(t.sent, p.clock.at(p.world.now)); {
	case !t.alive || age < p.cfg.RenewDeadline:
	case t.missing:
		p.loseTerm(protocol.Lost{Reason: protocol.Deleted})
	case age >= p.cfg.RenewDeadline+p.cfg.Recovery || t.ctxEnded:
		p.loseTerm(protocol.Lost{Reason: protocol.DeadlinePassed})
	case !t.suspended:
		t.suspended = true
		p.world.note(noteSuspended, p.index, int64(t.token), 0, 0, "")
		p.world.out(p) // its gate is closed: it does nothing that another could do, too
	}
}

// renewTerm moves the end of the term on. It does not bring back one that is over.
func (p *process) renewTerm(sent protocol.Instant) {
	t := &p.term
	if !t.begun {
		return
	}
	p.checkAuthority(sent)
	p.expire()
	t.sent, t.missing = sent, false
	if t.suspended && t.alive && !t.ctxEnded && protocol.Age(sent, p.clock.at(p.world.now)) < p.cfg.RenewDeadline {
		t.suspended = false
		p.world.note(noteResumed, p.index, int64(t.token), 0, 0, "")
		p.world.tally.Resumed++
		if t.inside && !p.asleep {
			p.reenter()
		}
		p.armDeadline()
		p.armGuard()
	}
}

// loseTerm takes the authority away, then ends the callback's ctx. The first reason stays.
func (p *process) loseTerm(why protocol.Lost) {
	t := &p.term
	if !t.begun {
		return
	}
	wasAlive := t.alive
	t.alive = false
	if wasAlive {
		p.checkLost(why)
	}
	p.endCtx(why)
	if wasAlive && t.heard && t.inside && !t.lossMode && !t.suspended && !p.asleep {
		p.noticeLoss() // while it drained
	}
}

// endCtx ends the callback's ctx.
func (p *process) endCtx(why protocol.Lost) {
	t := &p.term
	if !t.begun || t.ctxEnded || t.returned {
		return
	}
	w := p.world
	t.ctxEnded, t.endedAt, t.cause, t.gaveUp = true, w.now, why, givenUp(why.Reason)
	w.note(noteCtxEnds, p.index, int64(why.Reason), int64(t.token), 0, why.Holder)
	p.checkEnd()
	w.push(event{at: w.now + p.script.upTo(time.Millisecond), kind: evNotice, who: p.index, gen: t.gen})
	if t.inside && !p.asleep {
		p.hear()
	}
}

// notices is when the loop notices that the callback's ctx has ended.
func (p *process) notices(gen uint32) {
	if t := &p.term; gen == t.gen && t.begun && !t.returned {
		p.hand(protocol.Event{Kind: protocol.Stop})
	}
}

// budget is how long the callback may take to return after a loss, in the world's time: until the fastest clock there is
// says that the Lease has expired. What the process has slept through since its term ended is not there any more.
func (p *process) budget() time.Duration {
	late := max(protocol.Age(p.term.sent, p.clock.at(p.world.now))-p.cfg.RenewDeadline, 0)
	return max(p.cfg.LeaseDuration<<10/time.Duration(p.world.fastest)-p.clock.lasts(p.cfg.RenewDeadline+late)-time.Millisecond, 0)
}

// noticing is within which time a draining callback notices that its term has been lost.
const noticing = 100 * time.Millisecond

// hear is when the callback notices that its ctx has ended. After a loss it returns within the stop budget; otherwise it
// takes what time it likes while its term is valid.
func (p *process) hear() {
	t, now := &p.term, p.world.now
	if t.heard {
		return
	}
	t.heard = true
	p.springsWithin(momentLoss, 2*time.Second)
	switch {
	case t.suspended: // it has done nothing for a while, and does nothing more
		t.leaveAt = now + t.drain
	case t.lost() && !t.gaveUp:
		t.lossMode, t.until = true, now+p.budget()
		t.leaveAt = now + time.Duration(t.share*float64(p.budget()))
	default:
		t.leaveAt = now + t.drain
	}
	p.work(stageDrain, t.leaveAt)
}

// noticeLoss is when a draining callback loses its term.
func (p *process) noticeLoss() {
	t, now := &p.term, p.world.now
	t.lossMode, t.until = true, now+p.budget()
	late := min(noticing, p.budget())
	late = p.script.upTo(late)
	left := max(p.budget()-noticing-10*time.Millisecond, 0)
	if at := now + late + time.Duration(t.share*float64(left)); at < t.leaveAt {
		t.leaveAt = at
		p.work(stageDrain, at)
	}
}

// drained is when the callback has done what it has to.
func (p *process) drained() {
	t := &p.term
	if p.world.now < t.leaveAt {
		return
	}
	if t.lossMode && p.valid() {
		p.world.fail("S2", "%s was told of a loss, and its term is valid again", p.name())
	}
	p.returnFrom()
}

// returnFrom lets the callback return.
func (p *process) returnFrom() {
	t, w := &p.term, p.world
	p.leave()
	t.returned = true
	w.push(event{at: w.now + p.script.upTo(500*time.Microsecond), kind: evReturned, who: p.index, gen: t.gen})
}

// noticesReturn is when the loop notices that the callback has returned.
func (p *process) noticesReturn(gen uint32) {
	t := &p.term
	if gen != t.gen || !t.begun || p.resigning {
		return
	}
	t.alive = false
	p.hand(protocol.Event{Kind: protocol.Returned, OK: t.gaveUp})
}
