//go:build unix

package main

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
)

// A nursery starts child processes and waits for them, and for orphans: as PID 1, or as the subreaper that it is on
// Linux, this process inherits those of the program. The children that os/exec starts, such as a plugin that fetches
// credentials, are not its own; they share this process's group.
type nursery struct {
	mu      sync.Mutex // held while a child is started, so that none is reaped before it is known
	waiting map[int]chan syscall.WaitStatus
	program atomic.Int64 // the pid that signals are passed on to
}

// newNursery reaps from now until this process ends. There is one in a process.
func newNursery() *nursery {
	becomeSubreaper()
	n := &nursery{waiting: map[int]chan syscall.WaitStatus{}}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	go func() {
		for range ended {
			n.reap()
		}
	}()
	return n
}

// start starts a child. Its end is sent to the channel.
func (n *nursery) start(path string, argv []string, attr *os.ProcAttr) (pid int, end <-chan syscall.WaitStatus, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p, err := os.StartProcess(path, argv, attr)
	if err != nil {
		return 0, nil, err
	}
	pid = p.Pid
	_ = p.Release() // it is reap that waits for it
	c := make(chan syscall.WaitStatus, 1)
	n.waiting[pid] = c
	return pid, c, nil
}

func (n *nursery) reap() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for pid, c := range n.waiting {
		if status, ended := wait(pid); ended {
			c <- status
			delete(n.waiting, pid)
		}
	}
	for _, pid := range orphans() {
		if n.waiting[pid] == nil { // otherwise it has ended since, and its own signal is under way
			wait(pid)
		}
	}
}

// wait reaps a child if it has ended.
func wait(pid int) (status syscall.WaitStatus, ended bool) {
	for {
		got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		if !errors.Is(err, syscall.EINTR) {
			return status, got == pid
		}
	}
}

// signal signals a child that was started here, if it has not ended. One that is still to be reaped keeps its number, so
// this never reaches another process.
func (n *nursery) signal(pid int, sig syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.waiting[pid] != nil {
		_ = syscall.Kill(pid, sig)
	}
}

// pass sends a signal to the program's first process, if one runs.
func (n *nursery) pass(sig syscall.Signal) { n.signal(int(n.program.Load()), sig) }

// startProgram is start, for the process that pass is about.
func (n *nursery) startProgram(path string, argv []string, attr *os.ProcAttr) (pid int, end <-chan syscall.WaitStatus, err error) {
	pid, end, err = n.start(path, argv, attr)
	n.program.Store(int64(pid))
	return pid, end, err
}
