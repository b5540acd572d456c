package elector

import (
	"errors"
	"fmt"
	"time"

	"github.com/elector-go/elector/internal/protocol"
)

// A Promise is what LeaseDuration, RenewDeadline and RetryPeriod guarantee, in numbers. The zero Promise guarantees
// nothing. See Options.Promise.
type Promise struct {
	// Outage is how long the API may be out of reach, or answer with errors, without costing the term, at whatever
	// moment the outage begins. It is RenewDeadline less the interval between renewals, which is RetryPeriod or a third of
	// RenewDeadline, whichever is less. In practice subtract the time of one answer and 0.02 s, or 0.1 s if the API does
	// not answer at all.
	Outage time.Duration

	// StopBudget is how long the callback may take to return after a loss before another replica may lead:
	// LeaseDuration − RenewDeadline.
	StopBudget time.Duration

	// Takeover is the time from the last renewal of a crashed leader until another replica may lead: LeaseDuration. The
	// write that wins the Lease comes on top. Counted from the crash it is less by the time since the last renewal, at most
	// one interval. After a clean stop nobody leads for some milliseconds, whatever the settings, and likewise once a
	// crashed process with Options.StateDir is started again.
	Takeover time.Duration

	// LeaderRequests is how many requests a minute a leader sends while nothing goes wrong. PollingRequests is the same
	// for a standby that is not allowed to watch, at most. A standby that watches sends none. The watch itself comes on
	// top: it is reopened every few minutes, or tried once a minute where it is forbidden.
	LeaderRequests, PollingRequests float64
}

// Promise returns what the three durations guarantee. Durations that are zero have their defaults. It returns an error
// for durations that New refuses; the other fields are ignored.
func (o Options) Promise() (Promise, error) {
	o.defaultDurations()
	if err := errors.Join(o.checkDurations()...); err != nil {
		return Promise{}, fmt.Errorf("elector: %w", err)
	}
	interval := protocol.Config{RenewDeadline: o.RenewDeadline, RetryPeriod: o.RetryPeriod}.Interval()
	return Promise{
		Outage:          o.RenewDeadline - interval,
		StopBudget:      o.LeaseDuration - o.RenewDeadline,
		Takeover:        o.LeaseDuration,
		LeaderRequests:  time.Minute.Seconds() / interval.Seconds(),
		PollingRequests: time.Minute.Seconds() / o.RetryPeriod.Seconds(),
	}, nil
}

// ClockRate returns by how much a standby's clock may run faster than the leader's (0.15 is 15 %) if the callback
// returns within stop after a loss:
//
//	LeaseDuration / (RenewDeadline + stop) − 1
//
// The result is negative if stop is longer than the stop budget: nothing is guaranteed after a loss then.
func (p Promise) ClockRate(stop time.Duration) float64 {
	return float64(p.Takeover)/float64(p.Takeover-p.StopBudget+stop) - 1
}

// String returns the promise in one line.
func (p Promise) String() string {
	if p == (Promise{}) {
		return "no promise"
	}
	return fmt.Sprintf("outage survived %v, stop budget %v, takeover %v after a crashed leader's last renewal, "+
		"clock rates up to %.0f %% apart (%.0f %% if half of the stop budget is used), "+
		"requests a minute: leader %.3g, standby 0 (%.3g without watch)",
		p.Outage.Round(100*time.Millisecond), p.StopBudget, p.Takeover,
		100*p.ClockRate(0), 100*p.ClockRate(p.StopBudget/2), p.LeaderRequests, p.PollingRequests)
}
