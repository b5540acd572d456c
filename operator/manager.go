package operator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/internal/mistake"
)

// A Manager is a controller-runtime manager that runs on every replica. Only what its setup function adds waits for
// leadership, and is made anew for each term. NewManager makes one; the zero value is of no use.
type Manager struct {
	manager.Manager

	setup    func(manager.Manager) error
	elector  *elector.Elector // nil without an election
	events   events           // of the election
	elected  chan struct{}
	isLeader sync.Once
	starting chan struct{} // closed when stopping is set
	stopping context.Context

	mu        sync.Mutex // guards the fields below
	names     map[string]bool
	rehearsed *term // kept, so that no later source has the address of one of its own
}

// NewManager makes a Manager, as manager.New does. The options mean what they mean there: without LeaderElection the
// controllers run at once, as for a single term that does not end; with it they run while the Lease LeaderElectionID in
// LeaderElectionNamespace is held. LeaderElectionReleaseOnCancel has no effect: the Lease is always released, and only
// after the controllers have stopped. All that is wrong with the options is reported at once.
//
// The function setup adds the controllers to the manager that it is given, as to any manager. It is called for each
// term, and once more before the first: what works only once is found by that, and refused. It must not write to the
// API, because it is also called on standbys; a Runnable that it adds may. In each term it may call IndexField with the
// same function as in the others: an index is made once and kept.
//
// The manager's client, and those of NewCluster, write only while a term is valid. GracefulShutdownTimeout is -1, wait
// for ever, unless it is set. If it is set, and the controllers take longer than that to stop, the process ends with the
// Lease held, and the next leader waits until it expires.
//
// With elector.Options.RecoveryDeadline an outage of the API ends no term. While the term is suspended, writes of these
// clients wait, and so do reconciliations that have not begun; they go on when the term is valid again. A write that was under
// way fails. A reconciliation that fails meanwhile is repeated at once, without back-off.
//
// Each of more may change the election's options, to set Metrics or StateDir for example. Run is not theirs to set. Events
// are made on the Lease as by manager.New, unless they set others.
// OnOverrun ends the process, with code 1, unless it is set: the controllers of an ended term did not stop, and another
// replica is about to lead.
func NewManager(cfg *rest.Config, opts manager.Options, setup func(manager.Manager) error, more ...func(*elector.Options)) (*Manager, error) {
	m := &Manager{setup: setup, elected: make(chan struct{}), starting: make(chan struct{}), names: map[string]bool{}}
	if _, err := known(); err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	var errs []error
	if setup == nil {
		errs = append(errs, errors.New("setup: required: the function that adds the controllers"))
	}
	if opts.LeaderElection {
		errs = append(errs, m.elect(cfg, &opts, more))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	if opts.GracefulShutdownTimeout == nil {
		opts.GracefulShutdownTimeout = ptr.To(forever)
	}
	if opts.BaseContext == nil { // the elector logs to the logger in its ctx
		logger := opts.Logger
		if logger.GetSink() == nil {
			logger = log.Log
		}
		opts.BaseContext = func() context.Context { return log.IntoContext(context.Background(), logger) }
	}
	opts.NewCache = m.sharing(opts.NewCache)
	mgr, err := manager.New(m.gated(cfg), opts)
	if err != nil {
		return nil, err
	}
	m.Manager = mgr
	return m, mgr.Add(EveryReplica(m.run))
}

// elect makes the elector, and switches the manager's own election off.
func (m *Manager) elect(cfg *rest.Config, opts *manager.Options, more []func(*elector.Options)) error {
	cfg, missing := electionConfig(cfg, opts)
	m.events.cfg = cfg
	o, err := electorOptions(opts, &m.events, more)
	if o.Run != nil {
		err = errors.Join(err, errors.New("elector.Options.Run: leave it out: the manager runs setup's controllers"))
	}
	o.Run = m.runTerm
	el, also := elector.NewForConfig(cfg, o)
	if err := errors.Join(missing, err, also); err != nil {
		return mistake.Reword(err, names)
	}
	m.events.source = el.Status().Identity
	opts.LeaderElection = false
	m.elector = el
	return nil
}

// gated is cfg for clients that write only while a term is valid.
func (m *Manager) gated(cfg *rest.Config) *rest.Config {
	if m.elector == nil {
		return cfg
	}
	return held(cfg, m.elector)
}

// run is what the manager runs on every replica, when its caches are filled.
func (m *Manager) run(ctx context.Context) error {
	if m.stopping.Err() != nil {
		return nil // it was stopped while the caches were being filled
	}
	if err := m.rehearse(ctx); err != nil {
		return err
	}
	if m.elector == nil {
		return m.runTerm(ctx)
	}
	return m.elector.Run(ctx)
}

// Elector is the manager's elector, for Status, Check, StepDown and others. Nil without LeaderElection.
func (m *Manager) Elector() *elector.Elector { return m.elector }

// Check fails when the election cannot go on without a restart of the process, as Elector.Check does. It is for
// AddHealthzCheck. Without LeaderElection it passes.
func (m *Manager) Check(r *http.Request) error {
	if m.elector == nil {
		return nil
	}
	return m.elector.Check(r)
}

// Start runs the manager until ctx ends, and waits for all that it has started.
func (m *Manager) Start(ctx context.Context) error {
	m.stopping = ctx
	close(m.starting)
	defer m.events.stop()
	return m.Manager.Start(ctx)
}

// Elected is closed when the first term of this replica begins. It says nothing of the end of that term.
func (m *Manager) Elected() <-chan struct{} { return m.elected }

// Add adds what runs on every replica. It refuses what needs leadership, as controllers and Runnables without a method
// NeedLeaderElection do: add that in setup. A cluster has to come from NewCluster.
func (m *Manager) Add(r manager.Runnable) error {
	if cl, ok := r.(interface{ GetCache() cache.Cache }); ok {
		if _, ok := cl.GetCache().(*sharedCache); !ok {
			return fmt.Errorf("operator: make the cluster with Manager.NewCluster, so that terms leave no handlers in its cache, and write to it only while they are valid: %T", r)
		}
		return m.Manager.Add(r)
	}
	if l, ok := r.(manager.LeaderElectionRunnable); !ok || l.NeedLeaderElection() {
		return fmt.Errorf("operator: %s needs leadership: add it in setup, the function given to NewManager, to the manager that setup is given. "+
			"What is added here runs on every replica; if that is what you want, it needs a method NeedLeaderElection that returns false, as operator.EveryReplica has", describe(r))
	}
	if p, _ := seeInto(r); p != nil { // what has one inside may be added: it does not end with a term
		m.mu.Lock()
		defer m.mu.Unlock()
		m.names[p.name] = true
	}
	return m.Manager.Add(r)
}

// Warm has the caches of these types filled before the election starts, so that a candidate is warm. List each type
// that the controllers watch or read; for a type of which they watch the metadata only, a metav1.PartialObjectMetadata
// with its kind. Call it before Start. Readiness does not wait for the caches: a conversion webhook in this process has
// to be ready before the caches can be filled.
func (m *Manager) Warm(types ...client.Object) error {
	var errs []error
	for _, t := range types {
		// Before Start this does not wait. Start waits for each cache before it starts the election.
		if _, err := m.GetCache().GetInformer(context.Background(), t, cache.BlockUntilSynced(false)); err != nil {
			errs = append(errs, fmt.Errorf("operator: warm the cache of %T: %w", t, err))
		}
	}
	return errors.Join(errs...)
}

// NewCluster makes a cluster, as cluster.New does, for controllers that work with a second API server. Add it to the
// Manager, outside setup. Its client writes only while a term is valid, and event handlers that the controllers of a term
// put on its informers are taken off at the end of the term.
func (m *Manager) NewCluster(cfg *rest.Config, opts ...cluster.Option) (cluster.Cluster, error) {
	shared := func(o *cluster.Options) { o.NewCache = m.sharing(o.NewCache) }
	return cluster.New(m.gated(cfg), append(opts[:len(opts):len(opts)], shared)...)
}

// EveryReplica is a Runnable that runs on every replica, whether it leads or not.
type EveryReplica func(context.Context) error

// Start calls r.
func (r EveryReplica) Start(ctx context.Context) error { return r(ctx) }

// NeedLeaderElection returns false.
func (EveryReplica) NeedLeaderElection() bool { return false }
