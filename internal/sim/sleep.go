package sim

import (
	"time"

	"github.com/elector-go/elector/internal/protocol"
)

// sleep is how a process is suspended. While it is, nothing happens in it: what comes is kept, in order.
type sleep struct {
	asleep bool
	mail   []event
	woke   time.Duration // when it last did

	// Since when its wall clock has been set back. If its monotonic clock stood still soon after, neither would show for how
	// long, and nobody could notice.
	setBack time.Duration
	ambush
}

// An ambush is a suspension that waits for its moment.
type ambush struct {
	moment moment
	skip   int // how often the moment is let pass
	length time.Duration
	still  bool // the monotonic clock stands still meanwhile
}

// A moment is one at which chance would seldom suspend.
type moment uint8

const (
	noMoment      moment = iota
	momentNow            // at once
	momentSend           // a write was decided on
	momentLeave          // a request's time was read, and it has not left
	momentWrite          // a write is on its way, or its reply
	momentRelease        // likewise a release
	momentReply          // a reply has come in
	momentEvent          // an event of the watch has
	momentStep           // an effect is to be carried out
	momentTerm           // the callback is to begin
	momentLoss           // a loss was heard of
	moments
)

// springs suspends the process if it has come to the moment of its ambush.
func (p *process) springs(m moment) bool {
	if p.moment != m || p.asleep {
		return false
	}
	if p.skip--; p.skip >= 0 {
		return false
	}
	p.moment = noMoment
	return p.suspend(p.length, p.still)
}

// springsWithin does it at a random moment within the time given.
func (p *process) springsWithin(m moment, within time.Duration) {
	if p.moment == m {
		p.moment = momentNow
		p.world.push(event{at: p.world.now + p.script.upTo(within), kind: evSuspend, who: p.index})
	}
}

// suspend puts the process to sleep. While it sleeps it is not inside.
func (p *process) suspend(d time.Duration, still bool) bool {
	w := p.world
	if p.asleep || p.gone() || !w.storm {
		return false
	}
	if t := &p.term; t.inside && p.valid() && p.script.one(5) {
		// To wake at the same time as the timer that ends the term: the clock decides.
		d = p.clock.when(t.sent.Mono+p.cfg.RenewDeadline) - w.now
	}
	if p.setBack > 0 && w.now-p.setBack < 5*time.Minute {
		still = false // neither clock would show it
	}
	w.note(noteSleeps, p.index, int64(d), b2i(still), b2i(p.term.inside), "")
	w.tally.Sleeps++
	p.asleep = true
	if still {
		p.clock.stop(w.now)
	}
	w.out(p)
	w.push(event{at: w.now + d, kind: evAwake, who: p.index})
	return true
}

// awake wakes the process. What its callback does first is to read the clocks.
func (p *process) awake() {
	if !p.asleep || p.gone() {
		return
	}
	w := p.world
	p.asleep, p.woke = false, w.now
	p.clock.start(w.now)
	t := &p.term
	valid := t.begun && p.valid()
	w.note(noteWakes, p.index, b2i(valid), b2i(t.inside), 0, "")
	if t.inside {
		w.push(event{at: w.now + noticingWall, kind: evGuard, who: p.index, gen: t.gen})
		switch {
		case t.suspended:
		case !valid && w.now >= t.until && p.cfg.Recovery > 0 && t.alive && !t.ctxEnded:
			// Valid says no, so it waits. What its timer makes of that is seen soon.
		case !valid && w.now >= t.until:
			p.returnFrom()
		default:
			p.reenter()
			if t.ctxEnded {
				p.hear()
			}
		}
	}
	p.sort()
	for _, ev := range p.mail {
		ev.at = w.now
		w.push(ev)
	}
	p.mail = p.mail[:0]
	p.armedAt = 0
	rest := p.rest
	p.rest, p.running = rest[:0], true
	p.carryOut(rest)
	p.run()
}

// sort brings timers that were due in the sleep between what else has come, because nobody knows which is first.
func (p *process) sort() {
	for i, ev := range p.mail {
		if ev.kind == evWake || ev.kind == evDeadline || ev.kind == evNotice || ev.kind == evReturned {
			j := int(p.script.n(int64(len(p.mail))))
			p.mail[i], p.mail[j] = p.mail[j], p.mail[i]
		}
	}
}

func b2i(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// sicken changes whether a replica is fit to lead.
func (p *process) sicken(sick bool) {
	p.sick = sick
	p.hand(protocol.Event{Kind: protocol.Health, OK: !sick})
}
