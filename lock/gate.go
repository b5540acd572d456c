package lock

import (
	"context"
	"net/http"
	"sync/atomic"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

// A gate stops a lock's writes, so that its Lease expires: that is neither a release, because the work may go on, nor
// the end of the process. The Elector sees writes that fail.
type gate struct{ closed atomic.Bool }

// gatedClient is a LeasesGetter behind a gate.
type gatedClient struct {
	coordinationv1client.LeasesGetter
	gate *gate
}

// Leases returns the client of a namespace.
func (c *gatedClient) Leases(namespace string) coordinationv1client.LeaseInterface {
	return &gatedLeases{c.LeasesGetter.Leases(namespace), c.gate}
}

type gatedLeases struct {
	coordinationv1client.LeaseInterface
	gate *gate
}

// Create is refused once the gate is closed.
func (l *gatedLeases) Create(ctx context.Context, lease *coordinationv1.Lease, opts metav1.CreateOptions) (*coordinationv1.Lease, error) {
	if l.gate.closed.Load() {
		return nil, errLeft
	}
	return l.LeaseInterface.Create(ctx, lease, opts)
}

// Update is refused once the gate is closed.
func (l *gatedLeases) Update(ctx context.Context, lease *coordinationv1.Lease, opts metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	if l.gate.closed.Load() {
		return nil, errLeft
	}
	return l.LeaseInterface.Update(ctx, lease, opts)
}

// wrap puts a transport behind the gate.
func (g *gate) wrap(next http.RoundTripper) http.RoundTripper { return &gatedTransport{next, g} }

type gatedTransport struct {
	next http.RoundTripper
	gate *gate
}

// WrappedRoundTripper lets client-go find what is behind the gate.
func (t *gatedTransport) WrappedRoundTripper() http.RoundTripper { return t.next }

// RoundTrip refuses writes once the gate is closed.
func (t *gatedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodGet || !t.gate.closed.Load() {
		return t.next.RoundTrip(req)
	}
	if req.Body != nil {
		req.Body.Close()
	}
	return nil, errLeft
}
