package protocol

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What the simulation of package sim has found: each was a way to two callbacks, or to a flood of requests.

// freed is a release of r's term, a version later.
func freed(r Record, renewed int64, seconds int32) Record {
	r.Version++
	r.Claim = Claim{Seconds: seconds, Acquired: renewed, Renewed: renewed, Transitions: r.Transitions}
	return r
}

// unwatched ends the rig's watch, and lets the time come for the next GET.
func (g *rig) unwatched() *rig {
	last := g.lastReq
	g.step(Event{Kind: WatchEnded, ID: g.watchID})
	for g.lastReq == last {
		g.tick(g.Wake().Sub(epoch))
	}
	return g
}

func TestAnOvertakenGETThatWasSentLaterIsTakenIn(t *testing.T) {
	g := newRig(t, cfg, rec(5, "them", 100, 200)).unwatched()
	first := g.lastReq
	g.tick(g.clock + 4*s)
	second := g.lastReq
	require.NotEqual(t, first, second)
	g.step(Event{Kind: Answered, ID: first, Outcome: Missing})
	g.step(Event{Kind: Answered, ID: second, Outcome: OK, Record: rec(9, "else", 300, 301)})
	assert.Equal(t, "else", g.Status().Holder)
}

func TestAStandbyWhoseWriteIsLostReadsNoMoreOftenThanOthers(t *testing.T) {
	theirs := rec(5, "them", 100, 200)
	g := newRig(t, cfg, theirs).unwatched().answer(OK, theirs)
	gets := 0
	for writes := 0; g.clock < 24*s && gets < 100; {
		g.tick(g.Wake().Sub(epoch))
		for k := g.calls.awaited(); k != nil && k.do == get && gets < 100; k = g.calls.awaited() {
			gets++
			g.answer(OK, theirs)
		}
		if g.calls.writing() && writes == 0 {
			writes, gets = 1, 0
		}
	}
	require.True(t, g.calls.writing(), "its answer never comes")
	assert.LessOrEqual(t, gets, int((24*s-15*s)/cfg.RetryPeriod)+2)
}

func TestALeaseThatComesBackAfterItsDeletionTakesNothingBack(t *testing.T) {
	theirs := rec(10, "them", 100, 200)
	g := newRig(t, cfg, theirs).at(s)
	g.step(Event{Kind: WatchGone, ID: g.watchID, Record: Record{Version: 11}})
	g.at(2 * s).show(freed(rec(2000, "else", 10, 20), 50, 1)) // somebody has labelled it since
	assert.Empty(t, g.tick(15*s-1).read())
	assert.Equal(t, `update "me"`, g.tick(15*s+spread).read())
}

func TestAProofThatComesAfterAnotherRecordIsVoidThoughTheOldOneHasComeBack(t *testing.T) {
	theirs := rec(5, "them", 100_001, 200_002)
	g := newRig(t, cfg, rec(9, "else", 300, 301)).unwatched()
	for g.answer(OK, theirs); g.Status().Holder == "else"; g.answer(OK, theirs) {
		g.tick(g.Wake().Sub(epoch))
	}
	g.read()
	g.step(Event{Kind: Proven, Marks: []Mark{theirs.term()}})
	assert.Empty(t, g.own.over, "somebody may have led since")
	assert.NotContains(t, g.serve(g.clock+s, theirs).read(), "update")
}

func TestAReleaseWithNoticeBindsWhoTakesItForAnOlderRecord(t *testing.T) {
	theirs := rec(10, "them", 100, 200)
	theirs.Transitions = 5
	restored := rec(2000, "else", 300, 301)
	restored.Transitions = 3
	g := newRig(t, cfg, theirs)
	g.at(16 * s).show(freed(restored, 400, 10))
	assert.Empty(t, g.tick(26*s-1).read())
	assert.Equal(t, `update "me"`, g.tick(26*s+spread).read())
}

// S3: what a newcomer leaves behind frees only what it was promised itself.

func TestWhatANewcomerLeavesBehindDoesNotFreeAnEarlierHoldersPromise(t *testing.T) {
	theirs, made := rec(10, "them", 100, 200), rec(12, "new", 300, 301)
	theirs.Transitions, made.Transitions, made.UID = 5, 6, "v"
	back := rec(2000, "old", 50, 60)
	back.Transitions = 3
	putBack := theirs
	putBack.Version, putBack.UID, putBack.Renewed = 12, "v", 300
	waits := func(why string, next Record, end func(g *rig)) {
		g := newRig(t, cfg, theirs).at(s)
		if next.UID != theirs.UID {
			g.step(Event{Kind: WatchGone, ID: g.watchID, Record: Record{Version: 11}})
		}
		if next.Holder != "" {
			g.at(2 * s).show(next)
		}
		end(g.at(3 * s))
		g.tick(3 * s)
		now := g.seen.record
		assert.NotContains(t, g.serve(15*s-1, now).read(), "update", why)
		assert.Contains(t, g.serve(15*s+spread, now).read(), `update "me"`, why)
	}
	waits("made anew", made, func(g *rig) { g.show(freed(made, 400, 1)) })
	waits("made anew, and its holder was not seen", Record{UID: "v"}, func(g *rig) { g.show(freed(made, 400, 1)) })
	again := rec(2000, "other", 350, 351)
	again.Transitions = 5 // won on the record that had come back, and was not seen
	waits("won on one that has come back", again, func(g *rig) { g.show(freed(again, 400, 1)) })
	waits("come back", back, func(g *rig) { g.show(freed(back, 400, 1)) })
	waits("with notice", made, func(g *rig) { g.show(freed(made, 400, 2)) })
	waits("the kubelet's word", made, func(g *rig) { g.step(Event{Kind: Died, Marks: []Mark{made.term()}}) })
	waits("a lock", made, func(g *rig) { g.step(Event{Kind: Proven, Marks: []Mark{made.term()}}) })

	g := newRig(t, cfg, theirs).at(s)
	g.step(Event{Kind: WatchGone, ID: g.watchID, Record: Record{Version: 11}}).at(2 * s).show(putBack)
	g.at(3 * s).show(freed(putBack, 400, 1))
	assert.Equal(t, `update "me"`, g.tick(3*s+spread).read(), "a holder that has put its Lease back frees it")
}

// S5, S6: a drain that outlasts the lease. Others may have led unseen, and what an edit brings back may be theirs.
func TestADrainThatOutlastsItsLeaseTakesNoEditForItsOwn(t *testing.T) {
	shows := func(edit func(r *Record)) string {
		g := leader(t, recovering()).step(Event{Kind: StepDown}).tick(16 * s)
		for k := g.calls.awaited(); k != nil; k = g.calls.awaited() {
			g.step(Event{Kind: Answered, ID: k.id, Outcome: Failed})
		}
		g.read()
		r := g.own.wrote
		r.Version = 20
		edit(&r)
		return g.show(r).tick(20 * s).read()
	}
	assert.Contains(t, shows(func(*Record) {}), "update", "just its own record: only a label is new")
	assert.NotContains(t, shows(func(r *Record) { r.Acquired, r.Renewed = 0, 0 }), "update")
	assert.NotContains(t, shows(func(r *Record) { r.Renewed += 7_000_001 }), "update")
	assert.NotContains(t, shows(func(r *Record) { r.Claim = Claim{} }), "update")
}

// S5: copies, in the ways that simulations have found.

func TestAProcessThatWasCopiedWhileItDrainsEndsItsTermAndThatOfTheCopy(t *testing.T) {
	g := leader(t, cfg).step(Event{Kind: StepDown})
	g.read()
	for i := range 2 {
		mine := g.own.wrote
		g.at(time.Duration(2+i) * s).show(rec(uint64(20+10*i), "me", mine.Acquired, mine.Renewed+1_000_001))
		if i == 0 {
			g.take()
		}
	}
	assert.Contains(t, g.read(), fmt.Sprintf("lose %d", DuplicateIdentity))
}

func TestATermOfItsOwnThatACopyGoesOnWithIsNotOver(t *testing.T) {
	for name, test := range map[string]struct {
		version uint64
		later   int64 // than its own renewTime
		over    bool
	}{
		"":                               {20, 1_000_001, false},
		"after its clock was set back":   {20, -3_000_001, false},
		"no: an older record comes back": {1, -3_000_001, true},
		"no: only a label is new":        {20, 0, true},
	} {
		g := leader(t, cfg)
		mine := g.own.wrote
		g.at(11 * s).step(Event{Kind: Tick}).step(Event{Kind: Returned})
		g.tick(16 * s).step(Event{Kind: Campaign})
		require.Equal(t, StandingBy, g.phase)
		require.NotEmpty(t, g.own.over)
		r, asked := mine, at(17*s)
		r.Version, r.Renewed = test.version, r.Renewed+test.later
		g.observe(g.seen.see(r, asked, asked))
		assert.Equal(t, test.over, len(g.own.over) > 0, name)
	}
}

func TestACloneGoesOnByItself(t *testing.T) {
	g := leader(t, cfg).tick(3 * s) // a write is under way
	c := g.Clone(func(int64) int64 { return 7 })
	calls, unconfirmed := len(c.calls), len(c.own.unconfirmed)
	require.Equal(t, 1, calls)
	require.Equal(t, 1, unconfirmed)
	g.take()
	assert.Len(t, c.calls, calls)
	assert.Len(t, c.own.unconfirmed, unconfirmed)
	assert.NotEqual(t, c.own.wrote, g.own.wrote)
	c.Step(Event{Kind: Answered, ID: g.lastReq, Outcome: Failed}, at(4*s))
	assert.Equal(t, Leading, c.phase)
}
