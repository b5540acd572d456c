// Command shapes is small programs on client-go's leaderelection, one for each way in which programs elect, for
// MIGRATING.md. The tests move it over: they build it once more, with another import path and no other change.
package main

import (
	"context"
	"flag"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// A program elects, works while it leads, and returns when ctx has ended.
type program func(ctx context.Context, client kubernetes.Interface, namespace string)

var programs = map[string]program{
	"runOrDie":   runOrDie,
	"loopOfRun":  loopOfRun,
	"restarts":   restarts,
	"several":    several,
	"deaf":       deaf,
	"late":       late,
	"background": background,
	"unreleased": unreleased,
	"hostname":   hostname,
	"health":     health,
	"throttled":  throttled,
}

var probes http.ServeMux

func main() {
	klog.InitFlags(nil)
	name := flag.String("program", "", "which one")
	addr := flag.String("health-probe-bind-address", "", "where probes are served")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	// In a pod its service account, elsewhere $KUBECONFIG.
	kube := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil)
	cfg, err := kube.ClientConfig()
	if err != nil {
		klog.Fatal(err)
	}
	namespace, _, err := kube.Namespace()
	if err != nil {
		klog.Fatal(err)
	}
	server := http.Server{Addr: *addr, Handler: &probes, ReadHeaderTimeout: time.Second}
	go func() { klog.Error(server.ListenAndServe()) }()
	programs[*name](ctx, kubernetes.NewForConfigOrDie(cfg), namespace)
	klog.InfoS("Exiting")
}

// work works until its ctx ends, and takes a moment to stop.
func work(ctx context.Context) {
	klog.InfoS("Working")
	<-ctx.Done()
	time.Sleep(300 * time.Millisecond)
	klog.InfoS("Stopped")
}

// identity is one for each process. In a pod it is the pod's name.
func identity() string {
	host, _ := os.Hostname()
	return host + "-" + time.Now().Format("150405.000000")
}

func stopped() { klog.InfoS("Stopped leading") }

// exits is what many programs do when they stop leading.
func exits() {
	klog.InfoS("Stopped leading")
	os.Exit(0)
}
