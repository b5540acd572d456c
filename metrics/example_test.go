package metrics_test

import (
	"context"
	"log"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/client-go/rest"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/metrics"
)

func work(ctx context.Context) error { <-ctx.Done(); return nil }

// A program that serves its numbers to Prometheus.
func Example() {
	cfg, err := rest.InClusterConfig()
	if err != nil {
		log.Fatal(err)
	}

	numbers := metrics.New()
	prometheus.MustRegister(numbers) // in an operator: metrics.Registry.MustRegister(numbers), of controller-runtime
	el, err := elector.NewForConfig(cfg, elector.Options{Name: "order-controller", Run: work, Metrics: numbers})
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("/metrics", promhttp.Handler())
	go func() { log.Fatal(http.ListenAndServe(":8080", nil)) }() // on standbys too: their zeros count
	if err := el.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// One Collector serves all elections of a process, each under the labels namespace and name of its Lease.
func ExampleNew_several() {
	cfg, err := rest.InClusterConfig()
	if err != nil {
		log.Fatal(err)
	}
	numbers := metrics.New()
	prometheus.MustRegister(numbers)
	for _, name := range []string{"orders", "invoices"} {
		el, err := elector.NewForConfig(cfg, elector.Options{Name: name, Run: work, Metrics: numbers})
		if err != nil {
			log.Fatal(err)
		}
		go func() { _ = el.Run(context.Background()) }()
	}
}
