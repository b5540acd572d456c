// Package event is what a replica process reports to the test: one JSON object a line on its standard output.
package event

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// Kind says what happened.
type Kind string

// The kinds of events.
const (
	Ready     Kind = "ready"     // the process is about to start its elector
	Begin     Kind = "begin"     // the callback has begun
	Woke      Kind = "woke"      // the callback's first check after its own clock jumped
	Cancelled Kind = "cancelled" // the callback has seen its context's end
	End       Kind = "end"       // the callback is about to return
	Leader    Kind = "leader"    // another leader was reported
	Failure   Kind = "failure"   // the elector's last error changed
	Overrun   Kind = "overrun"   // the elector warned of a callback that does not end
	Suspended Kind = "suspended" // the term has no authority, and the callback goes on
	Resumed   Kind = "resumed"   // it has its authority again
	Requests  Kind = "requests"  // requests so far
	Exit      Kind = "exit"      // the elector has returned
)

// An Event is one line. Fields that do not belong to its kind are zero.
type Event struct {
	Replica string    `json:"replica"`
	Kind    Kind      `json:"kind"`
	At      time.Time `json:"-"`  // the wall clock, which all processes of one machine share
	AtNanos int64     `json:"at"` // At as it travels: nanoseconds since the epoch

	Token       uint64         `json:"token,omitempty"`       // Begin, Resumed
	Valid       bool           `json:"valid,omitempty"`       // Begin, Woke, Suspended, Resumed: what Term.Valid said
	ValidLooks  int            `json:"validLooks,omitempty"`  // End: how often Term.Valid was true after Woke
	Gap         time.Duration  `json:"gap,omitempty"`         // Woke: the jump
	Leader      string         `json:"leader,omitempty"`      // Leader
	Err         string         `json:"err,omitempty"`         // Cancelled: the cause; Exit, Failure: the error
	RequestsNow map[string]int `json:"requestsNow,omitempty"` // Requests, End, Exit: by verb
}

// Write writes events as lines and stamps those that have no time yet. It may be called concurrently.
func Write(w io.Writer, replica string) func(Event) {
	var mu sync.Mutex
	return func(e Event) {
		if e.At.IsZero() {
			e.At = time.Now()
		}
		e.Replica, e.AtNanos = replica, e.At.UnixNano()
		line, err := json.Marshal(e)
		if err != nil {
			panic(fmt.Sprintf("event: %+v cannot be marshalled: %v", e, err))
		}
		mu.Lock()
		defer mu.Unlock()
		// A reader that is gone is a test that is over: nobody is left to read.
		_, _ = w.Write(append(line, '\n'))
	}
}

// Parse reads one line.
func Parse(line []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(line, &e); err != nil {
		return Event{}, fmt.Errorf("event: %q: %w", line, err)
	}
	e.At = time.Unix(0, e.AtNanos)
	return e, nil
}
