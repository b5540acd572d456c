package elector_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

var _ elector.EventRecorder = record.EventRecorder(nil) // as the documentation says

// A ledger is what Events and Metrics received.
type ledger struct {
	elector.NoMetrics
	mu      sync.Mutex // guards told
	told    entries
	renewed func(renewals int) // called with each renewal, if it is not nil
	block   chan struct{}      // events wait for it, if it is not nil
}

type entries struct {
	events   []string
	about    *coordinationv1.Lease
	terms    []elector.Term
	lost     []elector.Reason
	latency  []time.Duration
	left     []time.Duration
	gaps     []time.Duration
	overruns int
	requests map[string]int
}

func (l *ledger) read() entries {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.told
	r.requests = maps.Clone(r.requests)
	return r
}

func (l *ledger) note(f func(r *entries)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.told)
}

func (l *ledger) Event(object runtime.Object, eventtype, reason, message string) {
	if l.block != nil {
		<-l.block
	}
	l.note(func(r *entries) {
		r.about = object.(*coordinationv1.Lease)
		r.events = append(r.events, eventtype+" "+reason+": "+message)
	})
}

func (l *ledger) Term(_ types.NamespacedName, t elector.Term) {
	l.note(func(r *entries) { r.terms = append(r.terms, t) })
}

func (l *ledger) Lost(_ types.NamespacedName, reason elector.Reason) {
	l.note(func(r *entries) { r.lost = append(r.lost, reason) })
}

func (l *ledger) HandedOver(_ types.NamespacedName, gap time.Duration) {
	l.note(func(r *entries) { r.gaps = append(r.gaps, gap) })
}

func (l *ledger) Overrun(types.NamespacedName) { l.note(func(r *entries) { r.overruns++ }) }

func (l *ledger) Renewed(_ types.NamespacedName, latency, left, of time.Duration) {
	if of != 10*time.Second {
		panic(of)
	}
	l.note(func(r *entries) { r.latency, r.left = append(r.latency, latency), append(r.left, left) })
	if l.renewed != nil {
		l.renewed(len(l.read().left))
	}
}

func (l *ledger) Request(lease types.NamespacedName, verb string, err error) {
	if lease.Namespace != namespace {
		panic(lease)
	}
	if err != nil {
		verb += " " + string(apierrors.ReasonForError(err))
	}
	l.note(func(r *entries) {
		if r.requests == nil {
			r.requests = map[string]int{}
		}
		r.requests[verb]++
	})
}

func told(l *ledger) option {
	return with(func(o *elector.Options) { o.Events, o.Metrics = l, l })
}

func TestEventsReportEachTermAndWhyItEnded(t *testing.T) {
	for want, end := range map[string]func(w *world, a *replica){
		`Warning LeaderElection: a stopped leading: taken over by "stranger"`: func(w *world, _ *replica) { w.usurp() },
		"Warning LeaderElection: a stopped leading: renew deadline passed":    func(_ *world, a *replica) { a.client.Partition(electortest.Both) },
		"Normal LeaderElection: a stopped leading: stepped down":              func(w *world, a *replica) { require.NoError(w, a.el.StepDown(w.Context())) },
		"Normal LeaderElection: a stopped leading: asked to stop":             func(_ *world, a *replica) { a.stop() },
		"Normal LeaderElection: a stopped leading: the callback returned":     func(w *world, a *replica) { w.finish <- nil },
		"Warning LeaderElection: a stopped leading: the callback failed: no":  func(w *world, a *replica) { w.finish <- errors.New("no") },
	} {
		t.Run(want, func(t *testing.T) {
			inWorld(t, func(w *world) {
				var l ledger
				w.finish = make(chan error)
				a := w.join("a", told(&l), working(func(ctx context.Context) error {
					select {
					case err := <-w.finish:
						return err
					case <-ctx.Done():
						return nil
					}
				}))
				w.pass(time.Second)
				end(w, a)
				w.pass(12 * time.Second)
				assert.Equal(w, []string{"Normal LeaderElection: a became leader", want}, l.read().events)
				assert.Equal(w, "coordination.k8s.io/v1, Kind=Lease", l.read().about.GroupVersionKind().String())
				assert.Equal(w, w.lease().UID, l.read().about.UID)
				assert.Equal(w, namespace+"/"+name, l.read().about.Namespace+"/"+l.read().about.Name)
			})
		})
	}
}

func TestALossIsReportedWhileTheCallbackStillDrains(t *testing.T) {
	inWorld(t, func(w *world) {
		var l ledger
		w.join("a", told(&l), draining(4*time.Second))
		w.pass(time.Second)
		w.usurp()
		w.pass(time.Second)
		assert.Len(w, l.read().events, 2)
		assert.Equal(w, []elector.Reason{elector.ReasonTakenOver}, l.read().lost)
		w.pass(10 * time.Second)
		assert.Len(w, l.read().events, 2, "and once only")
		assert.Len(w, l.read().lost, 1)
	})
}

func TestARecorderThatBlocksDoesNotHoldUpTheElection(t *testing.T) {
	inWorld(t, func(w *world) {
		l := ledger{block: make(chan struct{})}
		var names []string
		a := w.join("a", told(&l), with(func(o *elector.Options) {
			o.OnNewLeader = func(who string) { names = append(names, who) }
		}))
		w.pass(time.Minute)
		require.NoError(w, a.el.StepDown(w.Context()))
		b := w.join("b")
		require.Equal(w, b, w.awaitLeader(time.Second))
		a.stop()
		w.pass(time.Minute)
		assert.Equal(w, []string{"a", "b"}, names)
		close(l.block)
		<-a.done
		assert.Len(w, l.read().events, 2, "Run has waited for the last one")
	})
}

func TestMetricsReportWhatHappens(t *testing.T) {
	inWorld(t, func(w *world) {
		var l ledger
		b := w.join("b")
		w.pass(time.Second)
		a := w.join("a", told(&l), draining(4500*time.Millisecond), with(func(o *elector.Options) { o.OnOverrun = func(elector.Term) {} }))
		w.pass(time.Minute)
		require.Len(w, l.read().terms, 1)
		assert.False(w, l.read().terms[0].Valid(), "at first the zero Term")
		b.stop()
		<-b.done
		w.pass(time.Minute)
		require.Len(w, l.read().terms, 2)
		assert.True(w, l.read().terms[1].Valid())
		assert.Less(w, l.read().gaps[0], 15*time.Millisecond, "after a clean stop")
		assert.InDelta(w, 29, len(l.read().left), 1)
		for i := range l.read().left {
			assert.Equal(w, roundTrip, l.read().latency[i])
			assert.InDelta(w, 8, l.read().left[i].Seconds(), 0.01)
		}
		assert.Equal(w, 1, l.read().requests["watch"])

		a.client.Partition(electortest.Both)
		w.pass(20 * time.Second)
		assert.Equal(w, []elector.Reason{elector.ReasonDeadlinePassed}, l.read().lost)
		assert.Equal(w, 1, l.read().overruns)
		assert.False(w, l.read().terms[1].Valid())
		assert.Greater(w, l.read().requests["update "]+l.read().requests["get "], 3, "without an answer")

		c := w.join("c")
		w.pass(time.Minute)
		require.Equal(w, c, w.leader())
		a.client.Partition(electortest.NoPartition)
		w.pass(time.Minute)
		c.crash()
		w.pass(time.Minute)
		require.Len(w, l.read().gaps, 2)
		assert.InDelta(w, 15, l.read().gaps[1].Seconds(), 0.05, "after a crash")
	})
}

func TestRequestsAreReportedWithTheirErrors(t *testing.T) {
	inWorld(t, func(w *world) {
		var l ledger
		client := w.api.Client("a")
		client.ForbidWatch(true)
		w.join("a", told(&l))
		w.pass(time.Second)
		assert.Equal(w, map[string]int{"get NotFound": 1, "create": 1, "watch Forbidden": 1}, l.read().requests)
		assert.Empty(w, l.read().gaps, "there was nobody to take over from")
	})
}

func TestTheStatusAsJSON(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join("a")
		w.pass(time.Second)
		get := func(method string) (*http.Response, map[string]any) {
			rec := httptest.NewRecorder()
			a.el.ServeHTTP(rec, httptest.NewRequest(method, "/", nil))
			var got map[string]any
			_ = json.Unmarshal(rec.Body.Bytes(), &got)
			return rec.Result(), got
		}
		resp, got := get(http.MethodGet)
		assert.Equal(w, http.StatusOK, resp.StatusCode)
		assert.Equal(w, "application/json", resp.Header.Get("Content-Type"))
		status := a.el.Status()
		assert.Equal(w, map[string]any{
			"identity": "a", "leader": "a", "leading": true, "term": fmt.Sprint(status.Term.Token()),
			"validUntil":  status.Term.ValidUntil().Format(time.RFC3339Nano),
			"lastRenewal": status.LastRenewal.Format(time.RFC3339Nano),
		}, got)

		a.client.Intercept(func(electortest.Request) electortest.Fault { return electortest.Fault{Err: errors.New("boom")} })
		w.pass(time.Minute)
		_, got = get(http.MethodGet)
		assert.Equal(w, false, got["leading"])
		assert.NotContains(w, got, "term")
		assert.Contains(w, got["lastError"], "boom")

		resp, _ = get(http.MethodPost)
		assert.Equal(w, http.StatusMethodNotAllowed, resp.StatusCode)
	})
}

func TestALossInADrainIsReported(t *testing.T) {
	for what, lose := range map[string]func(w *world, a *replica){
		"taken over": func(w *world, _ *replica) { w.usurp() },
		"cut off":    func(_ *world, a *replica) { a.client.Partition(electortest.Both) },
	} {
		t.Run(what, func(t *testing.T) {
			inWorld(t, func(w *world) {
				var l ledger
				a := w.join("a", told(&l), draining(14*time.Second))
				w.pass(time.Second)
				a.stop()
				w.pass(time.Second)
				lose(w, a)
				w.pass(11500 * time.Millisecond)
				require.False(w, a.el.IsLeader())
				assert.Len(w, l.read().lost, 1)
				w.pass(20 * time.Second)
				assert.Len(w, l.read().lost, 1)
				assert.Len(w, l.read().events, 2)
			})
		})
	}
}

func TestAnElectionInsideAnothersCallbackDoesNotCountTheOthersLoss(t *testing.T) {
	inWorld(t, func(w *world) {
		var l ledger
		w.join("a", working(func(ctx context.Context) error {
			inner, err := elector.New(w.api.Client("inner").CoordinationV1(), elector.Options{Namespace: namespace, Name: "inner",
				Metrics: &l, Run: func(ctx context.Context) error { <-ctx.Done(); return nil }})
			require.NoError(w, err)
			return inner.Run(ctx)
		}))
		w.pass(time.Second)
		w.usurp()
		w.pass(time.Second)
		assert.Empty(w, l.read().lost, "its own Lease was released")
	})
}
