// Crowd is many candidates in one process that share a client, each for a Lease of its own. Five times a second it says on
// standard output whose work runs, as a hexadecimal number with a bit for each, and how many terms have begun.
//
// With -elector=client-go they are client-go's electors, as the yardstick. With -spin the process only keeps a processor
// busy.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/big"
	"os"
	"os/signal"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/elector-go/elector"
)

type config struct {
	kubeconfig, namespace, id, elector, profile string
	elections                                   int
	spin                                        bool
}

// A crowd is the candidates. Its zero value has none.
type crowd struct {
	running sync.WaitGroup
	works   []atomic.Int32 // of each, how many run: one, but where the next term begins before the work of the last has ended
	begun   atomic.Int64
}

func main() {
	var c config
	flag.StringVar(&c.kubeconfig, "kubeconfig", "", "file with the API server's address and the credentials")
	flag.StringVar(&c.namespace, "namespace", "", "namespace of the Leases")
	flag.StringVar(&c.id, "id", "", "identity of the candidates")
	flag.StringVar(&c.elector, "elector", "elector", "elector or client-go")
	flag.StringVar(&c.profile, "profile", "", "file for a CPU profile")
	flag.IntVar(&c.elections, "elections", 1, "how many")
	flag.BoolVar(&c.spin, "spin", false, "keep a processor busy")
	flag.Parse()
	for c.spin {
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, c); err != nil {
		fmt.Fprintln(os.Stderr, "crowd:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, c config) error {
	cfg, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	if err != nil {
		return err
	}
	if c.profile != "" {
		file, err := os.Create(c.profile)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	all := crowd{works: make([]atomic.Int32, c.elections)}
	start := map[string]func(context.Context, *rest.Config, config) error{"elector": all.elector, "client-go": all.clientGo}[c.elector]
	if start == nil {
		return fmt.Errorf("-elector=%s: it must be elector or client-go", c.elector)
	}
	if err := start(ctx, cfg, c); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { all.running.Wait(); close(ended) }()
	for tick := time.NewTicker(200 * time.Millisecond); ; {
		select {
		case <-ended:
			return nil
		case <-tick.C:
			all.tell()
		}
	}
}

func (all *crowd) tell() {
	var who big.Int
	for i := range all.works {
		if all.works[i].Load() > 0 {
			who.SetBit(&who, i, 1)
		}
	}
	fmt.Println(who.Text(16), all.begun.Load())
}

// work is that of a leader: it goes on until its ctx ends.
func (all *crowd) work(ctx context.Context, i int) {
	all.begun.Add(1)
	all.works[i].Add(1)
	<-ctx.Done()
	all.works[i].Add(-1)
}

func (all *crowd) elector(ctx context.Context, cfg *rest.Config, c config) error {
	client, err := elector.NewClient(cfg)
	if err != nil {
		return err
	}
	for i := range c.elections {
		el, err := elector.New(client, elector.Options{
			Namespace: c.namespace, Name: fmt.Sprint("shard-", i), Identity: c.id,
			Run: func(ctx context.Context) error { all.work(ctx, i); return nil },
		})
		if err != nil {
			return err
		}
		all.running.Go(func() { _ = el.Run(ctx) })
	}
	return nil
}

// clientGo uses one client without a rate limit, which 600 elections would overrun, and starts an election again that has
// lost its term.
func (all *crowd) clientGo(ctx context.Context, cfg *rest.Config, c config) error {
	cfg.QPS = -1
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	for i := range c.elections {
		le, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta:  metav1.ObjectMeta{Namespace: c.namespace, Name: fmt.Sprint("shard-", i)},
				Client:     client.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: c.id},
			},
			LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(ctx context.Context) { all.work(ctx, i) },
				OnStoppedLeading: func() {},
			},
		})
		if err != nil {
			return err
		}
		all.running.Go(func() {
			for ctx.Err() == nil {
				le.Run(ctx)
			}
		})
	}
	return nil
}
