package e2e

import (
	"context"
	"flag"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector/e2e/internal/event"
	"github.com/elector-go/elector/e2e/internal/proxy"
)

var chaos = flag.Bool("chaos", false, "run the chaos tests: they take minutes, and stop the servers that all tests share")

// renewDeadline is the default. After it, and a little, what was going to cost a term has done so.
const renewDeadline = 10 * time.Second

// A chaosCase breaks something for a fleet of elector and a fleet of client-go in the same moment. An outage that ends
// before two thirds of RenewDeadline must not cost elector's term, nor may a dead connection.
type chaosCase struct {
	name   string
	breaks func(*scene)
	alone  bool          // it breaks the servers
	keeps  bool          // elector keeps its term
	rounds int           // at how many moments between two renewals it happens, each in a scene of its own; 0 is one at random
	bound  time.Duration // of the time that elector is without a leader
}

var chaosCases = []chaosCase{
	{name: "API server killed, started 5 s later", breaks: (*scene).crashServer, alone: true, bound: time.Minute},
	{name: "etcd suspended for 6 s", breaks: storageSuspended(6 * time.Second), alone: true, keeps: true},
	{name: "etcd suspended for 14 s", breaks: storageSuspended(14 * time.Second), alone: true, bound: time.Minute},
	{name: "open connections go dead", breaks: (*scene).silence, keeps: true},
	{name: "200 ms more each way", breaks: delayed(200 * time.Millisecond), keeps: true},
	{name: "1 s more each way", breaks: delayed(time.Second), bound: 40 * time.Second},
	{name: "1 s more each way, connections closed once", breaks: delayedAndClosed(time.Second, 0), keeps: true, rounds: 5},
	{name: "1 s more each way, connections closed 5 s later", breaks: delayedAndClosed(time.Second, 5*time.Second), keeps: true, rounds: 5},
	{name: "replies on open connections dropped", breaks: (*scene).dropReplies, keeps: true},
	{name: "all replies dropped for 6 s, then closed", breaks: allRepliesDropped(6 * time.Second), keeps: true},
	{name: "all replies dropped for 14 s, then closed", breaks: allRepliesDropped(14 * time.Second), bound: time.Minute},
	{name: "the leader's replies dropped for 20 s", breaks: (*scene).dropLeadersReplies, bound: 40 * time.Second},
	{name: "leader killed", breaks: (*scene).killLeaders, bound: leaseDuration + 5*time.Second},
	{name: suspension, breaks: (*scene).suspendLeaders, bound: leaseDuration + 5*time.Second},
	{name: "leader runs 0.1 s of each 1 s", breaks: starved(100*time.Millisecond, time.Second), bound: 40 * time.Second},
	{name: "leader runs 0.4 s of each 4 s", breaks: starved(400*time.Millisecond, 4*time.Second), bound: 40 * time.Second},
}

// suspension is the case in which a callback is asked to return at once.
const suspension = "leader suspended for 20 s"

func (c chaosCase) drain() time.Duration {
	if c.name == suspension {
		return 0
	}
	return 2 * time.Second
}

func TestChaosNeverMakesTwoWorkAtOnce(t *testing.T) {
	if !*chaos {
		t.Skip("only with -chaos")
	}
	for _, c := range chaosCases {
		t.Run(c.name, func(t *testing.T) {
			if !c.alone {
				t.Parallel() // with the like, after those that break the servers
			}
			if c.rounds == 0 {
				c.play(t, rand.N(retryPeriod))
			}
			for i := range c.rounds {
				after := retryPeriod * time.Duration(i) / time.Duration(c.rounds)
				t.Run(after.String()+" after a renewal", func(t *testing.T) {
					t.Parallel()
					c.play(t, after)
				})
			}
		})
	}
}

// play has it happen that long after a renewal by elector's leader.
func (c chaosCase) play(t *testing.T, after time.Duration) {
	s := newScene(t, c.drain())
	_, renews := s.sides[0].nextRenewal(renewDeadline)
	require.True(t, renews)
	time.Sleep(after)
	c.breaks(s)
	time.Sleep(renewDeadline + 2*time.Second)
	for _, side := range s.sides {
		side.measure(c.name)
	}
	s.sides[0].judge(c) // elector's
}

// A scene is two fleets, elector's and client-go's. Their leaders reach the API server through one proxy, their
// standbys through another.
type scene struct {
	t                 *testing.T
	leaders, standbys *proxy.Proxy
	sides             []*side
}

// A side is one of the fleets, with the replica that led it first.
type side struct {
	*fleet
	kind   electorKind
	leader *replica
	frozen *span // when the leader was suspended for so long that another one had to lead

	led     bool // in the end somebody leads
	lost    int  // terms
	overlap time.Duration
	gap     time.Duration
}

// newScene returns when both fleets have a leader and each standby knows it.
func newScene(t *testing.T, drain time.Duration) *scene {
	s := &scene{t: t, leaders: newProxy(t), standbys: newProxy(t)}
	flag := "-drain=" + drain.String()
	for _, kind := range []electorKind{ours, clientGo} {
		side := &side{fleet: newFleet(t), kind: kind}
		side.leader = side.startThrough(s.leaders, kind, flag)
		s.sides = append(s.sides, side)
	}
	for _, side := range s.sides {
		side.nextLeader(20 * time.Second)
		side.settle(side.leader, side.startThrough(s.standbys, side.kind, flag), side.startThrough(s.standbys, side.kind, flag))
	}
	time.Sleep(4 * time.Second)
	return s
}

func (s *scene) silence() {
	require.GreaterOrEqual(s.t, s.leaders.Silence(), 2, "open connections")
	require.GreaterOrEqual(s.t, s.standbys.Silence(), 4, "open connections")
	time.Sleep(8 * time.Second)
}

func delayed(d time.Duration) func(*scene) {
	return func(s *scene) {
		s.delay(d)
		time.Sleep(30 * time.Second)
		s.delay(0)
	}
}

// delayedAndClosed has everybody connect anew over a line that has been slow for a while.
func delayedAndClosed(d, while time.Duration) func(*scene) {
	return func(s *scene) {
		s.delay(d)
		time.Sleep(while)
		s.reset()
		time.Sleep(30 * time.Second)
		s.delay(0)
	}
}

func (s *scene) delay(d time.Duration) {
	s.leaders.SetDelay(d)
	s.standbys.SetDelay(d)
}

func (s *scene) reset() {
	s.leaders.Reset()
	s.standbys.Reset()
}

// dropReplies drops replies on open connections; new connections work.
func (s *scene) dropReplies() {
	s.requireActed(func() {
		require.GreaterOrEqual(s.t, s.leaders.DropReplies(false), 2, "open connections")
		require.GreaterOrEqual(s.t, s.standbys.DropReplies(false), 4, "open connections")
	}, 6*time.Second)
	s.reset()
}

func allRepliesDropped(d time.Duration) func(*scene) {
	return func(s *scene) {
		s.requireActed(func() {
			s.leaders.DropReplies(true)
			s.standbys.DropReplies(true)
		}, d)
		s.reset()
	}
}

// dropLeadersReplies cuts off the leaders, whose last requests are still acted on, while the standbys see all.
func (s *scene) dropLeadersReplies() {
	s.requireActed(func() { s.leaders.DropReplies(true) }, 20*time.Second)
	s.leaders.Reset()
}

// requireActed drops replies and returns after d, in which the server must have acted on requests.
func (s *scene) requireActed(drop func(), d time.Duration) {
	drop()
	before := s.versions()
	time.Sleep(d)
	after := s.versions()
	for i, side := range s.sides {
		require.NotEqual(s.t, before[i], after[i], "the server has acted on a request of %s", side.kind)
	}
}

// versions are those of the Leases.
func (s *scene) versions() (versions []string) {
	for _, side := range s.sides {
		versions = append(versions, side.getLease(s.t.Context()).ResourceVersion)
	}
	return versions
}

func (s *scene) crashServer() {
	server := shared.cluster.APIServer
	killed := time.Now()
	require.NoError(s.t, server.Signal(os.Kill))
	require.Eventually(s.t, func() bool { return !server.Running() }, 4*time.Second, 10*time.Millisecond)
	time.Sleep(time.Until(killed.Add(5 * time.Second)))
	require.NoError(s.t, server.Start())
	s.awaitServer(killed)
}

func storageSuspended(d time.Duration) func(*scene) {
	return func(s *scene) {
		suspended := time.Now()
		require.NoError(s.t, shared.cluster.Etcd.Signal(syscall.SIGSTOP))
		time.Sleep(d)
		require.NoError(s.t, shared.cluster.Etcd.Signal(syscall.SIGCONT))
		s.awaitServer(suspended)
	}
}

func (s *scene) awaitServer(since time.Time) {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	require.NoError(s.t, shared.cluster.WaitReady(ctx))
	s.t.Logf("the API server was not ready for %.1f s", time.Since(since).Seconds())
}

func (s *scene) killLeaders() {
	s.signalLeaders(os.Kill)
	time.Sleep(leaseDuration)
}

func (s *scene) suspendLeaders() {
	from := s.signalLeaders(syscall.SIGSTOP)
	time.Sleep(20 * time.Second)
	to := s.signalLeaders(syscall.SIGCONT)
	for _, side := range s.sides {
		side.frozen = &span{side.leader.id, from, to}
	}
}

// starved lets the leaders run for a share of each period. In between they are suspended, which is what a container
// sees that has used up its quota of CPU.
func starved(run, period time.Duration) func(*scene) {
	return func(s *scene) {
		end := time.Now().Add(36 * time.Second)
		for time.Now().Before(end) {
			s.signalLeaders(syscall.SIGSTOP)
			time.Sleep(period - run)
			s.signalLeaders(syscall.SIGCONT)
			time.Sleep(run)
		}
	}
}

// signalLeaders returns the time just before.
func (s *scene) signalLeaders(sig os.Signal) time.Time {
	now := time.Now()
	for _, side := range s.sides {
		side.signal(side.leader, sig)
	}
	return now
}

// measure notes what the case has cost the side.
func (s *side) measure(name string) {
	s.led = s.awaitLeader(time.Minute)
	s.lost = s.countOf(event.Begin)
	if s.led {
		s.lost--
	}
	now := time.Now()
	spans := s.awake()
	s.overlap, s.gap = longestOverlap(spans), leaderless(spans, now)
	chaosFigures.add(name, s.kind, s.overlap, s.lost, s.gap)
	s.t.Logf("%s: overlap %v, %d terms lost, %v without a leader; %q", s.kind, s.overlap, s.lost, s.gap, s.causes())
}

// judge asserts what elector promises.
func (s *side) judge(c chaosCase) {
	require.True(s.t, s.led, "somebody leads in the end")
	if s.frozen != nil {
		s.requireWokenWithoutATerm()
	} else {
		require.Zero(s.t, s.overlap, "two callbacks at once: %+v", s.spans())
	}
	if c.keeps {
		require.Zero(s.t, s.lost, "terms lost")
	}
	require.LessOrEqual(s.t, s.gap, c.bound, "time without a leader")
	s.requireHandOver()
}

// awaitLeader says whether somebody leads before the limit.
func (s *side) awaitLeader(limit time.Duration) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if s.someoneLeads() {
			return true
		}
	}
	return false
}

// someoneLeads says whether a callback has not ended yet.
func (s *side) someoneLeads() bool {
	now := time.Now()
	for _, span := range s.spans() {
		if !span.end.Before(now) {
			return true
		}
	}
	return false
}

// awake returns the runs of the callbacks without the time that the leader was suspended.
func (s *side) awake() []span {
	spans := s.spans()
	if s.frozen == nil {
		return spans
	}
	return without(spans, *s.frozen)
}

// requireWokenWithoutATerm is what can be asked of a process that has been suspended for longer than its lease: that no
// work is done that checks its term first, and that the rest ends at once.
func (s *side) requireWokenWithoutATerm() {
	s.t.Helper()
	woke := s.awaitFrom(s.leader, event.Woke, 5*time.Second)
	end := s.awaitFrom(s.leader, event.End, 5*time.Second)
	require.False(s.t, woke.Valid, "Term.Valid at the first call after the suspension")
	require.Zero(s.t, end.ValidLooks, "calls at which Term.Valid was true after the suspension")
	require.Less(s.t, end.At.Sub(s.frozen.end), 2*time.Second, "end of the work after SIGCONT")
}

// requireHandOver stops the leader, to see that the fleet is whole again.
func (s *side) requireHandOver() {
	s.t.Helper()
	s.taken = s.countOf(event.Begin)
	leader := s.leaderNow()
	s.signal(leader, syscall.SIGTERM)
	s.exits(leader, 10*time.Second)
	next, _ := s.nextLeader(10 * time.Second)
	require.NotEqual(s.t, leader.id, next.id)
	require.Equal(s.t, s.overlap, longestOverlap(s.awake()), "two callbacks at once at the hand-over")
}

// causes are why callbacks' contexts ended.
func (s *side) causes() (causes []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.Kind == event.Cancelled {
			causes = append(causes, e.Err)
		}
	}
	return causes
}
