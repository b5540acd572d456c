package leaderelection_test

import (
	"context"
	"log"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/elector-go/elector/leaderelection"
)

func ExampleNewLeaderElector() {
	elect := func(ctx context.Context, client kubernetes.Interface, work func(ctx context.Context)) error {
		le, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta:  metav1.ObjectMeta{Namespace: "shop", Name: "order-controller"},
				Client:     client.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: "order-controller-7d4b9"},
			},
			LeaseDuration:   15 * time.Second,
			RenewDeadline:   10 * time.Second,
			RetryPeriod:     2 * time.Second,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: work, // the Lease is released once it has returned
				OnStoppedLeading: func() { log.Print("stopped leading") },
			},
		})
		if err != nil {
			return err
		}
		le.Run(ctx)
		return nil
	}
	_ = elect
}
