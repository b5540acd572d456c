//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// Short times, so that the story is. Leave them out of your Options for the defaults: 15 s, 10 s and 2 s.
const (
	leaseDuration = 3 * time.Second
	renewDeadline = 2 * time.Second
	retryPeriod   = 500 * time.Millisecond
	patience      = leaseDuration + 7*time.Second // for a step to happen; what is above the lease is for busy machines
)

// An event is a line of JSON that an actor prints.
type event struct {
	What  string
	Token uint64
	Batch int64
	actor *actor
}

// asActor makes a replica part of the story: it reports what it does on its standard output, and before each write it
// waits for a line on its standard input.
func asActor(opts elector.Options, db *ledger) elector.Options {
	commands := bufio.NewReader(os.Stdin)
	opts.Run = job{
		ledger: db,
		pace:   200 * time.Millisecond,
		tell: func(ctx context.Context, what string, batch int64) {
			term, _ := elector.TermFrom(ctx)
			_ = json.NewEncoder(os.Stdout).Encode(event{What: what, Token: term.Token(), Batch: batch})
		},
		pause: func() {
			if _, err := commands.ReadString('\n'); err != nil {
				os.Exit(1) // the story is over
			}
		},
	}.run
	// In a frozen process that wakes OnOverrun races with the write. A story in which it wins would show no refusal; that
	// it may lose is why there is one.
	opts.OnOverrun = nil
	opts.LeaseDuration, opts.RenewDeadline, opts.RetryPeriod = leaseDuration, renewDeadline, retryPeriod
	return opts
}

// A story is the API server, the database and the actors, and the screen.
type story struct {
	*flags
	newWrites int // how many batches the new leader writes before the old one is woken
	dir       string
	ledger    *ledger // to read the row from outside
	url       string  // of the API server
	events    chan event
	actors    []*actor
	out       io.Writer
	log       io.Writer
	start     time.Time
}

// An actor is a replica, this program once more as a process of its own.
type actor struct {
	name     string
	cmd      *exec.Cmd
	commands io.WriteCloser
	log      bytes.Buffer  // read only after gone
	gone     chan struct{} // closed when the process has ended
}

// play plays the story and returns the exit code: 0 if the old leader's write was refused.
func play(ctx context.Context, f *flags, stdout, stderr io.Writer) int {
	s := &story{flags: f, newWrites: 3, events: make(chan event, 100), out: stdout, log: io.Discard, start: time.Now()}
	if f.verbose {
		s.log = stderr
	}
	err := s.play(ctx)
	switch {
	case ctx.Err() != nil:
		s.print("\nInterrupted.\n")
		return 130
	case err != nil:
		s.print("\nFAILED: %v\n", err)
		return 1
	}
	s.print("To be one replica on a cluster of yours: go -C examples run ./fencing -kubeconfig FILE\n")
	return 0
}

func (s *story) play(ctx context.Context) (err error) {
	if err := s.open(ctx); err != nil {
		return err
	}
	defer os.RemoveAll(s.dir)
	defer s.ledger.close()
	api := electortest.NewServer()
	defer api.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.url = "http://" + listener.Addr().String()
	server := &http.Server{Handler: serveLeases(api)}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	defer s.clear()
	return s.acts(ctx)
}

func (s *story) open(ctx context.Context) (err error) {
	if s.dir, err = os.MkdirTemp("", "fencing-"); err != nil {
		return err
	}
	s.db = filepath.Join(s.dir, "fencing.db")
	if s.ledger, err = openLedger(ctx, s.db); err != nil {
		return errors.Join(err, os.RemoveAll(s.dir))
	}
	return nil
}

func (s *story) acts(ctx context.Context) error {
	s.print("Two replicas, processes of their own, share a Lease and an SQLite database.\n")
	s.print("LeaseDuration %v, RenewDeadline %v (defaults: 15s, 10s).\n", leaseDuration, renewDeadline)
	s.print("\n1. A leader is elected, raises the token in the database to its own, and works.\n")
	old, err := s.launch(ctx, "replica-1")
	if err != nil {
		return err
	}
	if _, err := s.await(ctx, old, leads); err != nil {
		return err
	}
	next, err := s.launch(ctx, "replica-2")
	if err != nil {
		return err
	}
	if err := s.work(ctx, old, 3); err != nil {
		return err
	}
	s.print("\n2. It is frozen at the worst of moments: after its last check, before its write.\n")
	if _, err := s.await(ctx, old, checked); err != nil {
		return err
	}
	if err := s.freeze(old); err != nil {
		return err
	}
	s.print("\n3. Its lease expires, and another leads. The token in the database is raised.\n")
	lead, err := s.await(ctx, next, leads)
	if err != nil {
		return err
	}
	if err := s.work(ctx, next, s.newWrites); err != nil {
		return err
	}
	s.print("\n4. The old leader wakes. To it no time has passed: it goes on with its write.\n")
	if err := s.wake(old); err != nil {
		return err
	}
	e, err := s.await(ctx, old, refused, wrote)
	if err != nil {
		return err
	}
	if e.What == refused {
		_, err = s.await(ctx, old, ends)
	}
	return errors.Join(err, s.verdict(ctx, lead.Token))
}

// verdict reads the row from outside.
func (s *story) verdict(ctx context.Context, newest uint64) error {
	done, token, err := s.ledger.row(ctx)
	if err != nil {
		return err
	}
	s.print("\nThe row in the database: batch %d done, token %d\n", done, token)
	if want := int64(3 + s.newWrites); done != want || token != newest {
		return fmt.Errorf("the old leader has written over the new one's work: %d batches were done, and their work will be done again from batch %d on", want, done+1)
	}
	s.print("The old leader's write was refused, and the new one's work is as it was.\n")
	return nil
}

// launch starts an actor.
func (s *story) launch(ctx context.Context, name string) (*actor, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	a := &actor{name: name, gone: make(chan struct{})}
	a.cmd = exec.Command(self, "-api", s.url, "-namespace", "bank", "-lease", s.lease, "-identity", name, "-db", s.db,
		fmt.Sprintf("-unfenced=%v", s.unfenced))
	a.cmd.Stderr = io.MultiWriter(&a.log, s.log)
	if a.commands, err = a.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	told, err := a.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := a.cmd.Start(); err != nil {
		return nil, err
	}
	s.actors = append(s.actors, a)
	go func() {
		defer close(a.gone)
		for lines := json.NewDecoder(told); ; {
			e := event{actor: a}
			if lines.Decode(&e) != nil {
				break
			}
			s.events <- e
		}
		_ = a.cmd.Wait()
	}()
	s.say(name, "starts as process %d", a.cmd.Process.Pid)
	return a, ctx.Err()
}

// work lets an actor do batches, one line for each.
func (s *story) work(ctx context.Context, a *actor, batches int) error {
	for range batches {
		if _, err := s.await(ctx, a, checked); err != nil {
			return err
		}
		if err := a.goOn(); err != nil {
			return err
		}
		if _, err := s.await(ctx, a, wrote); err != nil {
			return err
		}
	}
	return nil
}

func (a *actor) goOn() error {
	_, err := io.WriteString(a.commands, "\n")
	return err
}

// freeze suspends a process that waits to go on with its write, and then lets it go on: the first thing that it
// does when it wakes is the write.
func (s *story) freeze(a *actor) error {
	pid := a.cmd.Process.Pid
	if err := a.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		return fmt.Errorf("%s was to be suspended: %v, status %#x", a.name, err, status)
	}
	s.say(a.name, "SIGSTOP: frozen, as by a hypervisor, a debugger or a lack of CPU")
	return a.goOn()
}

func (s *story) wake(a *actor) error {
	s.say(a.name, "SIGCONT")
	return a.cmd.Process.Signal(syscall.SIGCONT)
}

// await shows what happens up to one of the things given, of one actor, and fails if that does not come in time.
func (s *story) await(ctx context.Context, a *actor, whats ...string) (event, error) {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		select {
		case e := <-s.events:
			s.show(e)
			for _, what := range whats {
				if e.actor == a && e.What == what {
					return e, nil
				}
			}
		case <-ctx.Done():
			return event{}, context.Cause(ctx)
		case <-late.C:
			s.clear()
			return event{}, fmt.Errorf("%s has not reported within %v that it %s; its log:\n%s", a.name, patience, whats[0], a.log.String())
		case <-a.gone:
			if len(s.events) > 0 {
				continue // it has reported more
			}
			return event{}, fmt.Errorf("%s has ended before it %s; its log:\n%s", a.name, whats[0], a.log.String())
		}
	}
}

// clear ends the processes, also suspended ones.
func (s *story) clear() {
	for _, a := range s.actors {
		_ = a.cmd.Process.Kill()
	}
	for _, a := range s.actors {
		<-a.gone
	}
}

func (s *story) show(e event) {
	switch e.What {
	case leads:
		s.say(e.actor.name, "LEADS, and raises the token to %d", e.Token)
	case checked:
		s.say(e.actor.name, "is about to write batch %d: Term.Valid() is true", e.Batch)
	case wrote:
		s.say(e.actor.name, "wrote batch %d with token %d", e.Batch, e.Token)
	case refused:
		s.say(e.actor.name, "REFUSED: its UPDATE of batch %d WHERE token <= %d has found no row", e.Batch, e.Token)
	default:
		s.say(e.actor.name, "its job %s", e.What)
	}
}

func (s *story) print(format string, args ...any) { fmt.Fprintf(s.out, format, args...) }

func (s *story) say(who, format string, args ...any) {
	s.print("%8.3fs  %s  %s\n", time.Since(s.start).Seconds(), who, fmt.Sprintf(format, args...))
}
