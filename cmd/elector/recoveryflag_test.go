//go:build linux

package main

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector/e2e/cluster"
)

// A leaderStatus is what /leader says.
type leaderStatus struct {
	Leading   bool
	Term      string
	Suspended time.Time
}

func (r *replica) status() (s leaderStatus) {
	r.s.t.Helper()
	require.NoError(r.s.t, json.Unmarshal([]byte(r.get("/leader")), &s))
	return s
}

// awaitSuspended waits for a suspension, in which the term is not valid.
func (r *replica) awaitSuspended() {
	r.s.t.Helper()
	var now leaderStatus
	r.s.within("a suspended term", func() bool { now = r.status(); return !now.Suspended.IsZero() })
	require.False(r.s.t, now.Leading)
}

func TestWithARecoveryDeadlineTheProgramGoesOnThroughAnOutage(t *testing.T) {
	s := newStage(t)
	link := s.link()
	flags := append([]string{"--recovery-deadline=10m", "--listen=127.0.0.1:0"}, short6...)
	leader, standby, pid := s.pair(polite, flags...)
	before := leader.status()
	require.True(t, before.Leading)
	link.set(true)
	leader.awaitSuspended()
	time.Sleep(8 * time.Second) // the Lease expires, and what is left of it for the program, too
	require.True(t, alive(pid))
	require.Equal(t, before.Term, leader.status().Term)
	link.set(false)
	var after leaderStatus
	s.within("the same term", func() bool { after = leader.status(); return after.Leading })
	require.Equal(t, leaderStatus{Leading: true, Term: before.Term}, after)
	require.True(t, alive(pid))
	require.Equal(t, 1, strings.Count(leader.String(), "leading="))
	require.NotContains(t, standby.String(), "leading=")
	leader.signal(syscall.SIGTERM) // the deadlines are again those of any term
	standby.pid("leading")
	require.Zero(t, leader.exitCode())
}

// The help says that both run meanwhile. A deaf one has half of the time between --renew-deadline and --lease-duration
// from when elector learns of the other, as it has after any other loss.
func TestASuspendedProgramIsStoppedWhenAnotherReplicaHasTakenTheLease(t *testing.T) {
	s := newStage(t)
	link := s.link()
	flags := append([]string{"--recovery-deadline=10m", "--listen=127.0.0.1:0"}, short6...)
	leader := s.run(`trap 'sleep 0.3; echo asked' TERM; echo leading=$$; while :; do sleep 0.1; done`, flags...)
	pid := leader.pid("leading")
	require.NoError(t, cluster.WriteKubeconfig(s.kubeconfig, shared.UserConfig(user)))
	standby := s.run(polite, flags...)
	standby.says("New leader")
	link.set(true)
	leader.awaitSuspended()
	next := standby.pid("leading")
	require.True(t, alive(pid))
	link.set(false)
	s.gone(pid)
	leader.says("asked")
	leader.says("The program has ended")
	require.NotContains(t, leader.String(), "elector has not stopped the program", "the guard did it")
	s.within("it stands by", func() bool { now := leader.status(); return now == leaderStatus{} })
	require.True(t, alive(next))
}

func TestAfterTheRecoveryDeadlineTheProgramIsStopped(t *testing.T) {
	s := newStage(t)
	link := s.link()
	leader := s.run(deaf, append([]string{"--recovery-deadline=2s"}, short6...)...)
	pid := leader.pid("leading")
	at := link.set(true)
	dead := s.gone(pid).Sub(at)
	t.Logf("figure: outage: deaf program killed after %v, with a --renew-deadline of 3 s and a --recovery-deadline of 2 s", dead.Round(time.Millisecond))
	require.Greater(t, dead, 5*time.Second) // the last renewal is a second old at the most, and 6.5 s after that it is killed
	leader.says("The program has ended")
	require.NotContains(t, leader.String(), "elector has not stopped the program", "the guard did it")
}

func TestAFrozenElectorsProgramIsKilledByTheGuardAfterTheRecoveryDeadline(t *testing.T) {
	s := newStage(t)
	leader := s.run(polite, append([]string{"--recovery-deadline=2s"}, short6...)...)
	pid := leader.pid("leading")
	at := leader.signal(syscall.SIGSTOP)
	require.Greater(t, s.gone(pid).Sub(at), 6*time.Second) // 7.25 s after the last renewal
	leader.signal(syscall.SIGCONT)
	leader.says("The program has ended")
}
