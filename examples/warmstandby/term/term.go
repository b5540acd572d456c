// Package term runs the controllers of a controller-runtime manager for one term of leadership, and again for the
// next, while the manager with its caches, webhooks and servers goes on. Copy it: it is this one file.
package term

import (
	"context"
	"sync"

	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// Run has setup add controllers to the manager it is given, as to any manager, starts them, and returns when ctx has
// ended or one of them has failed, and the workers of all have stopped. It may be called again for the next term.
//
// What can be done only once, as IndexField and registering webhooks, is not for setup: do that with mgr itself.
func Run(ctx context.Context, mgr manager.Manager, setup func(manager.Manager) error) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	m := &termManager{Manager: mgr, cache: &termCache{Cache: mgr.GetCache(), term: ctx}}
	defer m.cache.removeHandlers()
	if err := setup(m); err != nil {
		return err
	}
	results := make(chan error)
	for _, r := range m.runnables {
		go func() { results <- r.Start(ctx) }()
	}
	var first error
	for range m.runnables {
		if err := <-results; err != nil && first == nil {
			first = err
			end() // the others stop too
		}
	}
	if first == nil {
		<-ctx.Done() // to return by itself would end the election
	}
	return first
}

// EveryReplica is a Runnable that runs on every replica, as the elector's Run does.
type EveryReplica func(context.Context) error

// Start runs it.
func (r EveryReplica) Start(ctx context.Context) error { return r(ctx) }

// NeedLeaderElection is what tells the manager.
func (EveryReplica) NeedLeaderElection() bool { return false }

// termManager is the manager as the controllers of one term see it: what is added to it is theirs.
type termManager struct {
	manager.Manager
	cache     *termCache
	runnables []manager.Runnable
}

// Add is not called any more once setup has returned.
func (m *termManager) Add(r manager.Runnable) error {
	m.runnables = append(m.runnables, r)
	return nil
}

func (m *termManager) GetCache() cache.Cache { return m.cache }

func (m *termManager) GetControllerOptions() config.Controller {
	options, again := m.Manager.GetControllerOptions(), true
	options.SkipNameValidation = &again // the controllers of the last term had the same names
	return options
}

// termCache is the manager's cache, but remembers the event handlers put on its informers. Controllers do not take
// theirs away: without this each term would leave some behind, with their queues.
type termCache struct {
	cache.Cache
	term     context.Context
	mu       sync.Mutex // guards the fields below
	ended    bool
	removals []func()
}

func (c *termCache) GetInformer(ctx context.Context, obj client.Object, opts ...cache.InformerGetOption) (cache.Informer, error) {
	informer, err := c.Cache.GetInformer(ctx, obj, opts...)
	if err != nil {
		return nil, err
	}
	return &termInformer{Informer: informer, cache: c}, nil
}

func (c *termCache) removeHandlers() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	for _, remove := range c.removals {
		remove()
	}
}

// atEnd has remove called at the end of the term, or now if that has been.
func (c *termCache) atEnd(remove func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		remove()
		return
	}
	c.removals = append(c.removals, remove)
}

type termInformer struct {
	cache.Informer
	cache *termCache
}

// AddEventHandlerWithOptions is what a controller's sources call, the last of them perhaps when the term has ended.
func (i *termInformer) AddEventHandlerWithOptions(handler toolscache.ResourceEventHandler, options toolscache.HandlerOptions) (toolscache.ResourceEventHandlerRegistration, error) {
	registration, err := i.Informer.AddEventHandlerWithOptions(handler, options)
	if err != nil {
		return nil, err
	}
	remove := func() { _ = i.RemoveEventHandler(registration) } // it fails only for a registration of another informer
	i.cache.atEnd(remove)
	// The controller waits until the handler has been told of what is in the cache, by a look every 100 ms. It is told
	// in less, if the cache is warm: with this the first look finds it done.
	select {
	case <-registration.HasSyncedChecker().Done():
	case <-i.cache.term.Done():
	}
	return registration, nil
}
