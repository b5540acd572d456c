package elector_test

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/elector-go/elector/electortest"
)

// A cutLine is a connection that breaks once: what is under way then has reached the server or will, and fails.
type cutLine struct {
	coordinationv1client.LeasesGetter
	broken chan struct{}
}

type cutLeases struct {
	coordinationv1client.LeaseInterface
	broken chan struct{}
}

func (c cutLine) Leases(namespace string) coordinationv1client.LeaseInterface {
	return cutLeases{c.LeasesGetter.Leases(namespace), c.broken}
}

func (c cutLeases) Update(ctx context.Context, lease *coordinationv1.Lease, opts metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	select {
	case <-c.broken:
		return c.LeaseInterface.Update(ctx, lease, opts)
	default:
	}
	type answer struct {
		lease *coordinationv1.Lease
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		lease, err := c.LeaseInterface.Update(ctx, lease, opts)
		answers <- answer{lease, err}
	}()
	select {
	case a := <-answers:
		return a.lease, a.err
	case <-c.broken:
		return nil, &url.Error{Op: "Put", URL: "https://api/leases", Err: io.ErrUnexpectedEOF}
	}
}

// TestABrokenConnectionOverASlowLineCostsNoTerm breaks it while every answer takes 2 s, at any moment. A new connection
// takes a round trip more before its first request arrives.
func TestABrokenConnectionOverASlowLineCostsNoTerm(t *testing.T) {
	const trip = 2 * time.Second
	for i := range 40 {
		moment := time.Minute + time.Duration(i)*100*time.Millisecond
		t.Run(fmt.Sprint(moment), func(t *testing.T) {
			inWorld(t, func(w *world) {
				client := w.api.Client("a")
				client.SetLatency(roundTrip)
				line := cutLine{client.CoordinationV1(), make(chan struct{})}
				w.joinOver(line, client, "a")
				w.awaitLeader(time.Second)
				w.join("b")
				client.SetLatency(trip)
				time.Sleep(moment)
				broken := time.Now()
				client.Intercept(func(electortest.Request) electortest.Fault {
					return electortest.Fault{Before: max(0, time.Until(broken.Add(trip)))}
				})
				close(line.broken)
				client.CloseWatches()
				time.Sleep(time.Minute)
				w.oneTerm()
			})
		})
	}
}
