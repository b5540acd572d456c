package elector

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector/internal/beside"
)

// What is the user's runs beside the election, so that nothing of it can stop the loop: klog writes in line, and a pipe may
// be full (L13).

// A callQueue makes calls to the user. The zero value is ready.
type callQueue struct {
	beside.Queue
	dropped func(n int) // reports that n calls were dropped, once there is room again; nil for not at all
}

func (q *callQueue) add(call func()) { q.Add(call, q.dropped) }

// logBeside is a log that the election does not wait for.
type logBeside struct {
	log    klog.Logger
	calls  *callQueue
	values []any // on each line. The log itself takes them beside, too: it is the user's
}

// WithValues returns the log with more values on each line.
func (l logBeside) WithValues(kv ...any) logBeside {
	return logBeside{l.log, l.calls, append(slices.Clip(l.values), kv...)}
}

// Info logs what happens.
func (l logBeside) Info(msg string, kv ...any) {
	l.calls.add(func() { l.log.WithValues(l.values...).Info(msg, kv...) })
}

// Error logs what somebody has to do something about.
func (l logBeside) Error(err error, msg string, kv ...any) {
	l.calls.add(func() { l.log.WithValues(l.values...).Error(err, msg, kv...) })
}

// metricsBeside is a Metrics that the election does not wait for.
type metricsBeside struct {
	Metrics
	calls *callQueue
}

func newMetricsBeside(e *Elector) metricsBeside {
	return metricsBeside{e.opts.Metrics, &callQueue{dropped: func(n int) { e.opts.Metrics.Dropped(e.lease, "Metrics", n) }}}
}

func (m metricsBeside) Term(lease types.NamespacedName, term Term) {
	m.calls.add(func() { m.Metrics.Term(lease, term) })
}

func (m metricsBeside) Lost(lease types.NamespacedName, reason Reason) {
	m.calls.add(func() { m.Metrics.Lost(lease, reason) })
}

func (m metricsBeside) Renewed(lease types.NamespacedName, latency, left, renewDeadline time.Duration) {
	m.calls.add(func() { m.Metrics.Renewed(lease, latency, left, renewDeadline) })
}

func (m metricsBeside) HandedOver(lease types.NamespacedName, gap time.Duration) {
	m.calls.add(func() { m.Metrics.HandedOver(lease, gap) })
}

func (m metricsBeside) Overrun(lease types.NamespacedName) {
	m.calls.add(func() { m.Metrics.Overrun(lease) })
}

func (m metricsBeside) Request(lease types.NamespacedName, verb string, err error) {
	m.calls.add(func() { m.Metrics.Request(lease, verb, err) })
}

func (m metricsBeside) Dropped(lease types.NamespacedName, what string, n int) {
	m.calls.add(func() { m.Metrics.Dropped(lease, what, n) })
}
