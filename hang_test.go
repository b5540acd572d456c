package elector_test

import (
	"context"
	"net/http"
	"path"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector"
)

// L12: 40 Leases whose writes hang, as behind a webhook, leave 50 of the 90 places that two links have.
func TestManyStuckLeasesAreNotNoticedByOneWithAShortDeadline(t *testing.T) {
	overWire(t, func(w *wire) {
		client := w.client()
		var begun atomic.Int32
		quick, err := elector.New(client, elector.Options{
			Namespace: namespace, Name: "quick", LeaseDuration: 2 * time.Second, RenewDeadline: time.Second, RetryPeriod: 250 * time.Millisecond,
			Run: func(ctx context.Context) error { begun.Add(1); <-ctx.Done(); return nil },
		})
		require.NoError(t, err)
		w.running.Go(func() { assert.NoError(t, quick.Run(w.ctx)) })
		var n atomic.Int64
		answers := func(http.ResponseWriter, *http.Request) bool {
			time.Sleep(time.Duration(5+5*(n.Add(1)%5)) * time.Millisecond) // as answers take: none as long as the last
			return false
		}
		w.intercept(answers)
		w.elect(40, client)
		time.Sleep(time.Minute)
		before := begun.Load()
		w.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPut || !strings.HasPrefix(path.Base(r.URL.Path), "shard-") {
				return answers(nil, r)
			}
			<-r.Context().Done()
			return true
		})
		time.Sleep(time.Minute)
		assert.Equal(t, before, begun.Load(), "terms of the one whose writes are answered")
		w.intercept(answers)
	})
}
