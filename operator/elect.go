package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/internal/mistake"
	"github.com/elector-go/elector/internal/optional"
	"github.com/elector-go/elector/leaderelection"
)

// forever is the GracefulShutdownTimeout of a manager that waits until all its Runnables have stopped.
const forever = time.Duration(-1)

// names are the manager's names of what an Elector is told by its Options.
var names = mistake.Names{
	"Name":             "LeaderElectionID",
	"Namespace":        "LeaderElectionNamespace",
	"Labels":           "LeaderElectionLabels",
	"LeaseDuration":    "LeaseDuration",
	"RenewDeadline":    "RenewDeadline",
	"RetryPeriod":      "RetryPeriod",
	"Run":              "the manager",
	"Identity":         "elector.Options.Identity",
	"StateDir":         "elector.Options.StateDir",
	"DrainLimit":       "elector.Options.DrainLimit",
	"RecoveryDeadline": "elector.Options.RecoveryDeadline",
}

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
//     stopped by then runs on while another replica leads, until the process ends;
//   - Logger to itself, without the error "leader election lost" that a manager logs at each clean stop.
//
// The election makes Events on the Lease, unless more sets elector.Options.Events.
//
// With elector.Options.RecoveryDeadline an outage of the API does not end the process:
//
//	operator.Elect(cfg, &opts, func(o *elector.Options) { o.RecoveryDeadline = 10 * time.Minute })
//
// While the term is suspended, what the manager's client writes waits; a write that was under way fails. What a standby writes
// passes as ever. Elect does not reach clients that the program makes itself, from Manager.GetConfig for example: wrap their
// config with the Elector's WrapTransport, or use New, which reaches them.
//
// As with the manager's own election, Start returns an error when leadership is lost, and the process must end then. The
// log has the reason. If it has not ended when three quarters of the stop budget, LeaseDuration − RenewDeadline, are
// spent, OnOverrun is called; unless more sets another, it ends the process with code 1.
//
// Each of more may change the Elector's options, to set Metrics or StateDir for example. The Elector that is returned is
// for its Check, Status, StepDown and WrapTransport. Its Run is called by the manager.
func Elect(cfg *rest.Config, opts *manager.Options, more ...func(*elector.Options)) (*elector.Elector, error) {
	l, err := elect(cfg, opts, more)
	if l == nil {
		return nil, err
	}
	if l.recovers {
		newClient := opts.NewClient
		if newClient == nil {
			newClient = client.New
		}
		opts.NewClient = func(cfg *rest.Config, o client.Options) (client.Client, error) {
			o.HTTPClient = nil // that was made before
			return newClient(passed(cfg, l.Elector()), o)
		}
	}
	return l.Elector(), nil
}

func elect(cfg *rest.Config, opts *manager.Options, more []func(*elector.Options)) (*managerLock, error) {
	if opts == nil {
		return nil, errors.New("operator: opts: required: the *manager.Options that manager.New is given after this")
	}
	if !opts.LeaderElection {
		return nil, nil
	}
	cfg, missing := electionConfig(cfg, opts)
	events := &events{cfg: cfg}
	o, err := electorOptions(opts, events, more)
	inner, also := leaderelection.NewLockForConfig(cfg, o)
	if err := errors.Join(missing, err, also); err != nil {
		return nil, fmt.Errorf("operator: %w", mistake.Reword(err, names))
	}
	events.source = inner.Identity()
	l := &managerLock{Lock: inner, events: events, lost: make(chan struct{})}
	l.recovers = o.RecoveryDeadline > 0
	opts.LeaderElectionResourceLockInterface = l
	opts.LeaderElectionReleaseOnCancel = true
	opts.LeaseDuration = ptr.To(cmp.Or(o.LeaseDuration, 15*time.Second)) // client-go's check wants it, and it has no other use
	opts.RenewDeadline, opts.RetryPeriod = ptr.To(leaderelection.LockRenewDeadline), ptr.To(leaderelection.LockRetryPeriod)
	logger := opts.Logger
	if logger.GetSink() == nil {
		logger = log.Log
	}
	opts.Logger = logger.WithSink(quiet{logger.GetSink()})
	if opts.GracefulShutdownTimeout == nil {
		opts.GracefulShutdownTimeout = ptr.To(forever)
	} else if limit := *opts.GracefulShutdownTimeout; limit >= 0 {
		logger.Info("GracefulShutdownTimeout is set: Runnables that have not stopped by then run on while another replica leads, until the process ends. "+
			"Leave it out, and the Lease is kept until they have stopped", "gracefulShutdownTimeout", limit)
	}
	return l, nil
}

// electionConfig is the config for the election. Where there is none, an empty one stands for it, so that what else is wrong
// is found, too.
func electionConfig(cfg *rest.Config, opts *manager.Options) (*rest.Config, error) {
	if cfg = cmp.Or(opts.LeaderElectionConfig, cfg); cfg == nil {
		return &rest.Config{}, errors.New("cfg: required: a *rest.Config, as from ctrl.GetConfig")
	}
	return cfg, nil
}

// New is manager.New, and ctrl.NewManager, with Elect before it. It is for programs that have no variable for their options:
// one word changes. The manager is controller-runtime's own, but for its Start: that returns as soon as leadership is
// lost, with an error that says why and matches elector.ErrLost. With elector.Options.RecoveryDeadline a suspension reaches
// every client that is made from the manager's config.
func New(cfg *rest.Config, opts manager.Options, more ...func(*elector.Options)) (manager.Manager, error) {
	l, err := elect(cfg, &opts, more)
	if err != nil {
		return nil, err
	}
	if l != nil && l.recovers {
		cfg = passed(cfg, l.Elector())
	}
	mgr, err := manager.New(cfg, opts)
	if err != nil || l == nil {
		return mgr, err
	}
	return &electing{mgr, l}, nil
}

// electing is a manager that says how it has lost the Lease.
type electing struct {
	manager.Manager
	lock *managerLock
}

// Start starts the manager. After a loss it waits for nothing, as the manager does not either.
func (m *electing) Start(ctx context.Context) error {
	inner, stop := context.WithCancel(ctx)
	defer stop()
	returned := make(chan error, 1)
	go func() { returned <- m.Manager.Start(inner) }()
	select {
	case err := <-returned:
		return err
	case <-m.lock.lost:
	}
	if ctx.Err() != nil { // it is stopping, and OnOverrun limits that
		return <-returned
	}
	m.lock.settle()
	return fmt.Errorf("operator: %w: lease %s: %s", elector.ErrLost, m.lock.Lock.Describe(), m.lock.why())
}

// electorOptions is what the options of a manager mean to an Elector, and what is wrong with them beyond that.
func electorOptions(opts *manager.Options, events elector.EventRecorder, more []func(*elector.Options)) (elector.Options, error) {
	labels, err := optional.Labels(opts, "LeaderElectionLabels")
	if err = errors.Join(err, checkFields(*opts)); err != nil {
		err = unknown(err)
	}
	o := elector.Options{
		Namespace:     opts.LeaderElectionNamespace,
		Name:          opts.LeaderElectionID,
		Labels:        labels,
		LeaseDuration: ptr.Deref(opts.LeaseDuration, 0),
		RenewDeadline: ptr.Deref(opts.RenewDeadline, 0),
		RetryPeriod:   ptr.Deref(opts.RetryPeriod, 0),
		Events:        events,
		OnOverrun:     func(elector.Term) { os.Exit(1) },
	}
	for _, f := range more {
		f(&o)
	}
	if opts.LeaderElectionResourceLockInterface != nil {
		err = errors.Join(err, fmt.Errorf("LeaderElectionResourceLockInterface: leave it out: a %T cannot be used with an Elector, which brings a lock of its own", opts.LeaderElectionResourceLockInterface))
	}
	if kind := opts.LeaderElectionResourceLock; kind != "" && kind != resourcelock.LeasesResourceLock {
		err = errors.Join(err, fmt.Errorf("LeaderElectionResourceLock: %q: must be %q or empty: move the election to a Lease first", kind, resourcelock.LeasesResourceLock))
	}
	return o, err
}

// electionFields are the options for the election that this package knows, without LeaderElection before. A variable for
// tests.
var electionFields = []string{"", "ResourceLock", "Namespace", "ID", "Config", "ReleaseOnCancel", "Labels", "ResourceLockInterface"}

// checkFields refuses an option for the election that this package does not know, and so would leave out.
func checkFields(opts any) (err error) {
	v := reflect.ValueOf(opts)
	for i := range v.NumField() {
		name, ok := strings.CutPrefix(v.Type().Field(i).Name, "LeaderElection")
		if ok && !v.Field(i).IsZero() && !slices.Contains(electionFields, name) {
			err = errors.Join(err, fmt.Errorf("LeaderElection%s is set, and has no meaning for an Elector", name))
		}
	}
	return err
}
