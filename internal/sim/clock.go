package sim

import (
	"time"

	"github.com/elector-go/elector/internal/protocol"
)

// A clock has the two clocks of a process. Both run at the same rate, which is not that of the world's time.
type clock struct {
	since      time.Duration // the world's time at which they said the following
	mono, wall time.Duration
	rate       int64 // in 1024ths
	still      bool  // the monotonic clock stands still, because the machine is suspended
}

const usualRate = 1024

// wallEpoch is what a wall clock says about when the world begins.
const wallEpoch = 1_764_500_000 * time.Second

func (c *clock) at(t time.Duration) protocol.Instant {
	passed := (t - c.since) * time.Duration(c.rate) >> 10
	if c.still {
		return protocol.Instant{Mono: c.mono, Wall: c.wall + passed}
	}
	return protocol.Instant{Mono: c.mono + passed, Wall: c.wall + passed}
}

// rebase begins to count from t.
func (c *clock) rebase(t time.Duration) {
	i := c.at(t)
	c.since, c.mono, c.wall = t, i.Mono, i.Wall
}

// stop lets the monotonic clock stand still; start lets it go on.
func (c *clock) stop(t time.Duration)  { c.rebase(t); c.still = true }
func (c *clock) start(t time.Duration) { c.rebase(t); c.still = false }

// step sets the wall clock forward, or back.
func (c *clock) step(t, by time.Duration) { c.rebase(t); c.wall += by }

// when is the world's time at which the monotonic clock says mono, if it does not stand still meanwhile.
func (c *clock) when(mono time.Duration) time.Duration {
	return c.since + c.lasts(mono-c.mono)
}

// lasts is how long d by this clock is in the world's time, rounded up.
func (c *clock) lasts(d time.Duration) time.Duration {
	return (d<<10 + time.Duration(c.rate) - 1) / time.Duration(c.rate)
}
