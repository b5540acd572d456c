package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"
)

// chaosFigures collects what the chaos tests have cost.
var chaosFigures = damages{by: map[damageKey]damage{}}

type damageKey struct {
	name string // of the case
	who  electorKind
}

// A damage is the sum or the worst of some rounds of a case.
type damage struct {
	rounds, lost int
	overlap, gap time.Duration
}

type damages struct {
	mu sync.Mutex // guards by
	by map[damageKey]damage
}

func (d *damages) add(name string, who electorKind, overlap time.Duration, lost int, gap time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.by[damageKey{name, who}]
	d.by[damageKey{name, who}] = damage{old.rounds + 1, old.lost + lost, max(old.overlap, overlap), max(old.gap, gap)}
}

// table is "" if nothing was measured.
func (d *damages) table() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.by) == 0 {
		return ""
	}
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 1, ' ', tabwriter.Debug)
	fmt.Fprintf(w, "\nchaos \t elector: overlap \t terms lost \t gap \t client-go: overlap \t terms lost \t gap \n")
	for _, c := range chaosCases {
		fmt.Fprintf(w, "%s \t %s \t %s \n", c.name, d.by[damageKey{c.name, ours}], d.by[damageKey{c.name, clientGo}])
	}
	w.Flush()
	text.WriteString("overlap: the longest time that two callbacks ran at once; one that is suspended for 20 s does not run meanwhile\n" +
		"gap: all the time in which none ran; a callback takes 2 s to return, and after the suspension no time\n")
	return text.String()
}

// String is three cells of the table.
func (d damage) String() string {
	switch d.rounds {
	case 0:
		return "- \t - \t -"
	case 1:
		return fmt.Sprintf("%.3f s \t %d \t %.3f s", d.overlap.Seconds(), d.lost, d.gap.Seconds())
	default:
		return fmt.Sprintf("%.3f s \t %d in %d rounds \t %.3f s", d.overlap.Seconds(), d.lost, d.rounds, d.gap.Seconds())
	}
}

// leaderless is the time in which no callback ran, from the begin of the first to until.
func leaderless(spans []span, until time.Time) time.Duration {
	spans = slices.SortedFunc(slices.Values(spans), func(a, b span) int { return a.begin.Compare(b.begin) })
	var gap time.Duration
	if len(spans) == 0 {
		return 0
	}
	covered := spans[0].begin
	for _, s := range append(spans, span{begin: until}) {
		gap += max(0, s.begin.Sub(covered))
		if s.end.After(covered) {
			covered = s.end
		}
	}
	return gap
}

// without cuts a time out of the spans of its replica.
func without(spans []span, cut span) (rest []span) {
	for _, s := range spans {
		if s.replica != cut.replica || !s.begin.Before(cut.end) || !cut.begin.Before(s.end) {
			rest = append(rest, s)
			continue
		}
		if s.begin.Before(cut.begin) {
			rest = append(rest, span{s.replica, s.begin, cut.begin})
		}
		if cut.end.Before(s.end) {
			rest = append(rest, span{s.replica, cut.end, s.end})
		}
	}
	return rest
}

func TestTheTimeWithoutALeaderIsWhatNoSpanCovers(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	for _, c := range []struct {
		name  string
		spans []span
		want  time.Duration
	}{
		{"none", nil, 0},
		{"one that goes on", []span{{"a", at(10), at(60)}}, 0},
		{"nobody leads in the end", []span{{"a", at(0), at(9)}}, 51 * time.Second},
		{"two holes", []span{{"c", at(20), at(60)}, {"a", at(0), at(3)}, {"b", at(5), at(6)}}, 16 * time.Second},
		{"one inside another", []span{{"a", at(0), at(9)}, {"b", at(1), at(2)}, {"c", at(10), at(60)}}, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, leaderless(c.spans, at(60))) })
	}
}

func TestACutLeavesWhatIsBeforeAndAfter(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	spans := []span{{"a", at(0), at(9)}, {"b", at(3), at(4)}, {"a", at(5), at(6)}}
	require.Equal(t, []span{{"a", at(0), at(2)}, {"a", at(8), at(9)}, {"b", at(3), at(4)}}, without(spans, span{"a", at(2), at(8)}))
}
