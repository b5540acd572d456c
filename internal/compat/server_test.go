package main

import (
	"context"
	"flag"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientgo "k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest/conformance"
	"github.com/elector-go/elector/leaderelection"
)

// What e2e, whose own client is the newest, has this module test on its server with the oldest client.
var (
	kubeconfig = flag.String("kubeconfig", "", "a real API server")
	namespace  = flag.String("namespace", "default", "a namespace on it")
)

func server(t *testing.T) *rest.Config {
	if *kubeconfig == "" {
		t.Skip("e2e runs it on a real API server")
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	require.NoError(t, err)
	return cfg
}

func TestServerAnswersAsElectortest(t *testing.T) {
	cfg := server(t)
	cfg.QPS = -1 // no limit
	client, err := kubernetes.NewForConfig(cfg)
	require.NoError(t, err)
	conformance.Run(t, client.CoordinationV1(), *namespace)
}

// TestServerHandsOver has each kind of candidate take over from each other kind.
func TestServerHandsOver(t *testing.T) {
	cfg := server(t)
	kinds := map[string]candidate{"elector": onElector, "leaderelection": onLeaderelection, "client-go": onClientGo}
	stop := func() {}
	var stopped time.Time
	for i, kind := range []string{"elector", "leaderelection", "client-go", "elector", "client-go", "leaderelection", "elector"} {
		ctx, cancel := context.WithCancel(t.Context())
		leads, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			assert.NoError(t, kinds[kind](ctx, cfg, kind+string(rune('0'+i)), func(ctx context.Context) { close(leads); <-ctx.Done() }))
		}()
		if i > 0 {
			time.Sleep(time.Second) // it stands by
			stop()
			stopped = time.Now()
		}
		select {
		case <-leads:
		case <-time.After(time.Minute):
			t.Fatalf("%s does not lead", kind)
		}
		if i > 0 {
			t.Logf("%s leads %v after the one before has ended", kind, time.Since(stopped).Round(time.Millisecond))
		}
		stop = func() { cancel(); <-done }
	}
	stop()
}

// A candidate does the work while it leads, until ctx ends.
type candidate func(ctx context.Context, cfg *rest.Config, identity string, work func(context.Context)) error

func onElector(ctx context.Context, cfg *rest.Config, identity string, work func(context.Context)) error {
	e, err := elector.NewForConfig(cfg, elector.Options{
		Namespace: *namespace, Name: "compat", Identity: identity,
		Run: func(ctx context.Context) error { work(ctx); return nil },
	})
	if err != nil {
		return err
	}
	return e.Run(ctx)
}

func onLeaderelection(ctx context.Context, cfg *rest.Config, identity string, work func(context.Context)) error {
	config, err := configOf(cfg, identity, work)
	if err == nil {
		leaderelection.RunOrDie(ctx, config)
	}
	return err
}

func onClientGo(ctx context.Context, cfg *rest.Config, identity string, work func(context.Context)) error {
	config, err := configOf(cfg, identity, work)
	if err == nil {
		clientgo.RunOrDie(ctx, config)
	}
	return err
}

func configOf(cfg *rest.Config, identity string, work func(context.Context)) (clientgo.LeaderElectionConfig, error) {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return clientgo.LeaderElectionConfig{}, err
	}
	return clientgo.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: *namespace, Name: "compat"}, Client: client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		},
		LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
		ReleaseOnCancel: true,
		Callbacks:       clientgo.LeaderCallbacks{OnStartedLeading: work, OnStoppedLeading: func() {}},
	}, nil
}
