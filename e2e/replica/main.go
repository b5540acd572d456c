// Replica is one candidate for a Lease, as a process of its own. It reports on standard output what happens to it, in
// the lines of package event, and logs to standard error.
//
// With -elector=client-go the same callback runs under client-go's elector, as the yardstick.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/elector-go/elector/e2e/internal/event"
)

type config struct {
	kubeconfig, namespace, lease, id, elector string
	leaseDuration, renewDeadline, retryPeriod time.Duration
	recoveryDeadline                          time.Duration
	drain                                     time.Duration
	stateDir, terminationLog                  string
}

func parseFlags() config {
	var c config
	flag.StringVar(&c.kubeconfig, "kubeconfig", "", "file with the API server's address and the credentials")
	flag.StringVar(&c.namespace, "namespace", "", "namespace of the Lease")
	flag.StringVar(&c.lease, "lease", "", "name of the Lease")
	flag.StringVar(&c.id, "id", "", "identity of this replica")
	flag.StringVar(&c.elector, "elector", "elector", "elector or client-go")
	flag.DurationVar(&c.leaseDuration, "lease-duration", 15*time.Second, "see elector.Options")
	flag.DurationVar(&c.renewDeadline, "renew-deadline", 10*time.Second, "see elector.Options")
	flag.DurationVar(&c.retryPeriod, "retry-period", 2*time.Second, "see elector.Options")
	flag.DurationVar(&c.recoveryDeadline, "recovery-deadline", 0, "see elector.Options; client-go has none")
	flag.DurationVar(&c.drain, "drain", 0, "how long the callback takes to return after its context has ended")
	flag.StringVar(&c.stateDir, "state-dir", "", "see elector.Options; client-go gets it by package leaderelection")
	flag.StringVar(&c.terminationLog, "termination-log", "", "the termination log of the container that this process is to be in; client-go has no use for it")
	flag.Parse()
	return c
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, parseFlags()); err != nil {
		fmt.Fprintln(os.Stderr, "replica:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, c config) error {
	campaign := map[string]func(context.Context, *rest.Config, config, *worker) error{
		"elector":   runElector,
		"client-go": runClientGo,
	}[c.elector]
	if campaign == nil {
		return fmt.Errorf("-elector=%s: it must be elector or client-go", c.elector)
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	if err != nil {
		return err
	}
	requests := newCounter()
	cfg.Wrap(requests.wrap)
	write := event.Write(os.Stdout, c.id)
	w := &worker{drain: c.drain, tell: func(e event.Event) {
		if e.Kind == event.End || e.Kind == event.Exit {
			e.RequestsNow = requests.snapshot()
		}
		write(e)
	}}

	reporting, stopReporting := context.WithCancel(context.Background())
	defer stopReporting()
	go requests.report(reporting, w.tell)

	w.tell(event.Event{Kind: event.Ready})
	err = campaign(ctx, cfg, c, w)
	w.tell(event.Event{Kind: event.Exit, Err: text(err)})
	return err
}

// text is the error's message, "" for nil.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
