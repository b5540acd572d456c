// Package operatortest tests that controllers can be set up for one term of leadership after another.
package operatortest

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/elector-go/elector/operator"
)

// The Lease of the test. Between two terms the only candidate leaves the Lease to others for a leaseDuration.
const (
	leaseDuration = 6 * time.Second
	renewDeadline = 4 * time.Second
	retryPeriod   = time.Second
)

// TwoTerms runs a manager of operator.NewManager with this setup through two terms, on the API server of cfg, such as
// that of an envtest.Environment. In each term, once all that setup adds was started, it calls work, and then ends the
// term. Work makes something happen that the controllers have to do, and waits until it is done: with an error the test
// fails.
//
// TwoTerms fails the test if setup is refused, if a Runnable returns an error, if a controller that reconciled in the
// first term does not in the second, and if the second term leaves goroutines behind. The options are those for
// operator.NewManager; TwoTerms sets the election's, but for LeaderElectionNamespace, whose default here is "default", and
// switches the metrics server off if it has no address.
func TwoTerms(t testing.TB, cfg *rest.Config, opts manager.Options, setup func(manager.Manager) error, work func(ctx context.Context, term int) error) {
	t.Helper()
	if opts.LeaderElectionNamespace == "" {
		opts.LeaderElectionNamespace = "default"
	}
	if opts.Metrics.BindAddress == "" {
		opts.Metrics.BindAddress = "0"
	}
	opts.LeaderElection, opts.LeaderElectionID = true, "two-terms-"+rand.String(8)
	opts.LeaseDuration, opts.RenewDeadline, opts.RetryPeriod = ptr.To(leaseDuration), ptr.To(renewDeadline), ptr.To(retryPeriod)
	begun := make(chan struct{})
	mgr, err := operator.NewManager(cfg, opts, func(mgr manager.Manager) error {
		if err := setup(mgr); err != nil {
			return err
		}
		return mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
			select {
			case begun <- struct{}{}:
			case <-ctx.Done():
			}
			return nil
		}))
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	returned := make(chan error, 1)
	go func() { returned <- mgr.Start(ctx) }()
	err = terms(ctx, mgr, begun, returned, work)
	stop()
	if err != nil {
		t.Error(err)
		return
	}
	if err := <-returned; err != nil {
		t.Error(err)
	}
}

// terms runs the two terms of a manager that was started.
func terms(ctx context.Context, mgr *operator.Manager, begun <-chan struct{}, returned <-chan error, work func(context.Context, int) error) error {
	var left [2]int
	var reconciled [2]map[string]float64
	for i := range left {
		before := reconciliations()
		select {
		case <-begun:
		case err := <-returned:
			return fmt.Errorf("operatortest: term %d: the manager has ended: %w", i+1, err)
		}
		if err := work(ctx, i+1); err != nil {
			return fmt.Errorf("operatortest: term %d: %w", i+1, err)
		}
		if err := mgr.Elector().StepDown(ctx); err != nil {
			return fmt.Errorf("operatortest: end term %d: %w", i+1, err)
		}
		left[i] = settled()
		reconciled[i] = reconciliations()
		for name, n := range before {
			reconciled[i][name] -= n
		}
	}
	for name, n := range reconciled[0] {
		if n > 0 && reconciled[1][name] == 0 {
			return fmt.Errorf("operatortest: the controller %q reconciled in the first term, and not in the second: what wakes it was perhaps made outside setup", name)
		}
	}
	if left[1] > left[0]+2 {
		return fmt.Errorf("operatortest: %d goroutines after the first term, %d after the second: some go on after the end of the ctx that Start was given", left[0], left[1])
	}
	return nil
}

// reconciliations is how often each controller of this process has reconciled.
func reconciliations() map[string]float64 {
	counts := map[string]float64{}
	families, _ := metrics.Registry.Gather() // an error is of some metrics; the others are there
	for _, f := range families {
		if f.GetName() != "controller_runtime_reconcile_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "controller" {
					counts[l.GetValue()] += m.GetCounter().GetValue()
				}
			}
		}
	}
	return counts
}

// settled is the least number of goroutines in the next two seconds: queues end up to half a second after their shutdown.
func settled() int {
	n := runtime.NumGoroutine()
	for range 20 {
		time.Sleep(100 * time.Millisecond)
		n = min(n, runtime.NumGoroutine())
	}
	return n
}
