package elector

import (
	"context"
	"errors"
	"time"
)

var errNoHealth = errors.New("Options.Healthy has not answered within RenewDeadline")

// health asks Options.Healthy every RetryPeriod, in a goroutine of its own, and passes the answers to the election's
// goroutine (L6). nil is the health of a candidate that is never asked.
type health struct {
	answers chan error
}

func newHealth(ctx context.Context, healthy func(context.Context) error, every, limit time.Duration) *health {
	if healthy == nil {
		return nil
	}
	h := &health{answers: make(chan error)}
	go h.run(ctx, healthy, every, limit)
	return h
}

func (h *health) run(ctx context.Context, healthy func(context.Context) error, every, limit time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		h.ask(ctx, healthy, limit)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// ask asks once. It returns only when there is an answer, so that one question at a time is asked; but a late answer
// counts as none.
func (h *health) ask(ctx context.Context, healthy func(context.Context) error, limit time.Duration) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- healthy(limited) }()
	select {
	case err := <-answer:
		h.pass(ctx, err)
	case <-limited.Done():
		h.pass(ctx, errNoHealth)
		select {
		case <-answer:
		case <-ctx.Done():
		}
	}
}

func (h *health) pass(ctx context.Context, err error) {
	select {
	case h.answers <- err:
	case <-ctx.Done():
	}
}

// results is where the answers arrive; it blocks for ever for no health.
func (h *health) results() <-chan error {
	if h == nil {
		return nil
	}
	return h.answers
}
