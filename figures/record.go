package figures

import (
	"math"
	"slices"
	"time"
)

// never is the end of what had not ended when the run did.
const never = time.Duration(math.MaxInt64)

// A span is a time in a lane.
type span struct {
	lane       int
	begin, end time.Duration
}

// A term is one run of a callback.
type term struct {
	span
	told time.Duration // when its ctx ended
}

// An event is what happened to a replica.
type event struct {
	at   time.Duration
	what string
}

// A record is what was seen of a world: times count from its first event.
type record struct {
	lives  []*span
	terms  []*term
	events []event
}

// fromFirstEvent returns the record with its times counted from the first event.
func (r record) fromFirstEvent() record {
	zero := r.events[0].at
	shift := func(t time.Duration) time.Duration {
		if t == never {
			return never
		}
		return t - zero
	}
	var s record
	for _, l := range r.lives {
		s.lives = append(s.lives, &span{l.lane, shift(l.begin), shift(l.end)})
	}
	for _, t := range r.terms {
		s.terms = append(s.terms, &term{span{t.lane, shift(t.begin), shift(t.end)}, shift(t.told)})
	}
	for _, e := range r.events {
		s.events = append(s.events, event{shift(e.at), e.what})
	}
	return s
}

// order is the lanes in the order in which they led.
func (r record) order() []int {
	var lanes []int
	for _, t := range r.terms {
		lanes = append(lanes, t.lane)
	}
	return lanes
}

// A stretch is a time in which a number of callbacks ran.
type stretch struct {
	begin, end time.Duration
	callbacks  int
}

func (s stretch) length() time.Duration { return s.end - s.begin }

// faults are the stretches between two moments in which not just one callback ran.
func (r record) faults(from, until time.Duration) []stretch {
	moments := []time.Duration{from, until}
	for _, t := range r.terms {
		for _, at := range []time.Duration{t.begin, t.end} {
			if from < at && at < until {
				moments = append(moments, at)
			}
		}
	}
	slices.Sort(moments)
	var all []stretch
	for i, end := range moments[1:] {
		s := stretch{moments[i], end, r.running(moments[i])}
		if s.callbacks != 1 && s.length() > 0 {
			all = append(all, s)
		}
	}
	return all
}

// running is how many callbacks run from a moment on.
func (r record) running(at time.Duration) (n int) {
	for _, t := range r.terms {
		if t.begin <= at && at < t.end {
			n++
		}
	}
	return n
}

// totals are how long two or more callbacks ran at once, and how long none did.
func totals(faults []stretch) (overlap, gap time.Duration) {
	for _, s := range faults {
		if s.callbacks > 1 {
			overlap += s.length()
		} else {
			gap += s.length()
		}
	}
	return overlap, gap
}
