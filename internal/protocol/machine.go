package protocol

import (
	"fmt"
	"slices"
	"time"
)

const (
	// spread is what standbys scatter their writes over when a Lease falls free (L4). Twice as much would halve the
	// writes of a thousand standbys again, and cost a single one 5 ms more.
	spread = 10 * time.Millisecond

	// pulse is how often a leader reads its clocks, so that it soon notices that its machine was suspended (S2).
	pulse = time.Second

	// refusedReleaseLimit is how long a release is tried that the API refuses.
	refusedReleaseLimit = time.Second

	// MaxCalls is how many requests may be under way, a watch that opens among them. There are fewer, unless clients do
	// not return although their ctx has ended. Then nothing but a restart of the process helps (L9).
	MaxCalls = 4
)

// A Machine is one election, as one candidate takes part in it. Its methods may be called by one goroutine at a time.
type Machine struct {
	state
	calls   calls
	watch   watching
	trouble trouble

	random  func(n int64) int64 // at least 0, less than n
	changes int                 // of the record, as far as seen
	lastID  int                 // of a request or a watch

	notBefore Instant       // no request before then, after a failed one
	jitter    time.Duration // this candidate's share of the spread, drawn anew for each record (L4)
	contested int           // writes in a row that were refused as conflicts, or put right what another client had changed
	yield     time.Duration // how much longer than others this candidate waits, as it said last (L7)
	yieldNow  bool          // it has just said so
	yieldAt   Instant       // when it was asked, and has not answered since; zero otherwise

	hadTurn bool // the holder was left to go first, by the record as it is (L11)

	lost        bool    // the present term was lost, and the driver was told
	gaveUp      bool    // the present term was given up, so that another candidate leads
	copySeen    uint64  // the version of the last record that a copy of this process may have written (S5)
	copyAt      Instant // when that was put right; zero for never in this term
	again       bool    // after the release the campaign goes on
	letGoSince  Instant // since when the Lease is being released
	letGoUntil  Instant // until when that is tried
	heard       Instant // when the newest of the requests was sent that the API has answered
	lastRenewal Instant // when the last write that holds the Lease was sent
	heldUntil   Instant // when a hold on the Lease was last seen to be confirmed by another, or to be let go
	namesake    int64   // acquireTime of the record of another process of this name that was reported

	now  Instant // of the Step in progress
	wake Instant
	out  []Effect
}

// New returns the machine of a candidate that stands by, or of a follower. random returns a number from 0 to n−1.
func New(c Config, random func(n int64) int64) *Machine {
	m := &Machine{state: state{Config: c}, random: random}
	if c.Follows {
		m.phase = Following
	}
	return m
}

// Step takes in what has happened, at the time given, and returns what to do, in order. The slice is valid until the next
// call. An event that cannot happen panics.
func (m *Machine) Step(ev Event, now Instant) []Effect {
	m.now, m.out = now, m.out[:0]
	m.wake = now.Add(m.LeaseDuration)
	m.elapse()
	m.take(ev)
	m.expire()
	for m.proceed() {
	}
	m.yieldNow = false
	m.tend()
	m.wakeAt(m.nextCall())
	if m.phase.serving() {
		m.wakeAt(now.Add(pulse))
	}
	return m.out
}

// Wake is when to call Step again if nothing happens before.
func (m *Machine) Wake() Instant { return m.wake }

func (m *Machine) wakeAt(at Instant) { m.wake = earliest(m.wake, at) }

func (m *Machine) emit(e Effect) { m.out = append(m.out, e) }

// pick is a random duration from 0 to d.
func (m *Machine) pick(d time.Duration) time.Duration { return time.Duration(m.random(int64(d) + 1)) }

// elapse takes in what the time alone decides about a term, before anything that is heard later can change it.
func (m *Machine) elapse() {
	switch {
	case !m.phase.serving():
	case m.overBy(m.now).Reason != 0:
		m.lose(m.overBy(m.now))
	case Age(m.own.sent, m.now) >= m.RenewDeadline && !m.own.suspended:
		m.own.suspended = true
		m.emit(Effect{Kind: SuspendTerm})
	}
}

// take takes in an event.
func (m *Machine) take(ev Event) {
	switch ev.Kind {
	case Tick:
	case Left:
		if i := slices.IndexFunc(m.calls, func(k *call) bool { return k.id == ev.ID }); i >= 0 {
			m.leaves(m.calls[i], ev.At)
		}
	case Dials:
		if i := slices.IndexFunc(m.calls, func(k *call) bool { return k.id == ev.ID }); i >= 0 {
			m.calls[i].dials = true
		}
	case Answered:
		m.answered(ev)
	case WatchOpened, WatchShowed, WatchGone, Heard, WatchEnded:
		m.noticed(ev)
	case Health:
		m.own.unfit = !ev.OK
	case Yield:
		m.yield, m.yieldNow, m.yieldAt = max(ev.Delay, 0), true, Instant{}
	case Proven:
		m.proven(ev.Marks)
	case Died:
		m.died(ev.Marks)
	case Stop:
		m.stopped()
	case StepDown:
		if m.phase == Leading {
			m.becomeDraining(Lost{SteppedDown, m.seen.holder()})
		}
	case Returned:
		m.becomeReleasing(m.own.sent.Add(m.LeaseDuration))
		m.gaveUp = ev.OK
	case Resign:
		m.resign(ev.Delay)
	case Campaign:
		m.becomeStandingBy()
	default:
		m.bug("event %v", ev.Kind)
	}
}

// proceed decides, and does what follows. It reports whether the phase has changed, so that there is more to decide.
func (m *Machine) proceed() (changed bool) {
	switch m.phase {
	case StandingBy:
		return m.standBy()
	case Leading:
		return m.lead()
	case Draining:
		m.elapse()
		d := m.decide(m.now)
		if d.do == renew && m.isCopied() {
			return m.breakWith()
		}
		m.act(d)
	case Releasing:
		return m.letGoOn()
	case Following:
		m.act(m.poll(m.follow(m.watch.asked)))
	}
	return false
}

func (m *Machine) standBy() (changed bool) {
	if m.own.unfit && m.seen.holder() == m.Identity && m.owns() {
		m.abandon() // won by a write that was under way when this replica became unfit (L6)
		m.again = true
		return true
	}
	m.cutOff = !m.unansweredSince().IsZero()
	d := m.decide(m.now)
	if d.do == lead {
		m.becomeLeading()
		return true
	}
	m.act(m.check(m.poll(m.behind(d))))
	return false
}

func (m *Machine) lead() (changed bool) {
	switch d := m.decide(m.now); {
	case d.do == stop:
		m.lose(d.lost)
		return true
	case d.do == stepDown:
		m.becomeDraining(d.lost)
		return true
	case d.do == renew && m.isCopied():
		return m.breakWith()
	default:
		m.act(d)
		return false
	}
}

// isCopied reports whether another process goes on with this one's term, as a cloned VM or a restored checkpoint does. Its
// renewal has our name, our acquireTime, and a renewTime with all its digits, which we did not write: it is none of the last
// ones, and not older than those. An edit by hand can look like that once, so it takes a second one within RenewDeadline,
// after the first was put right (S5).
func (m *Machine) isCopied() bool {
	c, w := m.seen.record, m.own.wrote
	switch {
	case !m.seen.exists, c.Holder != m.Identity, c.Acquired != w.Acquired, c.Renewed%1000 == 0,
		slices.Contains(m.own.times, c.Renewed), c.Renewed < slices.Min(m.own.times),
		c.Version != 0 && c.Version < w.Version, // older than our last write: an answer from before the wall clock was set back
		m.calls.writing(), c.Version == m.copySeen:
		return false
	}
	before := m.copyAt
	m.copySeen, m.copyAt = c.Version, m.now
	return !before.IsZero() && m.now.Sub(before) < m.RenewDeadline
}

// breakWith ends the term of a process that has a copy. What it writes is a term that nobody serves, so the copy loses its
// own, too; and it binds for as long as both may need to stop. Whoever wins next has stamps that no copy knows (S5).
func (m *Machine) breakWith() (changed bool) {
	wrote := m.own.wrote
	m.own.wrote.Claim = Claim{}
	if m.act(decision{do: renew}); !m.calls.writing() {
		m.own.wrote, m.copySeen = wrote, 0
		return false // not yet: a pause after a failure
	}
	m.calls.void()
	m.own.wrote, m.own.overtaken, m.copied = wrote, true, true
	return true
}

// behind puts an acquisition off by this candidate's share of the spread (L4), and by Yield (L7). A Lease that is free is
// free from when that was seen; one that expires, from then on.
func (m *Machine) behind(d decision) decision {
	if d.do != acquire {
		return d
	}
	d.at = latest(d.at, m.seen.since).Add(m.jitter)
	if m.Yields && m.seen.holder() != m.Identity {
		d.at = m.yielding(d.at)
	}
	return d
}

// yielding is when a candidate that yields may acquire what others may from free on. It is asked when its time has come,
// and again when that has come. One that does not answer within RetryPeriod yields as long as it last said.
func (m *Machine) yielding(free Instant) Instant {
	at := free.Add(m.yield)
	switch {
	case m.now.Before(free):
		return free
	case m.now.Before(at), m.yieldNow:
		return at
	case m.yieldAt.IsZero():
		m.yieldAt = m.now
		m.emit(Effect{Kind: AskYield})
	}
	return latest(at, m.yieldAt.Add(m.RetryPeriod))
}

// act sends the request of a decision, if it is due.
func (m *Machine) act(d decision) {
	switch d.do {
	case idle, done:
		return
	}
	if at := latest(d.at, m.notBefore); m.now.Before(at) {
		m.wakeAt(at)
		return
	}
	if m.makeRoom() {
		m.send(d.do)
	}
}

func (m *Machine) becomeStandingBy() {
	if m.phase != Over && m.phase != Releasing {
		m.bug("becomes standing by")
	}
	m.own = m.own.afterwards(m.seen, m.phase, m.Identity)
	m.phase = StandingBy
}

// becomeLeading begins a term on the write just won.
func (m *Machine) becomeLeading() {
	m.phase, m.lost, m.copied, m.copyAt = Leading, false, false, Instant{}
	m.own.sitOut, m.own.adopted = Instant{}, 0
	begin := Effect{Kind: BeginTerm, Token: m.own.wrote.Version, Sent: m.own.sent}
	if !m.heldUntil.IsZero() {
		begin.Gap, begin.OK = m.now.Sub(m.heldUntil), true
	}
	m.emit(begin)
}

// becomeDraining asks the callback to stop. The lease is kept alive meanwhile, if it is ours (S9).
func (m *Machine) becomeDraining(why Lost) {
	if m.phase != Leading {
		m.bug("becomes draining")
	}
	m.phase, m.drainSince = Draining, m.now
	m.emit(Effect{Kind: StopCallback, Lost: why})
}

// lose takes a term's authority away, once. Its callback has to stop.
func (m *Machine) lose(lost Lost) {
	if !m.lost {
		m.lost = true
		m.emit(Effect{Kind: LoseTerm, Lost: lost})
	}
	if m.phase == Leading {
		m.becomeDraining(lost)
	}
}

// resign lets the Lease go although the callback may still run, because the process ends itself within the notice, which
// is written into the release (S8).
func (m *Machine) resign(notice time.Duration) {
	if !m.phase.serving() {
		return
	}
	m.lose(Lost{SteppedDown, m.seen.holder()})
	m.becomeReleasing(m.now.Add(m.RenewDeadline / 3))
	m.notice = int32(max(2, (notice+time.Second-1)/time.Second))
}

// becomeReleasing lets the Lease go, for as long as until at most (S8).
func (m *Machine) becomeReleasing(until Instant) {
	if m.phase == Releasing || m.phase == Over || m.phase == Following {
		m.bug("becomes releasing")
	}
	if m.phase.serving() && !m.copied { // a write that may win, or that tells a copy, may have left without being heard of
		m.takeBack()
	}
	m.phase, m.again, m.notice, m.letGoSince, m.letGoUntil = Releasing, false, 0, m.now, until
}

// stopped takes in that the candidate has to stop. A callback that runs is asked to; a campaign ends.
func (m *Machine) stopped() {
	switch m.phase {
	case StandingBy:
		m.abandon()
	case Leading:
		m.becomeDraining(Lost{})
	case Releasing:
		m.again = false
	case Following:
		m.phase = Over
	}
}

// abandon ends a campaign. A write may be under way, or its reply lost. If it wins, nobody would use the Lease, and
// everybody wait for it.
func (m *Machine) abandon() {
	m.becomeReleasing(m.now.Add(m.RenewDeadline / 3))
	if !m.calls.writing() && len(m.own.unconfirmed) > 0 {
		m.seen.stale = true // the watch may have more to show
	}
}

// letGoOn releases the Lease if it is this candidate's, until there is nothing (more) to release. What the API refuses, and
// will go on to refuse, is tried briefly (S8).
func (m *Machine) letGoOn() (changed bool) {
	d, until := m.decide(m.now), m.letGoUntil
	if m.trouble.refused != 0 {
		until = earliest(until, m.letGoSince.Add(refusedReleaseLimit))
	}
	switch {
	case m.released(), d.do == done && !m.calls.writing():
		return m.becomeOver(true)
	case d.do == done: // has the write that is under way won?
		until = earliest(until, m.letGoSince.Add(m.RenewDeadline/3))
		d = decision{do: get, at: latest(m.calls.awaited().sent, m.watch.asked).Add(m.RenewDeadline / 6)}
	}
	if !m.now.Before(until) {
		return m.becomeOver(false)
	}
	m.act(d)
	m.wakeAt(until)
	return false
}

// becomeOver ends a release. Whatever is under way comes too late, or is left to expire.
func (m *Machine) becomeOver(ok bool) (changed bool) {
	for _, k := range m.calls {
		m.drop(k)
	}
	m.emit(Effect{Kind: LetGo, OK: ok, Lasts: time.Duration(m.own.wrote.Seconds) * time.Second, Released: m.released()})
	if m.gaveUp {
		m.own.sitOut, m.own.gaveUp = m.now.Add(m.LeaseDuration), m.own.wrote.Acquired
	}
	m.phase, m.gaveUp = Over, false
	if m.again {
		m.becomeStandingBy()
	}
	return m.again
}

// proven takes in terms whose processes are proven dead (S12).
func (m *Machine) proven(marks []Mark) {
	if m.seen.exists && m.seen.back {
		m.emit(Effect{Kind: ForgetProof}) // another record was seen since, and has given way to this one
		return
	}
	m.own.over = append(slices.Clone(m.own.over), marks...)
	if m.seen.exists {
		m.forget()
	}
}

// died takes in terms whose processes have ended. What it is worth is judged by the record that is there when it counts.
func (m *Machine) died(marks []Mark) {
	before := m.own.isDead(m.seen)
	for _, mark := range marks {
		m.own.dead = keep(m.own.dead, mark, maxMarks)
	}
	if !before {
		m.own.provenAt = m.now
	}
}

// forget ends the proof once a record is seen that no dead process has written, even if an old one comes back.
func (m *Machine) forget() {
	if !m.own.isOver(m.seen) {
		m.own.over = nil
		m.emit(Effect{Kind: ForgetProof})
	}
}

// observe takes in what was seen.
func (m *Machine) observe(next seen) {
	before := m.seen
	m.seen = next
	if next.record.Version == before.record.Version && next.record.Claim == before.record.Claim && next.exists == before.exists && before.known() {
		return
	}
	m.changes++
	m.hadTurn = false
	m.own.saw(before, next, m.phase, m.Identity)
	if sent, ok := m.own.seenApplied(next); ok && m.phase.serving() && !m.calls.awaits(sent) {
		r := next.record
		r.Asked = false // somebody may have asked since it was written
		m.own.applied(r.Claim, r, sent)
		m.renewed(!m.calls.repeats(r.Claim))
	}
	if next.exists && (next.record.Blank() || !m.owns()) {
		m.calls.void()
		m.takeBack()
		m.forget()
	}
	m.jitter = m.pick(spread - 1)
	if m.own.adopted >= maxAdopted {
		m.jitter += m.RetryPeriod // after those who hear the replies to their writes
	}
	if m.phase == StandingBy {
		m.notBefore = Instant{}
	}
	if !next.exists && m.phase.serving() {
		m.emit(Effect{Kind: LeaseMissing})
	}
	m.report(before)
}

// renewed takes in that a write holds the Lease.
func (m *Machine) renewed(tell bool) {
	m.lastRenewal = m.own.sent
	if m.phase.serving() {
		m.emit(Effect{Kind: RenewTerm, Sent: m.own.sent, OK: tell})
	}
	if m.own.suspended && Age(m.own.sent, m.now) < m.RenewDeadline {
		m.own.suspended = false
		if m.phase == Leading {
			m.emit(Effect{Kind: ResumeTerm})
		}
	}
}

// report says what a change of the record means to people.
func (m *Machine) report(before seen) {
	next := m.seen
	holder, same := next.holder(), before.holder() == m.Identity
	if m.phase == StandingBy && holder == m.Identity && !m.owns() && !m.own.isOver(next) {
		renewed := same && before.record.Renewed != next.record.Renewed
		if renewed && m.namesake != next.record.Acquired {
			m.namesake = next.record.Acquired
			m.emit(Effect{Kind: SawNamesake})
		} else if !same {
			m.emit(Effect{Kind: SawOwnName})
		}
	}
	if !m.owns() || next.record.Released() {
		m.heldUntil = next.at
	}
	if holder != "" && holder != before.record.Holder {
		m.emit(Effect{Kind: SawHolder, Lost: Lost{Holder: holder}})
	}
}

// Status is what others may want to know of a machine.
type Status struct {
	Phase       Phase
	Known       bool    // the API has answered once
	Holder      string  // in the Lease as last seen, "" for none
	Object      any     // what that was read from, nil for none
	Acquired    int64   // its acquireTime, 0 for none
	Late        Instant // when a renewal of it should have come; zero if none has been seen
	Expires     Instant // until when that record binds others; zero if it does not
	Draining    Instant // since when the callback has been asked to stop; zero unless it is draining
	Suspended   bool    // the term has no authority at present (S14)
	LastRenewal Instant // when the last write that holds the Lease was sent; zero before the first
	Stuck       bool    // no more requests are sent, because clients do not return from those under way (L9)
}

// Status returns what others may want to know.
func (m *Machine) Status() Status {
	s := Status{
		Phase: m.phase, Known: m.seen.known(), Holder: m.seen.holder(), Expires: m.seen.expires, LastRenewal: m.lastRenewal,
		Suspended: m.phase == Leading && m.own.suspended, Stuck: m.stuck(),
	}
	if m.seen.exists {
		s.Object, s.Acquired, s.Late = m.seen.record.Object, m.seen.record.Acquired, m.seen.late()
	}
	switch {
	case m.phase == Draining:
		s.Draining = m.drainSince
	case m.phase == Following && !m.watch.asked.Before(m.seen.expires):
		s.Holder = "" // it has expired
	}
	return s
}

// bug reports a driver's mistake.
func (m *Machine) bug(format string, args ...any) {
	panic(fmt.Sprintf("bug: elector: %s while %v", fmt.Sprintf(format, args...), m.phase))
}

// Clone returns a machine that goes on from the same state by itself, with random numbers of its own, as a copy of the
// process would (S5). It is for simulations, between two calls of Step.
func (m *Machine) Clone(random func(n int64) int64) *Machine {
	c := *m
	c.random, c.out = random, nil
	c.calls = nil
	for _, k := range m.calls {
		one := *k
		c.calls = append(c.calls, &one)
	}
	c.watch.ending = slices.Clone(m.watch.ending)
	c.own.unconfirmed = slices.Clone(m.own.unconfirmed)
	c.own.over, c.own.dead, c.own.past = slices.Clone(m.own.over), slices.Clone(m.own.dead), slices.Clone(m.own.past)
	return &c
}
