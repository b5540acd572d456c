// Package term runs the controllers of a controller-runtime manager for one term of leadership, and again for the
// next, while the manager with its caches, webhooks and servers goes on. Copy it: it is this one file.
package term

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

// A Manager runs on every replica. What needs leadership cannot be added to it: that is for Run.
type Manager struct {
	manager.Manager

	mu      sync.Mutex // guards the field below
	indexes map[index]bool
}

// NewManager makes a Manager, as manager.New does, without an election of its own. It waits for ever for what it stops:
// the elector in it waits for the controllers.
func NewManager(cfg *rest.Config, options manager.Options) (*Manager, error) {
	if options.LeaderElection {
		return nil, errors.New("term: leave LeaderElection out of the manager's options: the elector elects")
	}
	options.GracefulShutdownTimeout = new(time.Duration(-1))
	if options.BaseContext == nil {
		logger := options.Logger
		if logger.GetSink() == nil {
			logger = log.Log
		}
		options.BaseContext = func() context.Context { return log.IntoContext(context.Background(), logger) } // the elector's too
	}
	mgr, err := manager.New(cfg, options)
	if err != nil {
		return nil, err
	}
	return &Manager{Manager: mgr, indexes: map[index]bool{}}, nil
}

// Add refuses what needs leadership, as controllers do: here it would run whether this replica leads or not.
func (m *Manager) Add(r manager.Runnable) error {
	_, cluster := r.(interface{ GetCache() cache.Cache }) // whose cache the manager runs everywhere
	l, says := r.(manager.LeaderElectionRunnable)
	if cluster || says && !l.NeedLeaderElection() {
		return m.Manager.Add(r)
	}
	return fmt.Errorf("term: add it in setupControllers, the function given to term.Run: outside it would run on every replica, leading or not: %T", r)
}

// Warm has the caches of these types filled before the elector starts, so that who campaigns is warm, and the replica
// be ready only then. For a controller that watches metadata only, give it a PartialObjectMetadata with its kind.
func (m *Manager) Warm(types ...client.Object) error {
	var informers []cache.Informer
	for _, t := range types {
		// Before Start nothing is waited for, and Start waits for each cache before it starts the elector.
		informer, err := m.GetCache().GetInformer(context.Background(), t)
		if err != nil {
			return fmt.Errorf("term: warm the cache of %T: %w", t, err)
		}
		informers = append(informers, informer)
	}
	return m.AddReadyzCheck("caches", func(*http.Request) error {
		for i, informer := range informers {
			if !informer.HasSynced() {
				return fmt.Errorf("the cache of %T is not synced yet", types[i])
			}
		}
		return nil
	})
}

// Run has setup add controllers to the manager it is given, as to any manager, starts them, and returns when ctx has
// ended or one of them has failed, and the workers of all have stopped. It may be called again for the next term.
//
// Setup may call IndexField, each time with the same function: an index is made in the first term that asks for it, and
// kept. Webhooks are not for setup, for they are served on every replica: register them with mgr itself.
func Run(ctx context.Context, mgr *Manager, setup func(manager.Manager) error) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	m := &termManager{Manager: mgr, cache: &termCache{Cache: mgr.GetCache(), mgr: mgr, indexes: map[index]bool{}, term: ctx}}
	defer m.cache.removeHandlers()
	if err := setup(m); err != nil {
		return err
	}
	if m.misuse != nil {
		return m.misuse
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
	*Manager
	cache     *termCache
	runnables []manager.Runnable
	misuse    error
}

// Add is not called any more once setup has returned.
func (m *termManager) Add(r manager.Runnable) error {
	m.runnables = append(m.runnables, r)
	return nil
}

func (m *termManager) GetCache() cache.Cache { return m.cache }

func (m *termManager) GetFieldIndexer() client.FieldIndexer { return m.cache }

// GetWebhookServer is what registers webhooks: on this replica only, and a standby would answer 404.
func (m *termManager) GetWebhookServer() webhook.Server {
	m.misuse = errors.New("term: register webhooks with the manager itself, not in setupControllers: every replica serves them")
	return m.Manager.GetWebhookServer()
}

func (m *termManager) GetControllerOptions() config.Controller {
	options, again := m.Manager.GetControllerOptions(), true
	options.SkipNameValidation = &again // the controllers of the last term had the same names
	return options
}

// termCache is the manager's cache, but remembers the event handlers put on its informers. Controllers do not take
// theirs away: without this each term would leave some behind, with their queues.
type termCache struct {
	cache.Cache
	mgr      *Manager
	term     context.Context
	mu       sync.Mutex // guards the fields below
	ended    bool
	removals []func()

	indexes map[index]bool // asked for in this term; mgr.mu guards it
}

// An index is one on a cache, and there is a cache for each Go type, and of an unstructured one for each kind.
type index struct {
	goType reflect.Type
	kind   schema.GroupVersionKind
	field  string
}

// IndexField leaves an index of an earlier term as it is, for there is no way to make it anew. A second one of the same
// term is the mistake it always was.
func (c *termCache) IndexField(ctx context.Context, obj client.Object, field string, extract client.IndexerFunc) error {
	kind, err := c.mgr.GetClient().GroupVersionKindFor(obj)
	if err != nil {
		return err
	}
	i := index{reflect.TypeOf(obj), kind, field}
	c.mgr.mu.Lock()
	defer c.mgr.mu.Unlock()
	if c.mgr.indexes[i] && !c.indexes[i] {
		c.indexes[i] = true
		return nil
	}
	if err := c.Cache.IndexField(ctx, obj, field, extract); err != nil {
		return err
	}
	c.mgr.indexes[i], c.indexes[i] = true, true
	return nil
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
