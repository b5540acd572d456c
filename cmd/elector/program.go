//go:build unix

package main

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The program is started in two steps, so that it can be ready before it may run: a process of this binary, which waits
// for the guard's word and then becomes the program by exec.
const (
	guardHelper = "internal-guard"
	startHelper = "internal-start"

	background = "background"
	foreground = "foreground"
)

// helpers are the processes that elector run starts of its own binary.
var helpers = map[string]func(args []string) int{guardHelper: runGuard, startHelper: runStart}

// A command is what to run.
type command struct {
	path string
	argv []string
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

// runStart is the process that becomes the program. Its word is the place and the variables that the program gets.
func runStart(args []string) int {
	word, path, argv := ownDescriptor(args[0], "start"), args[1], args[2:]
	buf := make([]byte, unix.PathMax)
	n, _ := word.Read(buf)
	if n == 0 {
		return exitOwnFailure // the guard has ended
	}
	lines := strings.Split(string(buf[:n]), "\n")
	// A leader that the terminal stops holds the lease for nothing. So Ctrl-Z does nothing, and to read from the
	// terminal in the background is an error.
	if lines[0] == foreground {
		signal.Ignore(syscall.SIGTSTP)
		stopOnOutput()
	} else {
		signal.Ignore(syscall.SIGTTIN)
	}
	err := syscall.Exec(path, argv, withVariables(os.Environ(), lines[1:]))
	complain("run %s: %v", path, err)
	return exitNotRunnable
}

// withVariables puts the variables into an environment, in the place of others of their names.
func withVariables(env, variables []string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(old string) bool {
		name, _, _ := strings.Cut(old, "=")
		return slices.ContainsFunc(variables, func(v string) bool { return strings.HasPrefix(v, name+"=") })
	})
	return append(env, variables...)
}

// descriptors are what a process of this binary starts with: all that this one has inherited, because it is the
// program's, and its own, in the first places that are free from 3 on.
func descriptors(own ...*os.File) (files []uintptr, places []int) {
	files = []uintptr{0, 1, 2}
	last := lastInherited()
	for fd := 3; len(own) > 0 || fd <= last; fd++ {
		switch {
		case inherited(fd):
			files = append(files, uintptr(fd))
		case len(own) > 0:
			files, places, own = append(files, own[0].Fd()), append(places, fd), own[1:]
		default:
			files = append(files, ^uintptr(0)) // closed; what is not in files, Go may use for itself
		}
	}
	return files, places
}

func lastInherited() (last int) {
	open, _ := os.ReadDir("/dev/fd")
	for _, entry := range open {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && inherited(fd) {
			last = max(last, fd)
		}
	}
	return last
}

// inherited reports whether a descriptor has come from whoever started this process. What Go opens is closed by exec.
func inherited(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}

// ownDescriptor is one of own, in the process that was started with them.
func ownDescriptor(place, name string) *os.File {
	fd, err := strconv.Atoi(place)
	if err != nil {
		return nil
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}

// A program is one run of the program, as elector sees it.
type program struct {
	guard    *guard
	pid      int    // of the first process, and of its group
	ended    bool   // the first process has
	identity string // the variable that its processes have, unless they have removed it
	others   map[int]bool
	terminal bool         // it has the terminal
	told     map[int]bool // those that have been asked to end
}

// terminate asks all of the program's processes to end. One that is stopped could not: SIGCONT is for those.
func (p *program) terminate() {
	below := p.below()
	var pids []int
	if group := groupOf(p.pid, p.ended, below); group > 0 {
		pids = append(pids, -group)
	}
	for _, q := range below {
		p.told[q.pid] = true
		// Those of the group have it from the group: to some programs a second SIGTERM means more than one.
		if q.group != p.pid {
			pids = append(pids, q.pid)
		}
	}
	end(pids...)
}

// terminateLeftBehind asks those to end whose parent has ended, and that were not asked. What a process starts in order
// to end in good order is not one of them.
func (p *program) terminateLeftBehind() {
	for _, q := range p.below() {
		if q.parent == p.guard.process.Pid && !p.told[q.pid] {
			p.told[q.pid] = true
			end(q.pid)
		}
	}
}

func end(pids ...int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGTERM)
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
}

// below are the program's processes. Only Linux says.
func (p *program) below() []process { return descendants(p.guard.process.Pid, nil) }

func (p *program) kill() { killBelow(p.guard.process.Pid, p.pid, p.ended) }

// sweep kills what a guard has left that was killed. On Linux it is below elector now, and so is what elector and its
// plugins for credentials have started: those are in elector's own group, and do not have the program's variable.
func (p *program) sweep() {
	own := syscall.Getpgrp()
	another := func(q process) bool {
		return p.others[q.pid] || q.group == own && !q.has(p.identity)
	}
	for {
		rest, err := adopted(os.Getpid(), another)
		if err == nil && len(rest) == 0 && (listsAll || !groupExists(p.pid)) {
			return
		}
		kill(p.pid, true, rest)
		time.Sleep(time.Millisecond)
	}
}

// groupOf is the group of the program's first process. It is 0 if nothing of it may be left: its number may be that of
// another group by now.
func groupOf(first int, ended bool, rest []process) int {
	if ended && listsAll && !slices.ContainsFunc(rest, func(q process) bool { return q.group == first }) {
		return 0
	}
	return first
}

// kill kills the rest of a program and what is below that, and the group of its first process as one: no fork escapes that.
func kill(first int, ended bool, rest []process) {
	if group := groupOf(first, ended, rest); group > 0 {
		_ = syscall.Kill(-group, syscall.SIGKILL)
	}
	for _, p := range slices.Backward(rest) { // the newest ones start others
		killTree(p.pid)
	}
}

// killBelow kills what is below a guard, once: what has got away is below the guard still.
func killBelow(guard, first int, ended bool) {
	rest, _ := adopted(guard, nil)
	kill(first, ended, rest)
}

func groupExists(group int) bool {
	return group > 0 && !errors.Is(syscall.Kill(-group, 0), syscall.ESRCH)
}

// gone takes the terminal back.
func (p *program) gone() {
	if p.terminal {
		takeTerminal(p.pid)
	}
}

// passHangUp has elector end if the program's terminal is gone. The kernel has said so to the program alone, as the
// foreground, and not every shell tells elector.
func (p *program) passHangUp() {
	if p.terminal && !hasTerminal() {
		_ = syscall.Kill(os.Getpid(), syscall.SIGHUP)
	}
}

// ownsTerminal reports whether standard input is a terminal and this process is in its foreground.
func ownsTerminal() bool {
	group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	return err == nil && group == syscall.Getpgrp()
}

// hasTerminal reports whether this process has a controlling terminal, which is over when that is hung up.
func hasTerminal() bool {
	tty, err := os.Open("/dev/tty")
	_ = tty.Close()
	return err == nil
}

// takeTerminal makes this process's group the foreground of the terminal again, unless somebody else is there: a shell,
// while elector is stopped.
func takeTerminal(from int) {
	if group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP); err == nil && group == from {
		giveTerminal(syscall.Getpgrp())
	}
}

func giveTerminal(group int) { _ = unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, group) }

// writeFromBackground lets this process, and those that it starts, write to the terminal while the program has it, and
// take it back: SIGTTOU would stop them.
func writeFromBackground() { signal.Ignore(syscall.SIGTTOU) }

// stopOnOutput undoes that for the program. (Signal.Reset does not undo Ignore; and a signal that is handled is not
// after exec.)
func stopOnOutput() { disregard(syscall.SIGTTOU) }

// disregard has signals do nothing in this process. Those that it starts do not inherit that, as they would if the
// signals were ignored.
func disregard(signals ...os.Signal) { signal.Notify(make(chan os.Signal, 1), signals...) }
