package elector_test

import (
	"context"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-go/elector"
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

func TestWhateverOfTheUsersBlocksTheElectionGoesOn(t *testing.T) {
	for name, block := range map[string]func(o *elector.Options, b *blocked) logr.Logger{
		"the log": func(_ *elector.Options, b *blocked) logr.Logger {
			return funcr.New(func(string, string) { b.wait() }, funcr.Options{})
		},
		"Metrics": func(o *elector.Options, b *blocked) logr.Logger { o.Metrics = b; return logr.Discard() },
		"OnNewLeader": func(o *elector.Options, b *blocked) logr.Logger {
			o.OnNewLeader = func(string) { b.wait() }
			return logr.Discard()
		},
		"Yield": func(o *elector.Options, b *blocked) logr.Logger {
			o.Yield = func() time.Duration { b.wait(); return 0 }
			return logr.Discard()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				b := newBlocked()
				client := w.api.Client("a")
				client.SetLatency(roundTrip)
				o := elector.Options{Namespace: namespace, Name: "blocked", Identity: "a", Run: func(ctx context.Context) error { <-ctx.Done(); return nil }}
				log := block(&o, b)
				el, err := elector.New(client.CoordinationV1(), o)
				require.NoError(w, err)
				ctx, stop := context.WithCancel(logr.NewContext(w.Context(), log))
				ended := make(chan error)
				go func() { ended <- el.Run(ctx) }()
				time.Sleep(time.Minute)
				require.True(w, el.IsLeader(), "it leads and renews")
				require.Less(w, time.Since(el.Status().LastRenewal), 3*time.Second)
				require.NoError(w, el.StepDown(w.Context()))
				require.Empty(w, el.Leader(), "and releases")
				stop()
				time.Sleep(5 * time.Second)
				close(b.open)
				require.NoError(w, <-ended)
			})
		})
	}
}
