package electortest_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/testr"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

func TestTheOtherReplicaTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := electortest.NewServer() // in the bubble: its channels must belong to it
		defer api.Close()
		ctx, stop := context.WithCancel(klog.NewContext(t.Context(), testr.New(t))) // the log, in t.Log
		var replicas sync.WaitGroup
		electors := map[string]*elector.Elector{}
		for _, name := range []string{"a", "b"} {
			el, err := elector.New(api.Client(name).CoordinationV1(), elector.Options{
				Namespace: "shop", Name: "order-controller", Identity: name,
				Run: func(ctx context.Context) error { <-ctx.Done(); return nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			electors[name] = el
			replicas.Go(func() { _ = el.Run(ctx) })
		}
		time.Sleep(time.Minute) // takes no time
		first := electors["a"].Leader()
		api.Client(first).Partition(electortest.Both)
		time.Sleep(time.Minute)
		for name, el := range electors {
			if el.IsLeader() == (name == first) {
				t.Errorf("%s was cut off, but for %s IsLeader is %v", first, name, el.IsLeader())
			}
		}
		stop()
		replicas.Wait()
	})
}
