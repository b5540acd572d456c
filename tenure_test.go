package elector

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// What a tenure owns, and how it changes: rows that need a state of their own.

// ownTerm is a leader's tenure and what it sees: the record that it wrote, with digits below the millisecond.
func ownTerm(p phase, sees claim) (tenure, observed) {
	t := tenure{phase: p, wrote: claim{"me", 15, 400_123, 500_456, 1}, sent: epoch, version: 1}
	l := record{version: 2, holder: sees.holder, seconds: 15, acquired: sees.acquired, renewed: sees.renewed}.lease()
	return t, observed{lease: l, claim: sees, version: 2, at: epoch}
}

func TestATimeWithAllItsDigitsIsItsWritersOwn(t *testing.T) {
	own, o := ownTerm(leading, claim{"me", 15, 400_000, 500_000, 1})
	assert.True(t, own.owns(o, "me"), "cut off below the millisecond")
	own, o = ownTerm(leading, claim{"me", 15, 400_789, 500_789, 1})
	assert.False(t, own.owns(o, "me"), "another process of our name, in the same millisecond")
}

func TestOneOfItsTimesProvesATerm(t *testing.T) {
	own, o := ownTerm(leading, claim{"me", 15, 400_123, 9_000_111, 1})
	assert.True(t, own.owns(o, "me"))
	own, o = ownTerm(leading, claim{"me", 15, 9_000_111, 500_456, 1})
	assert.True(t, own.owns(o, "me"))
}

func TestTimesWithoutTheirDigitsProveATermOnlyWhileItIsServed(t *testing.T) {
	for p, want := range map[phase]bool{standingBy: false, leading: true, draining: true, releasing: false} {
		own, o := ownTerm(p, claim{"me", 15, 400_000, 500_000, 1})
		assert.Equal(t, want, own.owns(o, "me"), "phase %d: a namesake may have won since", p)
		own, o = ownTerm(p, claim{"me", 15, 0, 0, 1})
		assert.Equal(t, want, own.owns(o, "me"), "phase %d, without times", p)
	}
}

func TestAWriteWhoseReplyWasLostProvesATermThoughItsTimesWereCut(t *testing.T) {
	own, o := ownTerm(leading, claim{"me", 15, 0, 600_000, 1})
	assert.False(t, own.owns(o, "me"))
	own.unconfirmed = []claim{{"me", 15, 400_123, 600_789, 1}}
	assert.True(t, own.owns(o, "me"))
}

func TestOnlyTheRecordThatTheDeadHaveWrittenIsDead(t *testing.T) {
	dead := tenure{dead: []claim{{holder: "them", acquired: 100_001}}}
	sees := func(holder string, acquired int64) observed {
		_, o := ownTerm(standingBy, claim{holder, 15, acquired, acquired + 5, 1})
		return o
	}
	assert.True(t, dead.isDead(sees("them", 100_001)))
	assert.False(t, dead.isDead(sees("them", 100_002)), "a later term of that name")
	assert.False(t, dead.isDead(sees("else", 100_001)), "another holder with the same time")
	assert.False(t, dead.isDead(observed{}))
	assert.False(t, tenure{dead: []claim{{}}}.isDead(sees("", 0)), "an empty mark proves nothing")
}

func TestARecordOfAnothersEndsTheProofThatAProcessIsDead(t *testing.T) {
	own, o := ownTerm(standingBy, claim{"else", 15, 700_001, 700_002, 1})
	own.dead = []claim{{holder: "them", acquired: 100_001}}
	assert.Empty(t, own.saw(o, "me").dead)
}

func TestTheWatchIsInDoubtAfterThreeRenewalsThatDidNotCome(t *testing.T) {
	see := func(o observed, version int, renewed int64, d time.Duration) observed {
		return o.see(record{version: version, holder: "them", seconds: 15, acquired: 100, renewed: renewed}.lease(), time.Time{}, at(d))
	}
	o := see(observed{}, 1, 100, 0)
	assert.Equal(t, at(7500*time.Millisecond), o.quiet(), "half of the duration, while the interval is not known")
	o = see(o, 2, 3_000_200, 2*s)
	assert.Equal(t, at(8*s), o.quiet())
	o = see(o, 3, 9_000_300, 8*s)
	assert.Equal(t, at(15500*time.Millisecond), o.quiet(), "never more than half of the duration")
}

func TestWithLittleTimeLeftTheNextAttemptIsMadeSooner(t *testing.T) {
	c := &candidate{Elector: &Elector{timing: cfg}}
	c.own = tenure{phase: leading, sent: epoch}
	assert.Equal(t, cfg.renewDeadline/3, c.attemptLimit(at(0)))
	assert.Equal(t, s, c.attemptLimit(at(8*s)), "half of what is left")
	assert.Equal(t, 50*time.Millisecond, c.attemptLimit(at(10*s-time.Millisecond)))
	c.own.phase = standingBy
	assert.Equal(t, cfg.renewDeadline/3, c.attemptLimit(at(8*s)), "a standby has all the time")
}

func TestALeaderRenewsThreeTimesWithinRenewDeadline(t *testing.T) {
	long := cfg
	long.retryPeriod = 5 * time.Second
	l := record{version: 1, holder: "me", seconds: 15, acquired: 400, renewed: 401}.lease()
	own := tenure{phase: leading}.applied(claimOf(l), l, epoch)
	o := observed{}.see(l, time.Time{}, epoch)
	assert.Equal(t, renews(long.renewDeadline/3), decide(long, o, own, epoch))
}

func TestAPutBackOfThePastIsForNobody(t *testing.T) {
	own, o := ownTerm(draining, claim{"else", 15, 700_001, 700_002, 1})
	own = own.saw(o, "me")
	o = o.gone(3, time.Time{}, epoch)
	own = own.saw(o, "me")
	assert.Equal(t, idle, decide(cfg, o, own, at(s)).do, "another's was seen in this term (S6)")
}

func TestAHolderBlankedOutForAFewSecondsFreesNobody(t *testing.T) {
	theirs := record{version: 1, holder: "them", seconds: 15, acquired: 100, renewed: 100}
	blanked := record{version: 3, seconds: 5, acquired: 100, renewed: 200} // after a renewal that was not seen
	run(t, []step{
		{does: "see", see: &theirs, want: waits(15 * s)},
		{at: s, does: "blanked out, and shortened", see: &blanked, want: waits(16 * s)},
	})
}

func TestAWinThatWasNotLedOnProvesNothingOnceAnothersRecordWasSeen(t *testing.T) {
	mine := record{version: 4, holder: "me", seconds: 15, acquired: 400, renewed: 401}
	theirs := record{version: 5, holder: "them", seconds: 15, acquired: 900, renewed: 901}
	again := mine
	again.version = 6
	run(t, []step{
		{does: "win", see: &mine, wins: true, want: now(lead)},
		{at: s, does: "another's", see: &theirs, want: waits(16 * s)},
		{at: 2 * s, does: "the old record comes back", see: &again, want: waits(17 * s)},
	})
}

func TestAReleaseThatWasAnsweredIsDoneWhateverAPolicyMadeOfIt(t *testing.T) {
	mine := record{version: 4, holder: "me", seconds: 15, acquired: 400, renewed: 401}
	answer := record{version: 5, seconds: 10, acquired: 400, renewed: 900} // neither its duration nor its times are a release's
	run(t, []step{
		{does: "win", see: &mine, wins: true, tell: in(releasing), want: now(release)},
		{at: s, does: "the answer", see: &answer, wins: true, want: now(done)},
	})
}

// S1: what a record that shows this candidate's own write proves, if the reply was lost.

func TestAWriteThatIsSeenToHaveBeenAppliedCountsFromWhenItWasFirstSent(t *testing.T) {
	won := record{version: 1, holder: "me", seconds: 15, acquired: 1001, renewed: 1002}
	renewal := record{version: 2, holder: "me", seconds: 15, acquired: 1001, renewed: 3001}
	edited, stranger, cut := renewal, renewal, renewal
	edited.seconds, stranger.holder, cut.renewed = 60, "them", 3000

	before := observed{}.see(won.lease(), time.Time{}, at(0))
	own := tenure{phase: leading, wrote: before.claim, sent: at(0)}
	own = own.sending(before, renew, claimOf(renewal.lease()), at(2*s))
	own = own.sending(before, renew, claimOf(renewal.lease()), at(4*s)) // the repetition: either may have been applied
	assert.Equal(t, at(2*s), own.doubtedSent)

	for _, c := range []struct {
		name  string
		seen  record
		phase phase
		want  bool
	}{
		{"just as it was written", renewal, leading, true},
		{"while the callback drains", renewal, draining, true},
		{"the record before it", won, leading, false},
		{"edited since", edited, leading, false},
		{"its times cut", cut, leading, false},
		{"another's", stranger, leading, false},
		{"standing by, where one more write makes it certain", renewal, standingBy, false},
		{"releasing", renewal, releasing, false},
	} {
		own.phase = c.phase
		o := before.see(c.seen.lease(), at(5*s), at(6*s))
		next, ok := own.saw(o, "me").seenApplied(o)
		assert.Equal(t, c.want, ok, c.name)
		if ok {
			assert.Equal(t, at(2*s), next.sent, "from when it was first sent, not from the repetition, nor from when it was seen (S1)")
			assert.Equal(t, o.claim, next.wrote)
		} else {
			assert.Equal(t, at(0), next.sent, c.name)
		}
	}

	own.phase, own.overtaken = leading, true
	o := before.see(renewal.lease(), at(5*s), at(6*s))
	_, ok := own.seenApplied(o)
	assert.False(t, ok, "another's record was seen in between")
}
