package sim

import (
	"slices"
	"time"

	"github.com/elector-go/elector/internal/protocol"
)

// checkKind is a check in a calm.
type checkKind int32

const (
	checkLeads checkKind = iota // somebody leads
	checkTest                   // one of the following begins
	checkTakeover
	checkHolds
	checkQuiet
	checkPutBack
	checkHandedOver
)

// While a callback drains the Lease is its own. After that whoever has lost a term, or has seen another's, may wait for as
// long as two Leases last.
func (p *Plan) settles() time.Duration { return maxDrain + 15*time.Second + 2*p.longestLease() }

// leads is within which time somebody leads.
func (p *Plan) leads() time.Duration { return p.settles() + 45*time.Second + p.longestLease()/2 }

// calmLength is how long a calm lasts.
func (p *Plan) calmLength() time.Duration { return p.leads() + testLength }

const testLength = 45 * time.Second

// longestLease is the longest of any process.
func (p *Plan) longestLease() time.Duration {
	return max(timings[p.Timing].lease, timings[p.Others].lease)
}

// calm heals everything.
func (w *world) calm(f *Fault) {
	w.storm, w.awayUntil, w.leadBy = false, 0, w.now+w.plan.leads()
	for _, p := range slices.Clone(w.alive) {
		p.ambush = ambush{}
		p.awake()
		p.heal(true)
		if p.sick {
			p.sicken(false)
		}
	}
	w.push(event{at: w.now + w.plan.settles(), kind: evCheck, arg: int32(checkLeads)})
	w.push(event{at: w.leadBy, kind: evCheck, arg: int32(checkTest), gen: uint32(f.Roll)})
}

// check is a check of the calm.
func (w *world) check(kind checkKind, roll uint32) {
	switch kind {
	case checkLeads:
		if w.leading() != nil {
			return
		}
		if w.now > w.leadBy {
			w.fail("liveness", "nobody leads in the calm")
		}
		w.push(event{at: w.now + 250*time.Millisecond, kind: evCheck, arg: int32(checkLeads)})
	case checkTest:
		w.beginTest(roll)
	case checkTakeover:
		if p := w.tested; !p.gone() && p.term.gen == w.testedTerm && p.term.begun && !p.term.ctxEnded {
			w.fail("S7", "%s still leads 100ms after another holder was written into the Lease", p.name())
		}
	case checkHolds:
		w.tested.mustHold = false
	case checkPutBack:
		if p := w.tested; !p.gone() && p.term.gen == w.testedTerm && p.term.begun && !p.term.ctxEnded && !w.server.exists {
			w.fail("S6", "%s has not put the Lease back 100ms after it was deleted", p.name())
		}
	case checkHandedOver:
		if !w.storm && w.leading() == nil && len(w.terms) == int(roll) {
			w.fail("hand-over", "nobody leads, though the Lease was released in the calm")
		}
	case checkQuiet:
		if w.quiet {
			w.tally.Quiet++
		}
		w.quiet = false
	}
}

// beginTest begins one of the tests, if the calm is one: the leader's watch is open, and it has led for a while.
func (w *world) beginTest(roll uint32) {
	p := w.leading()
	if p == nil || !p.valid() {
		return
	}
	w.tested, w.testedTerm = p, p.term.gen
	later := func(after time.Duration, kind checkKind) {
		w.push(event{at: w.now + after, kind: evCheck, arg: int32(kind)})
	}
	switch roll >> 8 % 5 {
	case 0:
		if !p.watchesWell() {
			return
		}
		c := w.server.Claim
		c.Holder = "stranger"
		w.edit(c)
		later(100*time.Millisecond, checkTakeover)
	case 1:
		if p.cfg.DrainLimit == 0 {
			p.mustHold = true
			p.stop()
			later(testLength-time.Second, checkHolds)
		}
	case 2:
		if p.watchesWell() {
			gone := w.server.drop()
			w.outside(deleted)
			w.show(protocol.WatchGone, &gone)
			later(100*time.Millisecond, checkPutBack)
		}
	default:
		if w.isCalm(p) {
			w.quiet = true
			later(testLength-time.Second, checkQuiet)
		}
	}
}

// released judges what a process leaves behind at the end of its term, once the calm has settled: it releases (S8), and the
// next one leads as soon as it has seen that, be it by polling.
func (w *world) released(p *process, e *protocol.Effect) {
	if w.storm || w.now < w.leadBy || !p.term.begun {
		return
	}
	s := &w.server
	if !e.Released && s.exists && s.author == p.index && s.intact && s.Holder == p.identity {
		w.fail("S8", "%s has not released the Lease in the calm", p.name())
	}
	retry := max(timings[w.plan.Timing].retry, timings[w.plan.Others].retry)
	if e.Released && len(w.alive) > 1 {
		w.push(event{at: w.now + retry*9/4 + maxYield + time.Second, kind: evCheck, arg: int32(checkHandedOver), gen: uint32(len(w.terms))})
	}
}

// isCalm reports whether standbys have nothing to do any more.
func (w *world) isCalm(leader *process) bool {
	if w.now-w.servedBy(leader).began < 4*leader.cfg.Interval()+5*time.Second {
		return false
	}
	for _, p := range w.alive {
		if w.now-p.joined < 15*time.Second || !p.forbid && !p.watchesWell() || p.term.begun && p != leader {
			return false
		}
	}
	return true
}

// watchesWell reports whether the process has a watch that shows what happens.
func (p *process) watchesWell() bool {
	for _, i := range p.watches {
		if wt := p.world.watches[i]; wt.open && !wt.ended && !wt.closed && !wt.silent {
			return true
		}
	}
	return false
}
