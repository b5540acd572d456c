// Manager is an operator whose manager runs on every replica. One of them leads, and runs the controllers.
package main

import (
	"context"
	"errors"
	"flag"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/config"
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
		klog.FlushAndExit(klog.ExitFlushTimeout, 1) // a manager cannot start twice: the next term needs a new process
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

	opts := ctrl.Options{
		LeaderElection:          true,
		LeaderElectionID:        "checksum",
		LeaderElectionNamespace: namespace,
		Cache:                   checksum.CacheOptions(namespace),
		Controller:              config.Controller{EnableWarmup: new(true)}, // standbys have their caches filled
		HealthProbeBindAddress:  health,
		Metrics:                 server.Options{BindAddress: metrics},
	}
	el, err := operator.Elect(cfg, &opts) // the one new line
	if err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(cfg, opts)
	if err != nil {
		return err
	}
	if err := (&checksum.Reconciler{Client: mgr.GetClient()}).SetupWithManager(mgr); err != nil {
		return err
	}
	err = errors.Join(
		mgr.AddHealthzCheck("elector", el.Check),
		mgr.AddReadyzCheck("ping", healthz.Ping), // a standby is ready: see the README
	)
	if err != nil {
		return err
	}
	return mgr.Start(ctx)
}
