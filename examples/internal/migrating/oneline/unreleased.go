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

// ReleaseOnCancel is off, because the work takes a moment to stop.
func unreleasedBefore(ctx context.Context, client kubernetes.Interface, namespace string) {
	clientgo.RunOrDie(ctx, clientgo.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: namespace, Name: "one"},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity()},
		},
		LeaseDuration: 15 * time.Second,
		RenewDeadline: 10 * time.Second,
		RetryPeriod:   2 * time.Second,
		Callbacks: clientgo.LeaderCallbacks{
			OnStartedLeading: work,
			OnStoppedLeading: stopped,
			OnNewLeader:      func(identity string) { klog.InfoS("New leader", "identity", identity) },
		},
	})
}

func unreleasedAfter(ctx context.Context, client kubernetes.Interface, namespace string) {
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
			OnStartedLeading: work,
			OnStoppedLeading: stopped,
			OnNewLeader:      func(identity string) { klog.InfoS("New leader", "identity", identity) },
		},
	})
}
