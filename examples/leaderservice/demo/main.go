// Demo applies the manifests to a real kube-apiserver on loopback, runs three replicas as processes, and shows which pod
// the Service leads to while the leader is stopped and killed.
//
//	go -C examples run ./leaderservice/demo
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/elector-go/elector/e2e/cluster"
	"github.com/elector-go/elector/examples/deploy/rollout"
	"github.com/elector-go/elector/examples/internal/fleet"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := play(ctx)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case interrupted:
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// play starts an API server and plays the story on it, and leaves nothing behind.
func play(ctx context.Context) (err error) {
	fmt.Println("Building the program, and starting etcd and kube-apiserver. (The first time they are built from source: minutes.)")
	programs, err := fleet.Build(ctx, "./leaderservice")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(programs)) }()
	c, err := cluster.Start(ctx, fleet.User)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	r, err := rollout.New(ctx, c, rollout.App, filepath.Join(programs, rollout.App), programs, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return (&story{Rollout: r, start: time.Now()}).play(ctx)
}

type story struct {
	*rollout.Rollout
	start    time.Time
	replicas []*fleet.Replica
	leader   *fleet.Replica
	next     int // lines of the log that are done with
}

func (s *story) play(ctx context.Context) error {
	fmt.Println("\n1. Three pods. The one that leads writes its address, and the Service leads to it.")
	for i := range 3 {
		r, _, err := s.Launch(ctx, fmt.Sprintf("pod-%d", i+1))
		if err != nil {
			return err
		}
		s.replicas = append(s.replicas, r)
	}
	if err := s.newLeader(ctx); err != nil {
		return err
	}
	fmt.Println("\n2. The leader is stopped by SIGTERM, as in a rolling update: address out, lease released, next.")
	if err := s.end(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	fmt.Println("\n3. The next one is killed, and its address stays until the lease has expired.")
	if err := s.end(ctx, syscall.SIGKILL); err != nil {
		return err
	}
	fmt.Println("\n4. The last one stops.")
	if err := s.leader.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if _, _, err := s.leader.Wait(ctx); err != nil {
		return err
	}
	return s.selects(ctx)
}

// newLeader waits until a replica leads and has written its address, and shows that the Service leads to it and nothing else.
func (s *story) newLeader(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		line, next, err := s.Await(ctx, "a leader", s.next, func(l fleet.Line) bool {
			return l.Is("Became leader", "The Service leads to this replica")
		})
		if err != nil {
			return fmt.Errorf("%w; the last log line is %q", err, append(s.Lines(), fleet.Line{})[max(0, len(s.Lines())-1)].Text)
		}
		s.next, s.leader = next, line.Replica
		switch {
		case line.Is("Became leader"):
			s.say(line.At, line.Replica, "leads (token %s)", line.Value("term"))
		default:
			s.say(line.At, line.Replica, "has written its address, %s", line.Value("address"))
			return s.selects(ctx, line.Replica.Name)
		}
	}
}

// end ends the leader, and waits for the next leader.
func (s *story) end(ctx context.Context, sig syscall.Signal) error {
	old := s.leader
	s.say(time.Now(), old, "is sent the signal %q", sig)
	if err := old.Signal(sig); err != nil {
		return err
	}
	if sig == syscall.SIGKILL {
		if err := s.selects(ctx, old.Name); err != nil {
			return err
		}
	}
	return s.newLeader(ctx)
}

// selects shows which pods the Service leads to, and fails if those are not as expected.
func (s *story) selects(ctx context.Context, want ...string) error {
	selected, err := s.Selected(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%8.3fs  the Service leads to %v\n", time.Since(s.start).Seconds(), selected)
	if !slices.Equal(selected, want) {
		return fmt.Errorf("the Service leads to %v, and should lead to %v", selected, want)
	}
	return nil
}

func (s *story) say(at time.Time, who *fleet.Replica, format string, args ...any) {
	fmt.Printf("%8.3fs  %s  %s\n", at.Sub(s.start).Seconds(), who.Name, fmt.Sprintf(format, args...))
}
