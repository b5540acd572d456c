package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/elector-go/elector/electortest"
)

// Short times, so that the drama is. Leave them out of your Options for the defaults: 15 s, 10 s and 2 s.
const (
	leaseDuration = 3 * time.Second
	renewDeadline = 2 * time.Second
	retryPeriod   = 500 * time.Millisecond

	roundTrip = 4 * time.Millisecond   // to the API server and back
	finishing = 300 * time.Millisecond // what the work needs to stop; it must be less than leaseDuration - renewDeadline

	reading  = 1200 * time.Millisecond       // for the audience, between two acts
	patience = leaseDuration + 2*time.Second // for a step to happen
	atOnce   = time.Second                   // for a hand-over, which takes milliseconds; the rest is for busy machines
	byExpiry = leaseDuration + 1*time.Second // for a takeover after a crash
)

// A drama is a stage, who leads on it, and the summary so far.
type drama struct {
	stage
	leader *replica
	begun  time.Time // when its work began
	lost   *replica  // who lost the lease in act 4
	rows   []row
}

// A row of the summary: an event, and what became of it.
type row struct{ event, leader, gap, remark string }

func newDrama(out io.Writer) *drama {
	return &drama{stage: stage{api: electortest.NewServer(), events: make(chan event, 100), out: out, start: time.Now()}}
}

// play plays the drama and returns the exit code: 0 if all went as it should.
func (d *drama) play(ctx context.Context) int {
	defer d.api.Close()
	d.print("Three replicas of a program share one Lease: one at a time works, the others stand by.\n")
	d.print("The API server is in memory, %v away. Times are short, so that the drama is:\n", roundTrip)
	d.print("LeaseDuration %v, RenewDeadline %v, RetryPeriod %v (defaults: 15s, 10s, 2s); the work\n", leaseDuration, renewDeadline, retryPeriod)
	d.print("needs %v to stop.\n", finishing)

	err := d.acts(ctx)
	if ctx.Err() != nil {
		err = nil
		d.print("\nInterrupted: all replicas stop.\n")
	}
	return d.summary(ctx, errors.Join(err, d.clear(context.WithoutCancel(ctx))))
}

func (d *drama) acts(ctx context.Context) error {
	for i, act := range []struct {
		title string
		play  func(context.Context) error
	}{
		{"Three replicas start, and one is elected.", d.election},
		{"The leader crashes: as with kill -9, it cannot say good-bye.", d.crash},
		{"The leader is stopped cleanly, as by SIGTERM in a rolling update.", d.stop},
		{"The leader loses its network, and so its lease, but its process lives on.", d.loss},
		{"The leader steps down.", d.stepDown},
	} {
		d.print("\n%d. %s\n", i+1, act.title)
		if err := act.play(ctx); err != nil {
			return fmt.Errorf("act %d: %w", i+1, err)
		}
		if err := d.pause(ctx, reading); err != nil {
			return err
		}
	}
	d.print("\nThe end: all replicas stop.\n")
	return nil
}

func (d *drama) election(ctx context.Context) error {
	for _, name := range []string{"replica-1", "replica-2", "replica-3"} {
		if _, err := d.launch(ctx, name); err != nil {
			return err
		}
	}
	d.line(d.start, "all", "start, and campaign")
	if err := d.newLeader(ctx); err != nil {
		return err
	}
	took := d.clock(d.begun)
	d.rows = append(d.rows, row{"election", d.leader.name, "-", short(took) + " after the start"})
	for _, r := range d.replicas {
		if r == d.leader {
			continue
		}
		if err := d.follows(ctx, r); err != nil {
			return err
		}
		d.say(r, "stands by: %s leads", r.el.Leader())
	}
	return within("the election", took, atOnce)
}

func (d *drama) crash(ctx context.Context) error {
	old := d.leader
	old.crash()
	last := old.el.Status().LastRenewal
	d.say(old, "CRASHES: work gone, network gone, lease not released (renewed %s ago)", short(time.Since(last)))
	if err := d.newLeader(ctx); err != nil {
		return err
	}
	took := d.begun.Sub(last)
	d.say(d.leader, "had to wait until the lease expired: %s after its last renewal", short(took))
	d.handedOver("crash", old, fmt.Sprintf("the lease had to expire: %s after its renewal", short(took)))
	return within("the takeover", took, byExpiry)
}

func (d *drama) stop(ctx context.Context) error {
	old := d.leader
	old.stop(errors.New("terminated signal received")) // what signal.NotifyContext does
	if err := d.newLeader(ctx); err != nil {
		return err
	}
	d.handedOver("clean stop", old, "released when the work had ended")
	if err := d.pause(ctx, reading/2); err != nil {
		return err
	}
	again, err := d.launch(ctx, old.name)
	if err != nil {
		return err
	}
	if err := d.follows(ctx, again); err != nil {
		return err
	}
	d.say(again, "started again as a new process; stands by: %s leads", again.el.Leader())
	return within("the hand-over", d.gap, atOnce)
}

func (d *drama) loss(ctx context.Context) error {
	old := d.leader
	old.client.Partition(electortest.Both)
	d.say(old, "NETWORK CUT: works on while its lease lasts, but cannot renew it")
	e, err := d.next(ctx, told)
	if err != nil {
		return err
	}
	toldAfter := e.at.Sub(old.el.Status().LastRenewal)
	d.say(old, "has %v to stop: it is %s since its last renewal", leaseDuration-renewDeadline, short(toldAfter))
	if err := d.newLeader(ctx); err != nil {
		return err
	}
	d.handedOver("lost lease", old, fmt.Sprintf("asked at %s, done before the lease expired", short(toldAfter)))
	gap := d.gap
	if err := d.pause(ctx, reading/2); err != nil {
		return err
	}
	old.client.Partition(electortest.NoPartition)
	d.say(old, "network back")
	if err := d.follows(ctx, old); err != nil {
		return err
	}
	d.say(old, "stands by again, in the same process: %s leads", old.el.Leader())
	d.lost = old
	return errors.Join(within("the end of work", toldAfter, renewDeadline+atOnce/2), within("the takeover", gap, byExpiry))
}

func (d *drama) stepDown(ctx context.Context) error {
	old := d.leader
	released := make(chan error, 1)
	go func() { released <- old.el.StepDown(ctx) }()
	if err := d.newLeader(ctx); err != nil {
		return err
	}
	if err := <-released; err != nil {
		return err
	}
	if d.leader != d.lost {
		return errors.New("the replica that had lost its lease does not lead again")
	}
	d.say(d.leader, "leads for the second time in the same process")
	d.handedOver("step down", old, "lost its lease in act 4, leads again: no restart")
	return within("the hand-over", d.gap, atOnce)
}

// newLeader waits for the next leader.
func (d *drama) newLeader(ctx context.Context) error {
	e, err := d.next(ctx, begins)
	if err != nil {
		return err
	}
	d.leader, d.begun = e.who, e.at
	return nil
}

// follows waits until a standby knows who leads.
func (d *drama) follows(ctx context.Context, r *replica) error {
	return d.until(ctx, func() bool { return !r.el.IsLeader() && r.el.Leader() == d.leader.name })
}

func (d *drama) handedOver(what string, old *replica, remark string) {
	d.rows = append(d.rows, row{what, old.name + " -> " + d.leader.name, short(d.gap), remark})
}

func within(what string, took, limit time.Duration) error {
	if took > limit {
		return fmt.Errorf("not in time: %s took %s, and at most %s was expected", what, short(took), short(limit))
	}
	return nil
}

// summary prints the table and the verdict, and returns the exit code.
func (d *drama) summary(ctx context.Context, err error) int {
	d.print("\n%-12s%-24s%-15s%s\n", "EVENT", "LEADER", "NO LEADER FOR", "REMARK")
	for _, r := range d.rows {
		d.print("%-12s%-24s%-15s%s\n", r.event, r.leader, r.gap, r.remark)
	}
	terms, overlaps := d.census.result()
	if overlaps == 0 {
		d.print("\nTwo leaders at once: never (work began %d times, each time with no other at work)\n", terms)
	} else {
		d.print("\nTwo leaders at once: %d times of %d. THIS MUST NEVER HAPPEN.\n", overlaps, terms)
	}
	switch {
	case err != nil:
		d.print("FAILED: %v\n", err)
		return 1
	case overlaps > 0:
		return 1
	case ctx.Err() != nil:
		return 130 // as a shell calls an end by Ctrl-C
	default:
		d.print("To be one replica on a cluster of yours: go -C examples run ./quickstart -kubeconfig FILE\n")
		return 0
	}
}
