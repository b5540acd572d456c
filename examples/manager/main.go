// Manager is an operator whose manager runs in one replica at a time: its Start is what the elector runs.
package main

import (
	"context"
	"flag"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/examples/internal/checksum"
)

func main() {
	addr := flag.String("health-probe-bind-address", ":8081", "where to serve /healthz, /readyz and /metrics")
	klog.InitFlags(nil)
	flag.Parse()
	ctrl.SetLogger(klog.Background())
	if err := run(ctrl.SetupSignalHandler(), *addr); err != nil {
		klog.ErrorS(err, "Exit")
		klog.FlushAndExit(klog.ExitFlushTimeout, 1) // a manager cannot start twice: the next term needs a new process
	}
}

func run(ctx context.Context, addr string) error {
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

	var mgr ctrl.Manager
	el, err := elector.NewForConfig(cfg, elector.Options{
		Namespace:  namespace,
		Name:       "checksum",
		Run:        func(ctx context.Context) error { return mgr.Start(ctx) },
		SingleTerm: true,
		OnOverrun:  func(elector.Term) { os.Exit(1) }, // rather than work beside the next leader
	})
	if err != nil {
		return err
	}
	cfg.Wrap(el.WrapTransport) // from here on: no writes without a valid term

	wait := time.Duration(-1) // for ever: when Start returns, the Lease is released, and then nothing may run any more
	mgr, err = ctrl.NewManager(cfg, ctrl.Options{
		GracefulShutdownTimeout: &wait,
		Cache:                   checksum.CacheOptions(namespace),
		Metrics:                 server.Options{BindAddress: "0"}, // served below, on standbys too
	})
	if err != nil {
		return err
	}
	if err := (&checksum.Reconciler{Client: mgr.GetClient()}).SetupWithManager(mgr); err != nil {
		return err
	}
	if addr != "" && addr != "0" { // as for a manager
		go serve(addr, el)
	}
	return el.Run(ctx)
}

// serve serves on every replica, while the manager runs only on one.
func serve(addr string, el *elector.Elector) {
	mux := http.NewServeMux()
	mux.Handle("/healthz", healthz.CheckHandler{Checker: el.Check})
	mux.Handle("/readyz", healthz.CheckHandler{Checker: healthz.Ping}) // a standby is ready: see the README
	mux.Handle("/metrics", promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{}))
	klog.ErrorS(http.ListenAndServe(addr, mux), "Serving health checks")
	os.Exit(1)
}
