package main

import (
	"context"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/elector-go/elector/e2e/internal/event"
)

// runClientGo campaigns with client-go's elector the way operators use it: ReleaseOnCancel, one term in a process.
func runClientGo(ctx context.Context, cfg *rest.Config, c config, w *worker) error {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	// client-go starts the callback and forgets it. Operators that want it to finish wait for it on their own.
	var working sync.WaitGroup
	le, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: c.namespace, Name: c.lease},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: c.id},
		},
		LeaseDuration:   c.leaseDuration,
		RenewDeadline:   c.renewDeadline,
		RetryPeriod:     c.retryPeriod,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				working.Add(1)
				defer working.Done()
				_ = w.work(ctx, 0, nil)
			},
			OnStoppedLeading: func() {},
			OnNewLeader:      func(id string) { w.tell(event.Event{Kind: event.Leader, Leader: id}) },
		},
	})
	if err != nil {
		return err
	}
	le.Run(ctx)
	working.Wait()
	return nil
}
