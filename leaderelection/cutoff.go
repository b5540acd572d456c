package leaderelection

import (
	"context"
	"sync/atomic"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"

	"github.com/elector-go/elector"
)

// A cutoff stops a lock's requests, so that its Lease expires: that is neither a release, because the work may go on, nor
// the end of the process. The Elector sees requests that fail.
type cutoff struct{ on atomic.Bool }

// behind puts the client behind the cutoff. A Client of package elector remains one, with its connections.
func (c *cutoff) behind(leases coordinationv1client.LeasesGetter) coordinationv1client.LeasesGetter {
	client, ok := leases.(*elector.Client)
	switch {
	case !ok:
		return &cutoffClient{leases, c}
	case client == nil:
		return leases // elector.New refuses it
	default:
		return client.Wrap(c.wrap)
	}
}

func (c *cutoff) wrap(leases coordinationv1client.LeaseInterface) coordinationv1client.LeaseInterface {
	return &cutoffLeases{leases, c}
}

// cutoffClient is a LeasesGetter behind a cutoff.
type cutoffClient struct {
	client coordinationv1client.LeasesGetter
	cutoff *cutoff
}

// Leases returns the client of a namespace.
func (c *cutoffClient) Leases(namespace string) coordinationv1client.LeaseInterface {
	return c.cutoff.wrap(c.client.Leases(namespace))
}

// RESTClient lets elector.New see what is underneath.
func (c *cutoffClient) RESTClient() rest.Interface {
	if over, ok := c.client.(interface{ RESTClient() rest.Interface }); ok {
		return over.RESTClient()
	}
	return nil
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
