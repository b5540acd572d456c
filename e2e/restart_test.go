package e2e

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector/e2e/internal/event"
)

// TestAReplicaThatWasKilledAndIsBackLeadsAtOnce runs before the parallel tests too. It kills the replica at any moment:
// soon after its start as well, when it may have written the file in its StateDir but not the Lease, or the Lease but not
// read the answer.
func TestAReplicaThatWasKilledAndIsBackLeadsAtOnce(t *testing.T) {
	f := newFleet(t)
	dir := "-state-dir=" + t.TempDir()
	leader := f.start(ours, dir)
	f.nextLeader(20 * time.Second)
	f.settle(leader, f.start(ours)) // it would lead if the Lease expired
	for i := range 20 {
		time.Sleep(rand.N(500 * time.Millisecond))
		f.kill(leader)
		if leader = f.start(ours, dir); i%4 == 3 {
			f.awaitFrom(leader, event.Ready, 20*time.Second)
			time.Sleep(rand.N(40 * time.Millisecond))
			f.kill(leader)
			leader = f.start(ours, dir)
		}
		ready := f.awaitFrom(leader, event.Ready, 20*time.Second)
		begin := f.awaitFrom(leader, event.Begin, leaseDuration)
		figures.addTime(restart, ours, begin.At.Sub(ready.At))
		require.Less(t, begin.At.Sub(ready.At), 5*time.Second, "begin of Run to leading, where the Lease binds for %v", leaseDuration)
	}
	f.requireOneAtATime()
	median, worst, n := figures.summary(restart, ours)
	t.Logf("begin of Run to leading: %.3f s median, %.3f s worst of %d", median, worst, n)
}

// As in a pod, where its containers share /dev/shm: with nothing configured. A second container that campaigns has the lock
// when the first has died.
func TestInAPodAReplicaIsBackAtOnceWithNothingConfigured(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has /dev/shm")
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1") // for the replicas, which use the kubeconfig
	f := newFleet(t)
	t.Cleanup(func() { os.Remove("/dev/shm/elector/" + f.namespace + "_" + leaseName + ".lease") })
	leader := f.start(ours)
	f.nextLeader(20 * time.Second)
	f.settle(leader, f.start(ours, "-state-dir=-")) // it would lead if the Lease expired
	for range 5 {
		f.kill(leader)
		leader = f.start(ours)
		ready := f.awaitFrom(leader, event.Ready, 20*time.Second)
		begin := f.awaitFrom(leader, event.Begin, leaseDuration)
		require.Less(t, begin.At.Sub(ready.At), 5*time.Second, "begin of Run to leading, where the Lease binds for %v", leaseDuration)
		require.False(t, logged(leader, "StateDir"))
	}
	beside := f.start(ours)
	f.settle(leader, beside)
	f.kill(leader)
	killed, _ := leader.proc.Result()
	begin := f.awaitFrom(beside, event.Begin, 20*time.Second)
	require.Less(t, begin.At.Sub(killed), 5*time.Second, "it tries for the lock every %v", retryPeriod)
	require.False(t, logged(beside, "StateDir"), "nor is it said that another has the lock")
	f.requireOneAtATime()
}

func TestALiveProcessWithTheSameStateDirIsReportedAndNotTakenForDead(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	dir := "-state-dir=" + t.TempDir()
	first := f.start(ours, dir)
	f.nextLeader(20 * time.Second)
	second := f.start(ours, dir)
	f.settle(first, second)
	require.Eventually(t, func() bool { return logged(second, "Another process has locked the file in Options.StateDir") }, 5*time.Second, 10*time.Millisecond)
	require.Equal(t, 1, f.countOf(event.Begin), "it stands by")

	f.kill(first)
	killed, _ := first.proc.Result()
	next, begin := f.nextLeader(leaseDuration + 5*time.Second)
	require.Equal(t, second.id, next.id)
	f.requireOneAtATime()
	t.Logf("it led %v after the first was killed", begin.At.Sub(killed))
}

func TestWithATornFileTheLeaseHasToExpire(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	dir := t.TempDir()
	leader := f.start(ours, "-state-dir="+dir)
	f.nextLeader(20 * time.Second)
	time.Sleep(retryPeriod) // so that it has renewed
	f.kill(leader)
	renewed := f.getLease(t.Context()).Spec.RenewTime.Time

	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Len(t, files, 1, "one file for the Lease")
	text, err := os.ReadFile(files[0])
	require.NoError(t, err)
	require.Contains(t, string(text), leader.id)
	require.NoError(t, os.Truncate(files[0], int64(len(text)/2)))

	again := f.start(ours, "-state-dir="+dir)
	begin := f.awaitFrom(again, event.Begin, leaseDuration+10*time.Second)
	requireNotBeforeExpiry(t, begin.At.Sub(renewed))
	require.True(t, logged(again, "The file in Options.StateDir cannot be read"), "it says why it waits")

	// The file is whole again.
	f.kill(again)
	last := f.start(ours, "-state-dir="+dir)
	ready := f.awaitFrom(last, event.Ready, 20*time.Second)
	begin = f.awaitFrom(last, event.Begin, leaseDuration)
	require.Less(t, begin.At.Sub(ready.At), 5*time.Second)
	f.requireOneAtATime()
}

// TestClientGoIsBackAtOnceUnderTheSameIdentity gives the yardstick the identity of the process that was killed, as
// programs do that take it from the pod's name. Nothing proves then that the old process is dead.
func TestClientGoIsBackAtOnceUnderTheSameIdentity(t *testing.T) {
	t.Parallel()
	for _, took := range newFleet(t).restartInPlace() {
		figures.addTime(restart, clientGo, took)
	}
}

// The same programs on package leaderelection, with a directory that proves it.
func TestALockWithStateDirIsBackAtOnceUnderTheSameIdentity(t *testing.T) {
	t.Parallel()
	took := newFleet(t).restartInPlace("-state-dir=" + t.TempDir())
	t.Logf("begin of Run to leading: %v", took)
	require.Less(t, slices.Max(took), 5*time.Second, "where the Lease binds for %v", leaseDuration)
}

// restartInPlace kills a leader that is client-go's, starts it again under the same identity, and returns how long it then
// took to lead.
func (f *fleet) restartInPlace(flags ...string) (took []time.Duration) {
	f.t.Helper()
	leader := f.start(clientGo, flags...)
	f.nextLeader(20 * time.Second)
	flags = append(flags, "-id="+leader.id)
	for range 5 {
		time.Sleep(rand.N(500 * time.Millisecond))
		f.kill(leader)
		killed := time.Now()
		leader = f.start(clientGo, flags...)
		since := func(kind event.Kind) event.Event {
			return f.await(string(kind), 2*leaseDuration, func(events []event.Event) *event.Event {
				return find(events, func(e event.Event) bool { return e.Kind == kind && e.At.After(killed) })
			})
		}
		took = append(took, since(event.Begin).At.Sub(since(event.Ready).At))
	}
	return took
}

// kill returns when the process is gone and all that it said was read.
func (f *fleet) kill(r *replica) {
	f.t.Helper()
	f.signal(r, os.Kill)
	<-r.proc.Done()
}
