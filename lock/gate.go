package lock

import (
	"context"
	"sync/atomic"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"

	"github.com/elector-go/elector"
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
	return c.gate.wrap(c.behind.Leases(namespace))
}

// behind puts the client behind the gate. A Client of package elector remains one, with its connections.
func (g *gate) behind(leases coordinationv1client.LeasesGetter) coordinationv1client.LeasesGetter {
	c, ok := leases.(*elector.Client)
	switch {
	case !ok:
		return &gatedClient{leases, g}
	case c == nil:
		return leases // elector.New refuses it
	default:
		return c.Wrap(g.wrap)
	}
}

// RESTClient lets elector.New see what is underneath.
func (c *gatedClient) RESTClient() rest.Interface {
	if over, ok := c.behind.(interface{ RESTClient() rest.Interface }); ok {
		return over.RESTClient()
	}
	return nil
}

func (g *gate) wrap(leases coordinationv1client.LeaseInterface) coordinationv1client.LeaseInterface {
	return &gatedLeases{leases, g}
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
