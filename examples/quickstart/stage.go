package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// A stage is what the drama is played on: the API server, the replicas, and the screen.
type stage struct {
	api      *electortest.Server
	replicas []*replica
	census   census
	events   chan event

	out   io.Writer
	start time.Time
	ended time.Time     // when the last leader's work ended, as shown on the screen
	gap   time.Duration // from then to the beginning of the next one's
}

// A replica is one process with a client of its own; here, a goroutine.
type replica struct {
	name   string
	client *electortest.Client
	el     *elector.Elector
	stop   context.CancelCauseFunc
	dead   chan struct{} // closed when it crashes
	exited chan struct{} // closed when Run has returned
	err    error         // what it returned
}

// launch starts a replica, and is beReplica of main.go for the drama.
func (s *stage) launch(ctx context.Context, name string) (*replica, error) {
	r := &replica{name: name, client: s.api.Client(name), dead: make(chan struct{}), exited: make(chan struct{})}
	r.client.SetLatency(roundTrip)
	var err error
	r.el, err = elector.New(r.client.CoordinationV1(), elector.Options{
		Namespace:     "theatre",
		Name:          "quickstart",
		Identity:      name,
		Run:           func(ctx context.Context) error { return s.work(ctx, r) },
		LeaseDuration: leaseDuration,
		RenewDeadline: renewDeadline,
		RetryPeriod:   retryPeriod,
	})
	if err != nil {
		return nil, err
	}
	// The drama decides when a replica stops; a Ctrl-C reaches them through stage.clear.
	ctx, r.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	go func() {
		defer close(r.exited)
		r.err = r.el.Run(ctx)
	}()
	s.replicas = append(s.replicas, r)
	return r, nil
}

// work is the work of a leader, and reports on itself.
func (s *stage) work(ctx context.Context, r *replica) error {
	term, _ := elector.TermFrom(ctx)
	at, beside := s.census.begin()
	s.events <- event{what: begins, who: r, at: at, token: term.Token(), beside: beside}
	<-ctx.Done()
	if !r.isDead() {
		s.events <- event{what: told, who: r, at: time.Now(), cause: context.Cause(ctx)}
		select {
		case <-time.After(finishing): // what has been begun must be finished: nothing else may go on meanwhile
		case <-r.dead:
		}
	}
	s.events <- event{what: ends, who: r, at: s.census.end()}
	return nil
}

// crash is as near to kill -9 as a goroutine gets: from now on nothing that this replica sends arrives, a release
// included, and its work ends at once without finishing anything.
func (r *replica) crash() {
	r.client.Partition(electortest.Both)
	close(r.dead)
	r.stop(errors.New("killed"))
}

func (r *replica) isDead() bool { return closed(r.dead) }

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// A census counts how many work at a time. It knows nothing of Leases: it is the judge of them.
type census struct {
	mu                       sync.Mutex
	working, terms, overlaps int
}

// begin returns the time, and how many others are at work.
func (c *census) begin() (at time.Time, beside int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	beside = c.working
	if beside > 0 {
		c.overlaps++
	}
	c.working++
	c.terms++
	return time.Now(), beside
}

func (c *census) end() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.working--
	return time.Now()
}

func (c *census) result() (terms, overlaps int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.terms, c.overlaps
}

// An event is something that happened in a replica's work.
type event struct {
	what   happening
	who    *replica
	at     time.Time
	token  uint64 // of begins: the term's
	beside int    // of begins: how many others were at work
	cause  error  // of told: why
}

type happening int

const (
	begins happening = iota + 1
	told             // its ctx has ended
	ends
)

var errLate = fmt.Errorf("the next step did not happen within %v", patience)

// next shows what happens up to the first event of a kind, and fails if that does not come in time.
func (s *stage) next(ctx context.Context, what happening) (event, error) {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		select {
		case e := <-s.events:
			s.show(e)
			if e.what == what {
				return e, nil
			}
		case <-ctx.Done():
			return event{}, context.Cause(ctx)
		case <-late.C:
			return event{}, errLate
		}
	}
}

// until shows what happens until a condition holds, and fails if it does not in time.
func (s *stage) until(ctx context.Context, condition func() bool) error {
	look := time.NewTicker(roundTrip)
	defer look.Stop()
	late := time.NewTimer(patience)
	defer late.Stop()
	for !condition() {
		select {
		case e := <-s.events:
			s.show(e)
		case <-look.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-late.C:
			return errLate
		}
	}
	for len(s.events) > 0 { // what led to it
		s.show(<-s.events)
	}
	return nil
}

// pause lets time pass, so that the audience can read.
func (s *stage) pause(ctx context.Context, d time.Duration) error {
	end := time.Now().Add(d)
	return s.until(ctx, func() bool { return !time.Now().Before(end) })
}

// clear stops all replicas and waits for them. It fails if one does not stop cleanly.
func (s *stage) clear(ctx context.Context) (err error) {
	for _, r := range s.replicas {
		if !r.isDead() {
			r.client.Partition(electortest.NoPartition) // or its release would be lost
			r.stop(errors.New("the end of the drama"))
		}
	}
	for _, r := range s.replicas {
		if r.isDead() {
			continue
		}
		err = errors.Join(err, s.until(ctx, func() bool { return closed(r.exited) }))
		if closed(r.exited) && r.err != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", r.name, r.err))
		}
	}
	return err
}

func (s *stage) show(e event) {
	switch e.what {
	case begins:
		line := fmt.Sprintf("LEADS: its work begins (token %d)", e.token)
		if e.beside > 0 {
			line = "LEADS BESIDE ANOTHER: this must never happen"
		}
		if !s.ended.IsZero() {
			s.gap = s.clock(e.at) - s.clock(s.ended)
			line += fmt.Sprintf("; no leader for %s", short(s.gap))
		}
		s.line(e.at, e.who.name, line)
	case told:
		s.line(e.at, e.who.name, fmt.Sprintf("asked to stop, cause %q", e.cause))
	case ends:
		s.ended = e.at
		if !e.who.isDead() {
			s.line(e.at, e.who.name, "work has ended")
		}
	}
}

// say puts a line on the screen that is about now.
func (s *stage) say(r *replica, format string, args ...any) {
	s.line(time.Now(), r.name, fmt.Sprintf(format, args...))
}

func (s *stage) print(format string, args ...any) { fmt.Fprintf(s.out, format, args...) }

func (s *stage) line(at time.Time, who, what string) {
	s.print("%8.3fs  %-9s  %s\n", s.clock(at).Seconds(), who, what)
}

// clock is the time as it is shown, so that what is shown of two times is their difference.
func (s *stage) clock(at time.Time) time.Duration { return at.Sub(s.start).Truncate(time.Millisecond) }

// short is a duration as people say it.
func short(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}
