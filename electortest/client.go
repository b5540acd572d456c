package electortest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	applycoordinationv1 "k8s.io/client-go/applyconfigurations/coordination/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
)

var _ kubernetes.Interface = (*Client)(nil)

// Client is one client of a [Server], usable wherever a kubernetes.Interface is wanted. CoordinationV1().Leases goes
// to the Server over a link that can be slowed, cut and tampered with; every other resource is in client-go's fake
// clientset, which all clients of a Server share and which is not touched by any fault.
type Client struct {
	*fake.Clientset

	name    string
	server  *Server
	watches map[*leaseWatch]struct{} // those the client still listens to; guarded by server.mu

	latency     atomic.Int64 // of a round trip, as a time.Duration
	partition   atomic.Int32 // a Partition
	intercept   atomic.Pointer[func(Request) Fault]
	watchLag    atomic.Int64 // of watch events, as a time.Duration
	silent      atomic.Bool
	forbidWatch atomic.Bool
}

// CoordinationV1 returns the client for Leases, which are in the [Server].
func (c *Client) CoordinationV1() coordinationv1client.CoordinationV1Interface {
	return coordination{c}
}

// SetLatency sets how long a request and its answer take together: half the time passes before the server acts and
// half after. Watch events arrive half a round trip late and in order. The default is 0. It applies to what is sent
// from now on.
func (c *Client) SetLatency(roundTrip time.Duration) { c.latency.Store(int64(roundTrip)) }

// Intercept calls f for each request of this client, when it is sent, before anything else. f can read the request, and
// decides what goes wrong with it. f is called without locks, so it may use the Server and its clients (its own
// requests come to f too), and may be called from several goroutines at once. nil removes it.
func (c *Client) Intercept(f func(Request) Fault) {
	if f == nil {
		c.intercept.Store(nil)
		return
	}
	c.intercept.Store(&f)
}

// Partition cuts the link to the server, or heals it with [NoPartition], from this moment on.
func (c *Client) Partition(p Partition) { c.partition.Store(int32(p)) }

// CloseWatches has the server end this client's open watches, silent watches too. Like all that the server sends, the
// end of a watch arrives half a round trip later, and not through a [Partition]: such a watch stays open and silent.
func (c *Client) CloseWatches() {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.endWatches()
}

// endWatches is CloseWatches with server.mu held.
func (c *Client) endWatches() {
	for w := range c.watches {
		c.server.unregister(w)
		w.enqueue(delivery{end: true, forced: true})
	}
}

// SilenceWatches, with true, makes this client's watches go silent: open watches stay open, and new watches open, but
// nothing arrives on them any more, not even their end. With false, watches opened from now on are healthy; those
// once silenced remain silent until they are closed by the client or by [Client.CloseWatches].
func (c *Client) SilenceWatches(silent bool) {
	c.silent.Store(silent)
	if !silent {
		return
	}
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	for w := range c.watches {
		w.silence()
	}
}

// SetWatchLag makes this client's watches lag behind what the other requests show, as with an API server whose watch
// cache is late: an event arrives by lag later, and a watch opened now begins with the state of lag ago. The default
// is 0. It applies to events and to watches from now on.
func (c *Client) SetWatchLag(lag time.Duration) { c.watchLag.Store(int64(lag)) }

// ForbidWatch, with true, has the server answer watch requests of this client with 403, as for a role that has only
// get, create and update. Watches that are open go on.
func (c *Client) ForbidWatch(forbid bool) { c.forbidWatch.Store(forbid) }

func (c *Client) fault(req Request) Fault {
	if f := c.intercept.Load(); f != nil {
		return (*f)(req)
	}
	return Fault{}
}

func (c *Client) cut(direction Partition) bool {
	return Partition(c.partition.Load())&direction != 0
}

func (c *Client) lag() time.Duration { return time.Duration(c.watchLag.Load()) }

func (c *Client) oneWay() time.Duration { return time.Duration(c.latency.Load()) / 2 }

// coordination is CoordinationV1 of a Client.
type coordination struct{ client *Client }

// RESTClient returns a nil *rest.RESTClient, as client-go's fakes do: there is no HTTP underneath.
func (c coordination) RESTClient() rest.Interface {
	var none *rest.RESTClient
	return none
}

func (c coordination) Leases(namespace string) coordinationv1client.LeaseInterface {
	return leases{client: c.client, namespace: namespace}
}

// leases is the typed client of one namespace.
type leases struct {
	client    *Client
	namespace string
}

func (l leases) request(verb, name string, sent *coordinationv1.Lease) Request {
	return Request{Client: l.client.name, Verb: verb, Namespace: l.namespace, Name: name, Lease: sent.DeepCopy()}
}

// check refuses what client-go refuses before it sends anything.
func (l leases) check(name string) error {
	switch {
	case name == "":
		return errors.New("resource name may not be empty")
	case l.namespace == "":
		return errors.New("an empty namespace may not be set when a resource name is provided")
	}
	return nil
}

func (l leases) Get(ctx context.Context, name string, opts metav1.GetOptions) (*coordinationv1.Lease, error) {
	if err := l.check(name); err != nil {
		return &coordinationv1.Lease{}, err
	}
	return leaseTrip(ctx, l.client, l.request("get", name, nil), func() (*coordinationv1.Lease, error) {
		return l.client.server.get(types.NamespacedName{Namespace: l.namespace, Name: name}, opts.ResourceVersion)
	})
}

func (l leases) List(ctx context.Context, opts metav1.ListOptions) (*coordinationv1.LeaseList, error) {
	sel, err := parseSelection(l.namespace, opts)
	return orEmpty(roundTrip(ctx, l.client, l.request("list", sel.key.Name, nil), func(Fault) (*coordinationv1.LeaseList, error) {
		if err != nil {
			return nil, err
		}
		return l.client.server.list(sel, opts.ResourceVersion)
	}))
}

func (l leases) Create(ctx context.Context, lease *coordinationv1.Lease, opts metav1.CreateOptions) (*coordinationv1.Lease, error) {
	if l.namespace == "" {
		return &coordinationv1.Lease{}, errors.New("an empty namespace may not be set during creation")
	}
	sent := lease.DeepCopy()
	req := l.request("create", sent.Name, sent)
	return leaseTrip(ctx, l.client, req, func() (*coordinationv1.Lease, error) {
		if err := l.client.server.admit(req, sent); err != nil {
			return nil, err
		}
		return l.client.server.post(l.namespace, sent, isDryRun(opts.DryRun))
	})
}

func (l leases) Update(ctx context.Context, lease *coordinationv1.Lease, opts metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	if err := l.check(lease.Name); err != nil {
		return &coordinationv1.Lease{}, err
	}
	sent := lease.DeepCopy()
	req := l.request("update", sent.Name, sent)
	return leaseTrip(ctx, l.client, req, func() (*coordinationv1.Lease, error) {
		if err := l.client.server.admit(req, sent); err != nil {
			return nil, err
		}
		return l.client.server.put(l.namespace, sent, isDryRun(opts.DryRun))
	})
}

func (l leases) Patch(ctx context.Context, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions, subresources ...string) (*coordinationv1.Lease, error) {
	if err := l.check(name); err != nil {
		return &coordinationv1.Lease{}, err
	}
	data = append([]byte(nil), data...)
	req := l.request("patch", name, nil)
	return leaseTrip(ctx, l.client, req, func() (*coordinationv1.Lease, error) {
		if len(subresources) > 0 {
			return nil, apierrors.NewGenericServerResponse(404, "patch", leaseResource, name, "no such subresource", 0, true)
		}
		return l.client.server.patch(req, pt, data, isDryRun(opts.DryRun))
	})
}

// Apply is not supported: it needs field management, which an election has no use for.
func (l leases) Apply(ctx context.Context, lease *applycoordinationv1.LeaseApplyConfiguration, _ metav1.ApplyOptions) (*coordinationv1.Lease, error) {
	if lease == nil || lease.Name == nil {
		return nil, fmt.Errorf("lease and its name must be provided to Apply")
	}
	return l.Patch(ctx, *lease.Name, types.ApplyPatchType, nil, metav1.PatchOptions{})
}

func (l leases) Delete(ctx context.Context, name string, opts metav1.DeleteOptions) error {
	if err := l.check(name); err != nil {
		return err
	}
	opts = *opts.DeepCopy()
	_, err := roundTrip(ctx, l.client, l.request("delete", name, nil), func(Fault) (struct{}, error) {
		key := types.NamespacedName{Namespace: l.namespace, Name: name}
		return struct{}{}, l.client.server.delete(key, opts.Preconditions, isDryRun(opts.DryRun))
	})
	return err
}

func (l leases) DeleteCollection(ctx context.Context, opts metav1.DeleteOptions, listOpts metav1.ListOptions) error {
	opts = *opts.DeepCopy()
	sel, selErr := parseSelection(l.namespace, listOpts)
	_, err := roundTrip(ctx, l.client, l.request("deletecollection", sel.key.Name, nil), func(Fault) (struct{}, error) {
		switch {
		case selErr != nil:
			return struct{}{}, selErr
		case l.namespace == "":
			return struct{}{}, methodNotAllowed()
		}
		return struct{}{}, l.client.server.deleteAll(sel, opts.Preconditions, isDryRun(opts.DryRun))
	})
	return err
}

func (l leases) Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	sel, selErr := parseSelection(l.namespace, opts)
	req := l.request("watch", sel.key.Name, nil)
	var opened *leaseWatch
	_, err := roundTrip(ctx, l.client, req, func(fault Fault) (struct{}, error) {
		var err error
		switch {
		case fault.NoWatch:
		case l.client.forbidWatch.Load():
			err = forbidden(req)
		case selErr != nil:
			err = selErr
		default:
			opened, err = l.client.server.openWatch(l.client, sel, opts, fault.EndWatch)
		}
		return struct{}{}, err
	})
	if err != nil {
		if opened != nil { // the server opened it, but its answer did not arrive
			l.client.server.forget(opened)
		}
		return nil, err
	}
	if opened == nil { // Fault.NoWatch
		return nil, nil
	}
	opened.start(ctx)
	return opened, nil
}

func isDryRun(opts []string) bool { return len(opts) > 0 }
