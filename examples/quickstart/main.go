// Quickstart is a program with a leader. On a machine with nothing but Go it plays a short drama, three replicas on an
// API server in memory (drama.go):
//
//	go -C examples run ./quickstart
//
// With -kubeconfig FILE, or in a pod, it is one replica on the real API server. That is the ordinary use, and all of it
// is in the two functions below.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector"
)

// beReplica campaigns, leads while it holds the Lease, and campaigns again, until ctx ends.
func beReplica(ctx context.Context, cfg *rest.Config, f *flags) error {
	el, err := elector.NewForConfig(cfg, elector.Options{
		Namespace: f.namespace, // "": the pod's own
		Name:      f.lease,     // the same in all replicas
		Identity:  f.identity,  // "": made from the hostname
		Run:       work,
		// If work does not return when its ctx has ended, better exit than work while the next leader does.
		OnOverrun: func(elector.Term) { os.Exit(1) },
	})
	if err != nil {
		return err
	}
	return el.Run(ctx)
}

// work is what one replica at a time does. When its ctx ends it returns as soon as it can. After a clean stop the next
// leader waits for it; after a lost lease it has LeaseDuration - RenewDeadline.
func work(ctx context.Context) error {
	log := klog.FromContext(ctx)
	if term, ok := elector.TermFrom(ctx); ok {
		log.Info("Work begins", "identity", term.Identity(), "token", term.Token())
	}
	for {
		select {
		case <-time.After(5 * time.Second):
			log.Info("Working")
		case <-ctx.Done():
			log.Info("Work ends", "cause", context.Cause(ctx).Error())
			return nil
		}
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run does what the flags say and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	f, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	cfg, err := f.config()
	switch {
	case errors.Is(err, rest.ErrNotInCluster):
		if !f.verbose {
			ctx = klog.NewContext(ctx, klog.Logger{}) // the drama shows all that the library would log
		}
		return newDrama(stdout).play(ctx)
	case err == nil:
		klog.FromContext(ctx).Info("One replica on a real API server; the first Ctrl-C or SIGTERM is a clean stop", "host", cfg.Host, "lease", f.lease)
		err = beReplica(ctx, cfg, f)
	}
	if err != nil {
		fmt.Fprintln(stderr, "quickstart:", err)
		return 1
	}
	return 0
}

type flags struct {
	kubeconfig, namespace, lease, identity string
	verbose                                bool
}

func parse(args []string, stderr io.Writer) (f *flags, err error) {
	f = &flags{}
	set := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "be one replica on the API server that this `file` names; in a pod that is the default")
	set.StringVar(&f.namespace, "namespace", "", "`namespace` of the Lease (default: the kubeconfig's, or the pod's own)")
	set.StringVar(&f.lease, "lease", "quickstart", "`name` of the Lease that all replicas share")
	set.StringVar(&f.identity, "identity", "", "`name` of this replica (default: the hostname and a random part)")
	set.BoolVar(&f.verbose, "v", false, "show what the library logs during the drama too")
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	if set.NArg() > 0 {
		err = fmt.Errorf("quickstart: unknown argument %q", set.Arg(0))
		fmt.Fprintln(stderr, err)
	}
	return f, err
}

// config finds the API server. It fails with rest.ErrNotInCluster where there is none to be found.
func (f *flags) config() (*rest.Config, error) {
	if f.kubeconfig == "" {
		return rest.InClusterConfig()
	}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: f.kubeconfig}, &clientcmd.ConfigOverrides{})
	if f.namespace == "" {
		f.namespace, _, _ = loader.Namespace() // its error is ClientConfig's too
	}
	return loader.ClientConfig()
}
