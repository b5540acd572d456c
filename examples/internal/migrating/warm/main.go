// Warm is the main.go of before with Elector: only the controllers wait for leadership. MIGRATING.md has the difference.
package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/examples/internal/checksum"
	"github.com/elector-go/elector/examples/warmstandby/term"
)

var (
	scheme   = runtime.NewScheme()
	setupLog = ctrl.Log.WithName("setup")
)

func init() {
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
}

func main() {
	var metricsAddr string
	var enableLeaderElection bool
	var probeAddr string
	flag.StringVar(&metricsAddr, "metrics-bind-address", "0", "The address the metrics endpoint binds to.")
	flag.StringVar(&probeAddr, "health-probe-bind-address", ":8081", "The address the probe endpoint binds to.")
	flag.BoolVar(&enableLeaderElection, "leader-elect", false,
		"Enable leader election for controller manager. "+
			"Enabling this will ensure there is only one active controller manager.")
	klog.InitFlags(nil)
	flag.Parse()

	ctrl.SetLogger(klog.Background())

	ctx := ctrl.LoggerInto(ctrl.SetupSignalHandler(), setupLog)
	cfg := ctrl.GetConfigOrDie()
	wait := time.Duration(-1) // for ever: the elector waits for the controllers
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme:                  scheme,
		Cache:                   checksum.CacheOptions(os.Getenv("POD_NAMESPACE")),
		Metrics:                 metricsserver.Options{BindAddress: metricsAddr},
		HealthProbeBindAddress:  probeAddr,
		GracefulShutdownTimeout: &wait,
		BaseContext:             func() context.Context { return context.WithoutCancel(ctx) }, // for its logger
	})
	if err != nil {
		setupLog.Error(err, "unable to start manager")
		os.Exit(1)
	}

	setupControllers := func(mgr ctrl.Manager) error {
		return (&checksum.Reconciler{Client: mgr.GetClient()}).SetupWithManager(mgr)
	}
	if enableLeaderElection {
		var el *elector.Elector
		el, err = elector.NewForConfig(cfg, elector.Options{
			Name:      "ecaf1259.my.domain",
			Namespace: os.Getenv("POD_NAMESPACE"),
			Run:       func(ctx context.Context) error { return term.Run(ctx, mgr, setupControllers) },
			OnOverrun: func(elector.Term) { os.Exit(1) },
		})
		if err == nil {
			_, warm := mgr.GetCache().GetInformer(ctx, &corev1.ConfigMap{}) // each type the controllers watch
			err = errors.Join(warm, mgr.Add(term.EveryReplica(el.Run)), mgr.AddHealthzCheck("elector", el.Check))
		}
	} else {
		err = setupControllers(mgr)
	}
	if err != nil {
		setupLog.Error(err, "unable to set up controllers")
		os.Exit(1)
	}

	if err := mgr.AddHealthzCheck("healthz", healthz.Ping); err != nil {
		setupLog.Error(err, "unable to set up health check")
		os.Exit(1)
	}
	if err := mgr.AddReadyzCheck("readyz", healthz.Ping); err != nil {
		setupLog.Error(err, "unable to set up ready check")
		os.Exit(1)
	}

	setupLog.Info("starting manager")
	if err := mgr.Start(ctx); err != nil {
		setupLog.Error(err, "problem running manager")
		os.Exit(1)
	}
}
