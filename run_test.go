package elector_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector"
)

func TestTheContextOfTheCallbackCarriesValuesOfRuns(t *testing.T) {
	inWorld(t, func(w *world) {
		type key struct{}
		e, err := elector.New(w.api.Client("a").CoordinationV1(), elector.Options{Namespace: namespace, Name: name, Run: func(ctx context.Context) error {
			assert.Equal(w, "value", ctx.Value(key{}))
			return nil
		}})
		require.NoError(w, err)
		require.NoError(w, e.Run(context.WithValue(w.Context(), key{}, "value")))
	})
}

func TestAnElectionInsideTheCallbackOfAnotherDoesNotTakeTheOthersLossForItsOwn(t *testing.T) {
	inWorld(t, func(w *world) {
		boom := errors.New("boom")
		outer, cancel := context.WithCancelCause(w.Context())
		el, err := elector.New(w.api.Client("x").CoordinationV1(), elector.Options{
			Namespace: namespace, Name: "inner", Identity: "x",
			Run: func(ctx context.Context) error { <-ctx.Done(); return boom },
		})
		require.NoError(w, err)
		got := make(chan error, 1)
		go func() { got <- el.Run(outer) }()
		time.Sleep(time.Second)
		cancel(&elector.LostError{Reason: elector.ReasonTakenOver, Holder: "y"})
		require.ErrorIs(w, <-got, boom)
	})
}

func TestItsOwnErrorOfACtxWithACauseIsNone(t *testing.T) {
	inWorld(t, func(w *world) {
		e, err := elector.New(w.api.Client("a").CoordinationV1(), elector.Options{Namespace: namespace, Name: name,
			Run: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
		require.NoError(w, err)
		ctx, cancel := context.WithTimeoutCause(w.Context(), time.Minute, errors.New("the maintenance window is over"))
		defer cancel()
		assert.NoError(w, e.Run(ctx))
	})
}
