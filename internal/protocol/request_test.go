package protocol

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Attempts: when one is made, which of them counts, and what their answers say of the connections and of the API.

const ms = time.Millisecond

// under is a request that was handed out and has left at sent, and is overdue a third of RenewDeadline later.
func under(id int, do action, sent Instant) *call {
	return &call{id: id, do: do, handed: sent, left: true, sent: sent, overdue: sent.Add(cfg.RenewDeadline / 3), giveUp: sent.Add(cfg.RenewDeadline)}
}

// stalled is a machine with those requests under way, at the time given.
func stalled(p Phase, now time.Duration, calls ...*call) *Machine {
	m := New(cfg, func(int64) int64 { return 0 })
	m.phase, m.now, m.calls, m.own.sent = p, at(now), calls, at(0)
	return m
}

func givenUp(m *Machine) (ids []int) {
	for _, k := range m.calls {
		if k.givenUp {
			ids = append(ids, k.id)
		}
	}
	return ids
}

// L3: how many attempts are under way, and which is given up for one more.

func TestWhichAttemptIsGivenUpForOneMore(t *testing.T) {
	old := func() []*call {
		return []*call{under(1, renew, at(0)), under(2, renew, at(s)), under(3, renew, at(2*s))}
	}
	ignored := func() []*call { cs := old(); cs[1].ignored = true; return cs }
	gone := func() []*call { cs := old(); cs[0].givenUp = true; return cs }
	for name, c := range map[string]struct {
		phase Phase
		now   time.Duration
		calls []*call
		want  []int
		room  bool
	}{
		"the first is not overdue": {Leading, s, old()[:1], nil, false},
		"it is":                    {Leading, 4 * s, old()[:1], nil, true},
		"a holder makes three":     {Leading, 4500 * ms, old()[:2], nil, true},
		"the oldest, which has had half of RenewDeadline":  {Leading, 6 * s, old(), []int{1}, true},
		"the youngest, while all are young":                {Leading, 4900 * ms, []*call{under(1, renew, at(s)), under(2, renew, at(s)), under(3, renew, at(s))}, []int{3}, true},
		"the one that does not count any more":             {Leading, 6 * s, []*call{under(1, renew, at(2*s)), {id: 2, ignored: true, sent: at(2 * s)}, under(3, renew, at(2*s))}, []int{2}, true},
		"a standby makes two, and waits":                   {StandingBy, 6 * s, old()[:2], nil, false},
		"unless one of them does not count":                {StandingBy, 6 * s, ignored()[:2], []int{2}, true},
		"what was given up takes no part, but has to stop": {Leading, 6 * s, gone(), []int{1}, true},
		"four that do not return are enough":               {Leading, 20 * s, []*call{{givenUp: true, id: 1}, {givenUp: true, id: 2}, {givenUp: true, id: 3}, {givenUp: true, id: 4}}, []int{1, 2, 3, 4}, false},
	} {
		m := stalled(c.phase, c.now, c.calls...)
		assert.Equal(t, c.room, m.makeRoom(), name)
		assert.Equal(t, c.want, givenUp(m), name)
	}
	m := stalled(Leading, 6*s, old()...)
	m.watch.id = 4
	assert.False(t, m.makeRoom(), "a watch that opens is the fourth")
	assert.Equal(t, []int{1}, givenUp(m), "but the place is made")
}

func TestAHolderThatWaitsForAnAnswerMakesItsSecondAttemptByTheTimeItHas(t *testing.T) {
	g := leader(t, cfg)
	for p, want := range map[Phase]time.Duration{Leading: s, StandingBy: cfg.RenewDeadline / 3, Following: cfg.RenewDeadline / 3} {
		g.phase, g.now = p, g.own.sent.Add(8*s)
		assert.Equal(t, want, g.attemptLimit(), p)
	}
	g.phase, g.now = StandingBy, g.own.sent.Add(13*s)
	assert.Equal(t, cfg.RenewDeadline/3, g.attemptLimit(), "a standby is in no hurry")
}

func TestTheFirstAnswerCounts(t *testing.T) {
	for name, c := range map[string]struct {
		answered, other *call
		counts          bool
	}{
		"an older GET, after a GET":                     {under(2, get, at(s)), under(1, get, at(0)), false},
		"a write, after a GET":                          {under(2, get, at(s)), under(1, renew, at(0)), true},
		"an older GET, after a write":                   {under(2, renew, at(s)), under(1, get, at(0)), false},
		"a write on the same record":                    {under(2, renew, at(s)), under(1, renew, at(0)), false},
		"a write on a newer record than was written on": {under(2, renew, at(s)), &call{id: 1, do: renew, base: 1}, true},
	} {
		calls{c.other}.ignore(c.answered)
		assert.Equal(t, c.counts, c.other.counts(), name)
	}

	g := leader(t, cfg).tick(3 * s)
	first := g.lastReq
	g.tick(7 * s).take()
	g.read()
	g.step(Event{Kind: Answered, ID: first, Outcome: Failed})
	assert.Empty(t, g.read(), "an answer that another one has overtaken changes nothing, and is no trouble")
}

func TestWhatALateGetHasReadIsTakenInIfItIsNewer(t *testing.T) {
	g := newRig(t, cfg, rec(5, "them", 100, 200))
	g.step(Event{Kind: WatchEnded, ID: g.watchID}).tick(3 * s)
	require.Equal(t, Get, g.sent[g.lastReq].Verb)
	first := g.lastReq
	g.tick(7*s).answer(OK, rec(5, "them", 100, 200))
	require.NotEqual(t, first, g.lastReq)
	g.step(Event{Kind: Answered, ID: first, Outcome: OK, Record: rec(6, "else", 300, 400)})
	assert.Equal(t, "else", g.Status().Holder)
}

func TestARepetitionWhoseAnswerIsToComeIsNoRenewalOfItsOwn(t *testing.T) {
	g := leader(t, cfg).tick(3 * s)
	first := g.lastReq
	g.tick(7 * s)
	require.NotEqual(t, first, g.lastReq)
	g.step(Event{Kind: Answered, ID: first, Outcome: Failed}).show(g.apply())
	assert.False(t, g.effects[RenewTerm].OK, "it is reported when its answer comes")
}

// L3, L12: which connection is suspect.

func TestWhichConnectionAnAnswerShowsToBeDead(t *testing.T) {
	spare := func(k *call) *call { k.spare = true; return k }
	for name, c := range map[string]struct {
		answered, other *call
		want            bool
	}{
		"sent after the other was overdue": {spare(under(2, renew, at(4*s))), under(1, renew, at(0)), true},
		"on the same connection":           {under(2, renew, at(4*s)), under(1, renew, at(0)), false},
		"sent before":                      {spare(under(2, renew, at(3*s))), under(1, renew, at(0)), false},
		"the other has not left":           {spare(under(2, renew, at(4*s))), &call{id: 1, do: renew, sent: at(0)}, false},
		"the other was given up":           {spare(under(2, renew, at(4*s))), &call{id: 1, left: true, givenUp: true}, false},
	} {
		m := stalled(Leading, 5*s, c.other)
		m.succeeded(c.answered)
		assert.Equal(t, c.want, len(m.out) > 0 && m.out[0].Kind == Suspect, name)
	}
	for _, left := range []bool{true, false} {
		m, k := stalled(Leading, 10*s), under(1, renew, at(0))
		k.left = left
		m.failed(k, Event{Outcome: Unanswered})
		assert.Equal(t, left, m.out[0].Kind == Suspect, "not answered in time; has left: %v", left)
	}
}

func TestARequestIsGivenUpAfterRenewDeadline(t *testing.T) {
	g := leader(t, recovering()).tick(3 * s)
	id := g.lastReq
	g.read()
	assert.Contains(t, g.at(12100*ms).step(Event{Kind: Tick}).read(), "suspect, trouble, cancel")
	assert.Equal(t, []int{id}, givenUp(g.Machine))
}

// L12: an attempt is overdue by when it has left.

func TestAnAttemptIsOverdueByWhenItHasLeft(t *testing.T) {
	traced := cfg
	traced.Traces = true
	g := newRig(t, traced, free).tick(s)
	g.at(6 * s).step(Event{Kind: Left, ID: g.lastReq, At: at(6 * s)})
	g.read()
	assert.NotContains(t, g.tick(9*s).read(), "update")
	assert.Contains(t, g.tick(9500*ms).read(), `update "me" spare`)
}

func TestWhatIsKnownOfARequestThatHasNotLeft(t *testing.T) {
	traced := cfg
	traced.Traces = true
	g := newRig(t, traced, free).tick(s)
	id := g.lastReq
	assert.LessOrEqual(t, g.Wake().Sub(g.now), cfg.RenewDeadline/6, "it is looked after")
	g.read()
	assert.Equal(t, `update "me" spare`, g.step(Event{Kind: Dials, ID: id}).read(), "another one may have a connection sooner")

	g = newRig(t, traced, free).tick(s)
	g.at(3 * s).step(Event{Kind: Answered, ID: g.lastReq, At: at(2 * s), Record: g.apply()})
	assert.Equal(t, at(2*s), g.effects[BeginTerm].Sent, "its answer says when it has left")

	for left, want := range map[time.Duration]time.Duration{0: 2 * cfg.RenewDeadline, 6 * s: 6*s + cfg.RenewDeadline} {
		m, k := stalled(StandingBy, 6*s), &call{id: 1, handed: at(0), giveUp: at(2 * cfg.RenewDeadline)}
		if left > 0 {
			m.leaves(k, at(left))
		}
		assert.Equal(t, at(want), k.giveUp)
	}
	m := stalled(StandingBy, 0)
	m.send(get)
	assert.Equal(t, at(cfg.RenewDeadline), m.calls[0].giveUp)
	m = stalled(StandingBy, 0)
	m.Traces = true
	m.send(get)
	assert.Equal(t, at(2*cfg.RenewDeadline), m.calls[0].giveUp)
	m.drop(m.calls[0])
	m.leaves(m.calls[0], at(s))
	assert.False(t, m.calls[0].left, "what was given up has nothing to say")
}

// L3, L4, L5, L10: pauses.

func TestPauses(t *testing.T) {
	for name, c := range map[string]struct {
		phase  Phase
		sent   time.Duration // ago
		susp   bool
		asked  time.Duration
		lo, hi time.Duration // jitter 0 and the most
	}{
		"a leader with time left":                 {Leading, 0, false, 0, 750 * ms, 1250 * ms},
		"a leader with little time left":          {Leading, 9 * s, false, 0, 75 * ms, 125 * ms},
		"a leader that is asked to wait":          {Leading, 4 * s, false, 2 * s, 2 * s, 2 * s},
		"a leader, as far as its deadline allows": {Leading, 4 * s, false, 60 * s, 3 * s, 3 * s},
		"a standby":                                         {StandingBy, 0, false, 0, 375 * ms, 625 * ms},
		"a standby that is asked to wait":                   {StandingBy, 0, false, 9 * s, 9 * s, 9 * s},
		"a standby, for one LeaseDuration at most":          {StandingBy, 0, false, time.Hour, 15 * s, 15 * s},
		"a suspended holder (L10)":                          {Leading, 20 * s, true, 0, 750 * ms, 1250 * ms},
		"a suspended holder that is asked to wait (L5)":     {Leading, 20 * s, true, 9 * s, 9 * s, 9 * s},
		"a suspended holder, for one LeaseDuration at most": {Leading, 20 * s, true, time.Hour, 15 * s, 15 * s},
	} {
		m := stalled(c.phase, c.sent)
		m.own.suspended = c.susp
		assert.Equal(t, c.lo, m.pause(c.asked), name)
		m.random = func(n int64) int64 { return n - 1 }
		assert.Equal(t, c.hi, m.pause(c.asked), name)
	}
	m := stalled(Leading, 20*s)
	m.own.suspended = true
	assert.Equal(t, cfg.RetryPeriod/2, m.attemptLimit(), "and its attempts are overdue sooner (L10)")
}

func TestEditsWithoutEndAreAnsweredWithPausesUntilTheyEnd(t *testing.T) {
	g := leader(t, cfg)
	edit := func() {
		r := g.own.wrote
		r.Seconds, r.Version = 60, g.version+1
		g.show(r)
	}
	for range 4 {
		edit()
		require.Contains(t, g.read(), `update "me"`)
		g.take()
	}
	g.read()
	edit()
	assert.Empty(t, g.read(), "the fifth waits")
	g.tick(g.clock + 2*s).take()
	g.tick(g.clock + 3*s).take()
	require.Zero(t, g.contested, "a renewal as it should be ends it")
}

func TestAfterARefusedWriteAStandbyDoesNotAskAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		phase Phase
		open  bool
		seen  uint64
		stale bool
		pause time.Duration
	}{
		"the watch will show it": {StandingBy, true, 5, true, cfg.RetryPeriod},
		"who polls, at random":   {StandingBy, false, 5, true, cfg.RetryPeriod / 4},
		"the watch has shown it": {StandingBy, true, 6, false, 0},
		"a holder asks at once":  {Leading, true, 5, true, 0},
	} {
		m := stalled(c.phase, s)
		m.random = func(n int64) int64 { return n - 1 }
		m.watch.open, m.seen.record.Version = c.open, c.seen
		m.conflicted(&call{do: acquire, on: 5})
		assert.Equal(t, c.stale, m.seen.stale, name)
		want := Instant{}
		if c.pause > 0 {
			want = m.now.Add(c.pause)
		}
		assert.Equal(t, want, m.notBefore, name)
	}
}

// L9: requests that do not return.

func TestClientsThatDoNotReturnASecondAfterTheyShouldAreStuck(t *testing.T) {
	hung := func(n int, at Instant) (cs []*call) {
		for i := range n {
			cs = append(cs, &call{id: i, givenUp: true, giveUp: at})
		}
		return cs
	}
	assert.True(t, stalled(Leading, 9*s, hung(4, at(8*s))...).stuck())
	assert.False(t, stalled(Leading, 9*s, hung(4, at(8*s+1))...).stuck())
	assert.False(t, stalled(Leading, 9*s, hung(3, at(0))...).stuck())
	slow := hung(4, at(0))
	slow[0].givenUp = false
	assert.False(t, stalled(Leading, 9*s, slow...).stuck(), "one of them is under way")
	m := stalled(Leading, 9*s, hung(3, at(0))...)
	m.watch.ending = []int{7}
	assert.True(t, m.stuck(), "a watch counts, too")
}

// L11: what an outage is.

func TestSinceWhenNothingIsAnswered(t *testing.T) {
	for name, c := range map[string]struct {
		calls []*call
		heard Instant
		want  Instant
	}{
		"nothing is asked":                  {nil, Instant{}, Instant{}},
		"overdue":                           {[]*call{under(1, get, at(s))}, Instant{}, at(s)},
		"not overdue":                       {[]*call{under(1, get, at(3*s))}, Instant{}, Instant{}},
		"the first of two":                  {[]*call{under(1, get, at(s)), under(2, get, at(2*s))}, Instant{}, at(s)},
		"does not count any more":           {[]*call{{left: true, ignored: true, sent: at(s)}}, Instant{}, Instant{}},
		"lost, before another was answered": {[]*call{under(1, get, at(s))}, at(2 * s), Instant{}},
	} {
		m := stalled(StandingBy, 5500*ms, c.calls...)
		m.heard = c.heard
		assert.Equal(t, c.want, m.unansweredSince(), name)
	}
	var tr trouble
	tr.failed(under(1, get, at(s)), false)
	tr.failed(under(2, get, at(3*s)), false)
	assert.Equal(t, at(s), tr.first, "an outage begins with its first failure")
	tr.refused = Update
	assert.False(t, tr.succeeded(Get), "another verb is refused")
	assert.True(t, tr.first.IsZero(), "but that was answered")
}

func TestWhenTheOldHolderGoesFirst(t *testing.T) {
	for name, c := range map[string]struct {
		phase Phase
		since Instant
		want  Instant
	}{
		"after an outage":          {StandingBy, at(s), at(20*s + cfg.RenewDeadline/3)},
		"after a failure or two":   {StandingBy, at(20*s - cfg.RetryPeriod), Instant{}},
		"without a failure":        {StandingBy, Instant{}, Instant{}},
		"but no holder to another": {Leading, at(s), Instant{}},
	} {
		m := stalled(c.phase, 20*s)
		m.trouble.first = c.since
		m.succeeded(under(1, get, at(19*s)))
		assert.Equal(t, c.want, m.holderFirst, name)
	}
	st := &state{Config: cfg, cutOff: true, seen: seen{}.see(free, Instant{}, at(0))}
	require.Equal(t, acquire, st.decide(at(s)).do, "a Lease that nobody holds is for everybody")
	st.seen = st.seen.see(rec(5, "them", 100, 200), Instant{}, at(s))
	require.Equal(t, get, st.decide(at(60*s)).do)
}

// L12: what waits in the process.

func TestAWriteThatWaitsIsTakenBackWhenTheRecordChanges(t *testing.T) {
	traced := cfg
	traced.Traces = true
	for _, left := range []bool{false, true} {
		g := newRig(t, traced, rec(5, "them", 100, 200))
		g.tick(9*s).answer(OK, rec(5, "them", 100, 200))
		require.Contains(t, g.tick(16*s).read(), `update "me"`)
		if left {
			g.step(Event{Kind: Left, ID: g.lastReq, At: at(g.clock)})
		}
		first := g.lastReq
		g.show(rec(6, "them", 100, 300))
		assert.Equal(t, !left, slices.Contains(g.out, Effect{Kind: Cancel, ID: first, OK: true}), "left: %v", left)
		assert.Equal(t, left, g.calls.awaited() != nil, "left: %v", left)
	}
}

func TestARenewalPressesInTheLastThirdOfItsTime(t *testing.T) {
	g := newRig(t, cfg, free).tick(s)
	assert.Zero(t, g.sent[g.lastReq].Presses, "a write that may win has time")
	assert.Zero(t, g.sent[g.lastReq].Deadline)
	g.take()
	sent := g.own.sent
	g.tick(3 * s)
	assert.Equal(t, sent.Add(cfg.RenewDeadline), g.sent[g.lastReq].Deadline)
	assert.Equal(t, sent.Add(cfg.RenewDeadline-cfg.RenewDeadline/3), g.sent[g.lastReq].Presses)
}

func TestWhatAHolderReadsBeforeItsRenewalPressesLikeThat(t *testing.T) {
	g := leader(t, cfg).tick(3 * s)
	sent := g.own.sent
	g.answer(Unanswered, Record{}).tick(5 * s)
	assert.Equal(t, Get, g.sent[g.lastReq].Verb, "was it carried out?")
	assert.Equal(t, sent.Add(cfg.RenewDeadline-cfg.RenewDeadline/3), g.sent[g.lastReq].Presses)
}

func TestARenewalThatWaitsIsTakenBackForTheRelease(t *testing.T) {
	for _, left := range []bool{false, true} {
		c := cfg
		c.Traces = true
		g := leader(t, c).tick(3 * s)
		require.Contains(t, g.sent[g.lastReq].Claim.Holder, "me")
		renewal := g.lastReq
		if left {
			g.step(Event{Kind: Left, ID: renewal, At: at(g.clock)})
		}
		g.step(Event{Kind: Stop}).step(Event{Kind: Returned})
		assert.Equal(t, !left, slices.Contains(g.out, Effect{Kind: Cancel, ID: renewal, OK: true}), "left: %v", left)
		assert.Equal(t, !left, g.sent[g.lastReq].Claim.Holder == "", "left: %v", left)
	}
}

// Others wait for it. Without this it would come after all renewals that press, and be given up first.
func TestAReleasePressesAtOnce(t *testing.T) {
	g := leader(t, cfg).step(Event{Kind: Stop}).step(Event{Kind: Returned})
	require.Empty(t, g.sent[g.lastReq].Claim.Holder)
	assert.Equal(t, at(g.clock), g.sent[g.lastReq].Presses)
	assert.Equal(t, at(g.clock).Add(cfg.RenewDeadline/3), g.sent[g.lastReq].Deadline)

	c := cfg
	c.Traces = true
	g = leader(t, c).tick(12 * s).step(Event{Kind: Returned}) // no renewal has left
	require.Empty(t, g.sent[g.lastReq].Claim.Holder)
	assert.Zero(t, g.sent[g.lastReq].Presses, "the term was lost: the server cannot keep up")
}

// It may have left without being heard of.
func TestAWriteThatMayWinOrThatTellsACopyIsNotTakenBack(t *testing.T) {
	traced := cfg
	traced.Traces = true
	g := newRig(t, traced, free).tick(s)
	require.Equal(t, `update "me"`, g.read())
	win := g.lastReq
	g.step(Event{Kind: Stop})
	assert.NotContains(t, g.out, Effect{Kind: Cancel, ID: win, OK: true})

	g = leader(t, traced)
	for i := range uint64(2) {
		mine := g.own.wrote
		g.at(time.Duration(i+2) * s).show(rec(20+10*i, "me", mine.Acquired, mine.Renewed+1_000_001))
		if i == 0 {
			g.take()
		}
	}
	require.True(t, g.copied)
	tells := g.lastReq
	g.step(Event{Kind: Returned})
	assert.NotContains(t, g.out, Effect{Kind: Cancel, ID: tells, OK: true})
}

func TestWhatASuspendedHolderAsksPressesAtOnce(t *testing.T) {
	g := leader(t, recovering())
	for !g.own.suspended || g.calls.awaited() == nil {
		g.tick(g.Wake().Sub(epoch))
		if g.calls.awaited() != nil && !g.own.suspended {
			g.answer(Failed, Record{})
		}
	}
	assert.Equal(t, at(g.clock), g.sent[g.lastReq].Presses)
	assert.Equal(t, at(g.clock).Add(cfg.RenewDeadline/3), g.sent[g.lastReq].Deadline)
}
