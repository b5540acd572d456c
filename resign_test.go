package elector_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// S8: resigning with notice.

func TestAProcessThatResignsIsFollowedWhenItsNoticeHasPassed(t *testing.T) {
	inWorld(t, func(w *world) {
		end := make(chan struct{})
		a := w.join("a", working(func(ctx context.Context) error { <-ctx.Done(); <-end; return nil }))
		w.awaitLeader(time.Second)
		b := w.join("b")
		time.Sleep(time.Minute)
		a.stop()
		time.Sleep(5 * time.Second)
		require.Equal(w, a.name, w.leader().name, "it drains, and keeps the Lease")
		term := a.el.Status().Term
		require.NoError(w, a.el.Resign(w.Context(), 1500*time.Millisecond))
		assert.False(w, term.Valid())
		time.Sleep(1900 * time.Millisecond)
		require.False(w, b.el.IsLeader(), "two whole seconds")
		close(end) // as the process does
		w.within(200*time.Millisecond, "b leads", func() bool { return w.leader() == b })
		assert.ErrorContains(w, a.awaitEnd(time.Second), "Resign was called, and the process did not end")
	})
}

func TestWhoHasNothingToResignIsToldSo(t *testing.T) {
	inWorld(t, func(w *world) {
		w.join("a")
		w.awaitLeader(time.Second)
		b := w.join("b")
		time.Sleep(time.Second)
		assert.ErrorIs(w, b.el.Resign(w.Context(), time.Second), elector.ErrNotLeader)
	})
}

func TestAResignationThatIsNotAnsweredIsGivenUpWithItsContext(t *testing.T) {
	inWorld(t, func(w *world) {
		end := make(chan struct{})
		defer close(end)
		a := w.join("a", working(func(ctx context.Context) error { <-ctx.Done(); <-end; return nil }))
		w.awaitLeader(time.Second)
		a.client.Partition(electortest.Both)
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		assert.ErrorIs(w, a.el.Resign(ctx, 2*time.Second), context.DeadlineExceeded)
		a.stop()
	})
}
