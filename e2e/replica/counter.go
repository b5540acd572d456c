package main

import (
	"context"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/elector-go/elector/e2e/internal/event"
)

// A counter counts the requests that go to the API server, whoever sends them.
type counter struct {
	mu    sync.Mutex // guards verbs
	verbs map[string]int
}

func newCounter() *counter { return &counter{verbs: map[string]int{}} }

func (c *counter) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		verb := r.Method
		if r.URL.Query().Get("watch") != "" {
			verb = "WATCH"
		}
		c.mu.Lock()
		c.verbs[verb]++
		c.mu.Unlock()
		return next.RoundTrip(r)
	})
}

func (c *counter) snapshot() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.verbs)
}

// report sends the counts each second until ctx ends.
func (c *counter) report(ctx context.Context, tell func(event.Event)) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tell(event.Event{Kind: event.Requests, RequestsNow: c.snapshot()})
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
