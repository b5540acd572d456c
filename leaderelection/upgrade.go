package leaderelection

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	clientgo "k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector"
)

// exit ends the process after an overrun. A variable for tests.
var exit = os.Exit

// Upgrade returns config with a Lock in place of its *resourcelock.LeaseLock: for the same Lease, by the same client,
// with the same identity, labels, event recorder and durations. The LeaderElectionConfig returned is for RunOrDie or
// NewLeaderElector; config is not changed. All mistakes are reported at once.
//
//   - OnStartedLeading gets a context that ends at once when the term is lost, with an *elector.LostError as its cause,
//     and that carries the term for elector.TermFrom.
//   - With ReleaseOnCancel the Lease is released, and OnStoppedLeading called, once OnStartedLeading has returned. If
//     it has never asked its context whether it has ended (Done, Err, or a context made of it), it cannot hear that it
//     should stop: it is given a second. If it has returned before, because its goroutines do the work, there is
//     nothing to wait for. Both are as safe as with client-go's own lock: see ReleaseOnCancel there.
//   - Without ReleaseOnCancel nothing is released. The Lease is kept while OnStartedLeading runs, and then it expires.
//   - An OnStartedLeading that does not return keeps the Lease for as long as it runs, or as Options.DrainLimit allows; what
//     follows then is an ordinary loss.
//   - If OnStartedLeading still runs after a loss when three quarters of LeaseDuration − RenewDeadline are spent, the
//     process is ended by os.Exit(1), because soon another replica leads.
//
// LeaseDuration is cut to whole seconds, as client-go does when it writes it. A RetryPeriod of more than half of
// RenewDeadline becomes that half. Durations of zero have the defaults of elector.Options. The durations of the config
// returned are RenewDeadline and RetryPeriod of this package. The durations given are the Elector's.
//
// What client-go's config has no field for is set by change, which gets the Elector's options as they were made from config:
//
//	config, err := leaderelection.Upgrade(config, func(o *elector.Options) { o.StateDir = "/run/elector"; o.DrainLimit = time.Minute })
func Upgrade(config LeaderElectionConfig, change ...func(*elector.Options)) (LeaderElectionConfig, error) {
	opts := optionsOf(config)
	lease, err := leaseOf(config)
	if err != nil {
		_, durations := opts.Promise()
		return config, fmt.Errorf("leaderelection: %w", errors.Join(err, durations))
	}
	opts.Namespace, opts.Name, opts.Identity = lease.LeaseMeta.Namespace, lease.LeaseMeta.Name, lease.LockConfig.Identity
	opts.Labels = labelsOf(lease)
	if recorder := lease.LockConfig.EventRecorder; recorder != nil {
		opts.Events = events{recorder}
	}
	for _, c := range change {
		c(&opts)
	}
	l, err := NewLock(lease.Client, opts)
	if err != nil {
		return config, err
	}
	l.joins, l.margin = true, 0 // the context of OnStartedLeading ends with the term itself
	config.Lock = l
	config.LeaseDuration = time.Duration(l.seconds) * time.Second
	config.RenewDeadline, config.RetryPeriod = LockRenewDeadline, LockRetryPeriod
	config.Callbacks = l.join(config.Callbacks)
	return config, nil
}

// NewLeaderElector is client-go's NewLeaderElector on the upgraded config: see [Upgrade]. Each of change may change the
// Elector's options as they were made from config:
//
//	le, err := leaderelection.NewLeaderElector(config, func(o *elector.Options) { o.DrainLimit = time.Minute })
func NewLeaderElector(config LeaderElectionConfig, change ...func(*elector.Options)) (*LeaderElector, error) {
	config, err := Upgrade(config, change...)
	if err != nil {
		return nil, err
	}
	return clientgo.NewLeaderElector(config)
}

// RunOrDie is client-go's RunOrDie on the upgraded config, with change as in [NewLeaderElector]. It panics if the config
// is refused, as client-go's does.
func RunOrDie(ctx context.Context, config LeaderElectionConfig, change ...func(*elector.Options)) {
	config, err := Upgrade(config, change...)
	if err != nil {
		panic(err)
	}
	clientgo.RunOrDie(ctx, config)
}

// optionsOf returns what config says for an Elector, but for what its lock says.
func optionsOf(config LeaderElectionConfig) elector.Options {
	opts := elector.Options{
		LeaseDuration: config.LeaseDuration.Truncate(time.Second),
		RenewDeadline: config.RenewDeadline,
		RetryPeriod:   config.RetryPeriod,
		OnOverrun: func(term elector.Term) {
			klog.Background().Error(nil, "OnStartedLeading has not returned after a loss, and another replica may lead soon: this process ends", "term", term)
			klog.Flush()
			exit(1)
		},
	}
	if opts.LeaseDuration == 0 {
		opts.LeaseDuration = config.LeaseDuration // less than a second is a mistake, not the default
	}
	if opts.RenewDeadline > 0 {
		opts.RetryPeriod = min(opts.RetryPeriod, opts.RenewDeadline/2)
	}
	return opts
}

// leaseOf returns the lock of config, and all that is wrong with config but for what NewLock finds.
func leaseOf(config LeaderElectionConfig) (*resourcelock.LeaseLock, error) {
	var errs []error
	lease, ok := config.Lock.(*resourcelock.LeaseLock)
	switch _, again := config.Lock.(*Lock); {
	case config.Lock == nil:
		errs = append(errs, errors.New("LeaderElectionConfig.Lock: required: a *resourcelock.LeaseLock"))
	case again:
		errs = append(errs, errors.New("LeaderElectionConfig.Lock: is a *leaderelection.Lock already: upgrade a config once"))
	case !ok:
		errs = append(errs, fmt.Errorf("LeaderElectionConfig.Lock: %T: must be a *resourcelock.LeaseLock: move the election to a Lease first", config.Lock))
	case lease == nil || lease.Client == nil:
		errs = append(errs, errors.New("LeaderElectionConfig.Lock: LeaseLock.Client: required: as clientset.CoordinationV1()"))
	}
	if config.Coordinated {
		errs = append(errs, errors.New("LeaderElectionConfig.Coordinated: must be false: coordinated leader election is not supported"))
	}
	if config.Callbacks.OnStartedLeading == nil {
		errs = append(errs, errors.New("LeaderElectionConfig.Callbacks.OnStartedLeading: required: the function to run while leading"))
	}
	if config.Callbacks.OnStoppedLeading == nil {
		errs = append(errs, errors.New("LeaderElectionConfig.Callbacks.OnStoppedLeading: required: client-go calls it when its Run ends"))
	}
	return lease, errors.Join(errs...)
}

// labelsOf returns the labels of a LeaseLock, which has the field in newer versions of client-go.
func labelsOf(lease *resourcelock.LeaseLock) map[string]string {
	field := reflect.ValueOf(lease).Elem().FieldByName("Labels")
	if !field.IsValid() {
		return nil
	}
	labels, _ := field.Interface().(map[string]string)
	return labels
}

// events passes the Elector's Events on to the recorder of a LeaseLock.
type events struct{ recorder resourcelock.EventRecorder }

// Event records an Event.
func (e events) Event(object runtime.Object, eventType, reason, message string) {
	e.recorder.Eventf(object, eventType, reason, "%s", message)
}
