package leaderelection

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	clientgo "k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/internal/mistake"
	"github.com/elector-go/elector/internal/optional"
)

// What ends the process after an overrun, and where that is said. Variables for tests.
var (
	exit       = os.Exit
	background = klog.Background
)

// Upgrade returns config with a [Lock] in place of its *resourcelock.LeaseLock: for the same Lease, by the same client,
// with the same identity, labels, event recorder and durations. RunOrDie and NewLeaderElector call it. Call it to get at
// the Elector, by config.Lock.(*Lock).Elector(), or where a library takes a config and elects with client-go's package.
// The config given is not changed. All mistakes are reported at once.
//
//   - OnStartedLeading gets a context that ends at once when the term is lost, with an *elector.LostError as its cause,
//     and that carries the term for elector.TermFrom.
//   - With ReleaseOnCancel the Lease is released, and OnStoppedLeading called, once OnStartedLeading has returned.
//   - An OnStartedLeading whose end does not say when the work has ended is waited for, too, but for a second only. It is
//     one that has never asked its context whether it has ended (Done, Err, or a context made of it), because it cannot
//     hear that it should stop; or one that has returned before, because its goroutines do the work. Both are as safe as
//     with client-go's own lock: see ReleaseOnCancel there.
//   - Any other may drain for Options.DrainLimit, which is LeaseDuration − RenewDeadline unless change sets it. If it still
//     runs then, the process gives the Lease up with a notice of two seconds and is ended by os.Exit(1), which the log
//     explains; OnStoppedLeading is not called. Set to zero, there is no limit: the Lease is kept for as long as it runs.
//   - Without ReleaseOnCancel nothing is released. The Lease is kept while OnStartedLeading runs, for DrainLimit at most, and
//     then it expires.
//   - If OnStartedLeading still runs after a loss when three quarters of LeaseDuration − RenewDeadline are spent, the
//     process is ended by os.Exit(1), because soon another replica leads.
//
// Where change sets Options.OnOverrun, that is called in place of os.Exit, after a loss; a drain that lasts longer than
// DrainLimit becomes one.
//
// LeaseDuration is cut to whole seconds, as client-go does when it writes it. A RetryPeriod of more than half of
// RenewDeadline becomes that half. Durations of zero have the defaults of elector.Options. The durations of the config
// returned are LockRenewDeadline and LockRetryPeriod. The durations given are the Elector's.
//
// With Recovery (client-go v0.38) the config returned has no ReleaseOnCancel, and no RecoveryDeadline: both are the lock's.
//
// What client-go's config has no field for is set by change, which gets the Elector's options as they were made from
// config. A field of a newer client-go that this package does not know is refused if it is set.
func Upgrade(config LeaderElectionConfig, change ...func(*elector.Options)) (LeaderElectionConfig, error) {
	opts := optionsOf(config)
	lease, mistakes := leaseOf(config)
	deadline, err := recoveryOf(&config)
	if err != nil {
		mistakes = append(mistakes, err)
	}
	opts.RecoveryDeadline = deadline
	if lease != nil {
		opts.Namespace, opts.Name, opts.Identity = lease.LeaseMeta.Namespace, lease.LeaseMeta.Name, lease.LockConfig.Identity
		labels, err := optional.Labels(lease, "Labels")
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("Lock: %w", err))
		}
		opts.Labels = labels
		if recorder := lease.LockConfig.EventRecorder; recorder != nil {
			opts.Events = events{recorder}
		}
	}
	for _, c := range change {
		c(&opts)
	}
	exits := opts.OnOverrun == nil
	if exits {
		promise, _ := opts.Promise() // what is wrong with it NewLock says
		opts.OnOverrun = func(term elector.Term) {
			die(promise.StopBudget/8, func(log klog.Logger) {
				log.Error(nil, "OnStartedLeading has not returned after a loss, and another replica may lead soon: this process ends", "term", term)
			})
		}
	}
	l, err := lockOf(lease, opts)
	if err = errors.Join(append(mistakes, err)...); err != nil {
		return config, fmt.Errorf("leaderelection: %w", mistake.Reword(err, names))
	}
	margin := l.margin
	l.exits, l.joins, l.margin = exits, true, 0 // the context of OnStartedLeading ends with the term itself
	if l.shows = deadline > 0 && l.hides; l.shows {
		l.hides, l.releases, l.margin = false, config.ReleaseOnCancel, min(shown, margin)
		config.ReleaseOnCancel = false
	}
	setRecovery(&config, l.shows)
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
	}
	if opts.LeaseDuration == 0 {
		opts.LeaseDuration = config.LeaseDuration // less than a second is a mistake, not the default
	}
	if opts.RenewDeadline > 0 {
		opts.RetryPeriod = min(opts.RetryPeriod, opts.RenewDeadline/2)
	}
	if promise, err := opts.Promise(); err == nil {
		opts.DrainLimit = promise.StopBudget
	}
	return opts
}

// die says why the process ends, and ends it within limit: the log may block, and another replica leads soon.
func die(limit time.Duration, say func(log klog.Logger)) {
	said := make(chan struct{})
	go func() {
		defer close(said)
		say(background())
		klog.Flush()
	}()
	select {
	case <-said:
	case <-time.After(limit):
	}
	exit(1)
}

// names are a LeaderElectionConfig's names of what an Elector is told by its Options.
var names = mistake.Names{
	"Name":             "Lock.LeaseMeta.Name",
	"Namespace":        "Lock.LeaseMeta.Namespace",
	"Labels":           "Lock.Labels",
	"Identity":         "Lock.LockConfig.Identity",
	"LeaseDuration":    "LeaseDuration",
	"RenewDeadline":    "RenewDeadline",
	"RetryPeriod":      "RetryPeriod",
	"Run":              "OnStartedLeading",
	"StateDir":         "elector.Options.StateDir",
	"DrainLimit":       "elector.Options.DrainLimit",
	"RecoveryDeadline": "elector.Options.RecoveryDeadline",
}

// leaseOf returns the lock of config, nil if there is none that can be used, and all that is wrong with config but for
// what an Elector finds.
func leaseOf(config LeaderElectionConfig) (lease *resourcelock.LeaseLock, errs []error) {
	lease, ok := config.Lock.(*resourcelock.LeaseLock)
	switch _, again := config.Lock.(*Lock); {
	case config.Lock == nil, ok && lease == nil:
		errs = append(errs, errors.New("Lock: required: a *resourcelock.LeaseLock"))
	case again:
		errs = append(errs, errors.New("Lock: is a *leaderelection.Lock already: upgrade a config once"))
	case !ok:
		errs = append(errs, fmt.Errorf("Lock: %T: must be a *resourcelock.LeaseLock: move the election to a Lease first", config.Lock))
	case lease.Client == nil:
		errs = append(errs, errors.New("Lock.Client: required: as clientset.CoordinationV1()"))
	}
	errs = append(errs, unknown(config)...)
	if config.Coordinated {
		errs = append(errs, errors.New("Coordinated: must be false: coordinated leader election is not supported"))
	}
	if config.Callbacks.OnStartedLeading == nil {
		errs = append(errs, errors.New("Callbacks.OnStartedLeading: required: the function to run while leading"))
	}
	if config.Callbacks.OnStoppedLeading == nil {
		errs = append(errs, errors.New("Callbacks.OnStoppedLeading: required: client-go calls it when its Run ends"))
	}
	return lease, errs
}

// lockOf makes the Lock in place of lease. Without a client another stands for it, so that what else is wrong is found, too.
func lockOf(lease *resourcelock.LeaseLock, opts elector.Options) (*Lock, error) {
	switch {
	case lease == nil: // and so there are no names
		_, err := opts.Promise()
		return nil, err
	case lease.Client == nil:
		return NewLockForConfig(&rest.Config{}, opts)
	}
	return NewLock(lease.Client, opts)
}

// known is the fields of a LeaderElectionConfig that mean here what they mean to client-go.
var known = []string{"Lock", "LeaseDuration", "RenewDeadline", "RetryPeriod", "Callbacks", "WatchDog", "ReleaseOnCancel", "Name", "Coordinated", "Recovery"}

// unknown refuses fields that are set and that only a newer client-go has.
func unknown(config any) (errs []error) {
	v := reflect.ValueOf(config)
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; !slices.Contains(known, name) && !v.Field(i).IsZero() {
			errs = append(errs, fmt.Errorf("%s: not supported yet: leave it out, or import %q in place of this package", name, reflect.TypeFor[LeaderElectionConfig]().PkgPath()))
		}
	}
	return errs
}

// events passes the Elector's Events on to the recorder of a LeaseLock.
type events struct{ recorder resourcelock.EventRecorder }

// Event records an Event.
func (e events) Event(object runtime.Object, eventType, reason, message string) {
	e.recorder.Eventf(object, eventType, reason, "%s", message)
}
