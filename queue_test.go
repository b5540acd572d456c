package elector

import (
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/assert"
	"k8s.io/apimachinery/pkg/types"
)

// dropping keeps what was dropped.
type dropping struct {
	NoMetrics
	n map[string]int
}

func (d dropping) Dropped(_ types.NamespacedName, what string, n int) { d.n[what] += n }

// L13: what a user who blocks does not see is bounded, in order, and counted.
func TestCallsBehindOneThatBlocksAreKeptInOrderUpToALimitAndTheRestIsCounted(t *testing.T) {
	open, lines := make(chan struct{}), []string(nil)
	log := funcr.New(func(_, line string) {
		<-open
		lines = append(lines, line)
	}, funcr.Options{})
	e, numbers := anElector(0), dropping{n: map[string]int{}}
	e.opts.Metrics = numbers
	e.metrics = newMetricsBeside(e)
	r := newReporter(e, log)
	for i := range maxQueued + 100 {
		r.log.Info("line", "n", i)
	}
	close(open)
	r.log.calls.wait(0)
	e.metrics.calls.wait(0)
	dropped := numbers.n["log"]
	assert.InDelta(t, 100, dropped, 1, "the first one may have been taken from the queue")
	assert.Len(t, lines, maxQueued+100-dropped+1)
	assert.Contains(t, lines[0], `"n"=0`)
	assert.Contains(t, lines[maxQueued-1], `"n"=999`)
	assert.Contains(t, lines[len(lines)-1], "dropped")

	r = newReporter(e, logr.Discard())
	block := make(chan struct{})
	for range maxQueued + 100 {
		r.events.add(func() { <-block })
	}
	close(block)
	r.wait()
	assert.InDelta(t, 100, numbers.n["Events"], 1)
}
