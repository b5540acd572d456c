package operator

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"reflect"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/leaderelection"
)

// forever is the GracefulShutdownTimeout of a manager that waits until all its Runnables have stopped.
const forever = time.Duration(-1)

// namespaceFile is where a pod finds the name of its namespace. A variable for tests.
var namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// Elect makes the manager that is made from opts elect by an Elector. Call it just before manager.New; cfg is not changed.
//
// The options mean what they mean to the manager: LeaderElectionID and LeaderElectionNamespace name the Lease,
// LeaderElectionLabels, LeaseDuration, RenewDeadline and RetryPeriod have the same defaults, and LeaderElectionConfig is
// used for the election if it is set. Without LeaderElection, Elect changes nothing and returns a nil Elector. All that
// is wrong with the options is reported at once.
//
// Elect sets
//
//   - LeaderElectionResourceLockInterface to the Elector's lock, and RenewDeadline and RetryPeriod to how often the
//     manager asks that lock, which costs no requests;
//   - LeaderElectionReleaseOnCancel: the manager releases the Lease after its Runnables have stopped;
//   - GracefulShutdownTimeout to -1, wait for ever, unless it is set. If it is set, Elect logs what it costs: what has not
//     stopped by then runs on while another replica leads, until the process ends.
//
// As with the manager's own election, Start returns an error when leadership is lost, and the process must end then. If
// it has not ended when three quarters of the stop budget, LeaseDuration − RenewDeadline, are spent, OnOverrun is called;
// unless more sets another, it ends the process with code 1.
//
// Each of more may change the Elector's options, to set Metrics or StateDir for example. The Elector that is returned is
// for its Check, Status, StepDown and WrapTransport. Its Run is called by the manager.
func Elect(cfg *rest.Config, opts *manager.Options, more ...func(*elector.Options)) (*elector.Elector, error) {
	if !opts.LeaderElection {
		return nil, nil
	}
	o, err := electorOptions(opts)
	o.OnOverrun = func(elector.Term) { os.Exit(1) }
	for _, f := range more {
		f(&o)
	}
	if cfg == nil && opts.LeaderElectionConfig == nil {
		err = errors.Join(err, errors.New("cfg: required: the *rest.Config that is given to manager.New"))
	}
	if err != nil {
		_, durations := o.Promise()
		return nil, fmt.Errorf("operator: %w", errors.Join(err, durations))
	}
	l, err := leaderelection.NewLockForConfig(cmp.Or(opts.LeaderElectionConfig, cfg), o)
	if err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	opts.LeaderElectionResourceLockInterface = l
	opts.LeaderElectionReleaseOnCancel = true
	opts.LeaseDuration = ptr.To(cmp.Or(o.LeaseDuration, 15*time.Second)) // client-go's check wants it, and it has no other use
	opts.RenewDeadline, opts.RetryPeriod = ptr.To(leaderelection.LockRenewDeadline), ptr.To(leaderelection.LockRetryPeriod)
	if opts.GracefulShutdownTimeout == nil {
		opts.GracefulShutdownTimeout = ptr.To(forever)
	} else if limit := *opts.GracefulShutdownTimeout; limit >= 0 {
		logger := opts.Logger
		if logger.GetSink() == nil {
			logger = log.Log
		}
		logger.Info("GracefulShutdownTimeout is set: Runnables that have not stopped by then run on while another replica leads, until the process ends. "+
			"Leave it out, and the Lease is kept until they have stopped", "gracefulShutdownTimeout", limit)
	}
	return l.Elector(), nil
}

// New is manager.New, and ctrl.NewManager, with Elect before it. It is for programs that have no variable for their options:
// one word changes. The manager is controller-runtime's own.
func New(cfg *rest.Config, opts manager.Options, more ...func(*elector.Options)) (manager.Manager, error) {
	if _, err := Elect(cfg, &opts, more...); err != nil {
		return nil, err
	}
	return manager.New(cfg, opts)
}

// electorOptions is what the options of a manager mean to an Elector, and what is wrong with them beyond that.
func electorOptions(opts *manager.Options) (elector.Options, error) {
	o := elector.Options{
		Namespace:     opts.LeaderElectionNamespace,
		Name:          opts.LeaderElectionID,
		Labels:        labels(opts),
		LeaseDuration: ptr.Deref(opts.LeaseDuration, 0),
		RenewDeadline: ptr.Deref(opts.RenewDeadline, 0),
		RetryPeriod:   ptr.Deref(opts.RetryPeriod, 0),
	}
	var errs []error
	if o.Name == "" {
		errs = append(errs, errors.New("LeaderElectionID: required: the name of the Lease that all replicas share"))
	}
	if _, err := os.Stat(namespaceFile); o.Namespace == "" && err != nil {
		errs = append(errs, fmt.Errorf("LeaderElectionNamespace: required outside a pod: the default is the pod's own namespace, which cannot be read: %w", err))
	}
	if opts.LeaderElectionResourceLockInterface != nil {
		errs = append(errs, fmt.Errorf("LeaderElectionResourceLockInterface: leave it out: a %T cannot be used with an Elector, which brings a lock of its own", opts.LeaderElectionResourceLockInterface))
	}
	if kind := opts.LeaderElectionResourceLock; kind != "" && kind != resourcelock.LeasesResourceLock {
		errs = append(errs, fmt.Errorf("LeaderElectionResourceLock: %q: must be %q or empty: move the election to a Lease first", kind, resourcelock.LeasesResourceLock))
	}
	return o, errors.Join(errs...)
}

// labels is LeaderElectionLabels, which newer versions of controller-runtime have.
func labels(opts *manager.Options) map[string]string {
	field := reflect.ValueOf(opts).Elem().FieldByName("LeaderElectionLabels")
	if !field.IsValid() {
		return nil
	}
	labels, _ := field.Interface().(map[string]string)
	return labels
}
