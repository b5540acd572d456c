package migrating

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// Why GracefulShutdownTimeout is -1 in the examples and in the guide.
func TestAManagerThatDoesNotWaitForEverReleasesTheLeaseWhileItsWorkRuns(t *testing.T) {
	for _, c := range []struct {
		name    string
		timeout time.Duration
		beside  bool
	}{
		{"for ever", -1, false},
		{"for less than the drain takes", 100 * time.Millisecond, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			const drain = time.Second
			mgr, err := ctrl.NewManager(&rest.Config{}, ctrl.Options{
				GracefulShutdownTimeout: &c.timeout,
				Metrics:                 server.Options{BindAddress: "0"},
			})
			require.NoError(t, err)
			ctx, terminate := context.WithCancel(t.Context())
			defer terminate()
			var working atomic.Bool
			stopped := make(chan struct{})
			require.NoError(t, mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
				defer close(stopped)
				working.Store(true)
				terminate()
				<-ctx.Done()
				time.Sleep(drain)
				working.Store(false)
				return nil
			})))

			api := electortest.NewServer()
			defer api.Close()
			el, err := elector.New(api.Client("old").CoordinationV1(), elector.Options{
				Namespace: "shop", Name: "controller", Run: mgr.Start, SingleTerm: true,
			})
			require.NoError(t, err)
			err = el.Run(ctx)
			require.Equal(t, c.beside, err != nil, "%v", err)
			require.Equal(t, c.beside, working.Load(), "Run has returned, and the lease is released")
			<-stopped
		})
	}
}
