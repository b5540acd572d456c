package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/elector-go/elector/e2e/internal/process"
)

// A Server is one of the cluster's two processes. It can be signalled, stopped and started again on the same
// storage and port.
type Server struct {
	name, path, log string
	args            []string

	mu   sync.Mutex // guards proc
	proc *process.Process
}

func newServer(name, path, dir string, args []string) *Server {
	return &Server{name: name, path: path, args: args, log: filepath.Join(dir, name+".log")}
}

// Start starts the process; it returns before the server is ready. A server that runs is left alone.
func (s *Server) Start() error {
	if s.Running() {
		return nil
	}
	logFile, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	defer logFile.Close() // the child has its own descriptor
	cmd := exec.Command(s.path, s.args...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	p, err := process.Start(cmd)
	if err != nil {
		return fmt.Errorf("cluster: start %s: %w", s.name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc = p
	return nil
}

func (s *Server) current() *process.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// Running reports whether the process is there; a suspended one is.
func (s *Server) Running() bool {
	p := s.current()
	if p == nil {
		return false
	}
	select {
	case <-p.Done():
		return false
	default:
		return true
	}
}

// Signal sends a signal: SIGSTOP and SIGCONT to suspend and continue, SIGKILL to crash.
func (s *Server) Signal(sig os.Signal) error {
	p := s.current()
	if p == nil {
		return fmt.Errorf("cluster: %s has not been started", s.name)
	}
	return p.Signal(sig)
}

// Stop ends the process and returns when it is gone.
func (s *Server) Stop() {
	// Longer than this an API server only waits for open watches, which a test does not need.
	const grace = 2 * time.Second
	if p := s.current(); p != nil {
		p.Stop(grace)
	}
}

// withLog returns err with the end of the server's log, which is where the reason is.
func (s *Server) withLog(err error) error {
	const most = 4 << 10
	log, readErr := os.ReadFile(s.log)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	if len(log) > most {
		log = log[len(log)-most:]
	}
	return errors.Join(err, fmt.Errorf("the end of the log of %s:\n%s", s.name, log))
}
