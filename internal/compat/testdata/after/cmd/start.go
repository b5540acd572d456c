package main

import (
	"context"
	"os"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/elector-go/elector"
	_ "github.com/elector-go/elector/leaderelection"
)

func start(mgr ctrl.Manager) error {
	el, err := elector.NewForConfig(mgr.GetConfig(), elector.Options{
		Namespace:  "shop",
		Name:       "operator",
		Run:        func(ctx context.Context) error { return mgr.Start(ctx) },
		SingleTerm: true,
		OnOverrun:  func(elector.Term) { os.Exit(1) },
	})
	if err != nil {
		return err
	}
	return el.Run(ctrl.SetupSignalHandler())
}
