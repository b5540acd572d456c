package e2e

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector/e2e/internal/event"
)

// A span is one run of a callback, by the wall clock that all replicas share.
type span struct {
	replica    string
	begin, end time.Time
}

// spans returns the runs of all callbacks. A run that has not ended ends with its process, or else now.
func (f *fleet) spans() []span {
	f.mu.Lock()
	defer f.mu.Unlock()
	var spans []span
	open := map[string]int{}
	for _, e := range f.events {
		switch e.Kind {
		case event.Begin:
			open[e.Replica] = len(spans)
			spans = append(spans, span{replica: e.Replica, begin: e.At, end: time.Now()})
		case event.End:
			spans[open[e.Replica]].end = e.At
			delete(open, e.Replica)
		}
	}
	for _, r := range f.replicas {
		i, unfinished := open[r.id]
		select {
		case <-r.proc.Done():
			if unfinished {
				spans[i].end, _ = r.proc.Result()
			}
		default:
		}
	}
	return spans
}

// longestOverlap is the longest time that two callbacks have run at once.
func longestOverlap(spans []span) time.Duration {
	spans = slices.SortedFunc(slices.Values(spans), func(a, b span) int { return a.begin.Compare(b.begin) })
	var longest time.Duration
	for i, a := range spans {
		for _, b := range spans[i+1:] {
			longest = max(longest, earlier(a.end, b.end).Sub(b.begin))
		}
	}
	return longest
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// requireOneAtATime is the promise.
func (f *fleet) requireOneAtATime() {
	f.t.Helper()
	spans := f.spans()
	require.Zero(f.t, longestOverlap(spans), "two callbacks at once: %+v", spans)
}

func TestOverlapIsTheTimeThatTwoSpansShare(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	for _, c := range []struct {
		name  string
		spans []span
		want  time.Duration
	}{
		{"none", nil, 0},
		{"one after the other", []span{{"a", at(0), at(2)}, {"b", at(2), at(3)}}, 0},
		{"the next too early", []span{{"b", at(5), at(9)}, {"a", at(0), at(6)}}, time.Second},
		{"one inside a long one, not its neighbour", []span{{"a", at(0), at(9)}, {"b", at(1), at(2)}, {"c", at(4), at(7)}}, 3 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, longestOverlap(c.spans)) })
	}
}
