package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"

	"github.com/elector-go/elector/examples/internal/fleet"
)

// A story is what the demo plays with an example.
type story struct {
	pkg     string   // the example's package
	args    []string // of each replica
	lease   string   // the Lease's name
	prepare func(context.Context, *fleet.Fleet) error
	acts    []act
}

type act struct {
	title string
	play  func(context.Context, *scene) error
}

// A scene is the story as it is played.
type scene struct {
	*fleet.Fleet
	story
	program string
	out     io.Writer
	start   time.Time

	replicas []*fleet.Replica // those that run
	leader   *fleet.Replica
	started  int
	next     int // lines of the log that are done with
}

func (s *scene) play(ctx context.Context) error {
	for i, a := range s.acts {
		fmt.Fprintf(s.out, "\n%d. %s\n", i+1, a.title)
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		err := a.play(ctx, s)
		cancel()
		if err != nil {
			return fmt.Errorf("act %d: %w\nwhat the replicas logged:\n%s", i+1, err, s.Log(nil))
		}
	}
	n, err := s.Reconciliations()
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "\nTwo replicas at work at once: never, in %d reconciliations.\n", n)
	return nil
}

// say puts a line on the screen.
func (s *scene) say(at time.Time, who *fleet.Replica, format string, args ...any) {
	fmt.Fprintf(s.out, "%8.3fs  %-9s  %s\n", at.Sub(s.start).Seconds(), who.Name, fmt.Sprintf(format, args...))
}

// launch starts a replica, and waits until it has seen who leads.
func (s *scene) launch(ctx context.Context) (*fleet.Replica, error) {
	addr, err := fleet.Addr()
	if err != nil {
		return nil, err
	}
	s.started++
	name := fmt.Sprintf("replica-%d", s.started)
	r, err := s.Start(name, s.program, append([]string{"-v=5", "-health-probe-bind-address=" + addr}, s.args...)...)
	if err != nil {
		return nil, err
	}
	s.replicas = append(s.replicas, r)
	l, _, err := s.Await(ctx, name+" to stand by or lead", s.next, func(l fleet.Line) bool { return l.Replica == r && l.Is("New leader", "Became leader") })
	if err != nil {
		return nil, err
	}
	if l.Is("New leader") {
		s.say(l.At, r, "stands by, as process %d", r.PID())
	}
	return r, nil
}

// succession waits for the next leader and its first work, and reports how long after an event that was.
func (s *scene) succession(ctx context.Context, since time.Time, event string) error {
	leads, next, err := s.NextLeader(ctx, s.next)
	if err != nil {
		return err
	}
	works, nextWork, err := s.FirstReconcile(ctx, leads.Replica, s.next) // it does not wait for the log to say that it leads
	if err != nil {
		return err
	}
	s.leader, s.next = leads.Replica, max(next, nextWork)
	s.say(leads.At, s.leader, "LEADS, %s after %s", short(leads.At.Sub(since)), event)
	s.say(works.At, s.leader, "works, %s after it", short(works.At.Sub(since)))
	return nil
}

// exit waits for the end of a replica, and checks its exit code.
func (s *scene) exit(ctx context.Context, r *fleet.Replica, want int) error {
	at, code, err := r.Wait(ctx)
	if err != nil {
		return err
	}
	s.replicas = slices.DeleteFunc(s.replicas, func(other *fleet.Replica) bool { return other == r })
	if code != want {
		return fmt.Errorf("%s exited with code %d, not %d; its log:\n%s", r.Name, code, want, s.Log(r))
	}
	if code >= 0 {
		s.say(at, r, "has exited, with code %d", code)
	}
	return nil
}

// short is a duration as people say it.
func short(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// The acts that stories are made of.
var (
	election = act{"Three replicas start, and one is elected.", func(ctx context.Context, s *scene) error {
		began := time.Now()
		if _, err := s.launch(ctx); err != nil {
			return err
		}
		if err := s.succession(ctx, began, "its start"); err != nil {
			return err
		}
		for range 2 {
			if _, err := s.launch(ctx); err != nil {
				return err
			}
		}
		return nil
	}}

	terminate = act{"The leader gets SIGTERM, as in a rolling update.", func(ctx context.Context, s *scene) error {
		old, at := s.leader, time.Now()
		s.say(at, old, "gets SIGTERM")
		if err := old.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		if err := s.exit(ctx, old, 0); err != nil {
			return err
		}
		if err := s.succession(ctx, at, "SIGTERM"); err != nil {
			return err
		}
		_, err := s.launch(ctx)
		return err
	}}

	crash = act{"The leader crashes: kill -9. Its lease has to expire, 15 s after its last renewal.", func(ctx context.Context, s *scene) error {
		old, at := s.leader, time.Now()
		s.say(at, old, "gets SIGKILL")
		if err := old.Signal(syscall.SIGKILL); err != nil {
			return err
		}
		if err := s.succession(ctx, at, "SIGKILL"); err != nil {
			return err
		}
		return s.exit(ctx, old, -1)
	}}

	// An example ends its process on a loss, or stops its work and goes on.
	lossEnds = act{"The leader loses its lease: another holder is in it. The process ends.", func(ctx context.Context, s *scene) error {
		old, at := s.leader, time.Now()
		s.say(at, old, `loses its lease: "somebody" is written into it`)
		if err := s.StealLease(ctx, s.lease, "somebody", 15); err != nil {
			return err
		}
		if err := s.exit(ctx, old, 1); err != nil {
			return err
		}
		if _, err := s.launch(ctx); err != nil { // as a Deployment does
			return err
		}
		return s.succession(ctx, at, "the loss, when somebody's lease has expired")
	}}

	lossStops = act{"The leader loses its lease: another holder is in it. The process goes on.", func(ctx context.Context, s *scene) error {
		old, at := s.leader, time.Now()
		s.say(at, old, `loses its lease: "somebody" is written into it`)
		if err := s.StealLease(ctx, s.lease, "somebody", 15); err != nil {
			return err
		}
		l, next, err := s.Await(ctx, "the end of its work", s.next, func(l fleet.Line) bool { return l.Replica == old && l.Is("All workers finished") })
		if err != nil {
			return err
		}
		s.next = next
		s.say(l.At, old, "has stopped its work, %s after the loss, and stands by: it is process %d still", short(l.At.Sub(at)), old.PID())
		return s.succession(ctx, at, "the loss, when somebody's lease has expired")
	}}

	end = act{"All stop.", func(ctx context.Context, s *scene) error {
		for _, r := range slices.Clone(s.replicas) {
			if err := r.Signal(syscall.SIGTERM); err != nil {
				return err
			}
		}
		for _, r := range slices.Clone(s.replicas) {
			if err := s.exit(ctx, r, 0); err != nil {
				return err
			}
		}
		return nil
	}}
)
