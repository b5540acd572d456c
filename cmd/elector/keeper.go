//go:build unix

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A keeper is what the guard process knows.
type keeper struct {
	answers *os.File
	first   int      // the process that becomes the program, and its group
	word    *os.File // lets it go
	env     []string
	started bool
	ended   bool          // the first process has ended
	until   time.Duration // of sharedClock; 0 is none
}

// runGuard is the guard process.
func runGuard(args []string) int {
	passBy := []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTSTP, syscall.SIGPIPE}
	if !signal.Ignored(syscall.SIGHUP) { // as by nohup, which is for the program, too
		passBy = append(passBy, syscall.SIGHUP)
	}
	disregard(passBy...)
	becomeSubreaper()
	input := ownDescriptor(args[0], "input")
	k := &keeper{answers: ownDescriptor(args[1], "answers")}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	if err := k.prepare(args[2], args[3:]); err != nil {
		complain("guard: start a process: %v", err)
		return exitOwnFailure
	}
	lines := make(chan string)
	go readLines(input, lines)
	for {
		left := time.Hour
		if k.until != 0 {
			left = k.until - sharedClock()
		}
		if left <= 0 {
			k.killAll()
			complain("guard: the lease is about to end and elector has not stopped the program: killed it")
			return 0
		}
		if k.started {
			left = min(left, time.Second) // the clock of timers stands still while the machine is suspended, the shared one does not
		}
		if k.ended {
			left = min(left, often) // only Linux says when the last one of the group has ended
		}
		select {
		case <-time.After(left):
		case <-children:
		case line, more := <-lines:
			if !more {
				return k.abandoned()
			}
			k.obey(line)
		}
		if k.reap() {
			return 0
		}
	}
}

// prepare starts the process that becomes the program. The thread that calls this must live as long as the process.
func (k *keeper) prepare(path string, argv []string) error {
	wait, word, err := os.Pipe()
	if err != nil {
		return err
	}
	defer wait.Close()
	files, places := descriptors(wait)
	attr := &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(attr)
	args := slices.Concat([]string{os.Args[0], startHelper, strconv.Itoa(places[0]), path}, argv)
	k.first, _, err = syscall.StartProcess(ownBinary, args, &syscall.ProcAttr{Env: os.Environ(), Files: files, Sys: attr})
	k.word = word
	return err
}

func (k *keeper) obey(line string) {
	verb, value, _ := strings.Cut(line, " ")
	n, _ := strconv.ParseInt(value, 10, 64)
	switch verb {
	case "until":
		k.until = time.Duration(n)
		fmt.Fprintln(k.answers, line)
	case "env":
		k.env = append(k.env, value)
	case "start":
		k.started = true
		if value == foreground {
			giveTerminal(k.first)
		}
		_ = syscall.Kill(k.first, syscall.SIGCONT) // if somebody has stopped it meanwhile
		_, _ = io.WriteString(k.word, strings.Join(append([]string{value}, k.env...), "\n"))
		_ = k.word.Close()
		fmt.Fprintf(k.answers, "started %d\n", k.first)
	case "signal":
		if !k.ended { // its number is not another's yet
			_ = syscall.Kill(k.first, syscall.Signal(n))
		}
	}
}

// reap waits for those that have ended. It reports whether no process is left.
func (k *keeper) reap() (none bool) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // no child is left
			return listsAll || !groupExists(k.first)
		case pid == 0:
			return false
		case pid == k.first:
			k.ended = true
			fmt.Fprintf(k.answers, "ended %d\n", status)
		}
	}
}

// abandoned is what to do when elector has ended. If it was standing by, nothing has run.
func (k *keeper) abandoned() int {
	if k.started {
		k.killAll()
		complain("guard: elector has died: killed the program")
	}
	return 0
}

// killAll returns when no process is left.
func (k *keeper) killAll() {
	for !k.reap() {
		killBelow(os.Getpid(), k.first, k.ended)
		time.Sleep(time.Millisecond)
	}
}

func readLines(r io.Reader, lines chan<- string) {
	defer close(lines)
	for s := bufio.NewScanner(r); s.Scan(); {
		lines <- s.Text()
	}
}
