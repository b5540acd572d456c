package elector

import (
	"time"

	"github.com/elector-go/elector/internal/protocol"
)

// started is when the process started. From then on the protocol's monotonic clock goes on by itself.
var started = time.Now()

// instant is t by both clocks, as the protocol counts.
func instant(t time.Time) protocol.Instant {
	return protocol.Instant{Mono: time.Duration(started.UnixNano()) + t.Sub(started), Wall: time.Duration(t.UnixNano())}
}

func now() protocol.Instant { return instant(time.Now()) }

// until is how long it takes until i.
func until(i protocol.Instant) time.Duration { return i.Sub(now()) }

// timeOf is i as people count, by the wall clock as it is now; zero for none.
func timeOf(i protocol.Instant) time.Time {
	if i.IsZero() {
		return time.Time{}
	}
	t := time.Now()
	return t.Add(i.Sub(instant(t)))
}
