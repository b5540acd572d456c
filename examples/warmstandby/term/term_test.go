package term

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(klog.Background())
	os.Exit(m.Run())
}

// countingInformer counts the handlers on an informer, and those that ever were.
type countingInformer struct {
	toolscache.SharedIndexInformer
	handlers, ever atomic.Int64
}

func (i *countingInformer) AddEventHandlerWithOptions(h toolscache.ResourceEventHandler, o toolscache.HandlerOptions) (toolscache.ResourceEventHandlerRegistration, error) {
	i.handlers.Add(1)
	i.ever.Add(1)
	return i.SharedIndexInformer.AddEventHandlerWithOptions(h, o)
}

func (i *countingInformer) RemoveEventHandler(r toolscache.ResourceEventHandlerRegistration) error {
	i.handlers.Add(-1)
	return i.SharedIndexInformer.RemoveEventHandler(r)
}

// oneInformer is a cache with one informer.
type oneInformer struct {
	informertest.FakeInformers
	informer *countingInformer
}

func (c *oneInformer) GetInformer(context.Context, client.Object, ...cache.InformerGetOption) (cache.Informer, error) {
	return c.informer, nil
}

func (c *oneInformer) IndexField(_ context.Context, _ client.Object, field string, _ client.IndexerFunc) error {
	return c.informer.AddIndexers(toolscache.Indexers{field: func(any) ([]string, error) { return nil, nil }})
}

// newManager makes a manager, never started, whose cache knows one ConfigMap.
func newManager(t *testing.T) (*Manager, *countingInformer) {
	settings := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "settings"}}
	factory := informers.NewSharedInformerFactory(fake.NewClientset(settings), 0)
	informer := &countingInformer{SharedIndexInformer: factory.Core().V1().ConfigMaps().Informer()}
	factory.StartWithContext(t.Context())
	mgr, err := NewManager(&rest.Config{}, ctrl.Options{
		NewCache: func(*rest.Config, cache.Options) (cache.Cache, error) { return &oneInformer{informer: informer}, nil },
		Metrics:  server.Options{BindAddress: "0"},
	})
	require.NoError(t, err)
	return mgr, informer
}

// controllerOf has SetupWithManager as people write it.
func controllerOf(reconciler reconcile.Func) func(manager.Manager) error {
	return func(mgr manager.Manager) error {
		return ctrl.NewControllerManagedBy(mgr).Named("settings").For(&corev1.ConfigMap{}).Complete(reconciler)
	}
}

func TestEachTermReconcilesAndLeavesNoHandlersBehind(t *testing.T) {
	mgr, informer := newManager(t)
	for range 5 {
		ctx, end := context.WithTimeout(t.Context(), 10*time.Second)
		var reconciled int
		err := Run(ctx, mgr, controllerOf(func(context.Context, reconcile.Request) (reconcile.Result, error) {
			reconciled++
			end()
			return reconcile.Result{}, nil
		}))
		require.NoError(t, err)
		require.Equal(t, 1, reconciled)
		require.Zero(t, informer.handlers.Load())
	}
	require.EqualValues(t, 5, informer.ever.Load())
}

func TestRunWaitsForTheWorkers(t *testing.T) {
	mgr, _ := newManager(t)
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var finished atomic.Bool
	err := Run(ctx, mgr, controllerOf(func(context.Context, reconcile.Request) (reconcile.Result, error) {
		end()
		time.Sleep(200 * time.Millisecond) // ignores its ctx, as reconcilers do
		finished.Store(true)
		return reconcile.Result{}, nil
	}))
	require.NoError(t, err)
	require.True(t, finished.Load())
}

func TestAFailureStopsTheOthers(t *testing.T) {
	mgr, informer := newManager(t)
	failure := errors.New("no such webhook")
	var stopped atomic.Bool
	err := Run(t.Context(), mgr, func(mgr manager.Manager) error {
		return errors.Join(
			controllerOf(func(context.Context, reconcile.Request) (reconcile.Result, error) { return reconcile.Result{}, nil })(mgr),
			mgr.Add(manager.RunnableFunc(func(context.Context) error { return failure })),
			mgr.Add(manager.RunnableFunc(func(ctx context.Context) error { <-ctx.Done(); stopped.Store(true); return nil })),
		)
	})
	require.ErrorIs(t, err, failure)
	require.True(t, stopped.Load())
	// A source that was about to put its handler on when the term ended does so, and it is taken off at once.
	require.Eventually(t, func() bool { return informer.handlers.Load() == 0 }, 10*time.Second, time.Millisecond)
	require.ErrorIs(t, Run(t.Context(), mgr, func(manager.Manager) error { return failure }), failure, "of setup")
}

func TestATermIsNotOverBecauseAllIsDone(t *testing.T) {
	mgr, _ := newManager(t)
	ctx, end := context.WithCancel(t.Context())
	returned := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		returned <- Run(ctx, mgr, func(mgr manager.Manager) error {
			return mgr.Add(manager.RunnableFunc(func(context.Context) error { close(done); return nil }))
		})
	}()
	<-done
	select {
	case <-returned:
		t.Fatal("the election would end")
	case <-time.After(100 * time.Millisecond):
	}
	end()
	require.NoError(t, <-returned)
}

func TestWhatNeedsLeadershipIsRefusedOutsideATerm(t *testing.T) {
	mgr, _ := newManager(t)
	err := controllerOf(func(context.Context, reconcile.Request) (reconcile.Result, error) { return reconcile.Result{}, nil })(mgr)
	require.ErrorContains(t, err, "setupControllers")
	forever := func(ctx context.Context) error { <-ctx.Done(); return nil }
	require.ErrorContains(t, mgr.Add(manager.RunnableFunc(forever)), "setupControllers")
	require.ErrorContains(t, mgr.Add(&manager.Server{OnlyServeWhenLeader: true}), "setupControllers")

	everywhere, err := cluster.New(&rest.Config{})
	require.NoError(t, err)
	for _, r := range []manager.Runnable{EveryReplica(forever), &manager.Server{}, webhook.NewServer(webhook.Options{}), everywhere} {
		require.NoError(t, mgr.Add(r), "%T", r)
	}
	err = ctrl.NewControllerManagedBy(mgr).Named("everywhere").For(&corev1.ConfigMap{}).
		WithOptions(controller.Options{NeedLeaderElection: new(false)}).
		Complete(reconcile.Func(func(context.Context, reconcile.Request) (reconcile.Result, error) { return reconcile.Result{}, nil }))
	require.NoError(t, err)
}

func TestTheManagerHasNoElectionOfItsOwn(t *testing.T) {
	_, err := NewManager(&rest.Config{}, manager.Options{LeaderElection: true, LeaderElectionID: "checksum", LeaderElectionNamespace: "shop"})
	require.ErrorContains(t, err, "the elector elects")
}

func TestAnIndexIsMadeOnce(t *testing.T) {
	mgr, informer := newManager(t)
	index := func(mgr manager.Manager, obj client.Object, field string) error {
		return mgr.GetFieldIndexer().IndexField(t.Context(), obj, field, func(client.Object) []string { return nil })
	}
	ended, end := context.WithCancel(t.Context())
	end()
	for range 3 {
		require.NoError(t, Run(ended, mgr, func(mgr manager.Manager) error { return index(mgr, &corev1.ConfigMap{}, "data.colour") }))
	}
	require.NoError(t, Run(ended, mgr, func(mgr manager.Manager) error {
		return errors.Join(index(mgr, &corev1.ConfigMap{}, "data.colour"), index(mgr, &corev1.ConfigMap{}, "data.size"))
	}))
	require.Len(t, informer.GetIndexer().GetIndexers(), 2+1, "and client-go's own, by namespace")

	metadata := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}}
	another := func(mgr manager.Manager) error { return index(mgr, metadata, "data.colour") }
	require.ErrorContains(t, Run(ended, mgr, another), "indexer conflict", "asks the cache, which here has but one informer for all")
	twice := func(mgr manager.Manager) error {
		return errors.Join(index(mgr, &corev1.ConfigMap{}, "data.colour"), index(mgr, &corev1.ConfigMap{}, "data.colour"))
	}
	require.ErrorContains(t, Run(ended, mgr, twice), "indexer conflict", "as in any manager")
}

func TestWebhooksAreNotForATerm(t *testing.T) {
	mgr, _ := newManager(t)
	ended, end := context.WithCancel(t.Context())
	end()
	register := func(mgr manager.Manager) error {
		var validator struct {
			admission.Validator[*corev1.ConfigMap]
		} // never called
		return ctrl.NewWebhookManagedBy(mgr, &corev1.ConfigMap{}).WithValidator(validator).Complete()
	}
	require.ErrorContains(t, Run(ended, mgr, register), "with the manager itself")
	require.NoError(t, register(mgr))
}
