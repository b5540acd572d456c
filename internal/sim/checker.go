package sim

import (
	"slices"
	"time"

	"github.com/elector-go/elector/internal/protocol"
)

// watched is what the checker knows of a process.
type watched struct {
	applied    applied // the last write that holds the Lease and that the server has taken
	win        applied // the last write of its that could win, likewise
	began      time.Duration
	knows      []known // writes of others that it has been shown
	maxSeen    uint64  // the highest version that it has been shown
	second     time.Duration
	requestsIn int           // likewise the requests
	mustHold   bool          // in this test its callback drains, and may not lose the Lease
	stepped    time.Duration // when its wall clock was last set
}

// applied is a write that the server has taken.
type applied struct {
	at      protocol.Instant // when it left, by its process's clocks
	sent    time.Duration
	taken   time.Duration
	version uint64
}

// A served is a term that has begun.
type served struct {
	p      *process
	gen    uint32
	token  uint64
	win    applied
	began  time.Duration
	inside bool
}

const (
	maxRequests = 40 // a second
	maxUnderWay = 4  // L9

	// Within a millisecond a process notices what its monotonic clock says, and within a second and a bit what the wall
	// clock does.
	noticingMono = time.Millisecond
	noticingWall = 1200 * time.Millisecond
)

// enter begins a callback. Nobody else may be inside, unless doc.go says that this cannot be helped.
func (p *process) enter() {
	w := p.world
	t := &p.term
	t.inside = true
	s := served{p: p, gen: t.gen, token: t.token, win: p.win, began: w.now, inside: true}
	w.note(noteBegins, p.index, int64(t.token), 0, 0, "")
	if n := len(w.terms); n > 0 && s.token <= w.terms[n-1].token && !w.restoredSince(s.win, w.terms[n-1].win) {
		last := w.terms[n-1]
		if w.overlap(&last, &s, "begins late"); s.token == last.token && !(w.afterCopy(&last, &s) && last.p.family == p.family) {
			w.fail("tokens", "%s has the token %d, as %s had", p.name(), s.token, last.p.name())
		}
	}
	w.terms = append(w.terms, s)
	w.in(p)
	for _, o := range w.inside {
		if o != p {
			w.overlap(w.servedBy(o), w.servedBy(p), "begins")
		}
	}
}

// reenter counts a process as inside again that has woken, and may work on.
func (p *process) reenter() {
	w := p.world
	w.in(p)
	mine := w.servedBy(p)
	for i := len(w.terms) - 1; i >= 0 && &w.terms[i] != mine; i-- {
		if o := w.terms[i].p; o != p && (o.family != p.family || w.terms[i].token != mine.token) { // a copy's term is not a later one
			w.overlap(&w.terms[i], mine, "goes on")
		}
	}
	for _, o := range w.inside {
		if o != p {
			w.overlap(w.servedBy(o), mine, "goes on")
		}
	}
}

// leave ends a callback.
func (p *process) leave() {
	t := &p.term
	if !t.inside {
		return
	}
	t.inside = false
	p.mustHold = false
	p.world.note(noteEnds, p.index, int64(t.token), 0, 0, "")
	p.world.servedBy(p).inside = false
	p.world.out(p)
}

// servedBy is the term that a process serves.
func (w *world) servedBy(p *process) *served {
	for i := len(w.terms) - 1; i >= 0; i-- {
		if s := &w.terms[i]; s.p == p && s.gen == p.term.gen {
			return s
		}
	}
	panic("no such term")
}

// overlap judges that two callbacks are inside, or may be: that of b has just begun, or goes on after a while.
func (w *world) overlap(a, b *served, what string) {
	first, second := a, b
	if a.win.version > b.win.version {
		first, second = b, a
	}
	why := w.excused(first, second, second.win, second.began)
	if last := b.p.applied; why == "" && b == first && last.version > a.win.version {
		why = w.excused(a, b, last, w.now) // b has gone on by a write that came after the win of a
	}
	if why != "" {
		w.tally.Excused[why]++
		w.note(noteExcused, b.p.index, int64(a.p.index), 0, 0, why)
		return
	}
	w.fail("one at a time", "%s %s in term %d, and %s in term %d is inside", b.p.name(), what, b.token, a.p.name(), a.token)
}

// checkWrite judges a write that the server has taken in place of before.
func (w *world) checkWrite(q *request, before record) {
	p := w.processes[q.who]
	a := applied{at: q.at, sent: q.sent, taken: w.now, version: w.server.Version}
	w.remember(p, a)
	if q.ask.Claim.Holder != "" {
		p.holds(q, a)
		for _, o := range w.alive {
			if o != p && o.family == p.family && (slices.Contains(o.asked, q.ask.Claim) || slices.Contains(q.twins, o.index)) {
				o.holds(q, a) // it has decided on that, too
			}
		}
		return
	}
	if p.net.one(2) {
		w.server.snapshot() // a backup of a Lease that is free
	}
	if before.Holder != "" && (!p.wrote(before.author) || before.Holder != p.identity) {
		w.fail("S8", "%s has released what is not its own", p.name())
	}
}

// holds takes in that a write of the process holds the Lease.
func (p *process) holds(q *request, a applied) {
	if a.at.Mono < p.applied.at.Mono {
		a.at = p.applied.at
	}
	p.applied = a
	if q.ask.Wins {
		p.win = a
	}
}

// checkSend judges a request that a machine hands out.
func (p *process) checkSend(q *request) {
	w, t := p.world, &p.term
	p.count()
	write := q.ask.Verb != protocol.Get
	switch {
	case q.ask.Verb == protocol.Update && (q.ask.On.Version == 0 || q.ask.On.UID == ""):
		w.fail("S4", "%s updates without a condition", p.name())
	case write && q.ask.Claim.Holder == "" && t.begun && !t.returned && !p.resigning:
		w.fail("S8", "%s releases while its callback runs", p.name())
	case write && q.ask.Claim.Holder != "" && t.drainsTooLong(p):
		w.fail("S9", "%s renews although its DrainLimit has passed", p.name())
	case q.ask.Wins && t.begun:
		w.fail("S5", "%s sends a write that wins within its term", p.name())
	case write && q.ask.Claim.Holder != "" && q.ask.Claim.Holder != p.identity:
		w.fail("S4", "%s writes another's name", p.name())
	}
	if w.quiet && !t.begun && !p.forbid {
		w.fail("L2", "%s sends a %s while it stands by, and its watch is healthy", p.name(), q.ask.Verb)
	}
	if write && p.moment != noMoment {
		m := momentWrite
		if q.ask.Claim.Holder == "" {
			m = momentRelease
		}
		p.springsWithin(m, 3*usualLatency)
	}
}

// drainsTooLong reports whether the callback drains for longer than DrainLimit, which the loop has had the time to notice.
func (t *term) drainsTooLong(p *process) bool {
	limit := p.cfg.DrainLimit
	return limit > 0 && t.ctxEnded && !t.returned && p.woke < t.endedAt && p.world.now-t.endedAt > p.clock.lasts(limit)+10*time.Millisecond
}

func (p *process) checkWatch() {
	p.count()
	if p.world.quiet && !p.forbid {
		p.world.fail("L2", "%s opens a watch in the calm", p.name())
	}
}

// count counts a request, and those that have not returned.
func (p *process) count() {
	w := p.world
	w.tally.Requests++
	if w.now-p.second >= time.Second {
		p.second, p.requestsIn = w.now, 0
	}
	if p.requestsIn++; p.requestsIn > maxRequests {
		w.fail("load", "%s has sent %d requests in a second", p.name(), p.requestsIn)
	}
	n := 0
	for _, i := range p.requests {
		if !w.requests[i].returned {
			n++
		}
	}
	for _, i := range p.watches {
		if wt := w.watches[i]; wt.closed || !wt.open {
			n++
		}
	}
	if n > maxUnderWay {
		w.fail("L9", "%s has %d requests under way", p.name(), n)
	}
}

// checkAuthority judges since when the authority of a term is said to count: not later than the last write that the server
// has taken has left (S1).
func (p *process) checkAuthority(sent protocol.Instant) {
	if sent.Mono > p.applied.at.Mono+p.chance() {
		p.world.fail("S1", "%s counts its authority from %v after the last write that the server has taken", p.name(), sent.Mono-p.applied.at.Mono)
	}
}

// chance is how much later than a write of its own a process may count it: its copy may have written the same within a
// millisecond, the digits below that by chance.
func (p *process) chance() time.Duration {
	if p.until == 0 {
		return 0
	}
	return time.Millisecond
}

// checkEnd judges when the callback's ctx ends: by RenewDeadline after the last write that the server has taken (S1).
func (p *process) checkEnd() {
	late := p.clock.at(p.world.now).Mono - p.applied.at.Mono - p.chance() - p.cfg.RenewDeadline
	if p.term.suspended {
		late -= p.cfg.Recovery
	}
	if late > noticingMono && p.world.now-p.woke > noticingMono {
		p.world.fail("S1", "the ctx of %s ends %v after its RenewDeadline", p.name(), late)
	}
}

// armGuard sets the checker's timer for that.
func (p *process) armGuard() {
	t := &p.term
	if t.guard {
		return
	}
	t.guard = true
	at := p.clock.when(p.applied.at.Mono + p.cfg.RenewDeadline + noticingMono)
	p.world.push(event{at: max(at, p.world.now+1), kind: evGuard, who: p.index, gen: t.gen})
}

// guards is the checker's timer.
func (p *process) guards(gen uint32) {
	t := &p.term
	if gen != t.gen {
		return
	}
	t.guard = false
	if !t.begun || t.returned || t.ctxEnded || t.suspended {
		return
	}
	now := p.clock.at(p.world.now)
	if p.asleep || p.world.now-p.woke <= noticingMono {
		p.world.push(event{at: p.world.now + 2*noticingMono, kind: evGuard, who: p.index, gen: gen})
		t.guard = true
		return
	}
	if late := now.Mono - p.applied.at.Mono - p.cfg.RenewDeadline; late > noticingMono {
		p.world.fail("S1", "%s works on %v after its RenewDeadline", p.name(), late)
	}
	if late := now.Wall - p.applied.at.Wall - p.cfg.RenewDeadline; late > noticingWall && p.world.now-p.stepped > noticingWall && p.world.now-p.woke > noticingWall {
		p.world.fail("S2", "%s works on %v after its RenewDeadline by the wall clock", p.name(), late)
	}
	p.armGuard()
}

// checkLost judges that a term is lost.
func (p *process) checkLost(why protocol.Lost) {
	if p.mustHold {
		p.world.fail("S9", "%s has lost the Lease in the calm while its callback drains: %v", p.name(), why.Reason)
	}
}

// showsHolder checks that a leader that is shown another holder learns of it at once (S7).
func (p *process) showsHolder(r *record, kind protocol.EventKind) {
	w := p.world
	others := r.Holder != p.identity || r.author != nobody && !p.wrote(r.author) // be it by one of the same name
	other := kind == protocol.WatchShowed && r.Holder != "" && others && r.Version > p.maxSeen
	p.sees(r)
	if other && p.term.begun && p.term.alive {
		w.told = p
	}
}

// checkTold is called once the process has taken in what it was shown.
func (w *world) checkTold() {
	p := w.told
	w.told = nil
	if t := &p.term; !p.gone() && !p.asleep && t.begun && !t.returned && (t.alive || !t.ctxEnded) {
		w.fail("S7", "%s was shown another holder, and its term goes on", p.name())
	}
}
