//go:build unix

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The guard is a second process of this binary that holds the program's deadline, for elector run itself may be frozen
// or dead when it comes. Elector writes lines to the guard's standard input:
//
//	group <pgid>   guard this process group
//	until <ns>     kill it at this time of sharedClock; answered by the same line
//
// At the deadline, and when the input ends, the guard kills the group, what else descends from elector, and on Linux all
// that have elector's identity in their environment: when elector dies, what has left the group is no longer below it.
// When the group is gone, elector kills the guard. The times are absolute and of a clock that all processes share: so a line that
// was held up on its way, in a frozen elector or in the pipe, grants nothing.

// A guard is elector's end of it.
type guard struct {
	nursery *nursery
	pid     int
	end     <-chan syscall.WaitStatus
	input   *os.File
	answers *os.File

	answered chan struct{} // holds a token when an answer has come since it was last read; closed when the guard has ended
	heard    time.Time     // when an answer was last read
}

func startGuard(n *nursery, binary, identity string) (*guard, error) {
	input, toGuard, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	fromGuard, output, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, input.Close(), toGuard.Close())
	}
	defer input.Close()
	defer output.Close()
	g := &guard{nursery: n, input: toGuard, answers: fromGuard, answered: make(chan struct{}, 1)}
	g.pid, g.end, err = n.start(binary, []string{binary, guardHelper, strconv.Itoa(os.Getpid()), identity}, &os.ProcAttr{
		Files: []*os.File{input, output, os.Stderr},
		Sys:   &syscall.SysProcAttr{Setpgid: true}, // a terminal's Ctrl-C and Ctrl-Z are not for it
	})
	if err != nil {
		return nil, errors.Join(err, toGuard.Close(), fromGuard.Close())
	}
	go g.listen()
	return g, nil
}

func (g *guard) listen() {
	defer close(g.answered)
	for s := bufio.NewScanner(g.answers); s.Scan(); {
		select {
		case g.answered <- struct{}{}:
		default:
		}
	}
}

// watch hands the group to the guard, and returns when the guard has it.
func (g *guard) watch(ctx context.Context, group int, deadline time.Time) error {
	fmt.Fprintf(g.input, "group %d\n", group)
	g.extend(deadline)
	select {
	case _, ok := <-g.answered:
		if !ok {
			return errors.New("the guard process has died")
		}
		g.heard = time.Now()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the guard process does not answer: %w", context.Cause(ctx))
	}
}

// extend moves the deadline. The shared clock is read first: if this process is frozen between the two, the deadline
// comes out too early, never too late. A guard that takes nothing from its pipe keeps the deadline it has.
func (g *guard) extend(deadline time.Time) {
	at := sharedClock()
	at += time.Until(deadline)
	_ = g.input.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	fmt.Fprintf(g.input, "until %d\n", at)
}

// silent reports whether the guard has not answered for so long. A guard that has died is not silent: its end is known.
func (g *guard) silent(long time.Duration) bool {
	select {
	case <-g.answered:
		g.heard = time.Now()
	default:
	}
	return time.Since(g.heard) > long
}

// dismiss ends the guard, a stopped one too.
func (g *guard) dismiss() {
	g.nursery.signal(g.pid, syscall.SIGKILL)
	_ = g.input.Close()
	_ = g.answers.Close()
}

// runGuard is the guard process.
func runGuard(args []string) int {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGTSTP, syscall.SIGPIPE)
	parent, err := strconv.Atoi(args[0])
	if err != nil {
		return exitOwnFailure
	}
	others := othersOf(parent, os.Getpid())
	all := func() []int { return append(descendants(parent, others), marked(args[1])...) }
	lines := make(chan string)
	go readLines(os.Stdin, lines)
	var group int
	until := time.Duration(-1)
	for {
		wait := time.Second // the clock of timers stands still while the machine is suspended, the shared one does not
		if until >= 0 {
			wait = min(wait, until-sharedClock())
		}
		if wait <= 0 {
			kill(group, all)
			fmt.Fprintln(os.Stderr, "elector: guard: the lease is about to end and elector has not stopped the program: killed it")
			return 0
		}
		select {
		case <-time.After(wait):
		case line, more := <-lines:
			verb, value, _ := strings.Cut(line, " ")
			n, _ := strconv.ParseInt(value, 10, 64)
			switch {
			case !more:
				kill(group, all)
				fmt.Fprintln(os.Stderr, "elector: guard: elector has died: killed the program")
				return 0
			case verb == "until":
				until = time.Duration(n)
				fmt.Println(line)
			case verb == "group":
				group = int(n)
			}
		}
	}
}

func readLines(r io.Reader, lines chan<- string) {
	defer close(lines)
	for s := bufio.NewScanner(r); s.Scan(); {
		lines <- s.Text()
	}
}

// othersOf are the processes below elector that are there before the program is, and are none of its business: the guard,
// and what a shell has left to the elector that it became by exec.
func othersOf(elector, guard int) map[int]bool {
	others := map[int]bool{guard: true}
	for _, pid := range descendants(elector, others) {
		others[pid] = true
	}
	return others
}

// kill kills the group and all. A process that forks meanwhile is found in the next round.
func kill(group int, all func() []int) {
	for range 10 {
		if group > 0 {
			_ = syscall.Kill(-group, syscall.SIGKILL)
		}
		rest := all()
		if len(rest) == 0 {
			return
		}
		for _, pid := range rest {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(time.Millisecond)
	}
}
