package protocol

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Terms, from their win to their release.

// S1: from when a term's authority counts.

func TestATermsAuthorityCountsFromWhenItsWriteHasLeftHoweverLateThatIsHeard(t *testing.T) {
	traced := cfg
	traced.Traces = true
	g := newRig(t, traced, free).tick(s)
	g.at(3 * s).step(Event{Kind: Left, ID: g.lastReq, At: at(2 * s)})
	g.at(4 * s).step(Event{Kind: Left, ID: g.lastReq, At: at(4 * s)}).take()
	assert.Equal(t, at(2*s), g.effects[BeginTerm].Sent)
	assert.Equal(t, at(2*s), g.own.sent)

	g = leader(t, cfg)
	due := g.own.sent.Add(2 * s)
	g.tick(3 * s).at(4 * s).take()
	assert.Equal(t, due, g.effects[RenewTerm].Sent)
	assert.Equal(t, due, g.own.sent)
}

func TestARenewalThatTheWatchShowsCountsFromWhenItWasSent(t *testing.T) {
	g := leader(t, cfg)
	due := g.own.sent.Add(2 * s)
	g.tick(3*s).answer(Failed, Record{}).at(4 * s).show(g.apply())
	assert.Equal(t, due, g.effects[RenewTerm].Sent)
	assert.True(t, g.effects[RenewTerm].OK)

	g = leader(t, cfg).tick(3 * s)
	g.read()
	r := g.apply()
	assert.Empty(t, g.at(4*s).show(r).read(), "its answer is on the way")
	assert.Equal(t, "renewed", g.answer(OK, r).read())
}

func TestAnAnswerThatComesAtTheDeadlineIsTooLate(t *testing.T) {
	g := leader(t, cfg).tick(3 * s)
	g.at(11 * s).take()
	assert.Equal(t, DeadlinePassed, g.effects[LoseTerm].Lost.Reason)
}

func TestALeaderReadsItsClocksWhileItWaits(t *testing.T) {
	g := leader(t, cfg).tick(2500 * time.Millisecond)
	assert.LessOrEqual(t, g.Wake().Sub(g.now), pulse)
}

// S5, S6: a write that wins nothing.

func TestACreateThatIsCarriedOutAfterAnothersLeaseWasSeenAndDeletedWinsNothing(t *testing.T) {
	g := newRig(t, cfg, free)
	g.step(Event{Kind: WatchGone, ID: g.watchID, Record: Record{Version: 2}}).tick(s)
	require.Equal(t, `create "me"`, g.read())
	r := g.apply()
	r.Version, r.UID = 7, "v"
	g.show(rec(5, "them", 100, 200)).step(Event{Kind: WatchGone, ID: g.watchID, Record: Record{Version: 6}}).answer(OK, r)
	assert.NotContains(t, g.read(), "begin")
}

// S8: the release.

func TestAReleaseIsTriedForAsLongAsItIsWorth(t *testing.T) {
	for o, want := range map[Outcome]time.Duration{Refused: refusedReleaseLimit, Failed: 14 * s} {
		g := leader(t, cfg).step(Event{Kind: Returned})
		for since := g.clock; g.phase == Releasing; {
			require.LessOrEqual(t, g.clock-since, want, o)
			if g.calls.awaited() != nil {
				g.answer(o, Record{})
			}
			if g.phase == Releasing {
				g.tick(g.Wake().Sub(epoch))
			}
		}
		assert.InDelta(t, want, g.clock-s, float64(time.Millisecond))
		assert.False(t, g.effects[LetGo].OK)
	}
}

func TestAStandbyThatStopsFindsOutWhetherItHasWon(t *testing.T) {
	g := newRig(t, cfg, free).tick(s)
	g.read()
	assert.Empty(t, g.step(Event{Kind: Stop}).read(), "its write is under way")
	assert.Contains(t, g.take().read(), `update ""`)
	assert.Equal(t, "let go", g.take().read())

	g = newRig(t, cfg, free).tick(s).answer(Failed, Record{})
	g.read()
	assert.Equal(t, "get", g.step(Event{Kind: Stop}).tick(3*s).read(), "it may have been applied")
}

func TestAReplicaThatBecomesUnfitWhileItWinsHandsTheWinBackAndGoesOn(t *testing.T) {
	g := newRig(t, cfg, free).tick(s).step(Event{Kind: Health})
	g.read()
	assert.Equal(t, `update ""`, g.take().read())
	assert.Equal(t, "let go", g.take().read())
	assert.Equal(t, StandingBy, g.phase)
	assert.Empty(t, g.tick(10*s).read())
	assert.Equal(t, `update "me"`, g.step(Event{Kind: Health, OK: true}).read())
}

// S9: how long a callback may drain.

func TestTheLeaseIsKeptForDrainLimitFromWhenTheCallbackWasAskedToStop(t *testing.T) {
	limited := cfg
	limited.DrainLimit = 20 * s
	st := inTerm(Draining, inTerm(Draining, Claim{}).own.wrote.Claim)
	st.Config, st.drainSince = limited, at(5*s)
	require.Equal(t, renew, st.decide(at(25*s-1)).do, "however old the last renewal is")
	st.own.sent = at(24 * s)
	require.Equal(t, idle, st.decide(at(25*s)).do, "however young the last renewal is")
}

// S12, S13: what is proven.

func TestAProofIsOverWithAnyOtherRecord(t *testing.T) {
	theirs := rec(6, "them", 100_001, 200_002)
	g := newRig(t, cfg, rec(5, "else", 100, 200)).step(Event{Kind: Proven, Marks: []Mark{theirs.term()}})
	assert.Contains(t, g.effects, ForgetProof, "another's is there")
	g.read()
	assert.Empty(t, g.show(theirs).tick(spread).read())

	g = newRig(t, cfg, theirs).show(Record{Version: 9, UID: "v"})
	assert.Contains(t, g.effects, ForgetProof, "a Lease that somebody has made anew is not the one that is proven")
}

func TestAProofIsNoneForARecordThatHasComeBack(t *testing.T) {
	theirs := rec(5, "them", 100_001, 200_002)
	g := newRig(t, cfg, rec(9, "else", 300, 301))
	g.step(Event{Kind: WatchEnded, ID: g.watchID})
	for g.Status().Holder == "else" {
		g.tick(g.Wake().Sub(epoch)).answer(OK, theirs)
	}
	g.read()
	g.step(Event{Kind: Proven, Marks: []Mark{theirs.term()}})
	assert.Contains(t, g.effects, ForgetProof)
	assert.NotContains(t, g.tick(g.clock+spread).read(), "update")
}

func TestAWordThatIsRepeatedIsAsOldAsTheFirst(t *testing.T) {
	theirs := rec(5, "them", 100_001, 200_002)
	g := newRig(t, cfg, theirs)
	g.Machine.random = func(n int64) int64 { return n - 1 }
	g.show(rec(6, "them", 100_001, 200_003)) // the spread is drawn anew
	for i := range 5 {
		g.at(s + time.Duration(i)*time.Millisecond).step(Event{Kind: Died, Marks: []Mark{theirs.term()}})
	}
	assert.Empty(t, g.read(), "not all at once")
	assert.Equal(t, `update "me"`, g.tick(s+spread).read())
}

func TestOnlyAWriteThatMayWinIsSaidTo(t *testing.T) {
	g := newRig(t, cfg, free).tick(s)
	assert.True(t, g.sent[g.lastReq].Wins)
	g.take().tick(3 * s)
	assert.False(t, g.sent[g.lastReq].Wins)
}

// S14: suspension.

func TestASuspensionIsSaidOnceAndEndsWithARenewalThatIsYoungEnough(t *testing.T) {
	g := leader(t, recovering()).tick(3 * s)
	r := g.apply()
	g.read()
	assert.Contains(t, g.at(12*s).step(Event{Kind: Tick}).read(), "suspend")
	assert.NotContains(t, g.at(12500*time.Millisecond).step(Event{Kind: Tick}).read(), "suspend")
	assert.NotContains(t, g.show(r).read(), "resume", "it was sent more than RenewDeadline ago")
	assert.True(t, g.Status().Suspended)
}

func TestATermThatDrainsIsNeitherSuspendedNorResumed(t *testing.T) {
	g := leader(t, recovering()).at(12 * s).step(Event{Kind: Tick}).step(Event{Kind: StepDown})
	g.read()
	g.tick(g.clock + s).take()
	assert.NotContains(t, g.read(), "resume")
}

func TestATermWhoseLeaseIsBlankAtItsEndIsLostNotSuspended(t *testing.T) {
	g := leader(t, recovering()).at(2 * s).show(Record{Version: 20, UID: "v"})
	g.read()
	did := g.at(12 * s).step(Event{Kind: Tick}).read()
	assert.Contains(t, did, "lose")
	assert.NotContains(t, did, "suspend")
}

// L6, L7, L8: whose turn it is.

func TestYieldIsAskedWhenItsTimeHasComeAndAgainWhenItsWaitIsOver(t *testing.T) {
	yields := cfg
	yields.Yields = true
	g := newRig(t, yields, free)
	asks := func(until time.Duration) bool {
		g.tick(until)
		_, ok := g.effects[AskYield]
		g.read()
		return ok
	}
	g.tick(time.Millisecond)
	g.read()
	assert.False(t, asks(s), "once")
	assert.Empty(t, g.step(Event{Kind: Yield, Delay: 3 * s}).read())
	assert.False(t, asks(2900*time.Millisecond))
	assert.True(t, asks(3100*time.Millisecond), "what it says may have changed")
	assert.Equal(t, `update "me"`, g.step(Event{Kind: Yield, Delay: -3 * s}).tick(3200*time.Millisecond).read())

	g = newRig(t, yields, free).tick(time.Millisecond)
	g.read()
	assert.Equal(t, `update "me"`, g.tick(cfg.RetryPeriod+10*time.Millisecond).read(), "one that does not answer is not waited for")
}

func TestOthersGiveWayFromWhenTheyWereAsked(t *testing.T) {
	g := newRig(t, cfg, free)
	asked := free
	asked.Version, asked.Asked, asked.To = 2, true, "them"
	g.step(Event{Kind: Health}).at(5 * s).show(asked).step(Event{Kind: Health, OK: true})
	assert.Empty(t, g.tick(8*s).read())
	assert.Equal(t, `update "me"`, g.tick(9*s).read())
}

func TestARequestIsPinnedByTheAnswerToAWriteAlone(t *testing.T) {
	asked := func(r Record, to string) Record { r.Asked, r.To = true, to; return r }
	st := inTerm(Leading, inTerm(Leading, Claim{}).own.wrote.Claim)
	st.seen.record = asked(st.seen.record, "them")
	require.Equal(t, stepDown, st.decide(at(s)).do)
	st.own.wrote = asked(st.own.wrote, "them")
	require.Equal(t, renew, st.decide(at(s)).do, "a policy puts it there")
	st.own.wrote = asked(st.own.wrote, "else")
	require.Equal(t, stepDown, st.decide(at(s)).do, "somebody asks for another one")

	g := leader(t, cfg).tick(3*s).answer(Failed, Record{})
	g.read()
	assert.Contains(t, g.show(asked(g.apply(), "them")).read(), "stop", "somebody may have asked since it was written")
}

func TestACandidateSitsOutUntilAnotherTermWasSeen(t *testing.T) {
	g := leader(t, cfg).step(Event{Kind: StepDown}).step(Event{Kind: Returned, OK: true}).take().step(Event{Kind: Campaign})
	g.read()
	assert.Empty(t, g.tick(14*s).read())
	g.show(rec(20, "them", 700_001, 700_002)).show(Record{Version: 21, UID: "u", Claim: Claim{Seconds: 1, Acquired: 700_003, Renewed: 700_003}})
	assert.Equal(t, `update "me"`, g.tick(g.clock+spread).read())
}

func TestARequestToStepDownIsForWhomItNames(t *testing.T) {
	for to, want := range map[string]struct {
		stays bool          // as the holder
		waits time.Duration // as a candidate for the free Lease
	}{
		"":        {false, 0},
		"me":      {true, 0},
		"pod":     {true, 0},
		"another": {false, cfg.RenewDeadline / 3},
	} {
		named := cfg
		named.Identity = "pod_me"
		if to == "me" {
			to = "pod_me"
		}
		st := inTerm(Leading, Claim{})
		st.own.wrote.Holder = "pod_me"
		st.Config, st.seen.record = named, Record{Claim: st.own.wrote.Claim, Version: 2, Asked: true, To: to}
		assert.Equal(t, want.stays, st.decide(at(s)).do == renew, to)

		asked := free
		asked.Asked, asked.To = true, to
		other := &state{Config: named, seen: seen{}.see(asked, Instant{}, at(0))}
		assert.Equal(t, latest(Instant{}, at(want.waits)), latest(other.decide(at(s)).at, at(0)), to)
		asked.Version, asked.Object = 2, "labelled"
		other.seen = other.seen.see(asked, Instant{}, at(s))
		assert.Equal(t, latest(Instant{}, at(want.waits)), latest(other.decide(at(s)).at, at(0)), "%s: others own the rest of the Lease", to)
	}
	assert.False(t, Names("", ""), "nobody")
}

func TestWhichWritesRemoveARequestToStepDown(t *testing.T) {
	g := newRig(t, cfg, free).tick(s)
	assert.True(t, g.sent[g.lastReq].Clear, "a win")
	g.take().show(g.own.wrote).tick(3 * s)
	assert.False(t, g.sent[g.lastReq].Clear, "no renewal")
	g.take()
	r := g.own.wrote
	r.Version, r.Asked, r.To = g.version+1, true, "me"
	g.show(r).tick(g.clock + 2*s)
	assert.True(t, g.sent[g.lastReq].Clear, "but that of the holder that is named")
}

func TestAnUnfitLeaderGivesItsTermUp(t *testing.T) {
	g := leader(t, cfg).step(Event{Kind: Health})
	assert.Equal(t, Unhealthy, g.effects[StopCallback].Lost.Reason)
}

func TestACandidateDoesNotYieldToItself(t *testing.T) {
	yields := cfg
	yields.Yields = true
	g := newRig(t, yields, rec(5, "me", 100, 200))
	g.now, g.out = at(2*s), nil
	assert.Equal(t, at(s).Add(g.jitter), g.behind(waits(s)).at)
	assert.Empty(t, g.out, "nor is it asked")
	g.step(Event{Kind: Yield, Delay: -s})
	assert.Zero(t, g.yield)
}
