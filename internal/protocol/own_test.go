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
