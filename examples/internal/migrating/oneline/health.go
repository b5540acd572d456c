package main

import (
	"context"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	clientgo "k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector/leaderelection"
)

// A health check by client-go's adaptor.
func healthBefore(ctx context.Context, client kubernetes.Interface, namespace string) {
	watchDog := clientgo.NewLeaderHealthzAdaptor(20 * time.Second)
	probes.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := watchDog.Check(r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	clientgo.RunOrDie(ctx, clientgo.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: namespace, Name: "one"},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity()},
		},
		ReleaseOnCancel: true,
		LeaseDuration:   15 * time.Second,
		RenewDeadline:   10 * time.Second,
		RetryPeriod:     2 * time.Second,
		WatchDog:        watchDog,
		Callbacks: clientgo.LeaderCallbacks{
			OnStartedLeading: work,
			OnStoppedLeading: stopped,
			OnNewLeader:      func(identity string) { klog.InfoS("New leader", "identity", identity) },
		},
	})
}

func healthAfter(ctx context.Context, client kubernetes.Interface, namespace string) {
	watchDog := leaderelection.NewLeaderHealthzAdaptor(20 * time.Second)
	probes.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := watchDog.Check(r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: namespace, Name: "one"},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity()},
		},
		ReleaseOnCancel: true,
		LeaseDuration:   15 * time.Second,
		RenewDeadline:   10 * time.Second,
		RetryPeriod:     2 * time.Second,
		WatchDog:        watchDog,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: work,
			OnStoppedLeading: stopped,
			OnNewLeader:      func(identity string) { klog.InfoS("New leader", "identity", identity) },
		},
	})
}
