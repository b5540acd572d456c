// Fencing is a job whose leader writes to a database, and of which no past leader can write. On a machine with nothing
// but Go it plays a short story, two replicas as real processes, one of them frozen at the worst of moments (play.go):
//
//	go -C examples run ./fencing
//
// With -kubeconfig FILE, or in a pod, it is one replica on the real API server. What fencing takes is in this file and
// in ledger.go.
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

// A job works through batches, one after the other, and keeps in the ledger how far it is. One replica at a time runs it.
type job struct {
	ledger *ledger
	pace   time.Duration // between two batches
	tell   func(ctx context.Context, what string, batch int64)
	pause  func() // between the last check and the write: where the play freezes a leader
}

// run is the Options.Run of the election.
func (j job) run(ctx context.Context) error {
	term, _ := elector.TermFrom(ctx)
	// First of all, and before anything is read: from here on no earlier leader can write, though this one may not
	// write for an hour. What is read from now on stays as it is until this leader changes it.
	if err := j.ledger.raise(ctx, term.Token()); err != nil {
		return err
	}
	j.tell(ctx, leads, 0)
	defer j.tell(ctx, ends, 0)
	for {
		select {
		case <-time.After(j.pace):
		case <-ctx.Done():
			return nil
		}
		if err := j.next(ctx, term); err != nil {
			return err
		}
	}
}

// next does the next batch.
func (j job) next(ctx context.Context, term elector.Term) error {
	done, err := j.ledger.done(ctx)
	if err != nil {
		return err
	}
	batch := done + 1
	// The work of the batch would be here. What it does outside of the database is not fenced.

	// A leader that knows that it is none need not try. This is no protection: any time can pass after it.
	if !term.Valid() {
		return nil // ctx has ended, or is about to
	}
	j.tell(ctx, checked, batch)
	j.pause()
	// Not with ctx, which ends at SIGTERM: a batch that is done should be written, and the lease is kept for so long.
	write, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := j.ledger.write(write, term.Token(), batch); err != nil {
		if errors.Is(err, errFenced) {
			j.tell(ctx, refused, batch)
		}
		return err // after a refusal too: there is nothing left to do for this term
	}
	j.tell(ctx, wrote, batch)
	return nil
}

// The things a job reports.
const (
	leads   = "leads"
	checked = "found its term valid"
	wrote   = "wrote"
	refused = "was refused"
	ends    = "stopped"
)

// logged reports by the log, for people.
func logged(ctx context.Context, what string, batch int64) {
	term, _ := elector.TermFrom(ctx)
	klog.FromContext(ctx).Info("The job "+what, "identity", term.Identity(), "token", term.Token(), "batch", batch)
}

// beReplica campaigns, and runs the job while it leads, until ctx ends.
func beReplica(ctx context.Context, cfg *rest.Config, f *flags) error {
	db, err := openLedger(ctx, f.db)
	if err != nil {
		return err
	}
	defer db.close()
	opts := elector.Options{
		Namespace: f.namespace,
		Name:      f.lease,
		Identity:  f.identity,
		Run:       job{ledger: db, pace: time.Second, tell: logged, pause: func() {}}.run,
		// Fencing protects the database, not what else the job does: that must still stop in time.
		OnOverrun: func(elector.Term) { os.Exit(1) },
	}
	if f.actor {
		db.unfenced = f.unfenced
		opts = asActor(opts, db)
	}
	el, err := elector.NewForConfig(cfg, opts)
	if err != nil {
		return err
	}
	return el.Run(ctx)
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
		return play(ctx, f, stdout, stderr)
	case err == nil:
		err = beReplica(ctx, cfg, f)
	}
	if err != nil {
		fmt.Fprintln(stderr, "fencing:", err)
		return 1
	}
	return 0
}

type flags struct {
	kubeconfig, namespace, lease, identity, db, api string
	unfenced, verbose, actor                        bool
}

func parse(args []string, stderr io.Writer) (f *flags, err error) {
	f = &flags{}
	set := flag.NewFlagSet("fencing", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "be one replica on the API server that this `file` names; in a pod that is the default")
	set.StringVar(&f.namespace, "namespace", "", "`namespace` of the Lease (default: the kubeconfig's, or the pod's own)")
	set.StringVar(&f.lease, "lease", "fencing", "`name` of the Lease that all replicas share")
	set.StringVar(&f.identity, "identity", "", "`name` of this replica (default: the hostname and a random part)")
	set.StringVar(&f.db, "db", "fencing.db", "`file` of the database that all replicas share; it is made if it is not there")
	set.BoolVar(&f.unfenced, "unfenced", false, "play the story with a write that does not ask for the token, to see what happens then")
	set.BoolVar(&f.verbose, "v", false, "show what the replicas log during the story too")
	set.StringVar(&f.api, "api", "", "be a replica of the story, on the API server at this `URL`")
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	if set.NArg() > 0 {
		err = fmt.Errorf("fencing: unknown argument %q", set.Arg(0))
		fmt.Fprintln(stderr, err)
	}
	f.actor = f.api != ""
	return f, err
}

// config finds the API server. It fails with rest.ErrNotInCluster where there is none to be found.
func (f *flags) config() (*rest.Config, error) {
	switch {
	case f.actor:
		return &rest.Config{Host: f.api}, nil
	case f.kubeconfig == "":
		return rest.InClusterConfig()
	}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: f.kubeconfig}, &clientcmd.ConfigOverrides{})
	if f.namespace == "" {
		f.namespace, _, _ = loader.Namespace() // its error is ClientConfig's too
	}
	return loader.ClientConfig()
}
