package leaderelection

import (
	"context"
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
	behind coordinationv1client.LeasesGetter
	gate   *gate
}

// Leases returns the client of a namespace.
func (c *gatedClient) Leases(namespace string) coordinationv1client.LeaseInterface {
	return c.Wrap(c.behind.Leases(namespace))
}

// Unwrap and Wrap let elector.New find a client of elector.NewClient behind the gate, and put its second connection
// behind the gate, too.
func (c *gatedClient) Unwrap() coordinationv1client.LeasesGetter { return c.behind }

// Wrap puts the client of a namespace behind the gate.
func (c *gatedClient) Wrap(leases coordinationv1client.LeaseInterface) coordinationv1client.LeaseInterface {
	return &gatedLeases{leases, c.gate}
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
