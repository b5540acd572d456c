//go:build unix

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// The guard is a second process of this binary. It is the parent of the program, and on Linux the kernel makes it the
// parent of what the program's processes leave behind. So what is below the guard is the program, whatever that does,
// and nothing else is; and when the kernel says that the guard has no child left, the program is gone. The guard also
// holds the program's deadline, for elector run itself may be frozen or dead when it comes.
//
// It is started while this replica stands by, and has started the process that is going to be the program: after a win
// there is nothing to wait for. Elector writes lines to it:
//
//	until <ns>        kill the program at this time of sharedClock; answered by the same line
//	env <NAME=value>  give the program this variable
//	start <place>     let the program go, in the foreground or background; answered by "started <pid>"
//	signal <number>   send this signal to the program's first process
//
// It writes "ended <status>" when the first process has ended, and ends with exit code 0 when all have. At the deadline,
// and when its input ends, it kills all. The times are absolute and of a clock that all processes share: so a line that
// was held up on its way, in a frozen elector or in the pipe, grants nothing.

// A guard is elector's end of it.
type guard struct {
	process  *os.Process
	input    *os.File
	sent     int64                   // lines that the guard answers
	answered atomic.Int64            // of those
	seen     int64                   // of the answered ones, at since
	since    time.Time               // when an answer had come, or none was due
	started  chan int                // the program's first process
	ended    chan syscall.WaitStatus // how that has ended
	end      chan *os.ProcessState   // how the guard has ended
}

func startGuard(cmd command) (*guard, error) {
	input, toGuard, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer input.Close()
	fromGuard, output, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, toGuard.Close())
	}
	defer output.Close()
	g := &guard{input: toGuard, started: make(chan int, 1), ended: make(chan syscall.WaitStatus, 1), end: make(chan *os.ProcessState, 1)}
	begun := make(chan error)
	go func() {
		// To the kernel this thread is the guard's parent, and wakes it when it ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := g.begin(cmd, input, output)
		begun <- err
		if err == nil {
			g.listen(fromGuard)
		}
	}()
	if err := <-begun; err != nil {
		return nil, errors.Join(fmt.Errorf("start the guard process: %w", err), toGuard.Close(), fromGuard.Close())
	}
	return g, nil
}

func (g *guard) begin(cmd command, input, output *os.File) (err error) {
	files, places := descriptors(input, output)
	argv := append([]string{os.Args[0], guardHelper, strconv.Itoa(places[0]), strconv.Itoa(places[1]), cmd.path}, cmd.argv...)
	attr := &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C and Ctrl-Z are not for it
	wakeWithParent(attr)
	pid, _, err := syscall.StartProcess(ownBinary, argv, &syscall.ProcAttr{Env: os.Environ(), Files: files, Sys: attr})
	if err != nil {
		return err
	}
	g.process, err = os.FindProcess(pid)
	return err
}

// listen reads what the guard says until it has ended.
func (g *guard) listen(answers *os.File) {
	defer answers.Close()
	for s := bufio.NewScanner(answers); s.Scan(); {
		verb, value, _ := strings.Cut(s.Text(), " ")
		n, _ := strconv.ParseInt(value, 10, 64)
		switch verb {
		case "until":
			g.answered.Add(1)
		case "started":
			g.started <- int(n)
		case "ended":
			g.ended <- syscall.WaitStatus(n)
		}
	}
	state, _ := g.process.Wait()
	g.end <- state
}

// start has the program started, guarded until the deadline.
func (g *guard) start(place string, env []string, deadline, giveUp time.Time) (pid int, err error) {
	g.wake()
	lines := g.until(deadline)
	g.sent++
	for _, variable := range env {
		lines += "env " + variable + "\n"
	}
	_ = g.tell(lines + "start " + place + "\n")
	select {
	case pid = <-g.started:
		return pid, nil
	case state := <-g.end:
		g.end <- state
		return 0, errGuard
	case <-time.After(time.Until(giveUp)):
		return 0, errGuard
	}
}

var errGuard = errors.New("the guard process has died, or did not answer: stopped the program, which must not run without it")

// tell writes to the guard. One that takes nothing from its pipe keeps the deadline it has.
func (g *guard) tell(lines string) error {
	_ = g.input.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	_, err := io.WriteString(g.input, lines)
	return err
}

// until is the line that moves the deadline. The shared clock is read first: if this process is frozen between the two,
// the deadline comes out too early, never too late.
func (g *guard) until(deadline time.Time) string {
	at := sharedClock()
	at += time.Until(deadline)
	return fmt.Sprintf("until %d\n", at)
}

func (g *guard) extend(deadline time.Time) {
	if g.tell(g.until(deadline)) == nil {
		g.sent++
	}
}

func (g *guard) signal(sig syscall.Signal) { _ = g.tell(fmt.Sprintf("signal %d\n", sig)) }

// silent is for how long an answer has been due. It must be called before each extend.
func (g *guard) silent() time.Duration {
	if n := g.answered.Load(); n == g.sent || n != g.seen {
		g.seen, g.since = n, time.Now()
	}
	return time.Since(g.since)
}

// hasEnded reports whether the guard has ended before it was used.
func (g *guard) hasEnded() bool { return len(g.end) > 0 }

// wake wakes a guard that was stopped. It has as long again to answer.
func (g *guard) wake() {
	_ = g.process.Signal(syscall.SIGCONT)
	g.since = time.Now()
}

// dismiss ends the guard, a stopped one too, and on Linux the first process of the program with it.
func (g *guard) dismiss() {
	_ = g.process.Kill()
	_ = g.input.Close()
}
