package protocol

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// S3: versions repeat once etcd was restored. A renewal that has the version of a record from before is one all the same.
func TestARenewalWithAVersionFromBeforeARestoreIsARenewal(t *testing.T) {
	g := newRig(t, cfg, rec(10, "them", 100, 1_000_100))
	for v := uint64(11); v <= 17; v++ {
		g.at(g.clock + 2*s).show(rec(v, "them", 100, int64(v)*2_000_000+7))
	}
	g.step(Event{Kind: WatchEnded, ID: g.watchID})
	last, v := g.clock, uint64(10)
	g.read()
	for v < 18 { // the holder goes on, on what was restored
		if g.tick(g.Wake().Sub(epoch)); g.calls.awaited() == nil {
			continue
		}
		require.NotContains(t, g.read(), "update", "%v after the last renewal", g.clock-last)
		v++
		last = g.clock
		g.answer(OK, rec(v, "them", 100, 100_000_000+int64(v)*2_000_000+9))
		assert.GreaterOrEqual(t, g.seen.expires.Sub(at(g.clock)), 15*s-time.Millisecond, "version %d", v)
	}
}

// L11: whoever goes first has one chance. An API that works by turns keeps the Lease of a dead holder from nobody.
func TestAnAPIThatWorksByTurnsKeepsNobodyFromAnExpiredLease(t *testing.T) {
	theirs := rec(5, "them", 100, 200)
	for _, up := range []time.Duration{1500 * time.Millisecond, 2 * s, 3 * s} {
		for _, down := range []time.Duration{2500 * time.Millisecond, 3 * s, 4 * s, 6 * s} {
			g, dice := newRig(t, cfg, theirs), rand.New(rand.NewPCG(1, 2))
			g.random = dice.Int64N
			g.step(Event{Kind: WatchEnded, ID: g.watchID})
			for won := false; !won; {
				if !assert.Less(t, g.clock, 150*s, "up for %v, down for %v", up, down) {
					break
				}
				if g.calls.awaited() == nil {
					g.tick(g.Wake().Sub(epoch))
				}
				if k := g.calls.awaited(); k != nil && g.clock%(up+down) < up {
					won = k.do == acquire
					g.step(Event{Kind: Answered, ID: k.id, Record: theirs})
				} else if k != nil {
					g.step(Event{Kind: Answered, ID: k.id, Outcome: Failed})
				}
				if g.watch.id != 0 {
					g.step(Event{Kind: WatchEnded, ID: g.watchID})
				}
			}
		}
	}
}

// S5: a pause after a failure puts the breaking off. It does not call it off.
func TestACopyThatIsSeenDuringAPauseIsBrokenWithAfterIt(t *testing.T) {
	for _, drains := range []bool{false, true} {
		g := leader(t, cfg)
		want := fmt.Sprintf(`update "me", lose %d, stop`, DuplicateIdentity)
		if drains {
			g.step(Event{Kind: StepDown})
			want = fmt.Sprintf(`update "me", lose %d`, DuplicateIdentity)
		}
		mine := g.own.wrote
		g.at(2 * s).show(rec(20, "me", mine.Acquired, mine.Renewed+1_000_001)).take()
		g.tick(g.own.sent.Add(cfg.Interval()).Sub(epoch)).answer(Failed, Record{})
		mine = g.own.wrote
		g.read()
		g.show(rec(30, "me", mine.Acquired, mine.Renewed+3_000_001))
		require.NotContains(t, g.read(), "update", "the API has just failed")
		assert.Contains(t, g.tick(g.clock+2*s).read(), want)
	}
}

// S5: an older record, as a server that is behind shows it, is nobody's renewal, though the wall clock was set back since.
func TestOlderRecordsFromBeforeTheClockWasSetBackAreNotACopys(t *testing.T) {
	g := leader(t, cfg)
	var old []Record
	for range 2 {
		g.tick(g.own.sent.Add(cfg.Interval()).Sub(epoch)).take()
		r := g.own.wrote
		r.Renewed += 3_600_000_000 // an hour ahead
		r.Acquired = g.own.wrote.Acquired
		old = append(old, r)
	}
	g.tick(g.own.sent.Add(cfg.Interval()).Sub(epoch)).take()
	for _, r := range old {
		g.at(g.clock + 100*time.Millisecond).step(Event{Kind: Tick})
		g.seen.stale = true
		g.step(Event{Kind: Tick})
		require.Equal(t, Get, g.sent[g.lastReq].Verb)
		g.answer(OK, r)
		require.NotContains(t, g.read(), "lose")
		g.answer(Conflict, Record{})
		if k := g.calls.awaited(); k != nil && k.do == get {
			g.answer(OK, g.own.wrote)
		}
	}
	assert.Equal(t, Leading, g.phase)
}

// S13, S3: a Lease that was deleted and made again from a backup takes back nothing that another holder was promised.
func TestTheDeathOfAHolderWhoseRecordWasMadeAgainFreesNothingOfAnothers(t *testing.T) {
	g := newRig(t, cfg, rec(9, "else", 300_001, 400_002)).tick(s)
	g.read()
	g.step(Event{Kind: WatchGone, ID: g.watchID, Record: Record{Version: 10}})
	again := rec(11, "them", 100_001, 200_002)
	again.UID = "another"
	g.show(again).step(Event{Kind: Died, Marks: []Mark{again.term()}})
	assert.NotContains(t, g.tick(14*s).read(), "update", "else may lead until 15 s")
	assert.Contains(t, g.serve(25*s, again).read(), "update")
}

// S8: the same with a release with notice, whatever was seen before it.
func TestAReleaseWithNoticeBindsWhateverWasSeenBefore(t *testing.T) {
	notice := Record{Version: 20, UID: "u", Claim: Claim{Seconds: 3, Acquired: 9_000_001, Renewed: 9_000_001, Transitions: 1}}
	for name, before := range map[string][]Record{
		"nothing":          nil,
		"its holder":       {rec(10, "them", 100, 200)},
		"an earlier one":   {free},
		"a blank one":      {{Version: 3, UID: "u"}},
		"a newer one":      {rec(30, "them", 100, 200)},
		"another Lease":    {{Version: 3, UID: "v", Claim: Claim{Holder: "x", Seconds: 15, Acquired: 1, Renewed: 2, Transitions: 9}}},
		"itself, by turns": {rec(10, "them", 100, 200), notice, rec(10, "them", 100, 200)},
	} {
		o := seen{}
		for i, r := range before {
			o = o.see(r, at(time.Duration(i)*time.Millisecond), at(time.Duration(i)*time.Millisecond))
		}
		o = o.see(notice, at(10*time.Millisecond), at(11*time.Millisecond))
		assert.GreaterOrEqual(t, o.expires.Sub(at(0)), 3*s, name)
	}
}
