package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// figures collects what the tests measure.
var figures = ledger{samples: map[entry][]float64{}}

// A figure is one line of the table.
type figure struct{ name, unit string }

var (
	cleanStop     = figure{"gap on a clean stop (SIGTERM)", "s"}
	crash         = figure{"last renewal to next leader (SIGKILL)", "s"}
	drainOverlap  = figure{"two at once while 8 s of work drain", "s"}
	drainGap      = figure{"gap after the drain", "s"}
	wakeActing    = figure{"acting on after SIGSTOP of 20 s", "s"}
	pollingStop   = figure{"gap on a clean stop without the right to watch", "s"}
	readmeStop    = figure{"gap on a clean stop with the README's Role", "s"}
	fromClientGo  = figure{"mixed fleet: client-go stops, elector leads", "s"}
	toClientGo    = figure{"mixed fleet: elector stops, client-go leads", "s"}
	leaderLoad    = figure{"requests a minute, leader", ""}
	standbyLoad   = figure{"requests a minute, standby", ""}
	deadTerms     = figure{"terms lost to connections gone silent", "lost"}
	deadRenewal   = figure{"connections gone silent: time to the next renewal", "s"}
	deadLeaders   = figure{"connections gone silent: nobody leads for", "s"}
	deadStandby   = figure{"clean stop 0-25 s after the standby's went silent: gap", "s"}
	slowTerms     = figure{"every answer takes 4 s for 60 s: terms lost", "lost"}
	slowLeaders   = figure{"every answer takes 4 s for 60 s: nobody leads for", "s"}
	editedTerms   = figure{"times of the Lease cut to milliseconds, ten times: terms lost", "lost"}
	policyWrites  = figure{"release made longer by a policy: writes", ""}
	policyStop    = figure{"release made longer by a policy: end of the work to end of Run", "s"}
	policyGap     = figure{"release made longer by a policy, to 10 s: gap", "s"}
	restart       = figure{"SIGKILL and restart with StateDir: begin of Run to leading", "s"}
	byAnnotation  = figure{"step down by annotation: gap", "s"}
	transferTime  = figure{"transfer by annotation: request to the named one's leading", "s"}
	figuresInLine = []figure{
		cleanStop, crash, drainOverlap, drainGap, wakeActing,
		leaderLoad, standbyLoad, readmeStop, pollingStop, fromClientGo, toClientGo,
		deadTerms, deadRenewal, deadLeaders, deadStandby,
		slowTerms, slowLeaders, editedTerms, policyWrites, policyStop, policyGap, restart, byAnnotation, transferTime,
	}
)

type entry struct {
	figure figure
	who    electorKind
}

type ledger struct {
	mu      sync.Mutex // guards samples
	samples map[entry][]float64
}

func (l *ledger) add(f figure, who electorKind, sample float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := entry{f, who}
	l.samples[e] = append(l.samples[e], sample)
}

func (l *ledger) addTime(f figure, who electorKind, sample time.Duration) {
	l.add(f, who, sample.Seconds())
}

func (l *ledger) sum(f figure, who electorKind) (sum float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, sample := range l.samples[entry{f, who}] {
		sum += sample
	}
	return sum
}

// summary returns the median and the worst of the n samples so far.
func (l *ledger) summary(f figure, who electorKind) (median, worst float64, n int) {
	l.mu.Lock()
	samples := slices.Clone(l.samples[entry{f, who}])
	l.mu.Unlock()
	if len(samples) == 0 {
		return 0, 0, 0
	}
	slices.Sort(samples)
	return samples[len(samples)/2], samples[len(samples)-1], len(samples)
}

// table is the text that goes to the reader, "" if nothing was measured.
func (l *ledger) table() string {
	if len(l.samples) == 0 {
		return ""
	}
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 1, ' ', tabwriter.Debug)
	fmt.Fprintf(w, "\nfigure \t elector \t client-go \n")
	for _, f := range figuresInLine {
		fmt.Fprintf(w, "%s \t %s \t %s \n", f.name, l.cell(f, ours), l.cell(f, clientGo))
	}
	w.Flush()
	return text.String()
}

func (l *ledger) cell(f figure, who electorKind) string {
	median, worst, n := l.summary(f, who)
	switch {
	case n == 0:
		return "-"
	case f.unit == "lost":
		return fmt.Sprintf("%.0f of %d", l.sum(f, who), n)
	case f.unit == "":
		return fmt.Sprintf("%.1f", median)
	case n == 1:
		return fmt.Sprintf("%.3f %s", median, f.unit)
	default:
		return fmt.Sprintf("%.3f %s median, %.3f %s worst of %d", median, f.unit, worst, f.unit, n)
	}
}
