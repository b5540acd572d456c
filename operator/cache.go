package operator

import (
	"context"
	"reflect"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// sharedCache is a cache that outlives terms. It knows a term by the ctx: controllers ask for informers with a ctx that
// is derived from the term's. What a term adds to the informers is taken away at its end, for controllers do not do so.
type sharedCache struct {
	cache.Cache
	mgr    *Manager
	scheme *runtime.Scheme

	mu      sync.Mutex // guards the field below
	indexes map[index]*term
}

// index names an index. A cache has an informer for each Go type, and for each kind of an unstructured type.
type index struct {
	goType reflect.Type
	kind   schema.GroupVersionKind
	field  string
}

// sharing makes caches that outlive terms.
func (m *Manager) sharing(newCache cache.NewCacheFunc) cache.NewCacheFunc {
	if newCache == nil {
		newCache = cache.New
	}
	return func(cfg *rest.Config, opts cache.Options) (cache.Cache, error) {
		c, err := newCache(cfg, opts)
		if err != nil {
			return nil, err
		}
		return &sharedCache{Cache: c, mgr: m, scheme: opts.Scheme, indexes: map[index]*term{}}, nil
	}
}

// WaitForCacheSync returns true also when the manager is to stop: until it is, a manager that starts waits without
// regard to its ctx, and would not end while a cache cannot be filled.
func (c *sharedCache) WaitForCacheSync(ctx context.Context) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	synced := make(chan bool, 1)
	go func() { synced <- c.Cache.WaitForCacheSync(ctx) }()
	select {
	case ok := <-synced:
		return ok
	case <-c.mgr.starting:
	}
	select {
	case ok := <-synced:
		return ok
	case <-c.mgr.stopping.Done():
		cancel()
		<-synced
		return true
	}
}

// IndexField leaves an index of an earlier term as it is, because there is no way to make it anew. A second one of the
// same term is refused, as by any cache.
func (c *sharedCache) IndexField(ctx context.Context, obj client.Object, field string, extract client.IndexerFunc) error {
	kind, err := apiutil.GVKForObject(obj, c.scheme)
	if err != nil {
		return err
	}
	i, t := index{reflect.TypeOf(obj), kind, field}, termOf(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, made := c.indexes[i]; !made || t == nil || last == t {
		if err := c.Cache.IndexField(ctx, obj, field, extract); err != nil {
			return err
		}
	}
	c.indexes[i] = t
	return nil
}

// RemoveInformer takes the indexes with it.
func (c *sharedCache) RemoveInformer(ctx context.Context, obj client.Object) error {
	kind, err := apiutil.GVKForObject(obj, c.scheme)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.indexes {
		if i.goType == reflect.TypeOf(obj) && i.kind == kind {
			delete(c.indexes, i)
		}
	}
	return c.Cache.RemoveInformer(ctx, obj)
}

func (c *sharedCache) GetInformer(ctx context.Context, obj client.Object, opts ...cache.InformerGetOption) (cache.Informer, error) {
	return c.informer(ctx, opts, func(ctx context.Context, opts []cache.InformerGetOption) (cache.Informer, error) {
		return c.Cache.GetInformer(ctx, obj, opts...)
	})
}

func (c *sharedCache) GetInformerForKind(ctx context.Context, kind schema.GroupVersionKind, opts ...cache.InformerGetOption) (cache.Informer, error) {
	return c.informer(ctx, opts, func(ctx context.Context, opts []cache.InformerGetOption) (cache.Informer, error) {
		return c.Cache.GetInformerForKind(ctx, kind, opts...)
	})
}

// informer gets an informer, for no longer than the term lasts.
func (c *sharedCache) informer(ctx context.Context, opts []cache.InformerGetOption, get func(context.Context, []cache.InformerGetOption) (cache.Informer, error)) (cache.Informer, error) {
	t := termOf(ctx)
	if t == nil {
		return get(ctx, opts)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	if t.rehearsal {
		opts = append(opts[:len(opts):len(opts)], cache.BlockUntilSynced(false))
	}
	informer, err := get(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &termInformer{informer, t}, nil
}

// termCache is a sharedCache as the manager of a term has it: also what has another ctx is the term's.
type termCache struct {
	*sharedCache
	term *term
}

func (c *termCache) IndexField(ctx context.Context, obj client.Object, field string, extract client.IndexerFunc) error {
	return c.sharedCache.IndexField(c.term.mark(ctx), obj, field, extract)
}

func (c *termCache) GetInformer(ctx context.Context, obj client.Object, opts ...cache.InformerGetOption) (cache.Informer, error) {
	return c.sharedCache.GetInformer(c.term.mark(ctx), obj, opts...)
}

func (c *termCache) GetInformerForKind(ctx context.Context, kind schema.GroupVersionKind, opts ...cache.InformerGetOption) (cache.Informer, error) {
	return c.sharedCache.GetInformerForKind(c.term.mark(ctx), kind, opts...)
}

// termInformer is an informer whose event handlers are taken off at the end of the term.
type termInformer struct {
	cache.Informer
	term *term
}

func (i *termInformer) AddEventHandler(handler toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandlerWithOptions(handler, toolscache.HandlerOptions{})
}

func (i *termInformer) AddEventHandlerWithResyncPeriod(handler toolscache.ResourceEventHandler, resync time.Duration) (toolscache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandlerWithOptions(handler, toolscache.HandlerOptions{ResyncPeriod: &resync})
}

// AddEventHandlerWithOptions is what a controller's sources call, the last of them perhaps after the end of the term.
func (i *termInformer) AddEventHandlerWithOptions(handler toolscache.ResourceEventHandler, opts toolscache.HandlerOptions) (toolscache.ResourceEventHandlerRegistration, error) {
	if i.term.rehearsal {
		handler = toolscache.ResourceEventHandlerFuncs{} // a standby handles nothing
	}
	registration, err := i.Informer.AddEventHandlerWithOptions(handler, opts)
	if err != nil {
		return nil, err
	}
	i.term.atEnd(func() { _ = i.RemoveEventHandler(registration) }) // fails only for a registration of another informer
	if !i.term.rehearsal {
		i.waitBriefly(registration)
	}
	return registration, nil
}

// waitBriefly waits until the handler has seen what is in the cache. A controller waits for that too, but checks only
// every 100 ms. With a warm cache it takes much less, and then the controller's first check finds it done.
func (i *termInformer) waitBriefly(registration toolscache.ResourceEventHandlerRegistration) {
	limit := time.After(100 * time.Millisecond)
	for tick := time.NewTicker(time.Millisecond); !registration.HasSynced(); {
		select {
		case <-tick.C:
		case <-limit:
			return
		case <-i.term.ctx.Done():
			return
		}
	}
}
