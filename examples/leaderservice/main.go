// Leaderservice is a server of which one replica at a time leads, and whose Service sends requests to that replica.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/kubelet"
	"github.com/elector-go/elector/leaderservice"
)

func main() {
	deaths := flag.Bool("deaths", false, "do not wait for the lease of a leader whose container has ended: see examples/deploy/deaths.yaml")
	addr := flag.String("bind-address", ":8080", "where to serve /, /healthz and /readyz")
	klog.InitFlags(nil)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	if err := run(ctx, *addr, *deaths); err != nil {
		klog.ErrorS(err, "Exit")
		klog.FlushAndExit(klog.ExitFlushTimeout, 1)
	}
}

func run(ctx context.Context, addr string, deaths bool) error {
	if os.Getenv("POD_IP") == "" || os.Getenv("POD_NAMESPACE") == "" {
		return errors.New("POD_IP and POD_NAMESPACE are not set: see the Deployment in examples/deploy")
	}
	// In a pod its service account, elsewhere $KUBECONFIG.
	kube := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil)
	cfg, err := kube.ClientConfig()
	if err != nil {
		return err
	}
	el, handler, err := elect(cfg, leaderservice.Options{
		Namespace: os.Getenv("POD_NAMESPACE"),
		Service:   "leaderservice",
		Address:   os.Getenv("POD_IP"),
		Ports:     []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](8080)}},
		Pod:       os.Getenv("POD_NAME"),
		Node:      os.Getenv("NODE_NAME"),
	}, deaths, work)
	if err != nil {
		return err
	}
	go func() {
		klog.ErrorS(http.ListenAndServe(addr, handler), "Serving")
		os.Exit(1)
	}()
	return el.Run(ctx)
}

// elect makes the elector, with the Service around its work, and what every replica serves.
func elect(cfg *rest.Config, opts leaderservice.Options, deaths bool, work func(context.Context) error) (*elector.Elector, http.Handler, error) {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, nil, err
	}
	service, err := leaderservice.New(client.DiscoveryV1(), opts)
	if err != nil {
		return nil, nil, err
	}
	var dead elector.Deaths
	if deaths {
		dead = kubelet.New(client.CoreV1().Pods(opts.Namespace))
	}
	el, err := elector.NewForConfig(cfg, elector.Options{
		Namespace: opts.Namespace,
		Name:      "leaderservice",
		Run:       service.Run(work),
		StateDir:  os.Getenv("STATE_DIR"), // an emptyDir, see examples/deploy; "" works too, but a restart takes longer
		Deaths:    dead,
		OnOverrun: func(elector.Term) { os.Exit(1) }, // rather than work while the next leader does
	})
	if err != nil {
		return nil, nil, err
	}
	mux := http.NewServeMux()
	// The leader answers, whichever replica a request reaches.
	mux.Handle("/{$}", service.Forward(el.Leader, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, opts.Pod, "leads, with token", el.Status().Term.Token())
	})))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := el.Check(r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {}) // a standby is ready: see examples/deploy
	return el, mux, nil
}

// work is what the leader does besides serving; your program has its own. It returns soon after its ctx has ended.
func work(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
