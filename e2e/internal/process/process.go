// Package process runs child processes that do not outlive the test.
package process

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"
)

// A Process is a started child. Its methods may be called from any goroutine.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // what Wait returned; read only after done is closed
	end  time.Time
}

// Start starts cmd. On Linux the kernel kills the child when this process ends, however it ends.
func Start(cmd *exec.Cmd) (*Process, error) {
	dieWithParent(cmd)
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// run starts and awaits the child on one locked thread: to the kernel the child's parent is the thread that
// started it, so with an unlocked thread the child could die of a thread that the Go scheduler has retired.
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	p.err = p.cmd.Wait()
	p.end = time.Now()
	close(p.done)
}

// Done is closed when the process has ended and its output has been read to the end.
func (p *Process) Done() <-chan struct{} { return p.done }

// Result waits for the end of the process and returns when it came and how: nil for exit code 0.
func (p *Process) Result() (time.Time, error) {
	<-p.done
	return p.end, p.err
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends sig to the process; a process that has ended already is not an error.
func (p *Process) Signal(sig os.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := p.cmd.Process.Signal(sig); err != nil && err != os.ErrProcessDone {
		return fmt.Errorf("signal %v to process %d: %w", sig, p.PID(), err)
	}
	return nil
}

// Stop ends the process: SIGTERM, and SIGKILL if it is still there after grace; on Windows SIGKILL at once. It returns when
// the process is gone.
func (p *Process) Stop(grace time.Duration) {
	for _, sig := range ask {
		_ = p.Signal(sig)
	}
	select {
	case <-p.done:
		return
	case <-time.After(grace):
	}
	_ = p.Signal(os.Kill)
	<-p.done
}
