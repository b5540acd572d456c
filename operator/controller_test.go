package operator

import (
	"context"
	"errors"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/elector-go/elector"
)

type (
	limiter  = workqueue.TypedRateLimiter[reconcile.Request]
	queue    = workqueue.TypedRateLimitingInterface[reconcile.Request]
	newQueue = func(string, limiter) queue
)

func TestThisControllerRuntimeIsKnown(t *testing.T) {
	in, err := known()
	require.NoError(t, err)
	require.Len(t, in.gauges, 3)
}

func TestAControllerRuntimeThatIsNotKnownIsAnError(t *testing.T) {
	was := known
	defer func() { known = was }()
	known = func() (internals, error) { return internals{}, unknown(errors.New("a Controller has no field Do")) }
	mgr, err := NewManager(&rest.Config{}, manager.Options{}, func(manager.Manager) error { return nil })
	require.Nil(t, mgr)
	require.ErrorContains(t, err, "operator: this package does not know sigs.k8s.io/controller-runtime;")
	require.ErrorContains(t, err, "a Controller has no field Do")
}

func TestTheErrorHasTheVersion(t *testing.T) {
	dep := &debug.Module{Path: "sigs.k8s.io/controller-runtime", Version: "v0.99.0"}
	info := &debug.BuildInfo{Deps: []*debug.Module{{Path: "k8s.io/api", Version: "v0.40.0"}, dep}}
	require.Equal(t, "sigs.k8s.io/controller-runtime v0.99.0", builtWith(info))
	dep.Replace = &debug.Module{Path: "example.com/fork", Version: "v1.0.0"}
	require.Equal(t, "sigs.k8s.io/controller-runtime v0.99.0 => example.com/fork v1.0.0", builtWith(info))
	require.Equal(t, "sigs.k8s.io/controller-runtime", builtWith(nil))
}

func TestAControllerWithOtherFieldsIsAnError(t *testing.T) {
	type sources []source.Source
	for field, c := range map[string]any{
		"": &struct {
			Name         string
			Do           reconcile.Reconciler
			NewQueue     newQueue
			RateLimiter  limiter
			startWatches sources
		}{},
		"Name": &struct {
			Do           reconcile.Reconciler
			NewQueue     newQueue
			RateLimiter  limiter
			startWatches sources
		}{},
		"Do": &struct {
			Name         string
			do           reconcile.Reconciler
			NewQueue     newQueue
			RateLimiter  limiter
			startWatches sources
		}{},
		"NewQueue": &struct {
			Name         string
			Do           reconcile.Reconciler
			NewQueue     func(limiter) queue
			RateLimiter  limiter
			startWatches sources
		}{},
		"NewQueue ": &struct {
			Name         string
			Do           reconcile.Reconciler
			NewQueue     newQueue
			startWatches sources
		}{},
		"startWatches": &struct {
			Name         string
			Do           reconcile.Reconciler
			NewQueue     newQueue
			RateLimiter  limiter
			startWatches map[string]source.Source
		}{},
	} {
		_, err := partsOf(c)
		if field == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, "has no field "+strings.TrimSpace(field))
	}
	_, err := partsOf(0)
	require.ErrorContains(t, err, "a controller is a int")
}

func TestAnUnknownOptionForTheElectionIsAnError(t *testing.T) {
	require.NoError(t, checkFields(manager.Options{LeaderElection: true, LeaderElectionID: "orders"}))
	type newer struct {
		LeaderElection         bool
		LeaderElectionStrategy string
	}
	require.NoError(t, checkFields(newer{LeaderElection: true}), "it is not set")
	require.ErrorContains(t, checkFields(newer{LeaderElection: true, LeaderElectionStrategy: "oldest"}), "LeaderElectionStrategy")

	was := electionFields
	defer func() { electionFields = was }()
	electionFields = []string{""}
	for name, make := range makers {
		if name == "controller-runtime" {
			continue
		}
		mgr, err := make(&rest.Config{}, manager.Options{LeaderElection: true, LeaderElectionNamespace: "shop", LeaderElectionID: "orders"}, func(*elector.Options) {})
		require.ErrorContains(t, err, "does not know sigs.k8s.io/controller-runtime", name)
		require.Nil(t, mgr, name)
	}
}

// A controller that cannot be seen into would go on reconciling what it has queued after the end of its term.
func TestAControllerInsideSomethingElseIsRefused(t *testing.T) {
	type wrapped struct{ controller.Controller }
	mgr, _ := newManager(t, func(mgr manager.Manager) error {
		c, err := controller.NewUnmanaged("wrapped", controller.Options{
			SkipNameValidation: ptr.To(true),
			Reconciler:         reconcile.Func(func(context.Context, reconcile.Request) (reconcile.Result, error) { return reconcile.Result{}, nil }),
		})
		return errors.Join(err, mgr.Add(wrapped{c}))
	})
	require.ErrorContains(t, mgr.rehearse(t.Context()), "add the controller itself")
}
