package clientgo

import (
	"context"
	"net/http"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector"
)

func after(ctx context.Context, cfg *rest.Config, mux *http.ServeMux) error {
	el, err := elector.NewForConfig(cfg, elector.Options{
		Namespace:   "shop",
		Name:        "order-controller",
		Run:         func(ctx context.Context) error { work(ctx); return nil },
		OnOverrun:   func(elector.Term) { os.Exit(1) },
		OnNewLeader: func(identity string) { klog.InfoS("New leader", "identity", identity) },
	})
	if err != nil {
		return err
	}
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := el.Check(r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	return el.Run(ctx)
}
