package alerts_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

var write = flag.Bool("write", false, "write ../dashboard.svg")

// A dashboard is as much of Grafana's as is tested.
type dashboard struct {
	Templating struct{ List []struct{ Name string } }
	Panels     []panel
}

type panel struct {
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []struct{ Expr, LegendFormat string }
	FieldConfig              struct{ Defaults struct{ Unit string } }
}

// A curve is a series that a panel shows.
type curve struct {
	legend string
	points []promql.FPoint
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	text, err := os.ReadFile("../dashboard.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &d))
	return d
}

// rough is an afternoon with all that a dashboard is for.
func rough(w *world) {
	deaf := func(o *elector.Options) {
		o.Run = func(ctx context.Context) error { <-ctx.Done(); time.Sleep(4500 * time.Millisecond); return nil }
	}
	recovers := func(o *elector.Options) { o.RecoveryDeadline = 5 * time.Minute }
	w.deploy(3, recovers)
	w.roll(3, 20*time.Second, recovers) // whoever is left of the first three may lead in the outage
	time.Sleep(10 * time.Minute)
	w.leader().kill()
	w.start(w.api, deaf)
	time.Sleep(10 * time.Minute)
	w.outage(electortest.Fault{Err: electortest.Unavailable()}, 8*time.Second)
	time.Sleep(10 * time.Minute)
	for deafLeads(w) {
		require.NoError(w, w.leader().el.StepDown(w.Context()))
		time.Sleep(time.Minute)
	}
	w.outage(electortest.Fault{Err: electortest.Unavailable()}, 2*time.Minute)
	time.Sleep(10 * time.Minute)
	w.takeOver()
	time.Sleep(10 * time.Minute)
	for !deafLeads(w) {
		require.NoError(w, w.leader().el.StepDown(w.Context()))
		time.Sleep(time.Minute)
	}
	w.outage(electortest.Fault{LoseRequest: true}, 20*time.Second)
	time.Sleep(15 * time.Minute)
}

// deafLeads reports whether the pod that was started last leads.
func deafLeads(w *world) bool { return w.leader() == w.pods[len(w.pods)-1] }

// query has Prometheus's own engine answer the panels' queries, as Grafana would ask them.
func query(t *testing.T, d dashboard, all []sample, begin, end time.Time) (shown [][]curve) {
	t.Helper()
	db := teststorage.New(t)
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e7, Timeout: time.Minute, Parser: parser.NewParser(parser.Options{})})
	defer engine.Close()
	slices.SortStableFunc(all, func(a, b sample) int { return a.at.Compare(b.at) })
	ingest(t, db, all, end)
	for _, p := range d.Panels {
		var curves []curve
		for _, target := range p.Targets {
			expr := strings.NewReplacer("$namespace", ".*", "$name", ".*", "$__rate_interval", "1m").Replace(target.Expr)
			q, err := engine.NewRangeQuery(t.Context(), db, nil, expr, begin, end, 15*time.Second)
			require.NoError(t, err, "%s: %s", p.Title, expr)
			result := q.Exec(t.Context())
			require.NoError(t, result.Err, "%s: %s", p.Title, expr)
			matrix, err := result.Matrix()
			require.NoError(t, err)
			for _, series := range matrix {
				legend := regexp.MustCompile(`{{(\w+)}}`).ReplaceAllStringFunc(target.LegendFormat, func(label string) string {
					value := series.Metric.Get(strings.Trim(label, "{}"))
					require.NotEmpty(t, value, "%s: the legend's %s", p.Title, label)
					return value
				})
				curves = append(curves, curve{legend, slices.Clone(series.Floats)})
			}
			q.Close()
		}
		shown = append(shown, curves)
	}
	return shown
}

func TestEachPanelOfTheDashboardShowsWhatHasHappened(t *testing.T) {
	d := readDashboard(t)
	all, begin, end := play(t, 15*time.Second, rough)
	shown := query(t, d, all, begin, end)
	for i, p := range d.Panels {
		require.NotEmpty(t, p.Description, p.Title)
		for j, target := range p.Targets {
			require.NotEmpty(t, target.LegendFormat, p.Title)
			require.Contains(t, target.Expr, `namespace=~"$namespace", name=~"$name"`, "%s: the variables select", p.Title)
			single := dashboard{Panels: []panel{{Title: p.Title, Targets: p.Targets[j : j+1]}}}
			highest := math.Inf(-1)
			for _, c := range query(t, single, all, begin, end)[0] {
				for _, point := range c.points {
					if !math.IsNaN(point.F) {
						highest = max(highest, point.F)
					}
				}
			}
			require.Positive(t, highest, "%s: %s", p.Title, target.Expr)
		}
		t.Logf("%-32s %d series", p.Title, len(shown[i]))
	}
	if *write {
		require.NoError(t, os.WriteFile("../dashboard.svg", picture(t, d, shown, begin, end), 0o644))
	}
}

func TestThePictureIsThatOfTheDashboard(t *testing.T) {
	svg, err := os.ReadFile("../dashboard.svg")
	require.NoError(t, err)
	require.Contains(t, string(svg), drawnFrom(readDashboard(t)), "the picture is older than the panels: go -C metrics/alerts test -count=1 -v -run Dashboard . -write")
}

// Where units differ, one axis cannot have both.
func TestEachPanelHasOneUnit(t *testing.T) {
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			seconds := regexp.MustCompile(`_seconds(_bucket)?\{`).MatchString(target.Expr)
			require.Equal(t, p.FieldConfig.Defaults.Unit == "s", seconds, "%s: %s", p.Title, target.Expr)
		}
	}
}

func TestTheDashboardShowsEachMetricThereIs(t *testing.T) {
	d := readDashboard(t)
	var exprs strings.Builder
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			fmt.Fprintln(&exprs, target.Expr)
		}
	}
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	metrics := regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(string(readme), -1)
	require.Greater(t, len(metrics), 7)
	for _, m := range metrics {
		if strings.HasPrefix(m[1], "Elector") {
			continue // an alert
		}
		require.Contains(t, exprs.String(), m[1])
	}
}

func TestTheDashboardsVariablesAreThose(t *testing.T) {
	var names []string
	for _, v := range readDashboard(t).Templating.List {
		names = append(names, v.Name)
	}
	require.Equal(t, []string{"datasource", "namespace", "name"}, names)
}
