package elector

import (
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/assert"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-go/elector/internal/beside"
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
	for i := range beside.Limit + 100 {
		r.log.Info("line", "n", i)
	}
	close(open)
	r.log.calls.Wait(0)
	e.metrics.calls.Wait(0)
	dropped := numbers.n["log"]
	assert.InDelta(t, 100, dropped, 1, "the first one may have been taken from the queue")
	assert.Len(t, lines, beside.Limit+100-dropped+1)
	assert.Contains(t, lines[0], `"n"=0`)
	assert.Contains(t, lines[beside.Limit-1], `"n"=999`)
	assert.Contains(t, lines[len(lines)-1], "dropped")

	r = newReporter(e, logr.Discard())
	block := make(chan struct{})
	for range beside.Limit + 100 {
		r.events.add(func() { <-block })
	}
	close(block)
	r.wait()
	assert.InDelta(t, 100, numbers.n["Events"], 1)
}

// As the Fatal of a test does that is called in OnNewLeader.
func TestACallThatEndsItsGoroutineDoesNotEndTheOthers(t *testing.T) {
	var q callQueue
	made := 0
	for range 3 {
		q.add(func() { made++; runtime.Goexit() })
	}
	q.Wait(0)
	assert.Equal(t, 3, made)
}

// stuck is Metrics of which each method blocks.
type stuck struct {
	NoMetrics
	open chan struct{}
}

func (s stuck) Term(types.NamespacedName, Term)                                           { <-s.open }
func (s stuck) Lost(types.NamespacedName, Reason)                                         { <-s.open }
func (s stuck) Renewed(types.NamespacedName, time.Duration, time.Duration, time.Duration) { <-s.open }
func (s stuck) HandedOver(types.NamespacedName, time.Duration)                            { <-s.open }
func (s stuck) Overrun(types.NamespacedName)                                              { <-s.open }
func (s stuck) Request(types.NamespacedName, string, error)                               { <-s.open }
func (s stuck) Dropped(types.NamespacedName, string, int)                                 { <-s.open }

func TestNoMethodOfMetricsIsWaitedFor(t *testing.T) {
	s := stuck{open: make(chan struct{})}
	e := anElector(0)
	e.opts.Metrics = s
	m := newMetricsBeside(e)
	for i := range reflect.TypeFor[Metrics]().NumMethod() {
		method := reflect.TypeFor[Metrics]().Method(i)
		if !method.IsExported() {
			continue
		}
		call := reflect.ValueOf(m).MethodByName(method.Name)
		args := make([]reflect.Value, call.Type().NumIn())
		for i := range args {
			args[i] = reflect.Zero(call.Type().In(i))
		}
		called := make(chan struct{})
		go func() { call.Call(args); close(called) }()
		select {
		case <-called:
		case <-time.After(10 * time.Second):
			t.Error(method.Name, "is called in line")
		}
	}
	close(s.open)
	m.calls.Wait(0)
}
