package elector

import (
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// What is the user's runs beside the election, so that nothing of it can stop the loop: klog writes in line, and a pipe may
// be full (L13).

// maxQueued is how many calls wait for one that does not return. What comes on top is dropped, and counted.
const maxQueued = 1000

// A callQueue makes calls to the user, in order and one at a time. It has a goroutine only while there is something to
// call. The zero value is ready.
type callQueue struct {
	dropped func(n int) // reports that n calls were dropped, once there is room again; nil for not at all

	mu      sync.Mutex // guards the rest
	queue   []func()
	lost    int  // calls dropped since the last report
	busy    bool // there is a goroutine
	running sync.WaitGroup
}

func (q *callQueue) add(call func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) >= maxQueued {
		q.lost++
		return
	}
	q.queue = append(q.queue, call)
	if !q.busy {
		q.busy = true
		q.running.Go(q.drain)
	}
}

func (q *callQueue) drain() {
	done := false
	defer func() {
		if !done {
			q.running.Go(q.drain) // a call has ended its goroutine, as the Fatal of a test does
		}
	}()
	for call := q.next(); call != nil; call = q.next() {
		call()
	}
	done = true
}

// next takes the next call, or the report of those that were dropped after it. It returns nil when there is nothing left.
func (q *callQueue) next() (call func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) > 0 {
		call, q.queue = q.queue[0], q.queue[1:]
		return call
	}
	if n := q.lost; n > 0 && q.dropped != nil {
		q.lost = 0
		return func() { q.dropped(n) }
	}
	q.busy = false
	return nil
}

// wait waits until all calls have returned, for limit at most; zero is no limit.
func (q *callQueue) wait(limit time.Duration) {
	if limit == 0 {
		q.running.Wait()
		return
	}
	done := make(chan struct{})
	go func() {
		q.running.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(limit):
	}
}

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
