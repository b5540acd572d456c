package protocol

import "time"

// An Instant is a moment by both clocks of a machine. The zero Instant is none. Instants of different machines cannot be
// compared.
type Instant struct {
	Mono time.Duration // by the monotonic clock, above zero. It may stand still while the machine is suspended
	Wall time.Duration // by the wall clock, since 1970. It may be set forward or back
}

// IsZero reports whether there is no such moment.
func (i Instant) IsZero() bool { return i == Instant{} }

// Add returns the moment d later.
func (i Instant) Add(d time.Duration) Instant { return Instant{i.Mono + d, i.Wall + d} }

// Sub returns how much later i is than j, by the monotonic clock.
func (i Instant) Sub(j Instant) time.Duration { return i.Mono - j.Mono }

// Before reports whether i is earlier than j, by the monotonic clock.
func (i Instant) Before(j Instant) bool { return i.Mono < j.Mono }

// After reports whether i is later than j, by the monotonic clock.
func (i Instant) After(j Instant) bool { return i.Mono > j.Mono }

// Age is the time since t by the monotonic or by the wall clock, whichever has gone on further: the first stands still
// while a machine is suspended, the second may be set back. The end of a term's authority is measured by it (S2).
func Age(t, now Instant) time.Duration { return max(now.Mono-t.Mono, now.Wall-t.Wall) }

func latest(a, b Instant) Instant {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b Instant) Instant {
	if b.Before(a) {
		return b
	}
	return a
}
