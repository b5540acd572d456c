// Leaderservice is a server of which one replica at a time leads, and whose Service leads to that one: the leader labels
// its own pod, and the Service selects the label (label.go).
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector"
)

func main() {
	addr := flag.String("bind-address", ":8080", "where to serve /, /healthz and /readyz")
	klog.InitFlags(nil)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	if err := run(ctx, *addr); err != nil {
		klog.ErrorS(err, "Exit")
		klog.FlushAndExit(klog.ExitFlushTimeout, 1)
	}
}

func run(ctx context.Context, addr string) error {
	// From the downward API.
	pod, namespace := os.Getenv("POD_NAME"), os.Getenv("POD_NAMESPACE")
	if pod == "" || namespace == "" {
		return errors.New("POD_NAME and POD_NAMESPACE are not set: see the Deployment in examples/deploy")
	}
	// In a pod its service account, elsewhere $KUBECONFIG.
	kube := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil)
	cfg, err := kube.ClientConfig()
	if err != nil {
		return err
	}
	client, err := corev1client.NewForConfig(cfg)
	if err != nil {
		return err
	}
	b := &badge{pods: client.Pods(namespace), self: pod, selector: "app.kubernetes.io/name=leaderservice"}
	el, err := elector.NewForConfig(cfg, elector.Options{
		Namespace: namespace,
		Name:      "leaderservice",
		Run:       b.worn(work),
		OnOverrun: func(elector.Term) { os.Exit(1) }, // rather than work beside the next leader
	})
	if err != nil {
		return err
	}
	go serve(addr, el, pod)
	// When a container crashes and is started again, it is in the same pod, and that may still have the label.
	if err := b.takeOff(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("take the label off this pod, %s: %w", pod, err)
	}
	return el.Run(ctx)
}

// work is what the leader does beside serving; a program of yours has some. It returns soon after its ctx has ended.
func work(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// serve serves on every replica.
func serve(addr string, el *elector.Elector, pod string) {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		// A request can still arrive by an old route: the label says where to look, this says who leads.
		if !el.IsLeader() {
			http.Error(w, pod+" does not lead; "+cmp.Or(el.Leader(), "nobody")+" does", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, pod, "leads")
	})
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := el.Check(r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {}) // a standby is ready: see examples/deploy
	klog.ErrorS(http.ListenAndServe(addr, mux), "Serving")
	os.Exit(1)
}
