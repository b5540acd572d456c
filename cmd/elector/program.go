//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The program is started in two steps, so that it never runs unguarded: a process of this binary, which waits, and once
// the guard has that one's process group, becomes the program by exec.
const (
	guardHelper = "internal-guard"
	startHelper = "internal-start"

	background = "background"
	foreground = "foreground"
)

// helpers are the processes that elector run starts of its own binary.
var helpers = map[string]func(args []string) int{guardHelper: runGuard, startHelper: runStart}

// A program is one run of the program, in a process group of its own, with its guard.
type program struct {
	nursery  *nursery
	guard    *guard
	pid      int // of the first process, and of the group
	end      <-chan syscall.WaitStatus
	others   map[int]bool // processes that are not the program's
	terminal bool         // the program has the terminal
}

// A command is what to run.
type command struct {
	path string
	argv []string
	env  []string

	identity string // the variable of env by which its processes are known
}

// findCommand finds the program before anything is campaigned for. The error has the exit code that a shell would give.
func findCommand(argv []string) (command, error) {
	path, err := exec.LookPath(argv[0])
	switch {
	case errors.Is(err, os.ErrPermission):
		return command{}, &exitError{code: exitNotRunnable, err: err}
	case err != nil && !errors.Is(err, exec.ErrDot):
		return command{}, &exitError{code: exitNotFound, err: err}
	}
	return command{path: path, argv: argv}, err
}

// start starts the command, guarded until the deadline. The thread that calls it must outlive the program: to the
// kernel it is the parent, and the program dies with it.
func start(ctx context.Context, n *nursery, cmd command, deadline time.Time) (*program, error) {
	binary, err := os.Executable()
	if err != nil {
		return nil, err
	}
	g, err := startGuard(n, binary, cmd.identity)
	if err != nil {
		return nil, fmt.Errorf("start the guard process: %w", err)
	}
	p := &program{nursery: n, guard: g, others: othersOf(os.Getpid(), g.pid)}
	wait, let, err := os.Pipe()
	if err != nil {
		g.dismiss()
		return nil, err
	}
	defer let.Close()
	place := background
	if ownsTerminal() {
		place, p.terminal = foreground, true
	}
	attr := &syscall.SysProcAttr{Setpgid: true, Foreground: p.terminal, Ctty: 0}
	dieWithParent(attr)
	argv := append([]string{binary, startHelper, place, cmd.path}, cmd.argv...)
	p.pid, p.end, err = n.startProgram(binary, argv, &os.ProcAttr{
		Env: cmd.env, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, wait}, Sys: attr,
	})
	_ = wait.Close()
	if err != nil {
		g.dismiss()
		return nil, err
	}
	if err := g.watch(ctx, p.pid, deadline); err != nil {
		p.kill()
		return p, err
	}
	if _, err = let.Write([]byte{1}); errors.Is(err, syscall.EPIPE) {
		err = nil // it has ended, by a Ctrl-C for instance: how, is what its end says
	}
	return p, err
}

// runStart is the process that becomes the program.
func runStart(args []string) int {
	place, path, argv := args[0], args[1], args[2:]
	let := os.NewFile(3, "start")
	if n, _ := let.Read(make([]byte, 1)); n != 1 {
		return exitOwnFailure // elector has died, or the guard has not answered
	}
	_ = let.Close()
	// A leader that the terminal stops holds the lease for nothing. So Ctrl-Z does nothing, and to read from the
	// terminal in the background is an error.
	if place == foreground {
		signal.Ignore(syscall.SIGTSTP)
		stopOnOutput()
	} else {
		signal.Ignore(syscall.SIGTTIN)
	}
	err := syscall.Exec(path, argv, os.Environ())
	fmt.Fprintf(os.Stderr, "elector: run %s: %v\n", path, err)
	return exitNotRunnable
}

// terminate asks all of the program's processes to end. One that is stopped could not: SIGCONT is for those.
func (p *program) terminate() {
	pids := []int{-p.pid}
	for _, pid := range p.below() {
		// Those of the group have it from the group: to some programs a second SIGTERM means more than one.
		if group, err := syscall.Getpgid(pid); err == nil && group != p.pid {
			pids = append(pids, pid)
		}
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGTERM)
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
}

func (p *program) kill() { kill(p.pid, p.below) }

// below are the processes below this one that are the program's. Only Linux says.
func (p *program) below() []int { return descendants(os.Getpid(), p.others) }

// alive reports whether any process of the program is there: its group, and on Linux also what has left the group.
func (p *program) alive() bool {
	return !errors.Is(syscall.Kill(-p.pid, 0), syscall.ESRCH) || len(p.below()) > 0
}

// gone ends the guard and takes the terminal back.
func (p *program) gone() {
	p.guard.dismiss()
	if p.terminal {
		takeTerminal(p.pid)
	}
}

// ownsTerminal reports whether standard input is a terminal and this process is in its foreground.
func ownsTerminal() bool {
	group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	return err == nil && group == syscall.Getpgrp()
}

// hasTerminal reports whether standard input is a terminal that has not been hung up.
func hasTerminal() bool {
	_, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	return err == nil
}

// takeTerminal makes this process's group the foreground of the terminal again, unless somebody else is there: a shell,
// while elector is stopped.
func takeTerminal(from int) {
	if group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP); err == nil && group == from {
		_ = unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, syscall.Getpgrp())
	}
}

// writeFromBackground lets this process, and those that it starts, write to the terminal while the program has it, and
// take it back: SIGTTOU would stop them.
func writeFromBackground() { signal.Ignore(syscall.SIGTTOU) }

// stopOnOutput undoes that for the program. (Signal.Reset does not undo Ignore; and a signal that is handled is not
// after exec.)
func stopOnOutput() { signal.Notify(make(chan os.Signal, 1), syscall.SIGTTOU) }
