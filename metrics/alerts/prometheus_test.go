package alerts_test

import (
	"context"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"
)

const file = "../alerts.yaml"

// A sample is one value of one series, as Prometheus would store it.
type sample struct {
	series labels.Labels
	at     time.Time
	value  float64
}

// samples are those of one scrape of a pod.
func samples(families []*dto.MetricFamily, pod string, at time.Time) (all []sample) {
	for _, f := range families {
		for _, m := range f.GetMetric() {
			add := func(suffix string, v float64, extra ...string) {
				b := labels.NewBuilder(labels.FromStrings(append(extra, "__name__", f.GetName()+suffix, "pod", pod, "instance", pod+":8080", "job", "orders")...))
				for _, l := range m.GetLabel() {
					b.Set(l.GetName(), l.GetValue())
				}
				all = append(all, sample{b.Labels(), at, v})
			}
			switch h := m.GetHistogram(); {
			case m.GetGauge() != nil:
				add("", m.GetGauge().GetValue())
			case m.GetCounter() != nil:
				add("", m.GetCounter().GetValue())
			case h != nil:
				add("_count", float64(h.GetSampleCount()))
				add("_sum", h.GetSampleSum())
				add("_bucket", float64(h.GetSampleCount()), "le", "+Inf")
				for _, bucket := range h.GetBucket() {
					add("_bucket", float64(bucket.GetCumulativeCount()), "le", model.SampleValue(bucket.GetUpperBound()).String())
				}
			}
		}
	}
	return all
}

// stale is what Prometheus stores when a target that it has scraped is not there any more.
func stale(last []sample, at time.Time) []sample {
	gone := slices.Clone(last)
	for i := range gone {
		gone[i].at, gone[i].value = at, math.Float64frombits(value.StaleNaN)
	}
	return gone
}

// A firing is an alert that fires, at one evaluation.
type firing struct {
	alert       string
	at          time.Time
	labels      map[string]string
	annotations map[string]string
}

// evaluate has Prometheus evaluate the alerts every 15 s while the samples come in.
func evaluate(t *testing.T, all []sample, begin, end time.Time) (fired []firing) {
	t.Helper()
	db := teststorage.New(t)
	parse := parser.NewParser(parser.Options{})
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, Parser: parse})
	defer engine.Close()
	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc:    rules.EngineQueryFunc(engine, db),
		AppendableV2: db,
		Queryable:    db,
		Context:      t.Context(),
		NotifyFunc:   func(context.Context, string, ...*rules.Alert) {},
		Logger:       promslog.NewNopLogger(),
		Parser:       parse,
	})
	groups, errs := manager.LoadGroups(15*time.Second, labels.EmptyLabels(), "http://prometheus", nil, false, file)
	require.Empty(t, errs)
	slices.SortStableFunc(all, func(a, b sample) int { return a.at.Compare(b.at) })
	for at := begin; at.Before(end); at = at.Add(15 * time.Second) {
		all = ingest(t, db, all, at)
		for _, group := range groups {
			group.Eval(t.Context(), at)
			for _, rule := range group.Rules() {
				require.NoError(t, rule.LastError(), rule.Name())
				fired = append(fired, firings(rule.(*rules.AlertingRule), at)...)
			}
		}
	}
	return fired
}

// ingest stores the samples until then, and returns the others.
func ingest(t *testing.T, db *teststorage.TestStorage, all []sample, until time.Time) []sample {
	t.Helper()
	n := 0
	app := db.AppenderV2(t.Context())
	for ; n < len(all) && !all[n].at.After(until); n++ {
		_, err := app.Append(0, all[n].series, 0, all[n].at.UnixMilli(), all[n].value, nil, nil, storage.AppendV2Options{})
		require.NoError(t, err)
	}
	require.NoError(t, app.Commit())
	return all[n:]
}

func firings(rule *rules.AlertingRule, at time.Time) (fired []firing) {
	for _, a := range rule.ActiveAlerts() {
		if a.State == rules.StateFiring {
			fired = append(fired, firing{rule.Name(), at, a.Labels.Map(), a.Annotations.Map()})
		}
	}
	return fired
}

// names are the alerts that fired, each once.
func names(fired []firing) []string {
	set := map[string]bool{}
	for _, f := range fired {
		set[f.alert] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// first is the first firing of an alert.
func first(t *testing.T, fired []firing, alert string) firing {
	t.Helper()
	fired = slices.DeleteFunc(slices.Clone(fired), func(f firing) bool { return f.alert != alert })
	require.NotEmpty(t, fired, alert)
	return slices.MinFunc(fired, func(a, b firing) int { return a.at.Compare(b.at) })
}

func TestTheRulesAreWellFormed(t *testing.T) {
	groups, errs := rulefmt.ParseFile(file, false, model.UTF8Validation, parser.NewParser(parser.Options{}), promslog.NewNopLogger())
	require.Empty(t, errs)
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			require.Contains(t, []string{"warning", "critical"}, r.Labels["severity"], r.Alert)
			require.NotEmpty(t, r.Annotations["summary"], r.Alert)
			require.NotEmpty(t, r.Annotations["description"], r.Alert)
			require.True(t, strings.HasPrefix(r.Alert, "Elector"), r.Alert)
		}
	}
}
