package leaderservice

import (
	"context"
	"fmt"
	"sync"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	discoveryv1client "k8s.io/client-go/kubernetes/typed/discovery/v1"
)

var resource = discoveryv1.Resource("endpointslices")

// A store holds one EndpointSlice, as an API server does: a stale write is a conflict. Client-go's fake clientset
// accepts every write.
type store struct {
	mu      sync.Mutex
	version int
	slice   *discoveryv1.EndpointSlice // nil: not there
	history []*discoveryv1.EndpointSlice
}

func (s *store) put(slice *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	s.version++
	s.slice = slice.DeepCopy()
	s.slice.ResourceVersion = fmt.Sprint(s.version)
	s.history = append(s.history, s.slice.DeepCopy())
	return s.slice.DeepCopy()
}

// edit changes the EndpointSlice as kubectl edit does. nil deletes it.
func (s *store) edit(change func(*discoveryv1.EndpointSlice)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if change == nil {
		s.slice = nil
		return
	}
	slice := s.slice.DeepCopy()
	change(slice)
	s.put(slice)
}

func (s *store) now() *discoveryv1.EndpointSlice {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slice.DeepCopy()
}

// leads is the address in the EndpointSlice, "" if there is none.
func (s *store) leads() string { return addressIn(s.now()) }

func addressIn(slice *discoveryv1.EndpointSlice) string {
	if slice == nil || len(slice.Endpoints) == 0 {
		return ""
	}
	return slice.Endpoints[0].Addresses[0]
}

// addresses are those that were written, in order, each once in a row.
func (s *store) addresses() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, slice := range s.history {
		if a := addressIn(slice); len(all) == 0 || all[len(all)-1] != a {
			all = append(all, a)
		}
	}
	return all
}

func (s *store) writes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.history)
}

// A client is a replica's way to the store: 4 ms, unless meddle says otherwise. It implements what the package uses.
type client struct {
	discoveryv1client.EndpointSliceInterface
	*store
	mu     sync.Mutex
	meddle func(verb string) error // called before the request arrives; it may take its time
}

func (c *client) EndpointSlices(string) discoveryv1client.EndpointSliceInterface { return c }

func (c *client) intercept(meddle func(verb string) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.meddle = meddle
}

func (c *client) travel(ctx context.Context, verb string) error {
	c.mu.Lock()
	meddle := c.meddle
	c.mu.Unlock()
	time.Sleep(4 * time.Millisecond)
	if meddle != nil {
		if err := meddle(verb); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// lost is a request that never arrives: its ctx ends first.
func lost(string) error { time.Sleep(requestLimit); return context.DeadlineExceeded }

func (c *client) Get(ctx context.Context, name string, _ metav1.GetOptions) (*discoveryv1.EndpointSlice, error) {
	if err := c.travel(ctx, "get"); err != nil {
		return nil, err
	}
	if slice := c.now(); slice != nil {
		return slice, nil
	}
	return nil, apierrors.NewNotFound(resource, name)
}

func (c *client) Create(ctx context.Context, slice *discoveryv1.EndpointSlice, _ metav1.CreateOptions) (*discoveryv1.EndpointSlice, error) {
	if err := c.travel(ctx, "create"); err != nil {
		return nil, err
	}
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if c.slice != nil {
		return nil, apierrors.NewAlreadyExists(resource, slice.Name)
	}
	slice = slice.DeepCopy()
	slice.UID = types.UID(fmt.Sprint("uid-", c.version))
	return c.put(slice), nil
}

// Update is carried out although the caller has given up by then, which is the worst case.
func (c *client) Update(ctx context.Context, slice *discoveryv1.EndpointSlice, _ metav1.UpdateOptions) (*discoveryv1.EndpointSlice, error) {
	if err := c.travel(context.WithoutCancel(ctx), "update"); err != nil {
		return nil, err
	}
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if c.slice == nil {
		return nil, apierrors.NewNotFound(resource, slice.Name)
	}
	if slice.ResourceVersion != c.slice.ResourceVersion {
		return nil, apierrors.NewConflict(resource, slice.Name, fmt.Errorf("the object has been modified"))
	}
	return c.put(slice), nil
}
