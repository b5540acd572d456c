package elector_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// L13: nothing of the user's stops the loop.

// blocked blocks whoever calls it until it is opened.
type blocked struct {
	elector.NoMetrics
	open chan struct{}
}

func newBlocked() *blocked { return &blocked{open: make(chan struct{})} }

func (b *blocked) wait() { <-b.open }

func (b *blocked) Request(types.NamespacedName, string, error) { b.wait() }

func (b *blocked) Event(runtime.Object, string, string, string) { b.wait() }

// A sink blocks in each of its methods from its second line on: the first is written before there is anything to lose.
type sink struct {
	*blocked
	begun *atomic.Bool
}

func (s sink) waitIfBegun() {
	if s.begun.Load() {
		s.wait()
	}
}

func (s sink) Init(logr.RuntimeInfo)                    {}
func (s sink) Enabled(int) bool                         { s.waitIfBegun(); return true }
func (s sink) WithValues(...any) logr.LogSink           { s.waitIfBegun(); return s }
func (s sink) WithName(string) logr.LogSink             { s.waitIfBegun(); return s }
func (s sink) Info(int, string, ...any)                 { s.waitIfBegun(); s.begun.Store(true) }
func (s sink) Error(err error, msg string, more ...any) { s.Info(0, msg, more...) }

func TestWhateverOfTheUsersBlocksTheElectionGoesOn(t *testing.T) {
	for name, c := range map[string]struct {
		block func(r *replica, o *elector.Options, b *blocked)
		waits bool // Run waits for its last call
	}{
		"the log":     {func(r *replica, _ *elector.Options, b *blocked) { r.sink = sink{b, new(atomic.Bool)} }, false},
		"Metrics":     {func(_ *replica, o *elector.Options, b *blocked) { o.Metrics = b }, false},
		"Events":      {func(_ *replica, o *elector.Options, b *blocked) { o.Events = b }, true},
		"OnNewLeader": {func(_ *replica, o *elector.Options, b *blocked) { o.OnNewLeader = func(string) { b.wait() } }, true},
		"Yield": {func(_ *replica, o *elector.Options, b *blocked) {
			o.Yield = func() time.Duration { b.wait(); return 0 }
		}, false},
		"OnOverrun": {func(_ *replica, o *elector.Options, b *blocked) { o.OnOverrun = func(elector.Term) { b.wait() } }, false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) { // which fails when two callbacks run at once
				b := newBlocked()
				w.playEachPhase(func(r *replica, o *elector.Options) { c.block(r, o, b) }, func(r *replica) {
					if time.Sleep(3 * time.Second); c.waits {
						close(b.open)
						b = newBlocked()
					}
					require.NoError(w, r.awaitEnd(time.Second))
				})
				close(b.open)
			})
		})
	}
}

// playEachPhase has a replica win, stand by, drain, release, lose its term and end, in the times that these take.
func (w *world) playEachPhase(opt option, ends func(r *replica)) {
	const drain, soon, yields = 3 * time.Second, 100 * time.Millisecond, 2*time.Second + 100*time.Millisecond
	a := w.join("a", draining(drain), opt)
	w.awaitLeader(yields)
	b := w.join("b", draining(drain))
	time.Sleep(time.Minute)
	w.oneTerm()
	require.Less(w, time.Since(a.el.Status().LastRenewal), 3*time.Second)

	begin := time.Now()
	require.NoError(w, a.el.StepDown(w.Context()))
	require.Less(w, time.Since(begin), drain+soon)
	require.Equal(w, b, w.awaitLeader(soon))
	time.Sleep(20 * time.Second)
	require.NoError(w, b.el.StepDown(w.Context()))
	require.Equal(w, a, w.awaitLeader(yields))
	b.stop()
	require.NoError(w, b.awaitEnd(time.Second))

	time.Sleep(20 * time.Second)
	now := metav1.NowMicro()
	w.kubectl(func(l *coordinationv1.Lease) {
		l.Spec.HolderIdentity, l.Spec.AcquireTime, l.Spec.RenewTime = ptr.To("thief"), &now, &now
	})
	w.within(drain+soon, "the end of the term that was stolen", func() bool { return w.leader() == nil })
	require.Less(w, w.last().told.Sub(now.Time), soon)
	w.awaitLeader(15*time.Second + yields)

	time.Sleep(20 * time.Second)
	a.client.Partition(electortest.Both)
	begin = time.Now()
	w.within(10*time.Second+drain+soon, "the end of the term that was lost", func() bool { return w.leader() == nil })
	require.Less(w, w.last().told.Sub(begin), 10*time.Second+soon)
	a.client.Partition(electortest.NoPartition)
	w.awaitLeader(20 * time.Second)

	time.Sleep(20 * time.Second)
	a.stop()
	w.within(drain+soon, "the release", func() bool { return holder(w.lease()) == "" })
	ends(a)
}
