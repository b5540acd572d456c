package protocol

import (
	"slices"
	"time"
)

// A call is one request under way.
type call struct {
	id      int
	do      action
	verb    Verb
	claim   Claim   // what it writes
	on      uint64  // the version of the record that it was decided on
	base    int     // how many changes of the record this candidate had seen by then
	repair  bool    // it puts right what another client has changed
	spare   bool    // it uses the second connection
	handed  Instant // when it was handed out
	left    bool    // it has left the process
	dials   bool    // it waits for a connection, and another may be made sooner
	sent    Instant // just before it left; until then, when it was handed out
	overdue Instant // once it has left: from then on a second attempt may be sent
	giveUp  Instant // RenewDeadline after it left; twice that after it was handed out, if it does not leave

	void    bool // a write that wins nothing, because another's record was seen since it was sent (S5, S6)
	ignored bool // another one was answered in its place: its own answer counts no more
	givenUp bool // its ctx has ended, but its client has not returned
}

// isOverdue reports whether its answer should have come. One that has not left yet, as behind a rate limiter, waits for
// nothing that a second attempt would not wait for, too (L12).
func (k *call) isOverdue(now Instant) bool { return k.dials || k.left && !now.Before(k.overdue) }

// counts reports whether its answer counts.
func (k *call) counts() bool { return !k.givenUp && !k.ignored }

// calls are the requests under way, oldest first.
type calls []*call

// awaited is the newest one whose answer counts, nil if there is none.
func (cs calls) awaited() *call {
	for _, k := range slices.Backward(cs) {
		if k.counts() {
			return k
		}
	}
	return nil
}

// writing reports whether a write is under way whose answer counts.
func (cs calls) writing() bool {
	return slices.ContainsFunc(cs, func(k *call) bool { return k.do != get && k.counts() })
}

// awaits reports whether the answer to the write that was handed out at that time may still come.
func (cs calls) awaits(sent Instant) bool {
	return slices.ContainsFunc(cs, func(k *call) bool { return k.do != get && !k.givenUp && k.handed == sent })
}

// repeats reports whether a write of the claim is under way whose answer counts.
func (cs calls) repeats(c Claim) bool {
	return slices.ContainsFunc(cs, func(k *call) bool { return k.do != get && k.counts() && k.claim == c })
}

// ignore marks those whose answers do not count any more once k was answered: the older ones, and repetitions of it.
func (cs calls) ignore(k *call) {
	for _, other := range cs {
		if k.do == get {
			other.ignored = other.ignored || other.do == get
		} else {
			other.ignored = other.ignored || other.base <= k.base
		}
	}
}

// void marks those under way.
func (cs calls) void() {
	for _, k := range cs {
		k.void = true
	}
}

// takeBack gives up the writes that have not left the process: the record that they were decided on has been replaced, or
// the Lease is to be let go (L12).
func (m *Machine) takeBack() {
	for _, k := range m.calls {
		if k.do != get && !k.left {
			k.ignored = true
			m.drop(k)
		}
	}
}

// stuck reports whether so many clients have not returned, a second after their requests were given up, that no more
// requests are sent (L9).
func (m *Machine) stuck() bool {
	n := len(m.watch.ending)
	for _, k := range m.calls {
		if k.givenUp && m.now.Sub(k.giveUp) >= time.Second {
			n++
		}
	}
	return n >= MaxCalls
}

// underWay is how many requests have not returned, watches that are not open among them.
func (m *Machine) underWay() int {
	n := len(m.calls) + len(m.watch.ending)
	if m.watch.id != 0 && !m.watch.open {
		n++
	}
	return n
}

// makeRoom reports whether one more request may be sent now. An attempt that is not overdue is waited for. Up to three
// attempts are under way, the third only while a holder's time runs out. For one more, the oldest is given up if it has
// had half of RenewDeadline: an API as slow as that cannot be led on. Otherwise it is the youngest, which repeats the one
// before it. The attempt that is carried out first makes the others conflict, and it is most likely an older one: giving
// that up would lose its answer (L3). A standby, which is in no hurry, makes two attempts, and gives each RenewDeadline.
func (m *Machine) makeRoom() bool {
	if k := m.calls.awaited(); k != nil && !k.isOverdue(m.now) {
		return false
	}
	standingBy := (m.phase == StandingBy || m.phase == Following) && !m.goesFirst()
	open, limit := 0, 3
	if standingBy {
		limit = 2
	}
	var victim, youngest *call
	for _, k := range m.calls {
		if k.givenUp {
			continue
		}
		open, youngest = open+1, k
		if victim == nil && (k.ignored || !standingBy && m.now.Sub(k.sent) >= m.RenewDeadline/2) {
			victim = k
		}
	}
	if open >= limit {
		if victim == nil && standingBy {
			return false
		}
		if victim == nil {
			victim = youngest
		}
		m.drop(victim) // even if a watch that opens is the fourth: it may hang for as long
	}
	return m.underWay() < MaxCalls
}

// send hands out the request of a decision. A second attempt, while the first is overdue, uses the other connection.
func (m *Machine) send(do action) {
	m.lastID++
	k := &call{id: m.lastID, do: do, verb: Get, on: m.seen.record.Version, base: m.changes, handed: m.now, sent: m.now, giveUp: m.now.Add(2 * m.RenewDeadline)}
	if other := m.calls.awaited(); other != nil {
		k.spare = !other.spare
	} else {
		k.spare = do == get && m.watch.doubting
	}
	r := Request{Verb: Get, Spare: k.spare}
	if do != get {
		k.verb = Update
		if !m.seen.exists {
			k.verb = Create
		}
		k.repair = do == renew && !m.asWritten() && !m.own.mayHaveWritten(m.seen.record.Claim)
		k.claim = m.own.next(m.Config, m.seen, do, m.notice, m.now, m.random(1e6))
		m.own.sending(m.seen, m.phase, do, k.claim, m.now)
		to, _ := m.seen.transfer()
		r = Request{Verb: k.verb, Claim: k.claim, On: m.seen.record, Wins: do == acquire, Clear: do == acquire || Names(to, m.Identity), Spare: k.spare}
	}
	switch { // (L12)
	case m.own.suspended, m.phase == Releasing && Age(m.own.sent, m.now) < m.RenewDeadline:
		// Others wait for it; not for what was lost because the server cannot keep up, and expires soon.
		r.Presses, r.Deadline = m.now, m.now.Add(m.RenewDeadline/3)
	case m.phase.serving():
		r.Deadline = m.now.Add(m.timeLeft())
		r.Presses = r.Deadline.Add(-m.RenewDeadline / 3) // a read, too: a renewal waits for what it shows
	}
	if !m.Traces {
		m.leaves(k, m.now)
	}
	m.calls = append(m.calls, k)
	if k.verb == Create && do == renew {
		m.emit(Effect{Kind: PutsBack})
	}
	m.emit(Effect{Kind: Send, ID: k.id, Request: r})
}

// leaves takes in that a request has left the process. Its write cannot have been applied before, so the term's authority
// may count from then (S1).
func (m *Machine) leaves(k *call, at Instant) {
	if !k.left && !k.givenUp {
		k.left, k.dials, k.sent = true, false, at
		k.overdue, k.giveUp = m.now.Add(m.attemptLimit()), at.Add(m.RenewDeadline)
	}
}

// timeLeft is how long a holder has until its authority ends, or while it drains and releases, until its lease does.
func (m *Machine) timeLeft() time.Duration {
	if m.phase == Leading {
		return m.RenewDeadline - Age(m.own.sent, m.now)
	}
	return m.LeaseDuration - Age(m.own.sent, m.now)
}

// holds reports whether the candidate has a Lease to keep or to let go.
func (m *Machine) holds() bool { return m.phase.serving() || m.phase == Releasing }

// goesFirst reports whether the others leave an expired Lease to this candidate after an outage (L11): its term is suspended,
// or was lost, and nothing else was seen since. It has to be there within the time that they give it (L10).
func (m *Machine) goesFirst() bool {
	return m.own.suspended || m.phase == StandingBy && m.own.isOver(m.seen)
}

// attemptLimit is how long to wait for an answer before a second attempt is made: a third of RenewDeadline, and a holder
// no more than half of the time it has left.
func (m *Machine) attemptLimit() time.Duration {
	limit := m.RenewDeadline / 3
	if m.goesFirst() {
		return min(limit, m.RetryPeriod/2) // (L10)
	}
	if left := m.timeLeft(); m.holds() && left > 0 {
		limit = min(limit, max(left/2, 50*time.Millisecond))
	}
	return limit
}

// pause is how long to wait after a failed attempt. A leader tries the sooner again the less time it has left (L3). A
// Retry-After is honoured, by a leader as far as its deadline allows, by others up to a LeaseDuration (L5).
func (m *Machine) pause(asked time.Duration) time.Duration {
	jittered := func(d time.Duration) time.Duration { return d*3/4 + m.pick(d/2) }
	left := m.timeLeft()
	if m.goesFirst() {
		return max(jittered(m.RetryPeriod/2), min(asked, m.LeaseDuration)) // (L10)
	}
	if !m.holds() || left <= 0 {
		backoff := m.RetryPeriod / 4 << min(m.trouble.failures, 3)
		return max(jittered(backoff), min(asked, m.LeaseDuration))
	}
	soon := min(max(left/10, 10*time.Millisecond), m.RetryPeriod)
	return min(max(jittered(soon), asked), max(left/2, 10*time.Millisecond))
}

// answered takes in what a request has come to.
func (m *Machine) answered(ev Event) {
	i := slices.IndexFunc(m.calls, func(k *call) bool { return k.id == ev.ID })
	if i < 0 {
		m.bug("an answer to request %d, which is not under way", ev.ID)
	}
	k := m.calls[i]
	m.calls = slices.Delete(m.calls, i, i+1)
	if !ev.At.IsZero() {
		m.leaves(k, ev.At)
	}
	if !k.counts() {
		if k.do == get && ev.Outcome == OK && !k.givenUp {
			m.observe(m.seen.see(ev.Record, k.sent, m.now)) // it may be newer than what the other one has read
		}
		return
	}
	if k.do == get {
		m.polled(k.sent, ev)
	}
	switch ev.Outcome {
	case OK:
		m.succeeded(k)
		m.calls.ignore(k)
		m.applied(k, ev.Record)
	case Missing:
		m.succeeded(k)
		m.calls.ignore(k)
		m.observe(m.seen.gone(0, k.sent, m.now))
	case Conflict:
		m.succeeded(k)
		m.conflicted(k)
	default:
		m.failed(k, ev)
	}
}

// applied takes in what a GET has read, or the success of a write. The term's authority counts from when the write was
// sent, however late the reply (S1).
func (m *Machine) applied(k *call, r Record) {
	// If another's record was seen while a write was under way, the write has won nothing: if that record was written
	// later, the win is over; and if this is a create, and the other's Lease was deleted in between, that still binds (S6).
	if k.do == get || k.void {
		m.observe(m.seen.see(r, k.sent, m.now))
		if k.do == get {
			m.expect(r.Version)
		}
		return
	}
	m.own.applied(k.claim, r, k.sent)
	if k.repair {
		m.contest()
	} else {
		m.contested = 0
	}
	m.observe(m.seen.see(r, k.sent, m.now))
	m.expect(r.Version)
	if k.do != release {
		m.renewed(true)
	}
}

// conflicted takes in that the record has changed since it was seen. A standby learns from its watch what it was changed
// to (L4); a holder reads it at once. The write may have been applied all the same, if it was repeated.
func (m *Machine) conflicted(k *call) {
	m.contest()
	if m.seen.record.Version > k.on {
		return // the watch was faster
	}
	m.seen.stale = true
	switch {
	case m.holds():
	case m.watch.open:
		m.notBefore = m.now.Add(m.RetryPeriod)
	default:
		m.notBefore = m.now.Add(m.pick(m.RetryPeriod / 4))
	}
}

// contest slows a holder down whose Lease somebody changes again and again, or whose every write is refused as a conflict.
func (m *Machine) contest() {
	if m.contested++; m.contested > 3 && m.holds() {
		m.notBefore = m.now.Add(m.pause(0))
	}
}

// failed takes in a request that was refused, or that may or may not have been carried out.
func (m *Machine) failed(k *call, ev Event) {
	if k.do != get && (ev.Outcome == Unanswered || m.phase == Releasing) {
		m.seen.stale = true // find out, before anything else, whether it was carried out
	}
	if ev.Outcome == Unanswered && k.left {
		m.emit(Effect{Kind: Suspect, ID: k.id})
	}
	m.notBefore = m.now.Add(m.pause(ev.RetryAfter))
	m.trouble.failed(k, ev.Outcome == Refused)
	m.emit(Effect{Kind: Trouble, ID: k.id, OK: ev.Outcome == Refused})
}

// succeeded takes in that the API has answered a request. Older attempts on the other connection that are overdue will not
// be answered: that connection is dead.
func (m *Machine) succeeded(k *call) {
	for _, other := range m.calls {
		if other.counts() && other.spare != k.spare && other.left && !k.sent.Before(other.overdue) {
			m.emit(Effect{Kind: Suspect, ID: other.id})
		}
	}
	m.notBefore = Instant{}
	if since := m.unansweredSince(); !m.holds() && !since.IsZero() && m.now.Sub(since) > m.RetryPeriod && !m.hadTurn {
		m.holderFirst, m.hadTurn = m.now.Add(m.RenewDeadline/3), true // (L11)
	}
	m.heard = latest(m.heard, k.sent)
	if m.trouble.succeeded(k.verb) {
		m.emit(Effect{Kind: NoTrouble})
	}
}

// unansweredSince is when the first of the requests was sent that have failed in a row, or whose answer is overdue; zero if
// there is none. One that was sent before another that was answered is lost, and says nothing about the API.
func (m *Machine) unansweredSince() Instant {
	since := m.trouble.first
	for _, k := range m.calls {
		if k.counts() && k.isOverdue(m.now) && k.sent.After(m.heard) && (since.IsZero() || k.sent.Before(since)) {
			since = k.sent
		}
	}
	return since
}

// drop gives up a request, whether its client heeds that or not.
func (m *Machine) drop(k *call) {
	if !k.givenUp {
		k.givenUp, k.giveUp = true, m.now
		m.emit(Effect{Kind: Cancel, ID: k.id, OK: k.ignored})
	}
}

// expire gives up the requests that have had their time.
func (m *Machine) expire() {
	for _, k := range m.calls {
		if k.givenUp || m.now.Before(k.giveUp) {
			continue
		}
		if !k.ignored {
			m.failed(k, Event{Outcome: Unanswered})
		}
		m.drop(k)
	}
}

// nextCall is when a request under way is overdue, or has had its time.
func (m *Machine) nextCall() Instant {
	at := m.now.Add(m.LeaseDuration)
	for _, k := range m.calls {
		if k.givenUp {
			continue
		}
		at = earliest(at, k.giveUp)
		switch {
		case !k.left:
			at = earliest(at, m.now.Add(m.RenewDeadline/6)) // to hear whether it has
		case !k.ignored && m.now.Before(k.overdue):
			at = earliest(at, k.overdue)
		}
	}
	return at
}
