package elector_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
	"github.com/elector-go/elector/internal/lockfile/lockfiletest"
)

// S12: a process proven dead binds nobody. In virtual time a process cannot die, so these tests put a dead one's file
// in place; e2e kills real processes.

func inDir(dir string) option { return with(func(o *elector.Options) { o.StateDir = dir }) }

func stateFile(dir string) string { return filepath.Join(dir, namespace+"_"+name+".lease") }

// left is a StateDir as a process leaves it behind that was killed while it led, and the Lease that it held.
func (w *world) left(dir string) {
	a := w.join("a", inDir(dir))
	w.awaitLeader(time.Second)
	time.Sleep(time.Minute)
	a.crash()
	w.die(dir)
	w.lenient = true
}

// die makes the file one whose writer has died. That goes on to hold its lock, on a file that has no name any more.
func (w *world) die(dir string) {
	require.NoError(w, lockfiletest.Inherit(stateFile(dir), stateFile(dir)))
}

func TestAProcessThatIsProvenDeadIsNotWaitedFor(t *testing.T) {
	dir := t.TempDir()
	inWorld(t, func(w *world) {
		w.left(dir)
		w.join("other") // without the proof it has to wait
		time.Sleep(100 * time.Millisecond)
		again := w.join("again", inDir(dir))
		took := w.within(50*time.Millisecond, "it leads", func() bool { return w.leader() == again })
		t.Log("killed, and started again with its StateDir, it leads after", took)
	})
}

func TestWithoutProofADeadProcessIsWaitedFor(t *testing.T) {
	for what, spoil := range map[string]func(w *world, dir string){
		"a torn file": func(w *world, dir string) {
			data, err := os.ReadFile(stateFile(dir))
			require.NoError(w, err)
			require.NoError(w, os.WriteFile(stateFile(dir), data[:len(data)/2], 0o600))
		},
		"a copy of the file, whose lock is on the original": func(w *world, dir string) {
			data, err := os.ReadFile(stateFile(dir))
			require.NoError(w, err)
			require.NoError(w, os.Rename(stateFile(dir), stateFile(dir)+".original"))
			require.NoError(w, os.WriteFile(stateFile(dir), data, 0o600))
		},
		"a file that others may write": func(w *world, dir string) { require.NoError(w, os.Chmod(stateFile(dir), 0o666)) },
		"an empty file":                func(w *world, dir string) { require.NoError(w, os.WriteFile(stateFile(dir), nil, 0o600)) },
		"no file":                      func(w *world, dir string) { require.NoError(w, os.Remove(stateFile(dir))) },
		"another record": func(w *world, _ string) {
			now := metav1.NowMicro()
			w.kubectl(func(l *coordinationv1.Lease) {
				l.Spec.HolderIdentity, l.Spec.AcquireTime, l.Spec.RenewTime = ptr.To("x"), &now, &now
			})
		},
		"another term of that process": func(w *world, _ string) {
			now := metav1.NowMicro()
			w.kubectl(func(l *coordinationv1.Lease) { l.Spec.AcquireTime, l.Spec.RenewTime = &now, &now })
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			inWorld(t, func(w *world) {
				w.left(dir)
				spoil(w, dir)
				began := time.Now()
				again := w.join("again", inDir(dir))
				w.within(20*time.Second, "it leads", func() bool { return w.leader() == again })
				assert.Greater(w, time.Since(began), 10*time.Second)
			})
		})
	}
}

func TestTheProofEndsOnceAnotherRecordIsSeen(t *testing.T) {
	dir := t.TempDir()
	inWorld(t, func(w *world) {
		w.left(dir)
		dead := w.lease().Spec
		now := metav1.NowMicro()
		w.kubectl(func(l *coordinationv1.Lease) {
			l.Spec.HolderIdentity, l.Spec.AcquireTime, l.Spec.RenewTime = ptr.To("x"), &now, &now
		})
		again := w.join("again", inDir(dir))
		time.Sleep(time.Second)
		data, err := os.ReadFile(stateFile(dir))
		require.NoError(w, err)
		assert.NotContains(w, string(data), `"a"`, "nor does the file prove it any more")
		w.kubectl(func(l *coordinationv1.Lease) { l.Spec = dead })
		time.Sleep(10 * time.Second)
		assert.NotSame(w, again, w.leader(), "x was promised 15 s")
	})
}

func TestALiveProcessWithTheSameDirectoryIsReportedAndWaitedFor(t *testing.T) {
	dir := t.TempDir()
	inWorld(t, func(w *world) {
		w.join("a", inDir(dir))
		w.awaitLeader(time.Second)
		b := w.join("b", inDir(dir))
		time.Sleep(time.Minute)
		w.oneTerm()
		assert.Equal(w, 1, count(b.log(), "Another process has locked the file"))
	})
}

func TestACrashBetweenTheFileAndTheWriteLosesNoProof(t *testing.T) {
	dir := t.TempDir()
	inWorld(t, func(w *world) {
		w.left(dir)
		b := w.api.Client("b")
		b.SetLatency(roundTrip)
		b.Intercept(electortest.On(electortest.Fault{LoseRequest: true}, "update"))
		w.joinOver(b.CoordinationV1(), b, "b", inDir(dir))
		time.Sleep(time.Second) // b has written the file, and its write is lost
		data, err := os.ReadFile(stateFile(dir))
		require.NoError(w, err)
		assert.Contains(w, string(data), `"a"`)
		assert.Contains(w, string(data), `"b"`)
		w.die(dir)
		again := w.join("again", inDir(dir))
		w.within(50*time.Millisecond, "it leads", func() bool { return w.leader() == again })
	})
}

func TestAStateDirThatCannotBeUsedIsAnErrorOfNew(t *testing.T) {
	readOnly := t.TempDir()
	require.NoError(t, os.Chmod(readOnly, 0o500))
	dirs := []string{filepath.Join(t.TempDir(), "missing")}
	if os.Geteuid() != 0 { // root may write everywhere
		dirs = append(dirs, readOnly)
	}
	for _, dir := range dirs {
		_, err := elector.New(electortest.NewServer().Client("a").CoordinationV1(), elector.Options{
			Namespace: namespace, Name: name, StateDir: dir, Run: nil,
		})
		assert.ErrorContains(t, err, "Options.StateDir: it must be a directory that exists, can be written to")
		assert.ErrorContains(t, err, "Options.Run", "with all other mistakes")
	}
}

func TestAFileThatIsNotWhollyWhatItShouldBeProvesNothing(t *testing.T) {
	dir := t.TempDir()
	inWorld(t, func(w *world) {
		w.left(dir)
		data, err := os.ReadFile(stateFile(dir))
		require.NoError(w, err)
		data = bytes.Replace(data, []byte(`]`), []byte(`,{"identity":5}]`), 1)
		require.NoError(w, os.WriteFile(stateFile(dir), data, 0o600))
		began := time.Now()
		again := w.join("again", inDir(dir))
		w.within(20*time.Second, "it leads", func() bool { return w.leader() == again })
		assert.Greater(w, time.Since(began), 10*time.Second)
	})
}

// A process that is killed between cutting the file and writing it would leave no proof.
func TestTheFileIsNeverCut(t *testing.T) {
	dir := t.TempDir()
	inWorld(t, func(w *world) {
		w.left(dir)
		again := w.join(strings.Repeat("x", 50), inDir(dir))
		size := 0
		for range 5 { // at each transfer to itself the marks are the longer for a moment
			w.within(50*time.Second, "it leads", func() bool { return w.leader() == again })
			data, err := os.ReadFile(stateFile(dir))
			require.NoError(w, err)
			assert.GreaterOrEqual(w, len(data), size)
			size = len(data)
			require.NoError(w, again.el.StepDown(w.Context()))
		}
	})
}

func TestTheLockIsLetGoWithTheEndOfRun(t *testing.T) {
	dir := t.TempDir()
	inWorld(t, func(w *world) {
		a := w.join("a", inDir(dir))
		w.awaitLeader(time.Second)
		a.stop()
		require.NoError(w, a.awaitEnd(time.Second))
		b := w.join("b", inDir(dir))
		w.awaitLeader(time.Second)
		assert.Zero(w, count(b.log(), "Another process has locked the file"))
	})
}

// The work may go on where Run has returned: in a program of client-go's, or in goroutines of the callback.
func TestTheEndOfRunProvesNobodyDead(t *testing.T) {
	dir := t.TempDir()
	inWorld(t, func(w *world) {
		a := w.join("a", inDir(dir))
		w.awaitLeader(time.Second)
		time.Sleep(time.Minute)
		a.client.Partition(electortest.Both) // it cannot release the Lease
		renewed := w.lease().Spec.RenewTime.Time
		a.stop()
		require.NoError(w, a.awaitEnd(time.Minute))
		b := w.join("b", inDir(dir))
		w.within(time.Minute, "b leads", func() bool { return w.leader() == b })
		assert.GreaterOrEqual(w, time.Since(renewed), 15*time.Second)
		data, err := os.ReadFile(stateFile(dir))
		require.NoError(w, err)
		assert.Contains(w, string(data), `"b"`, "b has the lock that a had")
	})
}

func inPod(t *testing.T) (dir string) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
	before := *elector.PodDir
	t.Cleanup(func() { *elector.PodDir = before })
	*elector.PodDir = filepath.Join(t.TempDir(), "elector")
	return *elector.PodDir
}

func TestInAPodTheDirectoryNeedsNoOption(t *testing.T) {
	dir := inPod(t)
	inWorld(t, func(w *world) {
		a := w.join("a", inDir(""))
		w.awaitLeader(time.Second)
		time.Sleep(time.Minute)
		a.crash()
		w.die(dir)
		w.lenient = true
		again := w.join("again", inDir(""))
		w.within(50*time.Millisecond, "it leads", func() bool { return w.leader() == again })
		other := w.join("other", inDir("")) // another container of the pod
		time.Sleep(time.Minute)
		for _, line := range slices.Concat(again.log(), other.log()) {
			assert.NotContains(w, line, "StateDir", "nobody has asked for it")
		}
	})
	info, err := os.Stat(dir)
	require.NoError(t, err)
	assert.Equal(t, os.ModeSticky|0o777, info.Mode()&(os.ModeSticky|os.ModePerm), "the containers of a pod may have different users")
}

func TestTheDefaultDirectoryIsSwitchedOff(t *testing.T) {
	dir := inPod(t)
	inWorld(t, func(w *world) {
		w.join("a", inDir("-"))
		w.awaitLeader(time.Second)
		assert.NoDirExists(w, dir)
	})
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	inWorld(t, func(w *world) {
		w.join("a", inDir(""))
		w.awaitLeader(time.Second)
		assert.NoDirExists(w, dir, "outside a pod nothing is written unasked")
	})
}

func TestADefaultDirectoryThatCannotBeUsedIsNoTrouble(t *testing.T) {
	dir := inPod(t)
	require.NoError(t, os.WriteFile(dir, nil, 0o600)) // no directory
	inWorld(t, func(w *world) {
		a := w.join("a", inDir(""))
		w.awaitLeader(time.Second)
		assert.NoError(w, a.el.Check(nil))
		for _, line := range a.log() {
			assert.NotContains(w, line, "StateDir")
		}
	})
}
