//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/elector-go/elector/e2e/cluster"
	"github.com/elector-go/elector/internal/termlog"
)

const user = "runner"

var shared *cluster.Cluster

// TestMain is also elector itself, and other programs: the tests start this binary with one of these set.
const (
	asElector    = "ELECTOR_TEST_AS_ELECTOR"
	asReaper     = "ELECTOR_TEST_AS_REAPER"
	asJoiner     = "ELECTOR_TEST_AS_JOINER"
	asLeaderless = "ELECTOR_TEST_AS_LEADERLESS"
	asStarter    = "ELECTOR_TEST_AS_STARTER"
	asSweeper    = "ELECTOR_TEST_AS_SWEEPER"
	asKeeper     = "ELECTOR_TEST_AS_KEEPER"

	terminationLog = "ELECTOR_TEST_TERMINATION_LOG" // the file of a kubelet that elector is to find
)

func TestMain(m *testing.M) {
	for name, be := range map[string]func() int{asReaper: beReaper, asJoiner: beJoiner, asLeaderless: beLeaderless, asStarter: beStarter, asSweeper: beSweeper, asKeeper: beKeeper} {
		if os.Getenv(name) != "" {
			os.Exit(be())
		}
	}
	if os.Getenv(asElector) != "" {
		if path := os.Getenv(terminationLog); path != "" {
			termlog.Path = func() (string, error) { return path, nil }
		}
		main()
		return
	}
	defaultSignals()
	os.Exit(withCluster(m))
}

// defaultSignals has the processes that this one starts begin with no signal ignored, whoever runs the tests: nohup
// ignores SIGHUP, and a shell SIGINT for what it starts in the background.
func defaultSignals() {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		panic(err)
	}
	for sig := syscall.Signal(1); sig < 32; sig++ {
		if signalsOf(string(status), "SigIgn")&mask(sig) != 0 {
			disregard(sig)
		}
	}
}

// signalsOf is a set of signals in the status of a process. The C library's own, 32 and 33, are left out: make starts its
// commands with them ignored.
func signalsOf(status, set string) (signals int) {
	_, after, _ := strings.Cut(status, set+":")
	_, _ = fmt.Sscanf(after, "%x", &signals)
	return signals & math.MaxInt32
}

func mask(signals ...syscall.Signal) (m int) {
	for _, sig := range signals {
		m |= 1 << (sig - 1)
	}
	return m
}

func beStarter() int {
	defaultSignals()
	out, _ := exec.Command("cat", "/proc/self/status").Output()
	os.Stdout.Write(out)
	return 0
}

func TestTheTestsDoNotDependOnTheSignalsThatWhoeverRunsThemIgnores(t *testing.T) {
	cmd := exec.Command("sh", "-c", `trap "" HUP INT QUIT TERM PIPE USR1 TSTP TTIN TTOU; exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), asStarter+"=1")
	out, err := cmd.Output()
	require.NoError(t, err)
	require.Contains(t, string(out), "SigIgn:")
	require.Zero(t, signalsOf(string(out), "SigIgn"), "%s", out)
}

func withCluster(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	c, err := cluster.Start(ctx, user)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer c.Stop()
	shared = c
	return m.Run()
}

// A stage is a namespace, a kubeconfig and what runs in it.
type stage struct {
	t          *testing.T
	namespace  string
	kubeconfig string
}

// newStage grants what the README says and nothing else.
func newStage(t *testing.T) *stage {
	t.Helper()
	t.Parallel()
	s := &stage{t: t, namespace: namespaceOf(t), kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
	s.grant("get", "create", "update", "watch", "patch")
	return s
}

// grant makes the namespace, and gives the user rights on its Leases.
func (s *stage) grant(verbs ...string) {
	s.t.Helper()
	require.NoError(s.t, shared.CreateNamespace(s.t.Context(), s.namespace))
	require.NoError(s.t, shared.GrantLeases(s.t.Context(), user, s.namespace, verbs...))
	require.NoError(s.t, cluster.WriteKubeconfig(s.kubeconfig, shared.UserConfig(user)))
}

var namespaces atomic.Int64

// namespaceOf makes a namespace's name of a test's: the end of it, by which subtests differ, and a number, because with
// -count a test runs more than once.
func namespaceOf(t *testing.T) string {
	name := fmt.Sprintf("%s-%d", strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")), namespaces.Add(1))
	return strings.Trim(name[max(0, len(name)-63):], "-")
}

// A replica is an elector process, and the lines that it and its program have written.
type replica struct {
	s    *stage
	cmd  *exec.Cmd
	done chan struct{}

	mu  sync.Mutex
	out bytes.Buffer
}

func (r *replica) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(b)
}

func (r *replica) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.String()
}

func (s *stage) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asElector+"=1", "KUBECONFIG="+s.kubeconfig, "KUBERNETES_SERVICE_HOST=")
	return cmd
}

// run starts elector run with a shell script as the program.
func (s *stage) run(script string, flags ...string) *replica {
	s.t.Helper()
	return s.start(s.command(append(append([]string{"run", "--lease", s.namespace + "/batch"}, flags...), "--", "sh", "-c", script)...))
}

func (s *stage) start(cmd *exec.Cmd) *replica {
	s.t.Helper()
	r := &replica{s: s, cmd: cmd, done: make(chan struct{})}
	out, in, err := os.Pipe() // not cmd.Stdout = r: Wait would wait for whoever inherits it
	require.NoError(s.t, err)
	cmd.Stdout, cmd.Stderr = in, in
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	require.NoError(s.t, cmd.Start())
	in.Close()
	go func() { _, _ = io.Copy(r, out) }()
	go func() { _ = cmd.Wait(); close(r.done) }()
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Kill()
		<-r.done
		out.Close()
		if s.t.Failed() {
			s.t.Logf("replica %d:\n%s", cmd.Process.Pid, r)
		}
	})
	return r
}

// within waits for what is true sooner or later. Only a machine that does nothing for so long fails it.
func (s *stage) within(what string, is func() bool) time.Time {
	s.t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(2 * time.Millisecond) {
		require.True(s.t, time.Now().Before(deadline), "waited for: %s", what)
	}
	return time.Now()
}

func (r *replica) says(text string) time.Time {
	r.s.t.Helper()
	return r.s.within(text, func() bool { return strings.Contains(r.String(), text) })
}

// pid reads a number that a script has printed, as "name=123".
func (r *replica) pid(name string) int {
	r.s.t.Helper()
	r.s.within(name, func() bool {
		_, after, ok := strings.Cut(r.String(), name+"=")
		return ok && strings.Contains(after, "\n")
	})
	_, after, _ := strings.Cut(r.String(), name+"=")
	number, _, _ := strings.Cut(after, "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(number)) // a terminal ends lines by two characters
	require.NoError(r.s.t, err)
	return pid
}

func (r *replica) signal(sig syscall.Signal) time.Time {
	r.s.t.Helper()
	require.NoError(r.s.t, r.cmd.Process.Signal(sig))
	return time.Now()
}

func (r *replica) exitCode() int {
	r.s.t.Helper()
	select {
	case <-r.done:
	case <-time.After(time.Minute):
		r.s.t.Fatal("elector does not end")
	}
	return r.cmd.ProcessState.ExitCode()
}

// alive reports whether a process runs; a zombie does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.HasPrefix(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " Z")
}

func (s *stage) gone(pid int) time.Time {
	s.t.Helper()
	return s.within(fmt.Sprintf("the end of process %d", pid), func() bool { return !alive(pid) })
}

func (s *stage) holder() string {
	s.t.Helper()
	l, err := shared.Admin().CoordinationV1().Leases(s.namespace).Get(s.t.Context(), "batch", metav1.GetOptions{})
	require.NoError(s.t, err)
	return value(l.Spec.HolderIdentity)
}

const (
	polite = `echo leading=$$; exec sleep 1000`
	deaf   = `trap "" TERM; echo leading=$$; while :; do sleep 0.1; done`
)

// short are durations with which a crash takes 6 s, and a program has 3 s to stop after a loss.
var short6 = []string{"--lease-duration=6s", "--renew-deadline=3s", "--retry-period=500ms"}

// pair starts a leader and a standby.
func (s *stage) pair(script string, flags ...string) (leader, standby *replica, pid int) {
	s.t.Helper()
	leader = s.run(script, flags...)
	pid = leader.pid("leading")
	standby = s.run(polite, flags...)
	standby.says("New leader")
	return leader, standby, pid
}

func TestSIGTERMHandsOverWhenTheProgramIsGone(t *testing.T) {
	s := newStage(t)
	leader, standby, pid := s.pair(polite)
	at := leader.signal(syscall.SIGTERM)
	next := standby.pid("leading")
	t.Logf("figure: SIGTERM to the next leader's program: %v", time.Since(at).Round(time.Millisecond))
	require.NotEqual(t, pid, next)
	require.False(t, alive(pid))
	require.Zero(t, leader.exitCode())
	standby.signal(syscall.SIGTERM)
	require.Zero(t, standby.exitCode())
	require.Empty(t, s.holder())
}

func TestAProgramThatCrashesHandsOverAtOnceAndItsSignalIsTheExitCode(t *testing.T) {
	s := newStage(t)
	leader, standby, pid := s.pair(polite)
	at := time.Now()
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	standby.pid("leading")
	t.Logf("figure: crash of the program to the next leader's program: %v", time.Since(at).Round(time.Millisecond))
	require.Equal(t, 137, leader.exitCode())
}

func TestTheProgramDiesWithItsElector(t *testing.T) {
	s := newStage(t)
	leader, standby, pid := s.pair(`sleep 999 & echo child=$!; setsid sleep 999 & echo daemon=$!; echo leading=$$; wait`, short6...)
	child, daemon := leader.pid("child"), leader.pid("daemon")
	at := leader.signal(syscall.SIGKILL)
	first := s.gone(pid).Sub(at)
	t.Logf("figure: SIGKILL of elector to the end of its program: %v, of the program's child: %v, of its daemon: %v", first, s.gone(child).Sub(at), s.gone(daemon).Sub(at))
	require.False(t, strings.Contains(standby.String(), "leading="), "the standby's program must not run yet")
	standby.pid("leading")
	t.Logf("figure: SIGKILL of elector to the next leader's program: %v of 6 s", time.Since(at).Round(time.Millisecond))
}

// The kernel wakes the guard. A daemon is known by its parent, and not by what it has kept of its environment.
func TestADaemonDiesWithItsElectorThoughTheGuardWasFrozen(t *testing.T) {
	s := newStage(t)
	leader := s.run(`env -i setsid sleep 999 & echo daemon=$!; echo leading=$$; wait`)
	daemon, pid := leader.pid("daemon"), leader.pid("leading")
	guard := leader.guard()
	require.NoError(t, syscall.Kill(guard, syscall.SIGSTOP))
	leader.signal(syscall.SIGKILL)
	leader.exitCode()
	s.gone(pid)
	s.gone(daemon)
	s.gone(guard)
}

func TestAFrozenElectorsProgramIsKilledByTheGuardBeforeAnotherLeads(t *testing.T) {
	s := newStage(t)
	leader, standby, pid := s.pair(polite, short6...)
	at := leader.signal(syscall.SIGSTOP)
	dead := s.gone(pid)
	require.NotContains(t, standby.String(), "leading=", "two programs at once")
	standby.pid("leading")
	t.Logf("figure: SIGSTOP of elector: program killed after %v, next leader's program after %v, of 6 s", dead.Sub(at).Round(time.Millisecond), time.Since(at).Round(time.Millisecond))
	leader.signal(syscall.SIGCONT)
	leader.says("The program has ended")
	leader.signal(syscall.SIGTERM)
	require.Zero(t, leader.exitCode())
}

func TestAFrozenElectorAndProgramAreBothOutlivedByTheGuard(t *testing.T) {
	s := newStage(t)
	leader, standby, pid := s.pair(polite, short6...)
	leader.signal(syscall.SIGSTOP)
	require.NoError(t, syscall.Kill(-pid, syscall.SIGSTOP))
	s.gone(pid)
	require.NotContains(t, standby.String(), "leading=", "two programs at once")
	standby.pid("leading")
}

func TestWithoutAGuardTheProgramIsStopped(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"Frozen": syscall.SIGSTOP, "FrozenAgainAndAgain": syscall.SIGSTOP, "Killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			leader, standby, pid := s.pair(polite, short6...)
			guard := leader.guard()
			at := time.Now()
			require.NoError(t, syscall.Kill(guard, sig))
			if name == "FrozenAgainAndAgain" {
				go func() {
					for ; !isClosed(leader.done); time.Sleep(time.Millisecond) {
						if alive(guard) {
							_ = syscall.Kill(guard, sig)
						}
					}
				}()
			}
			t.Logf("figure: %v of the guard to the end of the program: %v", sig, s.gone(pid).Sub(at).Round(time.Millisecond))
			require.Equal(t, 125, leader.exitCode())
			leader.says("the guard process has died, or did not answer")
			s.gone(guard)
			standby.pid("leading")
		})
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// What is left is the kernel: it kills the first process with its parent. Its children go on.
func TestWithoutElectorAndGuardTheKernelKillsTheProgram(t *testing.T) {
	s := newStage(t)
	leader, standby, pid := s.pair(polite, short6...)
	guard := leader.guard()
	at := time.Now()
	require.NoError(t, syscall.Kill(guard, syscall.SIGSTOP)) // or it would be the first to see the end of elector
	leader.signal(syscall.SIGKILL)
	require.NoError(t, syscall.Kill(guard, syscall.SIGKILL))
	t.Logf("figure: SIGKILL of elector and its guard to the end of the program: %v", s.gone(pid).Sub(at).Round(time.Millisecond))
	require.NotContains(t, standby.String(), "leading=", "two programs at once")
	standby.pid("leading")
}

func TestAFrozenProgramEndsOnSIGTERM(t *testing.T) {
	s := newStage(t)
	leader, _, pid := s.pair(polite)
	require.NoError(t, syscall.Kill(-pid, syscall.SIGSTOP))
	leader.signal(syscall.SIGTERM)
	s.gone(pid)
	require.Zero(t, leader.exitCode())
}

func TestADeafProgramIsKilledBeforeTheLeaseEndsInAPartition(t *testing.T) {
	s := newStage(t)
	link := s.link()
	leader := s.run(deaf, short6...)
	pid := leader.pid("leading")
	require.NoError(t, cluster.WriteKubeconfig(s.kubeconfig, shared.UserConfig(user)))
	standby := s.run(polite, short6...)
	standby.says("New leader")
	at := link.set(true)
	dead := s.gone(pid)
	require.NotContains(t, standby.String(), "leading=", "two programs at once")
	standby.pid("leading")
	t.Logf("figure: partition: deaf program killed after %v, next leader's program after %v, of 6 s", dead.Sub(at).Round(time.Millisecond), time.Since(at).Round(time.Millisecond))
}

func TestADeafProgramHasItsGraceAfterSIGTERM(t *testing.T) {
	s := newStage(t)
	leader, standby, pid := s.pair(deaf, "--grace=2s")
	at := leader.signal(syscall.SIGTERM)
	standby.pid("leading")
	require.False(t, alive(pid))
	require.GreaterOrEqual(t, time.Since(at), 2*time.Second)
	t.Logf("figure: deaf program with a grace of 2 s: next leader's program after %v", time.Since(at).Round(time.Millisecond))
	require.Equal(t, 137, leader.exitCode())
}

func TestAForkThatOutlivesItsParentIsGoneBeforeTheRelease(t *testing.T) {
	for name, fork := range map[string]string{"InTheGroup": "sleep 999 &", "ADaemon": "setsid sleep 999 &"} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			r := s.run(fork + ` echo child=$!; sleep 0.5; exit 7`)
			child := r.pid("child")
			require.Equal(t, 7, r.exitCode())
			require.False(t, alive(child))
			require.Empty(t, s.holder())
		})
	}
}

func TestExitCodes(t *testing.T) {
	s := newStage(t)
	lease := []string{"run", "--lease", s.namespace + "/batch"}
	for _, c := range []struct {
		code int
		args []string
	}{
		{0, append(lease, "--", "true")},
		{5, append(lease, "--", "sh", "-c", "exit 5")},
		{143, append(lease, "--", "sh", "-c", "kill -TERM $$")},
		{125, []string{"run", "--", "true"}},
		{125, append(lease, "--no-such-flag", "--", "true")},
		{125, append(lease, "--renew-deadline=20s", "--", "true")},
		{127, append(lease, "--", "no-such-program")},
		{126, append(lease, "--", "/etc/passwd")},
	} {
		out, err := s.command(c.args...).CombinedOutput()
		var exit *exec.ExitError
		require.True(t, err == nil || errors.As(err, &exit), err)
		code := 0
		if exit != nil {
			code = exit.ExitCode()
		}
		require.Equal(t, c.code, code, "%v\n%s", c.args, out)
	}
}

func TestTheProgramHasStdinItsEnvironmentAndUnbufferedOutput(t *testing.T) {
	s := newStage(t)
	cmd := s.command("run", "-lease="+s.namespace+"/batch", "--", "sh", "-c", `printf 'who? '; read name; echo "hello $name, $ELECTOR_LEASE $ELECTOR_IDENTITY $ELECTOR_TOKEN"`)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	r := s.start(cmd)
	r.says("who? ") // without a newline, and while the program runs
	holder := s.holder()
	_, err = io.WriteString(stdin, "world\n")
	require.NoError(t, err)
	r.says("hello world, " + s.namespace + "/batch " + holder + " ")
	require.Regexp(t, ` [1-9][0-9]*\n`, r.String()[strings.Index(r.String(), "hello"):])
	require.Zero(t, r.exitCode())
}

func TestOtherSignalsArePassedOn(t *testing.T) {
	s := newStage(t)
	r := s.run(`trap 'echo got USR1; exit 3' USR1; echo leading=$$; while :; do sleep 0.05; done`)
	r.pid("leading")
	r.signal(syscall.SIGUSR1)
	r.says("got USR1")
	require.Equal(t, 3, r.exitCode())
}

func TestWithRestartItCampaignsAgain(t *testing.T) {
	s := newStage(t)
	r := s.run(`echo again; exit 4`, "--restart")
	s.within("a second run", func() bool { return strings.Count(r.String(), "again\n") >= 2 })
	r.signal(syscall.SIGTERM)
	r.exitCode()
}

// pidNamespace is the beginning of a command that runs as the first process of a namespace of process numbers.
func (s *stage) pidNamespace() []string {
	s.t.Helper()
	namespace := []string{"unshare", "--pid", "--fork", "--kill-child", "--mount-proc"}
	if out, err := exec.Command(namespace[0], append(namespace[1:], "true")...).CombinedOutput(); err != nil {
		namespace = []string{"unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"}
		if exec.Command(namespace[0], append(namespace[1:], "true")...).Run() != nil {
			s.t.Skipf("this system gives no namespace of process numbers: %v %s", err, out)
		}
	}
	return namespace
}

// Without its own /proc elector would not find what to kill, and the numbers that it finds there are other processes'.
func TestWithoutItsOwnProcItRunsNothing(t *testing.T) {
	for name, withoutProc := range map[string]string{"AnotherNamespaces": "umount -l /proc", "None": "mount -t tmpfs none /proc"} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			namespace := s.pidNamespace()
			cmd := s.command(append(namespace[1:], "sh", "-c", withoutProc+" && exec "+s.elector("--", "echo", "it", "runs"))...)
			cmd.Path, _ = exec.LookPath(namespace[0])
			r := s.start(cmd)
			require.Equal(t, 125, r.exitCode())
			r.says("mount -t proc proc /proc")
			require.NotContains(t, r.String(), "it runs")
		})
	}
}

// As in a container without an init. The shell leaves a child to the elector that it becomes.
func TestAsPID1(t *testing.T) {
	s := newStage(t)
	namespace := s.pidNamespace()
	const script = `trap 'echo got USR1' USR1; trap 'echo got TERM; exit 0' TERM
		(sleep 1 &) # an orphan
		echo leading=$$ first=$(tr '\0' ' ' </proc/1/cmdline)
		while :; do sleep 0.05; done`
	elector := s.elector("--", "sh", "-c", script)
	cmd := s.command(append(namespace[1:], "sh", "-c", "(sleep 2 &) ; exec "+elector)...)
	cmd.Path, _ = exec.LookPath(namespace[0])
	cmd.Args[0] = namespace[0]
	r := s.start(cmd)
	r.says(" first=" + os.Args[0] + " run ")
	self := r.child(r.cmd.Process.Pid, os.Args[0], "run")
	ofTheProgram := r.child(r.child(self, os.Args[0], guardHelper), "sleep", "1")
	ofTheShell := r.child(self, "sleep", "2")
	for _, orphan := range []int{ofTheProgram, ofTheShell} {
		s.within("the orphan to be gone, and to be no zombie", func() bool { return !exists(fmt.Sprintf("/proc/%d", orphan)) })
	}
	require.NoError(t, syscall.Kill(self, syscall.SIGUSR1))
	r.says("got USR1")
	require.NoError(t, syscall.Kill(self, syscall.SIGTERM))
	require.Zero(t, r.exitCode())
	r.says("got TERM")
	require.Empty(t, s.holder())
}

// guard waits for the replica's guard.
func (r *replica) guard() int {
	r.s.t.Helper()
	return r.child(r.cmd.Process.Pid, r.cmd.Args[0], guardHelper)
}

// child waits for a child process whose command line begins with the words.
func (r *replica) child(parent int, words ...string) (pid int) {
	r.s.t.Helper()
	r.s.within(strings.Join(words, " "), func() bool {
		for _, p := range processes() {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
			if p.parent == parent && strings.HasPrefix(string(line), strings.Join(words, "\x00")) {
				pid = p.pid
			}
		}
		return pid != 0
	})
	return pid
}

// The kubeconfigs of most clouds name a program that fetches the credentials. It is a child of elector's, but not a
// process of the program.
func TestACredentialPluginIsNotEndedWithTheProgram(t *testing.T) {
	s := newStage(t)
	dir := t.TempDir()
	s.usePlugin(fmt.Sprintf(`trap 'touch %[1]s/ended' TERM; touch %[1]s/runs; sleep 0.5; rm %[1]s/runs`, dir))
	leader := s.run(`trap 'sleep 2; exit 0' TERM; echo leading=$$; while :; do sleep 0.1; done`, short6...)
	pid := leader.pid("leading")
	require.NoError(t, cluster.WriteKubeconfig(s.kubeconfig, shared.UserConfig(user)))
	standby := s.run(polite, short6...)
	standby.says("New leader")
	s.within("a plugin that runs", func() bool { return exists(filepath.Join(dir, "runs")) })
	leader.signal(syscall.SIGTERM)
	standby.pid("leading")
	require.False(t, alive(pid))
	require.Zero(t, leader.exitCode())
	require.False(t, exists(filepath.Join(dir, "ended")), "the plugin got the program's SIGTERM")
}

// Elector waits for orphans as PID 1 does, but not for what os/exec waits for: there the credentials would be lost.
func TestTheChildrenOfOSExecAreLeftToIt(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asReaper+"=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func beReaper() int {
	becomeSubreaper()
	done := make(chan error, 1)
	go func() {
		var err error
		for range 300 {
			err = errors.Join(err, exec.Command("sh", "-c", "true &").Run())
		}
		done <- err
	}()
	if err := reapUntil(done); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// usePlugin has the token come from a shell script, which is asked before each request.
func (s *stage) usePlugin(script string) {
	s.t.Helper()
	kc, err := clientcmd.LoadFromFile(s.kubeconfig)
	require.NoError(s.t, err)
	for _, user := range kc.AuthInfos {
		credential := fmt.Sprintf(`{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": %q, "expirationTimestamp": "2001-01-01T00:00:00Z"}}`, user.Token)
		user.Token = ""
		user.Exec = &clientcmdapi.ExecConfig{
			APIVersion: "client.authentication.k8s.io/v1", InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
			Command: "sh", Args: []string{"-c", script + "; echo '" + credential + "'"},
		}
	}
	require.NoError(s.t, clientcmd.WriteToFile(*kc, s.kubeconfig))
}

// A link forwards connections to the API server until it is cut; then nothing comes through and nothing is said.
type link struct {
	mu  sync.Mutex
	cut bool
}

func (l *link) isCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

// set cuts the link, or heals it.
func (l *link) set(cut bool) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	return time.Now()
}

// link puts a link in front of the API server, for the replicas started from now on.
func (s *stage) link() *link {
	s.t.Helper()
	cfg := shared.UserConfig(user)
	server := strings.TrimPrefix(cfg.Host, "https://")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(s.t, err)
	s.t.Cleanup(func() { listener.Close() })
	l := &link{}
	go func() {
		for {
			a, err := listener.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", server)
			if err != nil {
				a.Close()
				continue
			}
			s.t.Cleanup(func() { a.Close(); b.Close() })
			for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
				go func() {
					for buf := make([]byte, 32<<10); ; {
						n, err := way[0].Read(buf)
						if err != nil {
							way[1].Close()
							return
						}
						if !l.isCut() {
							_, _ = way[1].Write(buf[:n])
						}
					}
				}()
			}
		}
	}()
	cfg.Host = "https://" + listener.Addr().String()
	require.NoError(s.t, cluster.WriteKubeconfig(s.kubeconfig, cfg))
	return l
}
