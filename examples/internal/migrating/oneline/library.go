package main

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	clientgo "k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector/leaderelection"
)

// libraryBefore and libraryAfter use a library that stands between the program and client-go.
func libraryBefore(ctx context.Context, client kubernetes.Interface, namespace string) {
	electBefore(ctx, client, namespace, work)
}

func libraryAfter(ctx context.Context, client kubernetes.Interface, namespace string) {
	electAfter(ctx, client, namespace, work)
}

func electBefore(ctx context.Context, client kubernetes.Interface, namespace string, run func(ctx context.Context)) {
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
		Callbacks: clientgo.LeaderCallbacks{
			OnStartedLeading: run,
			OnStoppedLeading: stopped,
			OnNewLeader:      func(identity string) { klog.InfoS("New leader", "identity", identity) },
		},
	})
}

func electAfter(ctx context.Context, client kubernetes.Interface, namespace string, run func(ctx context.Context)) {
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
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: run,
			OnStoppedLeading: stopped,
			OnNewLeader:      func(identity string) { klog.InfoS("New leader", "identity", identity) },
		},
	})
}
