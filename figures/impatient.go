package figures

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

// impatient gives up a request after half of client-go's RenewDeadline, as clients of resourcelock.NewFromKubeconfig do.
type impatient struct {
	coordinationv1client.LeasesGetter
}

func (i impatient) Leases(namespace string) coordinationv1client.LeaseInterface {
	return impatientLeases{i.LeasesGetter.Leases(namespace)}
}

type impatientLeases struct {
	coordinationv1client.LeaseInterface
}

func limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 5*time.Second)
}

func (i impatientLeases) Get(ctx context.Context, name string, o metav1.GetOptions) (*coordinationv1.Lease, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	return i.LeaseInterface.Get(ctx, name, o)
}

func (i impatientLeases) Create(ctx context.Context, l *coordinationv1.Lease, o metav1.CreateOptions) (*coordinationv1.Lease, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	return i.LeaseInterface.Create(ctx, l, o)
}

func (i impatientLeases) Update(ctx context.Context, l *coordinationv1.Lease, o metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	return i.LeaseInterface.Update(ctx, l, o)
}
