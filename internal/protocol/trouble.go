package protocol

// trouble is what is wrong with the API for a candidate. The zero value is none.
type trouble struct {
	failures int     // requests failed in a row
	lasts    bool    // no request of the kind that failed has been answered since
	refused  Verb    // what the API refuses this candidate, 0 for nothing
	since    Instant // when it began to
}

func (t *trouble) failed(verb Verb, refused bool, now Instant) {
	t.failures++
	t.lasts = true
	if !refused {
		t.refused, t.since = 0, Instant{}
	} else if t.refused == 0 {
		t.refused, t.since = verb, now
	}
}

// succeeded takes in that the API has answered a request of the verb. Where it refuses another verb that is needed,
// that is not cured by this. It reports whether there was trouble, and is none any more.
func (t *trouble) succeeded(verb Verb) (cured bool) {
	t.failures = 0
	if !t.lasts || t.refused != 0 && t.refused != verb {
		return false
	}
	*t = trouble{}
	return true
}
