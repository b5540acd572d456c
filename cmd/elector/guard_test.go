//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Whoever lists the processes while they move like that sees none of them now and then. Each has the pipe open.
func TestAProgramThatForksAwayIsGoneBeforeTheRelease(t *testing.T) {
	for _, c := range []struct{ name, onTERM string }{{"Polite", ":"}, {"Deaf", `trap "" TERM`}} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			runaway := filepath.Join(t.TempDir(), "runaway")
			require.NoError(t, os.WriteFile(runaway, []byte(c.onTERM+`
				[ $1 -gt 0 ] || exec sleep 999
				setsid sh $0 $(($1 - 1)) &`), 0o600))
			cmd := s.command("run", "--lease", s.namespace+"/batch", "--grace=2s", "--", "sh", runaway, "200")
			out, in, err := os.Pipe()
			require.NoError(t, err)
			defer out.Close()
			cmd.ExtraFiles = []*os.File{nil, in}
			r := s.start(cmd)
			in.Close()
			require.Zero(t, r.exitCode())
			require.NoError(t, out.SetReadDeadline(time.Now().Add(2*time.Second)))
			_, err = out.Read(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF, "a process of the program is left")
			require.Empty(t, s.holder())
		})
	}
}

// It was not there when the others were asked to end. Without a grace nothing but the end of the lease would kill it.
func TestWhatAProcessLeavesBehindAsItEndsIsAskedToEndToo(t *testing.T) {
	s := newStage(t)
	r := s.run(`(trap 'setsid sleep 999 & echo left=$!; exit' TERM; echo ready=1; while :; do sleep 0.05; done) & sleep 0.5; exit 7`, "--grace=0")
	r.pid("ready")
	left := r.pid("left")
	require.Equal(t, 7, r.exitCode())
	require.False(t, alive(left))
	require.Empty(t, s.holder())
}

// beJoiner is a process that joins the group of the elector whose program it is.
func beJoiner() int {
	above := map[int]int{}
	for _, p := range processes() {
		above[p.pid] = p.parent
	}
	test, _ := strconv.Atoi(os.Getenv(asJoiner))
	elector := os.Getpid()
	for above[elector] != test {
		elector = above[elector]
	}
	if err := unix.Setpgid(0, elector); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Printf("joined=%d\n", os.Getpid())
	time.Sleep(time.Hour)
	return 0
}

func TestAChildThatJoinsElectorsOwnGroupIsGoneBeforeTheRelease(t *testing.T) {
	s := newStage(t)
	r := s.run(fmt.Sprintf(`env -u %s %s=%d %s & sleep 999 & wait $!`, asElector, asJoiner, os.Getpid(), os.Args[0]))
	joined := r.pid("joined")
	group, err := unix.Getpgid(joined)
	require.NoError(t, err)
	require.Equal(t, r.cmd.Process.Pid, group)
	r.signal(syscall.SIGTERM)
	require.Zero(t, r.exitCode())
	require.False(t, alive(joined))
	require.Empty(t, s.holder())
}

// beLeaderless is a process whose first thread ends. It looks like one that has ended.
func beLeaderless() int {
	go func() {
		for !zombie(os.Getpid()) {
			time.Sleep(time.Millisecond)
		}
		fmt.Printf("leaderless=%d\n", os.Getpid())
		time.Sleep(time.Hour)
	}()
	// Function main, and TestMain, stays on the first thread. With RawSyscall that would end as a thread that still runs Go
	// code: a garbage collection that was under way waits for it, and the other goroutines with that.
	_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
	return 1
}

func TestAProcessWhoseFirstThreadHasEndedIsGoneBeforeTheRelease(t *testing.T) {
	s := newStage(t)
	r := s.run(fmt.Sprintf(`trap "" TERM; env -u %s %s=1 setsid %s & wait $!`, asElector, asLeaderless, os.Args[0]), "--grace=1s")
	pid := r.pid("leaderless")
	r.signal(syscall.SIGTERM)
	r.exitCode()
	require.False(t, exists(fmt.Sprintf("/proc/%d", pid)))
	require.Empty(t, s.holder())
}

// A nested elector's program has the values of its own, and dies with the outer one.
func TestAProgramHasItsOwnVariablesOnceEach(t *testing.T) {
	s := newStage(t)
	cmd := s.command("run", "--lease", s.namespace+"/outer", "--", os.Args[0], "run", "--lease", s.namespace+"/batch", "--",
		"sh", "-c", `tr '\0' '\n' </proc/$$/environ | grep -E '^ELECTOR_(LEASE|IDENTITY|TOKEN)='; env -i setsid sleep 999 & echo daemon=$!; echo leading=$$; wait`)
	cmd.Env = append(cmd.Env, "ELECTOR_TOKEN=7", "ELECTOR_IDENTITY=me", "ELECTOR_LEASE=mine")
	r := s.start(cmd)
	pid, daemon := r.pid("leading"), r.pid("daemon")
	got := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^ELECTOR_(\w+)=(.*)$`).FindAllStringSubmatch(r.String(), -1) {
		got[m[1]] = append(got[m[1]], m[2])
	}
	require.Equal(t, []string{s.namespace + "/batch"}, got["LEASE"])
	require.Equal(t, []string{s.holder()}, got["IDENTITY"])
	require.Len(t, got["TOKEN"], 1)
	require.NotEqual(t, "7", got["TOKEN"][0])
	r.signal(syscall.SIGKILL)
	s.gone(pid)
	s.gone(daemon)
}

func TestInheritedDescriptorsArePassedOn(t *testing.T) {
	s := newStage(t)
	cmd := s.command("run", "--lease", s.namespace+"/batch", "--", "sh", "-c",
		`for fd in 3 4 5 6 7 8; do echo "this is $fd" 2>/dev/null >&$fd || echo "no $fd"; done; ls /proc/$$/fd | tr '\n' ' '; echo end`)
	ends := map[int]*os.File{}
	for fd := 3; fd <= 6; fd++ {
		if fd == 4 {
			cmd.ExtraFiles = append(cmd.ExtraFiles, nil)
			continue
		}
		out, in, err := os.Pipe()
		require.NoError(t, err)
		defer out.Close()
		ends[fd] = out
		cmd.ExtraFiles = append(cmd.ExtraFiles, in)
	}
	r := s.start(cmd)
	for _, in := range cmd.ExtraFiles {
		in.Close()
	}
	require.Zero(t, r.exitCode())
	r.says("end\n")
	for _, fd := range []int{3, 5, 6} {
		line := make([]byte, 100)
		n, err := ends[fd].Read(line)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("this is %d\n", fd), string(line[:n]))
	}
	for _, fd := range []int{4, 7, 8} {
		require.Contains(t, r.String(), fmt.Sprintf("no %d\n", fd), "elector's own must not go to the program")
	}
}

// zombies are the children of a process that nobody has waited for.
func zombies(parent int) (pids []int) {
	for _, p := range processes() {
		if p.parent == parent && zombie(p.pid) {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

func zombie(pid int) bool { return exists(fmt.Sprintf("/proc/%d", pid)) && !alive(pid) }

// They are in elector's own group, as what os/exec starts is: that has to wait for its own.
func TestWhatAShellOrAPluginHasLeftIsNoZombie(t *testing.T) {
	s := newStage(t)
	left := filepath.Join(t.TempDir(), "left")
	s.usePlugin(`sleep 0.01 >/dev/null 2>&1 & echo $! >>` + left)
	cmd := s.command("-c", "sleep 0.3 & echo shells=$!; exec "+s.elector(append(short6, "--", "sh", "-c", polite)...))
	cmd.Path = "/bin/sh"
	r := s.start(cmd)
	shells := r.pid("shells")
	r.pid("leading")
	s.within("plugins that have left a process", func() bool {
		b, _ := os.ReadFile(left)
		return strings.Count(string(b), "\n") > 5
	})
	s.within("no zombie", func() bool { return len(zombies(r.cmd.Process.Pid)) == 0 && !exists(fmt.Sprintf("/proc/%d", shells)) })
	r.signal(syscall.SIGTERM)
	require.Zero(t, r.exitCode())
}

// Between a win and the program there is no start of a process.
func TestTheProgramIsReadyWhileItStandsBy(t *testing.T) {
	s := newStage(t)
	leader, standby, _ := s.pair(polite)
	guard := standby.guard()
	first := standby.child(guard, os.Args[0], startHelper)
	leader.signal(syscall.SIGTERM)
	require.Equal(t, first, standby.pid("leading"))
	require.Equal(t, guard, standby.guard())
	t.Logf("figure: from \"Became leader\" to \"Started the program\": %v", standby.between("Became leader", "Started the program"))

	code, _, stderr := s.ask("step-down", s.namespace+"/batch")
	require.Zero(t, code, stderr)
	s.gone(first)
	again := standby.child(standby.cmd.Process.Pid, os.Args[0], guardHelper)
	require.NotEqual(t, guard, again, "the next term's")
	require.Equal(t, 1, strings.Count(standby.String(), "Became leader"), "before that begins")
}

// between is the time between two lines of the log.
func (r *replica) between(first, second string) time.Duration {
	r.s.t.Helper()
	at := func(text string) time.Time {
		m := regexp.MustCompile(`(?m)^I\d{4} ([\d:.]+) .*"` + text + `"`).FindStringSubmatch(r.String())
		require.NotNil(r.s.t, m, text)
		v, err := time.Parse("15:04:05.000000", m[1])
		require.NoError(r.s.t, err)
		return v
	}
	r.says(second)
	return at(second).Sub(at(first))
}

func TestWhatStandsByEndsWithItsElector(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"Killed": syscall.SIGKILL, "Ended": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			_, standby, _ := s.pair(polite)
			guard := standby.guard()
			first := standby.child(guard, os.Args[0], startHelper)
			standby.signal(sig)
			s.gone(guard)
			s.gone(first)
			require.NotContains(t, standby.String(), "leading")
		})
	}
}

func TestAGuardThatDiedWhileItStoodByIsReplaced(t *testing.T) {
	for name, words := range map[string]string{"Guard": guardHelper, "First": startHelper} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			leader, standby, _ := s.pair(polite)
			pid := standby.guard()
			if words == startHelper {
				pid = standby.child(pid, os.Args[0], startHelper)
			}
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
			s.gone(pid)
			leader.signal(syscall.SIGTERM)
			standby.pid("leading")
			standby.signal(syscall.SIGTERM)
			require.Zero(t, standby.exitCode())
		})
	}
}

func TestWithRestartItCampaignsAgainWithoutItsGuard(t *testing.T) {
	s := newStage(t)
	r := s.run(`setsid sleep 999 & echo daemon=$!; `+polite, "--restart")
	pid, daemon := r.pid("leading"), r.pid("daemon")
	require.NoError(t, syscall.Kill(r.guard(), syscall.SIGKILL))
	s.gone(pid)
	s.gone(daemon)
	s.within("a second run", func() bool { return strings.Count(r.String(), "leading=") == 2 })
	r.signal(syscall.SIGTERM)
	require.Zero(t, r.exitCode())
}

// An update in place removes the file, or puts another one there.
func TestItLeadsThoughItsFileWasRemovedWhileItStoodBy(t *testing.T) {
	s := newStage(t)
	leader := s.run(polite)
	leader.pid("leading")
	copied := filepath.Join(t.TempDir(), "elector")
	from, err := os.Open(os.Args[0])
	require.NoError(t, err)
	defer from.Close()
	to, err := os.OpenFile(copied, os.O_CREATE|os.O_WRONLY, 0o700)
	require.NoError(t, err)
	_, err = io.Copy(to, from)
	require.NoError(t, err)
	require.NoError(t, to.Close())
	cmd := s.command("run", "--lease", s.namespace+"/batch", "--restart", "--", "sh", "-c", "echo led; exit 3")
	cmd.Path, cmd.Args[0] = copied, copied
	standby := s.start(cmd)
	standby.says("New leader")
	standby.guard()
	require.NoError(t, os.Remove(copied))
	leader.signal(syscall.SIGTERM)
	s.within("two terms", func() bool { return strings.Count(standby.String(), "led\n") == 2 })
	standby.signal(syscall.SIGTERM)
	standby.exitCode()
}

// fork starts a copy of this process, which may do nothing but system calls.
func fork() (pid int) {
	child, _, _ := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	return int(child)
}

func exit() {
	for {
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// A chain is of processes that each start the next one and end. In a list of all processes there may be none of them. It ends
// by itself, after a fraction of a second, and writes a byte then. While one is left, a read of the pipe finds it open.
type chain struct {
	newSessions bool
	late        syscall.Timespec // how long each goes on when it has started the next one
}

const links = 500

func (c chain) start() (pipe int, err error) {
	var ends [2]int
	if err := syscall.Pipe2(ends[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK); err != nil {
		return 0, err
	}
	defer syscall.Close(ends[1])
	if pid := fork(); pid != 0 {
		_, err := syscall.Wait4(pid, nil, 0, nil) // the next one is the first thread's from then on
		return ends[0], err
	}
	for range links {
		if c.newSessions {
			_, _, _ = syscall.RawSyscall(syscall.SYS_SETSID, 0, 0, 0)
		}
		if fork() != 0 {
			_, _, _ = syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&c.late)), 0, 0)
			exit()
		}
	}
	_, _, _ = syscall.RawSyscall(syscall.SYS_WRITE, uintptr(ends[1]), uintptr(unsafe.Pointer(&ends)), 1)
	exit()
	return 0, nil
}

// killedBy has chains killed, of which no process may be left then.
func killedBy(killAll func()) error {
	for i := range 50 {
		c := chain{newSessions: i%2 == 0}
		if i%10 == 0 {
			c.late.Nsec = 3e6
		}
		pipe, err := c.start()
		if err != nil {
			return err
		}
		killAll()
		switch n, err := syscall.Read(pipe, make([]byte, 1)); {
		case err != nil:
			return fmt.Errorf("a process is left: %w", err)
		case n != 0:
			return fmt.Errorf("the chain %+v has ended by itself", c)
		}
		syscall.Close(pipe)
	}
	return nil
}

// beSweeper is an elector whose guards have been killed, each with a chain below it.
func beSweeper() int {
	becomeSubreaper()
	done := make(chan error, 1)
	go func() {
		done <- killedBy((&program{identity: asSweeper + "=1"}).sweep) // as all of the chain have it
	}()
	if err := reapUntil(done); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// The chain's processes are children of elector's then, and not all are to be seen at one time.
func TestWhatAKilledGuardHasLeftIsGoneThoughNoListShowsIt(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asSweeper+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// beKeeper is the first process of a namespace, with a crowd of others, and then a guard with chains. In a sorted list the
// numbers of a chain, from 10000 on, come before those of most of the crowd.
func beKeeper() int {
	const lastPID = "/proc/sys/kernel/ns_last_pid"
	if os.Getpid() == 1 {
		for range 1000 {
			if fork() == 0 {
				exit()
			}
		}
		out, err := exec.Command(os.Args[0]).CombinedOutput()
		fmt.Printf("%s", out)
		if err != nil {
			return 1
		}
		return 0
	}
	becomeSubreaper()
	err := os.WriteFile(lastPID, []byte("9999"), 0)
	if err == nil {
		err = killedBy(func() {
			(&keeper{ended: true}).killAll()
			_ = os.WriteFile(lastPID, []byte("9999"), 0)
		})
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// By the time that a list of many processes has been made, who was in it has ended.
func TestAGuardKillsAChainAmongManyProcesses(t *testing.T) {
	namespace := newStage(t).pidNamespace()
	cmd := exec.Command(namespace[0], append(namespace[1:], os.Args[0])...)
	cmd.Env = append(os.Environ(), asKeeper+"=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// When the first process has ended, its number may be another's: here it is soon that of another group.
func TestAGroupThatHasGotTheNumberOfTheProgramsIsLeftAlone(t *testing.T) {
	s := newStage(t)
	first := filepath.Join(t.TempDir(), "first")
	const program = `echo $$ >%[1]s.new; mv %[1]s.new %[1]s; (trap "" TERM; exec setsid sleep 999) & sleep 0.1; exit 0`
	cmd := s.command(append(s.pidNamespace()[1:], "sh", "-c", s.elector("--grace=2s", "--", "sh", "-c", fmt.Sprintf(program, first))+fmt.Sprintf(` &
		until [ -e %[1]s ]; do sleep 0.01; done
		first=$(cat %[1]s)
		while [ -e /proc/$first ]; do sleep 0.01; done
		until [ "$other" = "$first" ]; do
			[ -z "$other" ] || kill $other
			echo $((first - 1)) >/proc/sys/kernel/ns_last_pid
			setsid sleep 999 &
			other=$!
		done
		wait %%1
		echo code=$?
		kill -0 $other
		echo other=$?`, first))...)
	cmd.Path, _ = exec.LookPath("unshare")
	r := s.start(cmd)
	require.Zero(t, r.pid("code"))
	require.Zero(t, r.pid("other"), "a stranger was killed")
	require.Empty(t, s.holder())
}

// Go moves a descriptor of its own to behind the last that it is told of.
func TestAnInheritedDescriptorBehindAllOfElectorsIsPassedOn(t *testing.T) {
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	const own, theirs = 400, 401
	require.NoError(t, unix.Dup3(int(null.Fd()), own, unix.O_CLOEXEC))
	file := os.NewFile(own, "own")
	defer file.Close()
	require.NoError(t, unix.Dup3(int(null.Fd()), theirs, 0))
	defer unix.Close(theirs)
	files, places := descriptors(file)
	require.Len(t, places, 1)
	pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", fmt.Sprintf("[ -e /proc/$$/fd/%d ] && [ -e /proc/$$/fd/%d ]", theirs, places[0])},
		&syscall.ProcAttr{Env: os.Environ(), Files: files})
	require.NoError(t, err)
	var status syscall.WaitStatus
	_, err = syscall.Wait4(pid, &status, 0, nil)
	require.NoError(t, err)
	require.Zero(t, status.ExitStatus())
}

// openNothing has the replica able to open nothing more, until it is undone.
func (r *replica) openNothing() (undo func()) {
	r.s.t.Helper()
	var before unix.Rlimit
	set := func(limit uint64) {
		require.NoError(r.s.t, unix.Prlimit(r.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: before.Max}, nil))
	}
	require.NoError(r.s.t, unix.Prlimit(r.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &before))
	set(0)
	return func() { set(before.Cur) }
}

// It cannot list the processes. The group of a first process that runs needs no list.
func TestAnElectorThatCanOpenNothingEndsItsProgram(t *testing.T) {
	s := newStage(t)
	r := s.run(deaf, "--grace=1s")
	pid := r.pid("leading")
	r.says("Started the program")
	r.openNothing()
	r.signal(syscall.SIGTERM)
	s.gone(pid)
	require.Equal(t, 137, r.exitCode())
}

func TestAnElectorThatCannotSeeWhatIsLeftKeepsTheLease(t *testing.T) {
	s := newStage(t)
	r := s.run(`setsid sleep 999 & echo daemon=$!; ` + polite)
	daemon, pid := r.pid("daemon"), r.pid("leading")
	r.says("Started the program")
	guard := r.guard()
	undo := r.openNothing()
	require.NoError(t, syscall.Kill(guard, syscall.SIGKILL))
	s.gone(pid)
	s.within("the end of the guard, and some time", func() bool { return !exists(fmt.Sprintf("/proc/%d", guard)) })
	time.Sleep(200 * time.Millisecond)
	require.NotEmpty(t, s.holder())
	undo()
	require.Equal(t, 125, r.exitCode())
	require.False(t, alive(daemon))
	require.Empty(t, s.holder())
}
