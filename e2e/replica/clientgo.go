package main

import (
	"context"
	"sync"

	"k8s.io/client-go/rest"
	clientgo "k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/e2e/internal/event"
	"github.com/elector-go/elector/leaderelection"
)

// runClientGo campaigns with client-go's elector the way operators use it: ReleaseOnCancel, one term in a process,
// and a client of its own that gives up a request after half of RenewDeadline. With a StateDir it is on package leaderelection.
func runClientGo(ctx context.Context, cfg *rest.Config, c config, w *worker) error {
	lease, err := resourcelock.NewFromKubeconfig(resourcelock.LeasesResourceLock, c.namespace, c.lease,
		resourcelock.ResourceLockConfig{Identity: c.id}, cfg, c.renewDeadline)
	if err != nil {
		return err
	}
	// client-go starts the callback and forgets it. Operators that want it to finish wait for it on their own.
	var working sync.WaitGroup
	config := clientgo.LeaderElectionConfig{
		Lock:            lease,
		LeaseDuration:   c.leaseDuration,
		RenewDeadline:   c.renewDeadline,
		RetryPeriod:     c.retryPeriod,
		ReleaseOnCancel: true,
		Callbacks: clientgo.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				working.Add(1)
				defer working.Done()
				_ = w.work(ctx, 0, nil)
			},
			OnStoppedLeading: func() {},
			OnNewLeader:      func(id string) { w.tell(event.Event{Kind: event.Leader, Leader: id}) },
		},
	}
	if c.stateDir != "" {
		config, err = leaderelection.Upgrade(config, func(o *elector.Options) { o.StateDir = c.stateDir })
		if err != nil {
			return err
		}
	}
	le, err := clientgo.NewLeaderElector(config)
	if err != nil {
		return err
	}
	le.Run(ctx)
	working.Wait()
	return nil
}
