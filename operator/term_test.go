package operator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	goruntime "runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(klog.Background())
	os.Exit(m.Run())
}

// countingInformer counts the handlers on an informer.
type countingInformer struct {
	toolscache.SharedIndexInformer
	handlers atomic.Int64
}

func (i *countingInformer) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	i.handlers.Add(1)
	return i.SharedIndexInformer.AddEventHandler(h)
}

func (i *countingInformer) AddEventHandlerWithOptions(h toolscache.ResourceEventHandler, o toolscache.HandlerOptions) (toolscache.ResourceEventHandlerRegistration, error) {
	i.handlers.Add(1)
	return i.SharedIndexInformer.AddEventHandlerWithOptions(h, o)
}

func (i *countingInformer) RemoveEventHandler(r toolscache.ResourceEventHandlerRegistration) error {
	i.handlers.Add(-1)
	return i.SharedIndexInformer.RemoveEventHandler(r)
}

// oneInformer is a cache with one informer, of ConfigMaps.
type oneInformer struct {
	informertest.FakeInformers
	informer *countingInformer
	never    bool // synced
}

func (c *oneInformer) GetInformer(ctx context.Context, _ client.Object, opts ...cache.InformerGetOption) (cache.Informer, error) {
	var o cache.InformerGetOptions
	for _, f := range opts {
		f(&o)
	}
	if c.never && ptr.Deref(o.BlockUntilSynced, true) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return c.informer, nil
}

func (c *oneInformer) GetInformerForKind(ctx context.Context, _ schema.GroupVersionKind, opts ...cache.InformerGetOption) (cache.Informer, error) {
	return c.GetInformer(ctx, nil, opts...)
}

func (c *oneInformer) WaitForCacheSync(ctx context.Context) bool {
	if c.never {
		<-ctx.Done()
	}
	return !c.never
}

func (c *oneInformer) Start(ctx context.Context) error { <-ctx.Done(); return nil }

func (c *oneInformer) IndexField(_ context.Context, _ client.Object, field string, _ client.IndexerFunc) error {
	return c.informer.AddIndexers(toolscache.Indexers{field: func(any) ([]string, error) { return nil, nil }})
}

func (c *oneInformer) RemoveInformer(context.Context, client.Object) error {
	*c.informer = countingInformer{SharedIndexInformer: newInformer(1)}
	return nil
}

func newInformer(configMaps int) toolscache.SharedIndexInformer {
	clientset := fake.NewClientset()
	for i := range configMaps {
		_ = clientset.Tracker().Add(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("settings-", i)}})
	}
	return informers.NewSharedInformerFactory(clientset, 0).Core().V1().ConfigMaps().Informer()
}

// newCache makes a cache that knows some ConfigMaps.
func newCache(t *testing.T, configMaps int) *oneInformer {
	informer := &countingInformer{SharedIndexInformer: newInformer(configMaps)}
	go informer.Run(t.Context().Done())
	require.True(t, toolscache.WaitForCacheSync(t.Context().Done(), informer.HasSynced))
	return &oneInformer{informer: informer}
}

func use(c cache.Cache) cache.NewCacheFunc {
	return func(*rest.Config, cache.Options) (cache.Cache, error) { return c, nil }
}

// newManager makes a manager without an election, on a cache that knows one ConfigMap.
func newManager(t *testing.T, setup func(manager.Manager) error) (*Manager, *oneInformer) {
	c := newCache(t, 1)
	return newManagerOn(t, c, setup), c
}

func newManagerOn(t *testing.T, c *oneInformer, setup func(manager.Manager) error) *Manager {
	t.Helper()
	mgr, err := NewManager(&rest.Config{}, manager.Options{NewCache: use(c), Metrics: server.Options{BindAddress: "0"}}, setup)
	require.NoError(t, err)
	return mgr
}

// firstTerm rehearses and runs a term that ends at once, unless it is refused.
func firstTerm(t *testing.T, mgr *Manager) error {
	t.Helper()
	if err := mgr.rehearse(t.Context()); err != nil {
		return err
	}
	ctx, end := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer end()
	return mgr.runTerm(ctx)
}

// reconcileOnce makes a setup whose controller reconciles, and then has the term ended by end.
func reconcileOnce(end *context.CancelFunc, reconciled *atomic.Int64) func(manager.Manager) error {
	return controllerOf(func(context.Context, reconcile.Request) (reconcile.Result, error) {
		reconciled.Add(1)
		(*end)()
		return reconcile.Result{}, nil
	})
}

// controllerOf has SetupWithManager as people write it.
func controllerOf(reconciler reconcile.Func) func(manager.Manager) error {
	return func(mgr manager.Manager) error {
		return ctrl.NewControllerManagedBy(mgr).Named("settings").For(&corev1.ConfigMap{}).Complete(reconciler)
	}
}

func nothing(context.Context, reconcile.Request) (reconcile.Result, error) {
	return reconcile.Result{}, nil
}

func untilDone(ctx context.Context) error { <-ctx.Done(); return nil }

func TestEachTermReconcilesAndLeavesNothingBehind(t *testing.T) {
	var end context.CancelFunc
	var reconciled atomic.Int64
	mgr, c := newManager(t, reconcileOnce(&end, &reconciled))
	require.NoError(t, mgr.rehearse(t.Context()))
	var after []int
	for n := range 10 {
		var ctx context.Context
		ctx, end = context.WithTimeout(t.Context(), 30*time.Second)
		defer end()
		require.NoError(t, mgr.runTerm(ctx))
		require.EqualValues(t, n+1, reconciled.Load())
		require.Zero(t, c.informer.handlers.Load())
		require.Empty(t, queueMetrics(t), "gauges of a queue that is gone")
		after = append(after, settled())
	}
	require.LessOrEqual(t, after[9], after[0]+2, "goroutines after each term: %v", after)
}

// settled is the number of goroutines when it does not fall any more.
func settled() int {
	n := goruntime.NumGoroutine()
	for still := 0; still < 8; still++ {
		time.Sleep(100 * time.Millisecond) // a queue looks every 500 ms whether it was shut down
		if now := goruntime.NumGoroutine(); now < n {
			n, still = now, 0
		}
	}
	return n
}

func queueMetrics(t *testing.T) (found []string) {
	families, err := metrics.Registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		switch name := f.GetName(); name {
		case "workqueue_depth", "workqueue_unfinished_work_seconds", "workqueue_longest_running_processor_seconds":
			for _, m := range f.GetMetric() {
				found = append(found, fmt.Sprint(name, m))
			}
		}
	}
	return found
}

func TestTheQueuesOfOtherControllersKeepTheirMetrics(t *testing.T) {
	mgr, _ := newManager(t, controllerOf(nothing))
	gauges, err := queueGauges()
	require.NoError(t, err)
	gauge := gauges[0].WithLabelValues("everywhere", "everywhere", "0")
	gauge.Set(3)
	defer gauges[0].DeleteLabelValues("everywhere", "everywhere", "0")
	require.NoError(t, firstTerm(t, mgr))
	require.Len(t, queueMetrics(t), 1)
}

func TestAManagerStopsThoughACacheCannotBeFilled(t *testing.T) {
	c := newCache(t, 1)
	c.never = true
	mgr := newManagerOn(t, c, controllerOf(nothing))
	require.NoError(t, mgr.Warm(&corev1.ConfigMap{}))
	require.NoError(t, mgr.Warm(&corev1.ConfigMap{}), "twice")
	ctx, stop := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, stop)
	returned := make(chan error, 1)
	go func() { returned <- mgr.Start(ctx) }()
	select {
	case err := <-returned:
		require.NoError(t, err)
	case <-time.After(20 * time.Second):
		t.Fatal("Start does not return")
	}
}

// A conversion webhook of this process has to be ready before its kinds can be listed.
func TestReadinessDoesNotWaitForCaches(t *testing.T) {
	c := newCache(t, 1)
	c.never = true
	checks := &checkCounter{}
	mgr := newManagerOn(t, c, controllerOf(nothing))
	checks.Manager = mgr.Manager
	mgr.Manager = checks
	require.NoError(t, mgr.Warm(&corev1.ConfigMap{}))
	require.Zero(t, checks.added)
}

type checkCounter struct {
	manager.Manager
	added int
}

func (c *checkCounter) AddReadyzCheck(string, healthz.Checker) error { c.added++; return nil }

func TestGetInformerInSetupEndsWithTheTerm(t *testing.T) {
	c := newCache(t, 1)
	c.never = true
	mgr := newManagerOn(t, c, func(mgr manager.Manager) error {
		_, err := mgr.GetCache().GetInformer(context.Background(), &corev1.ConfigMap{})
		return err
	})
	require.NoError(t, mgr.rehearse(t.Context()), "a standby does not wait in setup")
	for range 2 {
		ctx, end := context.WithTimeout(t.Context(), 20*time.Millisecond)
		require.ErrorIs(t, mgr.runTerm(ctx), context.Canceled)
		end()
	}
}

func TestHandlersOfEveryKindAreTakenOff(t *testing.T) {
	var calls atomic.Int64
	h := toolscache.ResourceEventHandlerFuncs{AddFunc: func(any) { calls.Add(1) }}
	mgr, c := newManager(t, func(mgr manager.Manager) error {
		byKind, err := mgr.GetCache().GetInformerForKind(context.Background(), corev1.SchemeGroupVersion.WithKind("ConfigMap"))
		if err != nil {
			return err
		}
		_, err = byKind.AddEventHandler(h)
		informer, err2 := mgr.GetCache().GetInformer(context.Background(), &corev1.ConfigMap{})
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		_, err = informer.AddEventHandlerWithResyncPeriod(h, time.Hour)
		return err
	})
	require.NoError(t, mgr.rehearse(t.Context()))
	time.Sleep(50 * time.Millisecond)
	require.Zero(t, calls.Load(), "a standby handles nothing")
	for term := range 3 {
		ctx, end := context.WithCancel(t.Context())
		context.AfterFunc(ctx, func() {})
		go func() {
			for calls.Load() < int64(2*(term+1)) && ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			end()
		}()
		require.NoError(t, mgr.runTerm(ctx))
		require.Zero(t, c.informer.handlers.Load())
	}
	require.EqualValues(t, 6, calls.Load())
}

func TestASecondClusterIsLeftAsItWas(t *testing.T) {
	second := newCache(t, 1)
	var cl cluster.Cluster
	var end context.CancelFunc
	var reconciled atomic.Int64
	mgr, _ := newManager(t, func(mgr manager.Manager) error {
		return ctrl.NewControllerManagedBy(mgr).Named("second").
			WatchesRawSource(source.Kind(cl.GetCache(), &corev1.ConfigMap{}, &handler.TypedEnqueueRequestForObject[*corev1.ConfigMap]{})).
			Complete(reconcile.Func(func(context.Context, reconcile.Request) (reconcile.Result, error) {
				reconciled.Add(1)
				end()
				return reconcile.Result{}, nil
			}))
	})
	cl, err := mgr.NewCluster(&rest.Config{}, func(o *cluster.Options) { o.NewCache = use(second) })
	require.NoError(t, err)
	require.NoError(t, mgr.Add(cl))
	require.NoError(t, mgr.rehearse(t.Context()))
	for range 3 {
		var ctx context.Context
		ctx, end = context.WithTimeout(t.Context(), 30*time.Second)
		defer end()
		require.NoError(t, mgr.runTerm(ctx))
		require.Zero(t, second.informer.handlers.Load())
	}
	require.EqualValues(t, 3, reconciled.Load())

	foreign, err := cluster.New(&rest.Config{})
	require.NoError(t, err)
	require.ErrorContains(t, mgr.Add(foreign), "Manager.NewCluster")
}

func TestWritesToASecondClusterPassTheGate(t *testing.T) {
	var written atomic.Int64
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		written.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.Copy(w, r.Body)
	}))
	defer api.Close()
	var cl cluster.Cluster
	write := func(ctx context.Context) error {
		return cl.GetClient().Update(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "settings"}})
	}
	inTerm := make(chan error)
	mgr, _ := newManager(t, func(mgr manager.Manager) error {
		return mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
			inTerm <- write(ctx)
			inTerm <- write(context.Background())
			<-ctx.Done()
			inTerm <- write(context.WithoutCancel(ctx))
			return nil
		}))
	})
	leases := electortest.NewServer()
	defer leases.Close()
	var err error
	mgr.elector, err = elector.New(leases.Client("a").CoordinationV1(), elector.Options{Namespace: "shop", Name: "orders", Run: mgr.runTerm})
	require.NoError(t, err)
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("ConfigMap"), meta.RESTScopeNamespace)
	cl, err = mgr.NewCluster(&rest.Config{Host: api.URL, ContentConfig: rest.ContentConfig{ContentType: runtime.ContentTypeJSON}}, func(o *cluster.Options) {
		o.MapperProvider = func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return mapper, nil }
	})
	require.NoError(t, err)

	require.ErrorIs(t, write(t.Context()), elector.ErrNotLeader, "on a standby")
	require.Zero(t, written.Load())
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	returned := make(chan error, 1)
	go func() { returned <- mgr.elector.Run(ctx) }()
	require.NoError(t, <-inTerm)
	require.NoError(t, <-inTerm, "without the term's ctx")
	require.EqualValues(t, 2, written.Load())
	stop()
	require.NoError(t, <-inTerm, "while it drains")
	require.NoError(t, <-returned)
	require.ErrorIs(t, write(t.Context()), elector.ErrNotLeader, "after the term")
	require.EqualValues(t, 3, written.Load())
}

func TestTheBacklogIsLeftToTheNextLeader(t *testing.T) {
	for _, priority := range []*bool{nil, ptr.To(false)} {
		var end context.CancelFunc
		var reconciled atomic.Int64
		mgr := newManagerOn(t, newCache(t, 50), func(mgr manager.Manager) error {
			return ctrl.NewControllerManagedBy(mgr).Named("backlog").For(&corev1.ConfigMap{}).
				WithOptions(controller.Options{UsePriorityQueue: priority}).
				Complete(reconcile.Func(func(context.Context, reconcile.Request) (reconcile.Result, error) {
					reconciled.Add(1)
					end()
					return reconcile.Result{}, nil
				}))
		})
		require.NoError(t, mgr.rehearse(t.Context()))
		for term := range 2 {
			var ctx context.Context
			ctx, end = context.WithTimeout(t.Context(), 30*time.Second)
			defer end()
			require.NoError(t, mgr.runTerm(ctx))
			require.EqualValues(t, term+1, reconciled.Load())
		}
	}
}

func TestAQueueOfOtherRequestsThatWorksOffItsBacklogIsRefused(t *testing.T) {
	for priority, refused := range map[bool]string{true: "", false: "UsePriorityQueue"} {
		mgr, _ := newManager(t, func(mgr manager.Manager) error {
			_, err := controller.NewTyped("words", mgr, controller.TypedOptions[string]{
				UsePriorityQueue: &priority,
				Reconciler:       reconcile.TypedFunc[string](func(context.Context, string) (reconcile.Result, error) { return reconcile.Result{}, nil }),
			})
			return err
		})
		err := mgr.rehearse(t.Context())
		if refused == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, refused)
		}
	}
}

func TestWhatIsAddedDuringATermRuns(t *testing.T) {
	started := make(chan struct{})
	mgr, _ := newManager(t, func(mgr manager.Manager) error {
		return mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
			if err := mgr.Add(manager.RunnableFunc(func(context.Context) error { started <- struct{}{}; return nil })); err != nil {
				return err
			}
			<-ctx.Done()
			err := mgr.Add(manager.RunnableFunc(untilDone))
			if !errors.Is(err, errTermOver) {
				return fmt.Errorf("added after the end of the term: %v", err)
			}
			return nil
		}))
	})
	require.NoError(t, mgr.rehearse(t.Context()))
	for range 2 {
		ctx, end := context.WithCancel(t.Context())
		go func() { <-started; end() }()
		require.NoError(t, mgr.runTerm(ctx))
	}
}

type warmed struct{ warm, started atomic.Int64 }

func (w *warmed) Warmup(context.Context) error { w.warm.Add(1); return nil }

func (w *warmed) Start(context.Context) error {
	w.started.Add(1)
	if w.warm.Load() < w.started.Load() {
		return errors.New("started cold")
	}
	return nil
}

func TestWarmupIsCalledBeforeStart(t *testing.T) {
	w := &warmed{}
	mgr, _ := newManager(t, func(mgr manager.Manager) error { return mgr.Add(w) })
	require.NoError(t, firstTerm(t, mgr))
	require.NoError(t, firstTerm(t, mgr))
	require.EqualValues(t, 2, w.started.Load())
}

func TestAnIndexIsKeptAndMadeAnewWithItsInformer(t *testing.T) {
	index := func(mgr manager.Manager) error {
		return mgr.GetFieldIndexer().IndexField(context.Background(), &corev1.ConfigMap{}, "data.colour", func(client.Object) []string { return nil })
	}
	remove := false
	mgr, c := newManager(t, func(mgr manager.Manager) error {
		if remove {
			return mgr.GetCache().RemoveInformer(context.Background(), &corev1.ConfigMap{})
		}
		return index(mgr)
	})
	has := func() bool { return c.informer.GetIndexer().GetIndexers()["data.colour"] != nil }
	require.NoError(t, firstTerm(t, mgr))
	require.NoError(t, firstTerm(t, mgr))
	require.True(t, has())
	remove = true
	require.NoError(t, firstTerm(t, mgr))
	require.False(t, has())
	remove = false
	require.NoError(t, firstTerm(t, mgr))
	require.True(t, has())

	twice, _ := newManager(t, func(mgr manager.Manager) error { return errors.Join(index(mgr), index(mgr)) })
	require.ErrorContains(t, firstTerm(t, twice), "indexer conflict", "as in any manager")
}

func TestMisuseIsRefusedAtTheFirstTerm(t *testing.T) {
	events := make(chan event.GenericEvent)
	outside := source.Channel(events, &handler.EnqueueRequestForObject{})
	everywhere := controllerOf(nothing)
	register := func(mgr manager.Manager) error { // as the builder of webhooks does, which differs between versions
		mgr.GetWebhookServer().Register("/validate", http.NotFoundHandler())
		return nil
	}
	for name, c := range map[string]struct {
		setup func(manager.Manager) error
		says  string
	}{
		"a source.Channel made outside": {func(mgr manager.Manager) error {
			return ctrl.NewControllerManagedBy(mgr).Named("channel").WatchesRawSource(outside).Complete(reconcile.Func(nothing))
		}, "call source.Channel in setup"},
		"a controller of NewUnmanaged": {func(mgr manager.Manager) error {
			_, err := controller.NewUnmanaged("unmanaged", controller.Options{Reconciler: reconcile.Func(nothing)})
			return err
		}, "set SkipNameValidation to true"},
		"SkipNameValidation false": {func(mgr manager.Manager) error {
			_, err := controller.New("validated", mgr, controller.Options{Reconciler: reconcile.Func(nothing), SkipNameValidation: ptr.To(false)})
			return err
		}, "set SkipNameValidation to true"},
		"two controllers of one name": {func(mgr manager.Manager) error {
			return errors.Join(everywhere(mgr), everywhere(mgr))
		}, `two controllers are named "settings"`},
		"a controller for every replica": {func(mgr manager.Manager) error {
			_, err := controller.New("probe", mgr, controller.Options{Reconciler: reconcile.Func(nothing), NeedLeaderElection: ptr.To(false)})
			return err
		}, `the controller "probe" needs no leadership`},
		"a Runnable for every replica": {func(mgr manager.Manager) error { return mgr.Add(EveryReplica(untilDone)) }, "Add it to the Manager that NewManager returned"},
		"a server":                     {func(mgr manager.Manager) error { return mgr.Add(&manager.Server{}) }, "needs no leadership"},
		"a webhook server":             {func(mgr manager.Manager) error { return mgr.Add(webhook.NewServer(webhook.Options{})) }, "needs no leadership"},
		"a cluster": {func(mgr manager.Manager) error {
			cl, err := cluster.New(&rest.Config{})
			return errors.Join(err, mgr.Add(cl))
		}, "needs no leadership"},
		"a webhook":         {register, errWebhook.Error()},
		"a health check":    {func(mgr manager.Manager) error { return mgr.AddHealthzCheck("x", nil) }, errHandler.Error()},
		"a readiness check": {func(mgr manager.Manager) error { return mgr.AddReadyzCheck("x", nil) }, errHandler.Error()},
		"a handler":         {func(mgr manager.Manager) error { return mgr.AddMetricsServerExtraHandler("/x", nil) }, errHandler.Error()},
		"whose error is dropped": {func(mgr manager.Manager) error {
			_ = mgr.AddReadyzCheck("x", nil)
			return nil
		}, errHandler.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			mgr, _ := newManager(t, c.setup)
			require.ErrorContains(t, firstTerm(t, mgr), c.says)
		})
	}
	mgr, _ := newManager(t, everywhere)
	require.NoError(t, register(mgr), "webhooks belong to the manager")
}

func TestAChannelSourceMadeInSetupWorksInEachTerm(t *testing.T) {
	events := make(chan event.GenericEvent)
	reconciled := make(chan struct{}, 10)
	mgr, _ := newManager(t, func(mgr manager.Manager) error {
		return ctrl.NewControllerManagedBy(mgr).Named("channel").
			WatchesRawSource(source.Channel(events, &handler.EnqueueRequestForObject{})).
			Complete(reconcile.Func(func(context.Context, reconcile.Request) (reconcile.Result, error) {
				reconciled <- struct{}{}
				return reconcile.Result{}, nil
			}))
	})
	require.NoError(t, mgr.rehearse(t.Context()))
	for range 3 {
		ctx, end := context.WithCancel(t.Context())
		returned := make(chan error, 1)
		go func() { returned <- mgr.runTerm(ctx) }()
		events <- event.GenericEvent{Object: &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x"}}}
		<-reconciled
		end()
		require.NoError(t, <-returned)
	}
}

func TestWhatNeedsLeadershipIsRefusedOutsideATerm(t *testing.T) {
	mgr, _ := newManager(t, controllerOf(nothing))
	for _, err := range []error{
		controllerOf(nothing)(mgr),
		mgr.Add(manager.RunnableFunc(untilDone)),
		mgr.Add(&manager.Server{OnlyServeWhenLeader: true}),
	} {
		require.ErrorContains(t, err, "add it in setup")
	}
	for _, r := range []manager.Runnable{EveryReplica(untilDone), &manager.Server{}, webhook.NewServer(webhook.Options{})} {
		require.NoError(t, mgr.Add(r), "%T", r)
	}
	_, err := controller.New("settings", mgr, controller.Options{Reconciler: reconcile.Func(nothing), NeedLeaderElection: ptr.To(false), SkipNameValidation: ptr.To(true)})
	require.NoError(t, err)
	require.ErrorContains(t, firstTerm(t, mgr), `two controllers are named "settings"`)
}

func TestATermWaitsForItsWorkers(t *testing.T) {
	var end context.CancelFunc
	var finished atomic.Bool
	mgr, _ := newManager(t, controllerOf(func(context.Context, reconcile.Request) (reconcile.Result, error) {
		end()
		time.Sleep(200 * time.Millisecond) // ignores its ctx, as reconcilers do
		finished.Store(true)
		return reconcile.Result{}, nil
	}))
	var ctx context.Context
	ctx, end = context.WithTimeout(t.Context(), 30*time.Second)
	defer end()
	require.NoError(t, mgr.runTerm(ctx))
	require.True(t, finished.Load())
}

func TestAFailureStopsTheOthers(t *testing.T) {
	failure := errors.New("no such queue")
	var stopped atomic.Bool
	mgr, c := newManager(t, func(mgr manager.Manager) error {
		return errors.Join(
			controllerOf(nothing)(mgr),
			mgr.Add(manager.RunnableFunc(func(context.Context) error { return failure })),
			mgr.Add(manager.RunnableFunc(func(ctx context.Context) error { <-ctx.Done(); stopped.Store(true); return nil })),
		)
	})
	require.ErrorIs(t, mgr.runTerm(t.Context()), failure)
	require.True(t, stopped.Load())
	// A source that was about to put its handler on when the term ended does so, and it is taken off at once.
	require.Eventually(t, func() bool { return c.informer.handlers.Load() == 0 }, 20*time.Second, time.Millisecond)
}

func TestOptionsOfANewManagerAreCheckedTogether(t *testing.T) {
	_, err := NewManager(&rest.Config{}, manager.Options{LeaderElection: true, LeaderElectionResourceLock: "configmaps"}, nil)
	for _, field := range []string{"setup: ", "LeaderElectionID: ", "LeaderElectionNamespace: ", "LeaderElectionResourceLock: "} {
		require.ErrorContains(t, err, field)
	}
}
