package leaderelection

import (
	"context"
	"sync/atomic"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

// A cutoff stops a lock's requests, so that its Lease expires: that is neither a release, because the work may go on, nor
// the end of the process. The Elector sees requests that fail.
type cutoff struct{ on atomic.Bool }

// cutoffClient is a LeasesGetter behind a cutoff.
type cutoffClient struct {
	behind coordinationv1client.LeasesGetter
	cutoff *cutoff
}

// Leases returns the client of a namespace.
func (c *cutoffClient) Leases(namespace string) coordinationv1client.LeaseInterface {
	return c.Wrap(c.behind.Leases(namespace))
}

// Unwrap and Wrap let elector.New find a client of elector.NewClient behind the cutoff, and put its second connection
// behind the cutoff, too.
func (c *cutoffClient) Unwrap() coordinationv1client.LeasesGetter { return c.behind }

// Wrap puts the client of a namespace behind the cutoff.
func (c *cutoffClient) Wrap(leases coordinationv1client.LeaseInterface) coordinationv1client.LeaseInterface {
	return &cutoffLeases{leases, c.cutoff}
}

type cutoffLeases struct {
	coordinationv1client.LeaseInterface
	cutoff *cutoff
}

// Get is refused once the cutoff is on. Otherwise answers and refusals would alternate in the log.
func (l *cutoffLeases) Get(ctx context.Context, name string, opts metav1.GetOptions) (*coordinationv1.Lease, error) {
	if l.cutoff.on.Load() {
		return nil, errLeft
	}
	return l.LeaseInterface.Get(ctx, name, opts)
}

// Create is refused once the cutoff is on.
func (l *cutoffLeases) Create(ctx context.Context, lease *coordinationv1.Lease, opts metav1.CreateOptions) (*coordinationv1.Lease, error) {
	if l.cutoff.on.Load() {
		return nil, errLeft
	}
	return l.LeaseInterface.Create(ctx, lease, opts)
}

// Update is refused once the cutoff is on.
func (l *cutoffLeases) Update(ctx context.Context, lease *coordinationv1.Lease, opts metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	if l.cutoff.on.Load() {
		return nil, errLeft
	}
	return l.LeaseInterface.Update(ctx, lease, opts)
}
