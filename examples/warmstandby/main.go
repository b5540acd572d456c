// Warmstandby is an operator whose manager runs in every replica, with its caches and servers; only its controllers
// wait for leadership. They stop when it is lost, and start again when it is won again, in the same process.
package main

import (
	"context"
	"errors"
	"flag"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/elector-go/elector/examples/internal/checksum"
	"github.com/elector-go/elector/operator"
)

func main() {
	health := flag.String("health-probe-bind-address", ":8081", "where to serve /healthz and /readyz")
	metrics := flag.String("metrics-bind-address", ":8080", "where to serve /metrics")
	klog.InitFlags(nil)
	flag.Parse()
	ctrl.SetLogger(klog.Background())
	if err := run(ctrl.SetupSignalHandler(), *health, *metrics); err != nil {
		klog.ErrorS(err, "Exit")
		klog.FlushAndExit(klog.ExitFlushTimeout, 1)
	}
}

func run(ctx context.Context, health, metrics string) error {
	// In a pod its service account and namespace, elsewhere those of $KUBECONFIG.
	kube := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil)
	cfg, err := kube.ClientConfig()
	if err != nil {
		return err
	}
	cfg.QPS = -1 // no limit in the client, as from ctrl.GetConfig: the API server has its own
	namespace, _, err := kube.Namespace()
	if err != nil {
		return err
	}

	mgr, err := operator.NewManager(cfg, ctrl.Options{
		LeaderElection:          true,
		LeaderElectionID:        "checksum",
		LeaderElectionNamespace: namespace,
		Cache:                   checksum.CacheOptions(namespace),
		HealthProbeBindAddress:  health,
		Metrics:                 server.Options{BindAddress: metrics},
	}, setupControllers)
	if err != nil {
		return err
	}
	err = errors.Join(
		mgr.Warm(&corev1.ConfigMap{}), // each type that the controllers watch
		mgr.AddHealthzCheck("elector", mgr.Check),
		mgr.AddReadyzCheck("ping", healthz.Ping), // a standby is ready: see the README
	)
	if err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// setupControllers sets up the controllers for one term, as for a manager of their own.
func setupControllers(mgr ctrl.Manager) error {
	return (&checksum.Reconciler{Client: mgr.GetClient()}).SetupWithManager(mgr)
}
