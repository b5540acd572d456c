package sim

import (
	"slices"
	"time"

	"github.com/elector-go/elector/internal/protocol"
)

// copied is what the checker knows of a process and its copies (S5).
type copied struct {
	family   int32            // the first of them, plus one
	until    time.Duration    // until then they may be inside at once
	asked    []protocol.Claim // the last that it has handed out: a copy may repeat one, which was in doubt
	inherits int32            // whose StateDir it has: when the one that was copied is dead, the copy may be alive. 0 for none of those
}

// maxAsked is how many claims of a process are remembered: those of some minutes.
const maxAsked = 64

// wrote reports whether the process, or a copy of it, is the author.
func (p *process) wrote(author int32) bool {
	return author != nobody && p.world.processes[author].family == p.family
}

// doCopy copies a process in the middle of whatever it does, as a VM is cloned. The connections of the copy are dead.
func doCopy(w *world, _ *Fault, p *process, d *dice) {
	if p.asleep || p.running || len(w.alive) > w.plan.Size {
		return
	}
	c := &process{}
	*c = *p
	c.index, c.slot, c.joined = int32(len(w.processes)), noSlot, w.now
	c.net, c.script, c.luck = dice{d.next()}, dice{d.next()}, dice{d.next()}
	c.machine = p.machine.Clone(func(n int64) int64 { return c.luck.n(n) })
	c.link = link{latency: usualLatency, forbid: p.forbid}
	c.ambush = ambush{}
	c.requests, c.watches, c.inbox, c.rest, c.mail = nil, nil, nil, nil, nil
	c.knows, c.asked = slices.Clone(p.knows), slices.Clone(p.asked)
	c.armedAt = 0
	p.mark, c.mark = protocol.Mark{}, protocol.Mark{} // the end of one proves nothing about the other
	if c.place = nil; p.place != nil && p.place.locked == p {
		p.place.copied = p.family
		c.place = &place{marks: slices.Clone(p.place.marks), locked: c}
	}
	p.mayOverlap()
	c.mayOverlap()
	w.processes, w.alive = append(w.processes, c), append(w.alive, c)
	w.note(noteCopied, c.index, int64(p.index), 0, 0, "")
	w.copyEvents(p, c)
	p.copyTerm(c)
	c.cutRequests(p)
	c.cutWatches(p)
	c.arm()
}

// mayOverlap gives a process and its copies as long as they may need from now on. One that is cut off goes on for
// RenewDeadline, may put right what the other has written, and go on for as long. Then it has the stop budget.
func (p *process) mayOverlap() {
	p.until = p.world.now + p.cfg.RenewDeadline + p.cfg.LeaseDuration + 2*noticingWall
	p.world.push(event{at: p.until + 1, kind: evCopies, who: p.index})
}

// asks remembers a claim that the process hands out. It gives those more time that repeat one write, which was under way when
// one was copied: each takes it for its own.
func (p *process) asks(c protocol.Claim) {
	if !slices.Contains(p.asked, c) {
		p.asked = append(p.asked[max(0, len(p.asked)-maxAsked+1):], c)
	}
	if p.until == 0 {
		return
	}
	for _, o := range p.world.alive {
		if o != p && o.family == p.family && slices.Contains(o.asked, c) {
			p.mayOverlap()
			o.mayOverlap()
		}
	}
}

// giveCopiesTime gives those more that may still overlap. They find each other out by two records of the other within
// RenewDeadline, and each fault may cost one.
func (w *world) giveCopiesTime() {
	for _, p := range w.alive {
		if p.until >= w.now {
			p.mayOverlap()
		}
	}
}

// noSlot is where a copy runs: nothing follows it there.
const noSlot = -1

// copyEvents plans for the copy what is planned for the callback and the loop.
func (w *world) copyEvents(p, c *process) {
	for _, ev := range slices.Clone(w.queue) {
		switch ev.kind {
		case evDeadline, evGuard, evWork, evNotice, evReturned, evStop, evExit:
			if ev.who == p.index {
				ev.who = c.index
				w.push(ev)
			}
		}
	}
}

// copyTerm counts the copy as inside if the process is.
func (p *process) copyTerm(c *process) {
	w := p.world
	if !p.term.inside {
		return
	}
	i := slices.IndexFunc(w.terms, func(s served) bool { return s.p == p && s.gen == p.term.gen })
	s := w.terms[i]
	s.p = c
	w.terms = slices.Insert(w.terms, i, s) // no later than that of p
	if slices.Contains(w.inside, p) {
		w.in(c)
	}
}

// cutRequests lets what the process has under way come back to the copy as cut. If the server takes a write of those, it
// is one of both.
func (c *process) cutRequests(p *process) {
	w := c.world
	for _, i := range slices.Clone(p.requests) {
		q := w.requests[i]
		q.twins = append(slices.Clone(q.twins), c.index)
		if q.returned {
			continue
		}
		cut, n := w.request()
		*cut = request{gen: cut.gen, who: c.index, id: q.id, ask: q.ask, handed: q.handed, sent: q.sent, at: q.at, left: true, told: true, cancelled: q.cancelled}
		cut.reply = protocol.Event{Outcome: protocol.Failed}
		c.requests = append(c.requests, n)
		w.travel(evReply, n, c.net.upTo(time.Second))
	}
}

// cutWatches ends the copy's watches.
func (c *process) cutWatches(p *process) {
	w := c.world
	for _, i := range slices.Clone(p.watches) {
		wt := &watch{who: c.index, id: w.watches[i].id, open: w.watches[i].open, closed: w.watches[i].closed, ended: true}
		n := int32(len(w.watches))
		w.watches = append(w.watches, wt)
		c.watches = append(c.watches, n)
		w.push(event{at: w.now + c.net.upTo(time.Second), kind: evUnwatched, who: c.index, arg: n})
	}
}

// afterCopy reports whether one of two processes was copied so lately that both may be inside: the copy, or whoever comes
// after the one that has let the Lease go, while the copy has not heard of that.
// So may a copy, and whoever has the StateDir that its original has left behind.
func (w *world) afterCopy(a, b *served) bool {
	return w.now <= max(a.p.until, b.p.until) || b.p.inherits != 0 && b.p.inherits == a.p.family
}

// checkCopies judges that a process and its copies are not inside at once any more.
func (w *world) checkCopies(c *process) {
	if !slices.Contains(w.inside, c) {
		return
	}
	for _, o := range w.inside {
		switch a, b := w.servedBy(o), w.servedBy(c); {
		case o == c || o.family != c.family || w.now <= o.until:
		case a.token == b.token:
			w.fail("S5", "%s and its copy %s are both inside", o.name(), c.name())
		default:
			w.overlap(a, b, "goes on")
		}
	}
}
