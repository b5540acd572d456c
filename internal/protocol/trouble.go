package protocol

import "errors"

// ErrNoAnswer is the error of a request that was given up.
var ErrNoAnswer = errors.New("no answer within the time limit of an attempt")

// trouble is what is wrong with the API for a candidate. The zero value is none.
type trouble struct {
	failures int     // requests failed in a row
	err      error   // why the last one failed; nil once the API has answered since
	refused  Verb    // what the API refuses this candidate, 0 for nothing
	since    Instant // when it began to
}

func (t *trouble) failed(verb Verb, ev Event, now Instant) {
	t.failures++
	t.err = ev.Err
	if ev.Outcome != Refused {
		t.refused, t.since = 0, Instant{}
	} else if t.refused == 0 {
		t.refused, t.since = verb, now
	}
}

// succeeded takes in that the API has answered a request of the verb. Where it refuses another verb that is needed,
// that is not cured by this. It reports whether there was trouble, and is none any more.
func (t *trouble) succeeded(verb Verb) (cured bool) {
	t.failures = 0
	if t.err == nil || t.refused != 0 && t.refused != verb {
		return false
	}
	*t = trouble{}
	return true
}
