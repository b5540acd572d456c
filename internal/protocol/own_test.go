package protocol

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// S5: what a candidate may call its own.

// inTerm is a term of "me", whose record, with digits below the millisecond, is seen as c.
func inTerm(p Phase, c Claim) *state {
	wrote := Record{Version: 1, Claim: Claim{"me", 15, 400_123, 500_456, 1}}
	return &state{Config: cfg, phase: p, own: own{wrote: wrote, sent: at(0)}, seen: seen{exists: true, record: Record{Version: 2, Claim: c}, at: at(0)}}
}

func TestATimeWithAllItsDigitsIsItsWritersOwn(t *testing.T) {
	assert.True(t, inTerm(Leading, Claim{"me", 15, 400_000, 500_000, 1}).owns(), "cut off below the millisecond")
	assert.False(t, inTerm(Leading, Claim{"me", 15, 400_789, 500_789, 1}).owns(), "another process of our name, in the same millisecond")
}

func TestOneOfItsTimesProvesATerm(t *testing.T) {
	assert.True(t, inTerm(Leading, Claim{"me", 15, 400_123, 9_000_111, 1}).owns())
	assert.True(t, inTerm(Leading, Claim{"me", 15, 9_000_111, 500_456, 1}).owns())
}

func TestTimesWithoutTheirDigitsProveATermOnlyWhileItIsServed(t *testing.T) {
	for p, want := range map[Phase]bool{StandingBy: false, Leading: true, Draining: true, Releasing: false} {
		assert.Equal(t, want, inTerm(p, Claim{"me", 15, 400_000, 500_000, 1}).owns(), "%v: a namesake may have won since", p)
		assert.Equal(t, want, inTerm(p, Claim{"me", 15, 0, 0, 1}).owns(), "%v, without times", p)
	}
}

func TestAWriteWhoseReplyWasLostProvesATermThoughItsTimesWereCut(t *testing.T) {
	st := inTerm(Leading, Claim{"me", 15, 0, 600_000, 1})
	assert.False(t, st.owns())
	st.own.unconfirmed = []doubt{{Claim{"me", 15, 400_123, 600_789, 1}, at(0)}}
	assert.True(t, st.owns())
}

func TestOnlyTheRecordThatTheDeadHaveWrittenIsOver(t *testing.T) {
	dead := own{over: []Mark{{"them", 100_001}}}
	sees := func(holder string, acquired int64) seen {
		return inTerm(StandingBy, Claim{holder, 15, acquired, acquired + 5, 1}).seen
	}
	assert.True(t, dead.isOver(sees("them", 100_001)))
	assert.False(t, dead.isOver(sees("them", 100_002)), "a later term of that name")
	assert.False(t, dead.isOver(sees("else", 100_001)), "another holder with the same time")
	assert.False(t, dead.isOver(seen{}))
	assert.False(t, own{over: []Mark{{}}}.isOver(sees("", 0)), "an empty mark proves nothing")
}

func TestARecordOfAnothersEndsTheProofThatATermIsOver(t *testing.T) {
	st := inTerm(StandingBy, Claim{"else", 15, 700_001, 700_002, 1})
	st.own.over = []Mark{{"them", 100_001}}
	st.own.saw(seen{}, st.seen, st.phase, "me")
	assert.Empty(t, st.own.over)
}

func TestAPutBackOfThePastIsForNobody(t *testing.T) {
	st := inTerm(Draining, Claim{"else", 15, 700_001, 700_002, 1})
	st.own.saw(seen{}, st.seen, st.phase, "me")
	st.seen = st.seen.gone(3, Instant{}, at(0))
	st.own.saw(seen{}, st.seen, st.phase, "me")
	assert.Equal(t, idle, st.decide(at(s)).do, "another's was seen in this term (S6)")
}

func TestWritesOfOneMillisecondDiffer(t *testing.T) {
	o := seen{}.see(Record{Claim: own{}.next(cfg, seen{}, acquire, 0, at(0), 999_999)}, Instant{}, at(0))
	w := own{wrote: o.record}
	for salt := range int64(2000) {
		c := w.next(cfg, o, renew, 0, at(0), salt)
		require.NotEqual(t, o.record.Renewed, c.Renewed)
		require.Equal(t, o.record.Acquired, c.Acquired)
		win := own{}.next(cfg, o, acquire, 0, at(0), salt*997)
		require.LessOrEqual(t, win.Acquired, win.Renewed, "nothing is renewed before it is acquired")
	}
}

func TestTransitionsDoNotOverflow(t *testing.T) {
	o := seen{}.see(Record{Version: 1, Claim: Claim{"x", 1, 1, 1, math.MaxInt32}}, Instant{}, at(0))
	assert.Equal(t, int32(math.MaxInt32), own{}.next(cfg, o, acquire, 0, at(20*s), 0).Transitions)
}

// S1: what a record that shows this candidate's own write proves, if the reply was lost.

func TestAWriteThatIsSeenToHaveBeenAppliedCountsFromWhenItWasFirstSent(t *testing.T) {
	won := Record{Version: 1, Claim: Claim{"me", 15, 1001, 1002, 0}}
	renewal := Record{Version: 2, Claim: Claim{"me", 15, 1001, 3001, 0}}
	edited, stranger, cut := renewal, renewal, renewal
	edited.Seconds, stranger.Holder, cut.Renewed = 60, "them", 3000
	before := seen{}.see(won, Instant{}, at(0))
	for _, c := range []struct {
		name      string
		seen      Record
		overtaken bool
		want      bool
	}{
		{"just as it was written", renewal, false, true},
		{"the record before it", won, false, false},
		{"edited since", edited, false, false},
		{"its times cut", cut, false, false},
		{"another's", stranger, false, false},
		{"another's record was seen in between", renewal, true, false},
	} {
		w := own{wrote: won, sent: at(0), overtaken: c.overtaken}
		w.sending(before, Leading, renew, renewal.Claim, at(2*s))
		w.sending(before, Leading, renew, renewal.Claim, at(4*s)) // the repetition: either may have been applied
		sent, ok := w.seenApplied(before.see(c.seen, at(5*s), at(6*s)))
		assert.Equal(t, c.want, ok, c.name)
		if ok {
			assert.Equal(t, at(2*s), sent, "not from the repetition, nor from when it was seen")
		}
	}
}

func TestNoRecordMeansNoProof(t *testing.T) {
	mark := Mark{"them", 100_001}
	gone := inTerm(StandingBy, Claim{"them", 15, 100_001, 100_006, 1}).seen.gone(3, Instant{}, at(0))
	assert.False(t, own{over: []Mark{mark}}.isOver(gone), "somebody may have led since")
	assert.False(t, own{dead: []Mark{mark}}.isDead(gone))
	assert.False(t, own{dead: []Mark{{"", 7}}}.isDead(inTerm(StandingBy, Claim{"", 15, 7, 8, 1}).seen), "an empty mark proves nothing")
}

func TestATermIsPastOnceItsRecordIsGone(t *testing.T) {
	theirs := inTerm(StandingBy, Claim{"them", 15, 100_001, 100_006, 1}).seen
	renewed := inTerm(StandingBy, Claim{"them", 15, 100_001, 200_006, 1}).seen
	var w own
	w.saw(theirs, renewed, StandingBy, "me")
	assert.Empty(t, w.past)
	w.saw(renewed, renewed.gone(3, Instant{}, at(0)), StandingBy, "me")
	assert.Equal(t, []Mark{{"them", 100_001}}, w.past)
}

func TestABoundedNumberOfMarksIsKeptTheNewestOnes(t *testing.T) {
	var marks []Mark
	for i := range int64(maxMarks + 50) {
		marks = keep(keep(marks, Mark{"them", i}, maxMarks), Mark{"them", i}, maxMarks)
	}
	assert.Len(t, marks, maxMarks)
	assert.Equal(t, Mark{"them", maxMarks + 49}, marks[maxMarks-1])
	assert.Equal(t, Mark{"them", 50}, marks[0], "once each")
}

func TestWhatIsKnownAfterATerm(t *testing.T) {
	st := inTerm(Releasing, inTerm(Releasing, Claim{}).own.wrote.Claim)
	st.own.dead, st.own.past, st.own.unfit = []Mark{{"them", 1}}, []Mark{{"them", 2}}, true
	next := st.own.afterwards(st.seen, st.phase, "me")
	assert.Equal(t, own{dead: st.own.dead, past: st.own.past, unfit: true, over: []Mark{{"me", 400_123}}}, next)
	st.own.overtaken = true
	assert.Empty(t, st.own.afterwards(st.seen, st.phase, "me").over, "another's was seen: the old record may have come back")
}

func TestAWriteIsInDoubtAsLongAsItsRecordMayBeTheNext(t *testing.T) {
	mine, theirs := Claim{"me", 15, 700_001, 700_002, 2}, Claim{"them", 15, 800_001, 800_002, 2}
	sees := func(c Claim) seen { return inTerm(StandingBy, c).seen }
	for name, c := range map[string]struct {
		next seen
		want int
	}{
		"its own record":   {sees(mine), 1},
		"another's record": {sees(theirs), 0},
		"a deletion":       {sees(mine).gone(9, Instant{}, at(0)), 0},
	} {
		w := own{unconfirmed: []doubt{{mine, at(0)}}}
		w.saw(sees(Claim{}), c.next, StandingBy, "me")
		assert.Len(t, w.unconfirmed, c.want, name)
	}
}

func TestAWriteThatIsSeenAfterALaterOneWasAnsweredGainsNothing(t *testing.T) {
	renewal := Claim{"me", 15, 1001, 3001, 0}
	w := own{wrote: Record{Version: 1, Claim: Claim{"me", 15, 1001, 1002, 0}}, sent: at(5 * s), unconfirmed: []doubt{{renewal, at(2 * s)}}}
	_, ok := w.seenApplied(inTerm(Leading, renewal).seen)
	assert.False(t, ok)
}

func TestARetryRepeatsTheWriteThatItRetries(t *testing.T) {
	doubted := Claim{"me", 15, 400_123, 600_789, 1}
	st := inTerm(Leading, Claim{"me", 15, 400_123, 500_456, 1})
	st.own.unconfirmed = []doubt{{doubted, at(0)}}
	assert.Equal(t, doubted, st.own.next(cfg, st.seen, renew, 0, at(s), 1))
	assert.NotEqual(t, doubted, st.own.next(cfg, st.seen, release, 0, at(s), 1), "but not another kind of write")

	st = inTerm(StandingBy, doubted)
	st.own = own{unconfirmed: []doubt{{doubted, at(0)}}}
	certain := st.own.next(cfg, st.seen, acquire, 0, at(s), 1)
	assert.Equal(t, doubted.term(), certain.term(), "one more write makes the same term certain")
	assert.NotEqual(t, doubted, certain)
}

func TestTheTimesOfAWinAreRandomBelowTheMillisecond(t *testing.T) {
	a, r := stamps(at(0), 1)
	b, q := stamps(at(0), 1234)
	assert.NotEqual(t, a, b)
	assert.NotEqual(t, r, q)
}
