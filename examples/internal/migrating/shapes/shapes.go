package main

import (
	"context"
	"net/http"
	"os"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// runOrDie is the usual program.
func runOrDie(ctx context.Context, client kubernetes.Interface, namespace string) {
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: namespace, Name: "one"},
		Client:     client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: identity()},
	}
	leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
		Lock:            lock,
		ReleaseOnCancel: true,
		LeaseDuration:   15 * time.Second,
		RenewDeadline:   10 * time.Second,
		RetryPeriod:     2 * time.Second,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: work,
			OnStoppedLeading: stopped,
			OnNewLeader:      func(identity string) { klog.InfoS("New leader", "identity", identity) },
		},
	})
}

// configOf is the config of runOrDie, for programs that differ from it.
func configOf(client kubernetes.Interface, namespace string) leaderelection.LeaderElectionConfig {
	return leaderelection.LeaderElectionConfig{
		Lock:            lockOf(client, namespace, "one", identity()),
		ReleaseOnCancel: true,
		LeaseDuration:   15 * time.Second,
		RenewDeadline:   10 * time.Second,
		RetryPeriod:     2 * time.Second,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: work,
			OnStoppedLeading: stopped,
			OnNewLeader:      func(identity string) { klog.InfoS("New leader", "identity", identity) },
		},
	}
}

func lockOf(client kubernetes.Interface, namespace, name, identity string) resourcelock.Interface {
	lock, err := resourcelock.New(resourcelock.LeasesResourceLock, namespace, name, client.CoreV1(), client.CoordinationV1(),
		resourcelock.ResourceLockConfig{Identity: identity})
	if err != nil {
		klog.Fatal(err)
	}
	return lock
}

// loopOfRun makes the LeaderElector itself, and campaigns again after a loss.
func loopOfRun(ctx context.Context, client kubernetes.Interface, namespace string) {
	elector, err := leaderelection.NewLeaderElector(configOf(client, namespace))
	if err != nil {
		klog.Fatal(err)
	}
	for ctx.Err() == nil {
		elector.Run(ctx)
	}
}

// restarts starts the same LeaderElector again from OnStoppedLeading.
func restarts(ctx context.Context, client kubernetes.Interface, namespace string) {
	var elector *leaderelection.LeaderElector
	config := configOf(client, namespace)
	config.Callbacks.OnStoppedLeading = func() {
		if ctx.Err() == nil {
			elector.Run(ctx)
		}
	}
	elector, err := leaderelection.NewLeaderElector(config)
	if err != nil {
		klog.Fatal(err)
	}
	elector.Run(ctx)
}

// several has two elections in one process.
func several(ctx context.Context, client kubernetes.Interface, namespace string) {
	one, two := configOf(client, namespace), configOf(client, namespace)
	two.Lock = lockOf(client, namespace, "two", identity())
	var wg sync.WaitGroup
	wg.Go(func() { leaderelection.RunOrDie(ctx, one) })
	wg.Go(func() { leaderelection.RunOrDie(ctx, two) })
	wg.Wait()
}

// deaf has work that cannot be stopped, so that OnStoppedLeading exits.
func deaf(ctx context.Context, client kubernetes.Interface, namespace string) {
	config := configOf(client, namespace)
	config.Callbacks.OnStartedLeading = func(context.Context) { klog.InfoS("Working"); select {} }
	config.Callbacks.OnStoppedLeading = exits
	leaderelection.RunOrDie(ctx, config)
}

// late has work that looks at its context once a minute.
func late(ctx context.Context, client kubernetes.Interface, namespace string) {
	config := configOf(client, namespace)
	config.Callbacks.OnStartedLeading = func(ctx context.Context) {
		for ctx.Err() == nil {
			_, _ = client.CoreV1().ConfigMaps(namespace).Get(ctx, "settings", metav1.GetOptions{})
			klog.InfoS("Working")
			time.Sleep(time.Minute)
		}
	}
	config.Callbacks.OnStoppedLeading = exits
	leaderelection.RunOrDie(ctx, config)
}

// background returns from OnStartedLeading at once, and goroutines do the work.
func background(ctx context.Context, client kubernetes.Interface, namespace string) {
	config := configOf(client, namespace)
	config.Callbacks.OnStartedLeading = func(ctx context.Context) { go work(ctx) }
	leaderelection.RunOrDie(ctx, config)
	time.Sleep(time.Second) // so that the work ends before the process does
}

// unreleased has ReleaseOnCancel off, because the work takes a moment to stop.
func unreleased(ctx context.Context, client kubernetes.Interface, namespace string) {
	config := configOf(client, namespace)
	config.ReleaseOnCancel = false
	leaderelection.RunOrDie(ctx, config)
}

// hostname has the host name for an identity, which a restarted container keeps.
func hostname(ctx context.Context, client kubernetes.Interface, namespace string) {
	host := os.Getenv("TEST_HOSTNAME") // in yours os.Hostname(): the processes of a test share one host
	config := configOf(client, namespace)
	config.Lock = lockOf(client, namespace, "one", host)
	leaderelection.RunOrDie(ctx, config)
}

// health serves client-go's health adaptor.
func health(ctx context.Context, client kubernetes.Interface, namespace string) {
	watchDog := leaderelection.NewLeaderHealthzAdaptor(20 * time.Second)
	probes.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := watchDog.Check(r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	config := configOf(client, namespace)
	config.WatchDog = watchDog
	leaderelection.RunOrDie(ctx, config)
}

// throttled has work that uses up its client's rate limit, 5 requests a second, in which renewals then wait for 6 seconds.
func throttled(ctx context.Context, client kubernetes.Interface, namespace string) {
	config := configOf(client, namespace)
	config.Callbacks.OnStartedLeading = func(ctx context.Context) {
		klog.InfoS("Working")
		var wg sync.WaitGroup
		for range 30 {
			wg.Go(func() {
				for ctx.Err() == nil {
					_, _ = client.CoreV1().ConfigMaps(namespace).Get(ctx, "settings", metav1.GetOptions{})
				}
			})
		}
		wg.Wait()
		klog.InfoS("Stopped")
	}
	leaderelection.RunOrDie(ctx, config)
}
