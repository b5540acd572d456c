// Wrapped is the main.go of before with Elector: the manager runs only while leading. MIGRATING.md has the difference.
package main

import (
	"flag"
	"net/http"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/examples/internal/checksum"
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

	cfg := ctrl.GetConfigOrDie()
	wait := time.Duration(-1) // for ever: when Start returns, the Lease is released
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme:                  scheme,
		Cache:                   checksum.CacheOptions(os.Getenv("POD_NAMESPACE")),
		Metrics:                 metricsserver.Options{BindAddress: metricsAddr},
		GracefulShutdownTimeout: &wait,
	})
	if err != nil {
		setupLog.Error(err, "unable to start manager")
		os.Exit(1)
	}

	if err := (&checksum.Reconciler{Client: mgr.GetClient()}).SetupWithManager(mgr); err != nil {
		setupLog.Error(err, "unable to create controller", "controller", "Checksum")
		os.Exit(1)
	}

	run, healthy := mgr.Start, healthz.Ping
	if enableLeaderElection {
		el, err := elector.NewForConfig(cfg, elector.Options{
			Name:       "ecaf1259.my.domain",
			Namespace:  os.Getenv("POD_NAMESPACE"),
			Run:        mgr.Start,
			SingleTerm: true,
			OnOverrun:  func(elector.Term) { os.Exit(1) },
		})
		if err != nil {
			setupLog.Error(err, "unable to set up leader election")
			os.Exit(1)
		}
		run, healthy = el.Run, el.Check
	}
	go serveProbes(probeAddr, healthy)

	setupLog.Info("starting manager")
	if err := run(ctrl.LoggerInto(ctrl.SetupSignalHandler(), setupLog)); err != nil {
		setupLog.Error(err, "problem running manager")
		os.Exit(1)
	}
}

func serveProbes(addr string, healthy healthz.Checker) {
	mux := http.NewServeMux()
	mux.Handle("/healthz", healthz.CheckHandler{Checker: healthy})
	mux.Handle("/readyz", healthz.CheckHandler{Checker: healthz.Ping})
	setupLog.Error(http.ListenAndServe(addr, mux), "problem serving probes")
	os.Exit(1)
}
