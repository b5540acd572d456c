package elector

import (
	"errors"
	"fmt"
	"time"
)

// A Promise is what LeaseDuration, RenewDeadline and RetryPeriod amount to, in numbers. See Options.Promise.
type Promise struct {
	// Outage is how long the API may be out of reach, or answer with errors, without costing the term, wherever in the
	// renewal interval the outage begins: two thirds of RenewDeadline, less the time of an answer and a
	// pause of 0.02 s; or of 0.1 s, if the API is silent rather than failing.
	Outage time.Duration

	// StopBudget is the time that the callback has to return after a loss before another replica may lead:
	// LeaseDuration − RenewDeadline.
	StopBudget time.Duration

	// Takeover is the time from a crashed leader's last renewal to the next leader, less the time of one answer:
	// LeaseDuration. As renewals are sent every third of RenewDeadline, nobody leads for between LeaseDuration −
	// RenewDeadline/3 and LeaseDuration. After a clean stop nobody leads for milliseconds, whatever the settings.
	Takeover time.Duration

	// LeaderRequests is how many requests a minute a quiet leader sends, and PollingRequests a standby that may not
	// watch, at the most. A standby that watches sends none. The watch itself comes on top: opened anew every few
	// minutes, or tried once a minute where it is forbidden.
	LeaderRequests, PollingRequests float64
}

// Promise says what the three durations promise. The zero durations have their defaults. Settings that New refuses are an
// error here too; the other fields are not looked at.
func (o Options) Promise() (Promise, error) {
	o.defaultDurations()
	if err := errors.Join(o.checkDurations()...); err != nil {
		return Promise{}, fmt.Errorf("elector: %w", err)
	}
	interval := timing{renewDeadline: o.RenewDeadline, retryPeriod: o.RetryPeriod}.interval()
	return Promise{
		Outage:          o.RenewDeadline - interval,
		StopBudget:      o.LeaseDuration - o.RenewDeadline,
		Takeover:        o.LeaseDuration,
		LeaderRequests:  time.Minute.Seconds() / interval.Seconds(),
		PollingRequests: time.Minute.Seconds() / o.RetryPeriod.Seconds(),
	}, nil
}

// ClockRate is by how much faster than the leader's clock a standby's may run, 0.15 for 15 %, if the callback returns
// within stop after a loss:
//
//	LeaseDuration / (RenewDeadline + stop) − 1
//
// It is negative if stop is longer than the stop budget: then nothing is promised after a loss.
func (p Promise) ClockRate(stop time.Duration) float64 {
	return float64(p.Takeover)/float64(p.Takeover-p.StopBudget+stop) - 1
}

// String is the promise in a line.
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
