package protocol

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// L1, L2: the watch, and polling without it.

// watched is a machine whose watch is open since the time given.
func watched(now time.Duration, w watching) *Machine {
	m := stalled(StandingBy, now)
	m.watch = w
	m.watch.id, m.lastID = 1, 1
	return m
}

func did(m *Machine, k EffectKind) bool {
	for _, e := range m.out {
		if e.Kind == k {
			return true
		}
	}
	return false
}

func TestWhatTheWatchOwes(t *testing.T) {
	m := watched(5*s, watching{open: true, latest: 7})
	m.expect(7)
	assert.Zero(t, m.watch.owed, "it has shown that")
	m.expect(8)
	assert.Equal(t, at(5*s), m.watch.owedAt)
	m.now = at(6 * s)
	m.expect(9)
	assert.Equal(t, at(5*s), m.watch.owedAt, "its time runs since the first")
	assert.Equal(t, uint64(9), m.watch.owed)

	for name, owes := range map[string]func(g *rig){
		"a renewal": func(g *rig) { g.tick(3 * s); g.answer(OK, g.apply()) },
		"a GET": func(g *rig) {
			g.seen.stale = true
			g.tick(1500 * ms)
			r := g.own.wrote
			r.Version = 30
			g.answer(OK, r)
		},
	} {
		g := leader(t, cfg)
		owes(g)
		g.read()
		for range 2 {
			g.tick(g.clock + 1500*ms)
			if k := g.calls.awaited(); k != nil && k.do != get {
				g.answer(OK, g.apply())
			}
		}
		assert.Contains(t, g.read(), "unwatch, watch", name)
	}
}

func TestAWatchThatLagsIsGivenEverMoreTimeUntilItDoesNot(t *testing.T) {
	for lags, want := range map[int]time.Duration{0: 2 * s, 1: 4 * s, 3: 16 * s, 9: time.Minute} {
		assert.Equal(t, want, watched(0, watching{lags: lags}).patience())
	}
	for after, want := range map[time.Duration]int{s: 0, 3 * s: 2} {
		m := watched(after, watching{open: true, lags: 2, owed: 5, owedAt: at(0)})
		m.noticed(Event{Kind: WatchShowed, ID: 1, Record: rec(5, "them", 1, 2)})
		assert.Equal(t, want, m.watch.lags)
		assert.Zero(t, m.watch.owed)
	}
}

func TestWhenAWatchIsFollowedByTheNext(t *testing.T) {
	most := func(n int64) int64 { return n - 1 }
	for name, c := range map[string]struct {
		w      watching
		want   time.Duration // from 25 s on, at most
		fails  int
		isTold bool
	}{
		"one that has served":          {watching{open: true}, 500 * ms, 0, false},
		"one that has not served long": {watching{open: true, since: at(10 * s)}, 2500 * ms, 1, true},
		"one that did not open":        {watching{}, 2500 * ms, 1, true},
		"the third that did not open":  {watching{fails: 2}, 8500 * ms, 3, false},
		"the tenth":                    {watching{fails: 9}, time.Minute + 500*ms, 10, false},
	} {
		if c.w.since.IsZero() {
			c.w.since = at(0)
		}
		m := watched(25*s, c.w)
		m.random = most
		m.watchEnded(false)
		assert.Equal(t, m.now.Add(c.want), m.watch.retryAt, name)
		assert.Equal(t, c.fails, m.watch.fails, name)
		assert.Equal(t, c.isTold, did(m, NoWatch), name)
		assert.Equal(t, m.now.Add(cfg.RetryPeriod-1), m.watch.pollAt, "%s: not all read at once", name)
	}
}

func TestAWatchThatIsRefusedIsTriedEachQuarterOfAnHour(t *testing.T) {
	m := watched(25*s, watching{fails: 9})
	m.watchEnded(true)
	assert.Equal(t, m.now.Add(15*time.Minute), m.watch.retryAt)
}

func TestAWatchThatHasServedAWhileWorksAgain(t *testing.T) {
	m := watched(20*s, watching{open: true, since: at(0), fails: 2})
	m.tend()
	assert.True(t, did(m, WatchAgain))
	assert.Zero(t, m.watch.fails)
}

func TestAWatchThatDoesNotOpenIsGivenUp(t *testing.T) {
	m := watched(10*s, watching{since: at(0)})
	m.tend()
	assert.True(t, did(m, Unwatch))
	assert.True(t, did(m, Suspect))
	m = watched(10*s, watching{since: at(0)})
	m.calls = calls{under(2, get, at(9*s))}
	m.tend()
	assert.False(t, did(m, Suspect), "a request finds out about the connection")
}

func TestAWatchIsOpenedAgainWhateverHasFailed(t *testing.T) {
	m := watched(10*s, watching{fails: 3, retryAt: at(10 * s)})
	m.watch.id = 0
	m.tend()
	assert.True(t, did(m, Watch))
}

func TestADeletionFromBeforeTheWatchBeganIsLookedFor(t *testing.T) {
	g := newRig(t, cfg, rec(5, "them", 100, 200)).step(Event{Kind: WatchEnded, ID: 2})
	g.step(Event{Kind: WatchEnded, ID: g.watchID})
	for !strings.Contains(strings.Join(g.did, " "), "watch") || g.watch.id == 0 {
		g.tick(g.Wake().Sub(epoch))
		if g.calls.awaited() != nil {
			g.answer(OK, rec(5, "them", 100, 200))
		}
	}
	g.read()
	assert.Equal(t, "get", g.step(Event{Kind: WatchOpened, ID: g.watchID}).read())
}

func TestAStandbyAsksOnceAtAMomentOfItsOwnWhenRenewalsStopComing(t *testing.T) {
	m := watched(10*s, watching{open: true, asked: at(-1)})
	m.seen = seen{}.see(rec(5, "them", 100, 200), Instant{}, at(0))
	quiet := m.seen.quiet()
	require.Equal(t, at(7500*ms), quiet)
	waiting := decision{do: acquire, at: m.seen.expires}
	m.jitter = 3 * ms
	assert.Equal(t, decision{do: get, at: quiet.Add(300 * ms)}, m.check(waiting))
	assert.True(t, m.watch.doubting)
	m.noticed(Event{Kind: Heard, ID: m.watch.id, At: at(7 * s)})
	assert.Equal(t, decision{do: get, at: at(7 * s).Add(cfg.RenewDeadline/3 + 300*ms)}, m.check(waiting), "its connection was alive then")
	m.noticed(Event{Kind: Heard, ID: m.watch.id, At: at(12 * s)})
	assert.Equal(t, waiting, m.check(waiting), "and is: the server is slow")
	m.watch.alive = Instant{}
	m.check(waiting)
	m.send(get)
	assert.True(t, m.out[0].Request.Spare, "the watch's connection may be the dead one")
	m.watch.asked = quiet
	assert.Equal(t, waiting, m.check(waiting), "once")

	for name, c := range map[string]struct {
		version uint64
		dead    bool
	}{
		"it has missed a change":     {9, true},
		"it has shown what there is": {5, false},
	} {
		m := watched(10*s, watching{open: true, latest: 5, heard: at(3 * s), doubting: true})
		m.out = nil
		m.polled(at(9*s), Event{Outcome: OK, Record: Record{Version: c.version}})
		assert.Equal(t, c.dead, slices.Contains(m.out, Effect{Kind: Suspect, ID: m.watch.id, Sent: at(3 * s)}), name)
		assert.True(t, m.watch.open, "as long as its connection is: an API server that is busy may be late")
		assert.False(t, m.watch.doubting, name)
	}
}

func TestPollingWithoutAWatch(t *testing.T) {
	m := watched(s, watching{pollAt: at(2 * s)})
	assert.Equal(t, decision{do: get, at: at(2 * s)}, m.poll(waits(15*s)))
	assert.Equal(t, waits(s), m.poll(waits(s)), "what is due sooner comes first")
	m.watch.open = true
	assert.Equal(t, waits(15*s), m.poll(waits(15*s)))

	m = watched(s, watching{pollAt: at(2 * s)})
	m.Yields, m.yield, m.wake = true, time.Minute, at(time.Hour)
	m.seen = seen{}.see(free, Instant{}, at(0))
	m.proceed()
	assert.Equal(t, at(2*s), m.wake, "also while it yields (L7)")
}

func TestWhoeverFollowsAsksBeforeAnExpiryIsBelieved(t *testing.T) {
	follows := cfg
	follows.Follows = true
	g := newRig(t, follows, rec(5, "them", 100, 200))
	g.tick(15*s - 1)
	assert.Empty(t, g.read())
	assert.Equal(t, "get", g.tick(15*s).read())
	assert.Equal(t, "them", g.Status().Holder)
	g.answer(OK, rec(5, "them", 100, 200))
	assert.Empty(t, g.Status().Holder, "it has expired")
	g.read()
	assert.Equal(t, "get", g.tick(75*s+s).read(), "the watch may have died")

	g = newRig(t, follows, rec(5, "them", 100, 200))
	g.at(40 * s).show(rec(6, "them", 100, 200))
	assert.Equal(t, "them", g.Status().Holder, "an event, however late, is no answer")
}
