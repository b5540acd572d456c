package protocol

// trouble is what is wrong with the API for a candidate. The zero value is none.
type trouble struct {
	failures int     // requests failed in a row
	first    Instant // when the first of those was sent; zero for none
	lasts    bool    // no request of the kind that failed has been answered since
	refused  Verb    // what the API refuses this candidate, 0 for nothing
}

func (t *trouble) failed(k *call, refused bool) {
	if t.failures++; t.first.IsZero() {
		t.first = k.sent
	}
	t.lasts = true
	if !refused {
		t.refused = 0
	} else if t.refused == 0 {
		t.refused = k.verb
	}
}

// succeeded takes in that the API has answered a request of the verb. Where it refuses another verb that is needed,
// that is not cured by this. It reports whether there was trouble, and is none any more.
func (t *trouble) succeeded(verb Verb) (cured bool) {
	t.failures, t.first = 0, Instant{}
	if !t.lasts || t.refused != 0 && t.refused != verb {
		return false
	}
	*t = trouble{}
	return true
}
