// Client-go draws its waiting times from math/rand, which then yields the same times in each run of this test.
//go:debug randautoseed=0

package figures

import (
	"cmp"
	"encoding/xml"
	"flag"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var write = flag.Bool("write", false, "write lanes.svg")

// TestThePictureShowsNoOverlapOfElectorAndThatOfClientGo plays the scenarios, holds the runs to what the README says of
// them, and draws them. The file is not compared: another Go or client-go may move a bar by a hair.
func TestThePictureShowsNoOverlapOfElectorAndThatOfClientGo(t *testing.T) {
	var all []drawing
	for _, s := range scenarios {
		d := drawing{s, map[kind]record{clientGo: typical(t, s, clientGo), ours: typical(t, s, ours)}}
		theirOverlap, theirGap := sum(t, d, clientGo)
		overlap, gap := sum(t, d, ours)
		assert.Zero(t, overlap, s.title)
		assert.LessOrEqual(t, gap, s.maxGap, s.title)
		assert.Greater(t, theirOverlap+theirGap, overlap+gap, s.title)
		assert.Equal(t, s.drain > 0, theirOverlap > 0, "client-go overlaps whenever its callback takes time: %s", s.title)
		require.Equal(t, d.runs[clientGo].events, d.runs[ours].events, "one line stands for the event in both: %s", s.title)
		all = append(all, d)
	}
	svg, err := picture(all)
	require.NoError(t, err)
	require.NoError(t, xml.Unmarshal(svg, new(struct{})))
	if *write {
		require.NoError(t, os.WriteFile("lanes.svg", svg, 0o644))
	}
}

// typical plays a scenario again and again and returns the run in the middle, neither lucky nor unlucky.
func typical(t *testing.T, s scenario, k kind) record {
	t.Helper()
	const enough = 15
	var runs []record
	for tries := 0; len(runs) < enough; tries++ {
		require.Less(t, tries, 100*enough, "the replicas of %s do not lead in the order %v", k, s.order)
		var r record
		synctest.Test(t, func(*testing.T) { r = s.run(k) })
		if slices.Equal(r.order(), s.order) {
			runs = append(runs, r)
		}
	}
	slices.SortFunc(runs, func(a, b record) int { return cmp.Compare(s.harm(a), s.harm(b)) })
	return runs[enough/2]
}

// harm is for how long not just one callback ran.
func (s scenario) harm(r record) time.Duration {
	overlap, gap := totals(r.faults(s.from, s.until))
	return overlap + gap
}

// sum prints and returns what went wrong in a run.
func sum(t *testing.T, d drawing, k kind) (overlap, gap time.Duration) {
	faults := d.runs[k].faults(d.from, d.until)
	overlap, gap = totals(faults)
	t.Logf("%-9s  overlap %-5s  gap %-5s  %s", k, length(overlap), length(gap), d.title)
	return overlap, gap
}
