//go:build unix

package main

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// A nursery starts child processes and waits for all children of this process, those too that it never started: as
// PID 1, or as the subreaper that it is on Linux, it inherits the orphans of the program.
type nursery struct {
	mu      sync.Mutex // held while a child is started, so that none is reaped before it is known
	waiting map[int]chan syscall.WaitStatus
	program int // the pid that signals are passed on to
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
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if pid <= 0 {
			return
		}
		if c := n.waiting[pid]; c != nil {
			c <- status
			delete(n.waiting, pid)
		}
	}
}

// pass sends a signal to the program's first process, if one runs. One that is still to be reaped keeps its number, so
// this never reaches another process.
func (n *nursery) pass(sig syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.waiting[n.program] != nil {
		_ = syscall.Kill(n.program, sig)
	}
}

// startProgram is start, for the process that pass is about.
func (n *nursery) startProgram(path string, argv []string, attr *os.ProcAttr) (pid int, end <-chan syscall.WaitStatus, err error) {
	pid, end, err = n.start(path, argv, attr)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.program = pid
	return pid, end, err
}
