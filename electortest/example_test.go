package electortest_test

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/kubernetes"
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

// runMyOperator is a program whose replicas are elected, for the example in the documentation.
func runMyOperator(ctx context.Context, client kubernetes.Interface, name string) {
	el, err := elector.New(client.CoordinationV1(), elector.Options{
		Namespace: "shop", Name: "orders", Identity: name,
		Run: func(ctx context.Context) error { <-ctx.Done(); return nil },
	})
	if err != nil {
		panic(err)
	}
	_ = el.Run(ctx)
}

// The example in the documentation of the package, as it is there.
func TestTheDocumentedExample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := electortest.NewServer() // in the bubble, because its channels must belong to it
		defer server.Close()              // ends watches and hung calls, so that the bubble can end
		ctx, cancel := context.WithCancel(t.Context())
		var replicas sync.WaitGroup
		defer replicas.Wait()
		defer cancel()
		for _, name := range []string{"a", "b"} {
			client := server.Client(name)
			client.SetLatency(4 * time.Millisecond)
			replicas.Go(func() { runMyOperator(ctx, client, name) })
		}
		time.Sleep(time.Minute)
		server.Client("a").Partition(electortest.Both)
		time.Sleep(time.Minute)
		// now b leads, and a has noticed that it does not
		server.Client("a").Partition(electortest.NoPartition) // heals it
		time.Sleep(time.Minute)
		// now a stands by
	})
}

func TestTheDocumentedExampleIsTheOneThatRuns(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	_, body, _ := strings.Cut(string(doc), "//	func TestTheOtherReplicaTakesOver(t *testing.T) {\n")
	body, _, found := strings.Cut(body, "//	}\n")
	require.True(t, found)
	body = strings.ReplaceAll("\n"+body, "\n//\t", "\n")
	source, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	require.Contains(t, string(source), "func TestTheDocumentedExample(t *testing.T) {"+body+"}\n")
}
