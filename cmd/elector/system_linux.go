package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The function main stays on the first thread of the process, and no other function runs there. See reapUntil.
func init() { runtime.LockOSThread() }

// ownBinary is the file that this process runs, even if it has been replaced or removed since.
const ownBinary = "/proc/self/exe"

// checkProc fails if /proc is not mounted, or is that of another PID namespace: what is to be killed would not be found
// there, and the numbers that are found belong to other processes here.
func checkProc() error {
	if self, _ := os.Readlink("/proc/self"); self != strconv.Itoa(os.Getpid()) {
		return errors.New("/proc does not show the processes of this PID namespace, and elector could not find what to kill: " +
			"mount it there first (mount -t proc proc /proc, or unshare with --mount-proc)")
	}
	return nil
}

// sharedClock is a clock that all processes of this machine share and nobody can set. It goes on while the machine is
// suspended.
func sharedClock() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // the kernel has had this clock since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// becomeSubreaper makes orphaned descendants children of this process, as if it were PID 1.
func becomeSubreaper() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// dieWithParent has the kernel kill the process when the thread that starts it ends, and so when this process does.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }

// wakeWithParent has the kernel wake the process then, if it was stopped.
func wakeWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGCONT }

// reapUntil waits for the children that nobody in this process has started, until done: orphans, which it inherits as
// PID 1 or as a subreaper, and what a shell has left that became this process by exec. The kernel gives those to the
// first thread. What this process itself starts, such as a plugin for credentials, belongs to the threads that have
// started it, and is left to who waits for it.
func reapUntil(done <-chan error) error {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	for {
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG|unix.WNOTHREAD, nil)
			if pid <= 0 && !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		select {
		case err := <-done:
			return err
		case <-ended:
		}
	}
}

// A process is what /proc/<pid>/stat says of one.
type process struct {
	pid, parent, group int
	ended              bool // and still to be waited for
}

func processes() (list []process) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if p, err := readProcess(e.Name()); err == nil {
			list = append(list, p)
		}
	}
	return list
}

// readProcess fails for what is no process, or none any more.
func readProcess(pid string) (p process, err error) {
	if p.pid, err = strconv.Atoi(pid); err != nil {
		return p, err
	}
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return p, err
	}
	// pid (name) state parent group ...: a name may hold anything, brackets too.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const threads = 17
	if len(fields) <= threads {
		return p, os.ErrProcessDone
	}
	// One whose first thread has ended looks like that, too, while others run.
	p.ended = (fields[0][0] == 'Z' || fields[0][0] == 'X') && string(fields[threads]) <= "1"
	p.parent, _ = strconv.Atoi(string(fields[1]))
	p.group, _ = strconv.Atoi(string(fields[2]))
	return p, nil
}

// listsAll says that descendants are all there are.
const listsAll = true

// children are those of one thread of a process, the newest last.
func children(pid int, thread string) ([]string, error) {
	list, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, thread))
	return strings.Fields(string(list)), err
}

// adopted are what a process of this binary has to wait for, but for those that another is true of: what the kernel has
// given to its first thread, see reapUntil, and what that has started. Of processes that each start the next one and end, a
// list of all processes may show none. But here each comes to the end of the kernel's list before the one before it leaves.
// Who has ended since the list was made is one of them, for it may have left a child.
func adopted(parent int, another func(process) bool) (list []process, err error) {
	pids, err := children(parent, strconv.Itoa(parent))
	if errors.Is(err, os.ErrNotExist) {
		return descendants(parent, another), nil // a kernel without checkpoints, a rare one
	}
	for _, pid := range pids {
		p, err := readProcess(pid)
		if err != nil || another == nil || !another(p) {
			list = append(list, p)
		}
	}
	return list, err
}

// killTree kills a process and what is below it. Whoever is killed starts nothing more, so what it has started is listed
// after that, and killed one by one: this takes less time than to start a process, however many others there are.
func killTree(pid int) {
	_ = syscall.Kill(pid, syscall.SIGKILL)
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, thread := range threads {
		pids, _ := children(pid, thread.Name())
		for _, child := range pids {
			n, _ := strconv.Atoi(child)
			killTree(n)
		}
	}
}

// descendants are the processes below root that still run, but for those that another is true of, and what is below
// them.
func descendants(root int, another func(process) bool) []process {
	children := map[int][]process{}
	for _, p := range processes() {
		children[p.parent] = append(children[p.parent], p)
	}
	var found []process
	next := children[root]
	for len(next) > 0 {
		p := next[0]
		next = next[1:]
		if p.ended || another != nil && another(p) {
			continue
		}
		found = append(found, p)
		next = append(next, children[p.pid]...)
	}
	return found
}

// has reports whether the process has a variable in its environment, or may have had it: when it ends, there is nothing more
// to be read, in the middle of it, too. What belongs to another user cannot be read.
func (p process) has(variable string) bool {
	for last := []byte(nil); ; {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid))
		switch {
		case len(env) == 0:
			return !errors.Is(err, os.ErrPermission)
		case bytes.Contains(append([]byte{0}, env...), []byte("\x00"+variable+"\x00")):
			return true
		case bytes.Equal(env, last):
			return false
		}
		last = env
	}
}
