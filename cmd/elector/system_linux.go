package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

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
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// pid (name) state parent group ...: a name may hold anything, brackets too.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 3 {
			continue
		}
		p := process{pid: pid, ended: fields[0][0] == 'Z' || fields[0][0] == 'X'}
		p.parent, _ = strconv.Atoi(string(fields[1]))
		p.group, _ = strconv.Atoi(string(fields[2]))
		list = append(list, p)
	}
	return list
}

// descendants are the processes below root that still run, but for those in except and in root's own group, and what is
// below them. The program is never in that group; what os/exec starts is.
func descendants(root int, except map[int]bool) []int {
	group, err := syscall.Getpgid(root)
	if err != nil {
		return nil // root has ended
	}
	children := map[int][]int{}
	for _, p := range processes() {
		if !p.ended && !except[p.pid] && p.group != group {
			children[p.parent] = append(children[p.parent], p.pid)
		}
	}
	found := children[root]
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i]]...)
	}
	return found
}

// marked are the processes that have a variable in their environment.
func marked(variable string) (pids []int) {
	for _, p := range processes() {
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid)) // another user's cannot be read, nor killed
		if bytes.Contains(append([]byte{0}, env...), []byte("\x00"+variable+"\x00")) {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// orphans are the children of this process that have ended and that neither it nor os/exec has started.
func orphans() (pids []int) {
	self, group := os.Getpid(), syscall.Getpgrp()
	for _, p := range processes() {
		if p.ended && p.parent == self && p.group != group {
			pids = append(pids, p.pid)
		}
	}
	return pids
}
