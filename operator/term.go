package operator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

var (
	errHandler  = errors.New("operator: health checks, readiness checks and handlers of the metrics server are not for setup: every replica serves them. Add them to the Manager that NewManager returned")
	errWebhook  = errors.New("operator: webhooks are not for setup: every replica serves them. Register them with the Manager that NewManager returned")
	errTermOver = errors.New("operator: the term of this manager is over: nothing can be added to it")
)

// term is what runs while leadership lasts: what setup has added, and what is added to the same manager later.
type term struct {
	mgr       *Manager
	ctx       context.Context
	end       context.CancelFunc
	rehearsal bool // nothing is started
	running   sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	phase   phase
	added   []manager.Runnable
	names   map[string]bool
	refused []error
	first   error // of a Runnable
	cleanup []func()
}

type phase int

const (
	settingUp phase = iota
	running         // what is added is started
	over            // what is added is refused
	cleaned
)

type termKey struct{}

// termOf is the term that ctx belongs to, or nil.
func termOf(ctx context.Context) *term {
	t, _ := ctx.Value(termKey{}).(*term)
	return t
}

func (t *term) mark(ctx context.Context) context.Context { return context.WithValue(ctx, termKey{}, t) }

func (m *Manager) newTerm(ctx context.Context) *term {
	t := &term{mgr: m, names: map[string]bool{}}
	t.ctx, t.end = context.WithCancel(t.mark(ctx))
	return t
}

// rehearse has setup called before the first term, on every replica, and starts nothing of what it adds.
func (m *Manager) rehearse(ctx context.Context) error {
	t := m.newTerm(ctx)
	t.rehearsal = true
	defer t.clean()
	defer t.end()
	if err := t.setUp(); err != nil {
		return fmt.Errorf("operator: setup, before the first term: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rehearsed = t
	return nil
}

// runTerm has setup add controllers, starts them, and returns when ctx has ended or one of them has failed, and all have
// stopped. Nothing is left of them then.
func (m *Manager) runTerm(ctx context.Context) error {
	m.isLeader.Do(func() { close(m.elected) })
	t := m.newTerm(ctx)
	defer t.clean()
	defer t.end()
	err := t.setUp()
	if err == nil {
		err = t.refuseOld()
	} else if m.rehearsed != nil && ctx.Err() == nil {
		err = fmt.Errorf("operator: setup worked before the first term, and fails now. It is called for each term, so what can be done only once belongs outside it. "+
			"For a controller of NewUnmanaged, or one with SkipNameValidation false, set SkipNameValidation to true: %w", err)
	}
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.phase = running
	for _, r := range t.added {
		t.start(r)
	}
	t.mu.Unlock()
	<-t.ctx.Done() // not before, though all may be done: to return would end the election
	t.mu.Lock()
	t.phase = over
	t.mu.Unlock()
	t.running.Wait()
	return t.first
}

// setUp calls setup. What it was refused is an error also where the call that was refused cannot return one.
func (t *term) setUp() error {
	err := t.mgr.setup(&termManager{Manager: t.mgr, term: t, cache: &termCache{t.mgr.GetCache().(*sharedCache), t}})
	t.mu.Lock()
	defer t.mu.Unlock()
	errs := []error{err}
	for _, refused := range t.refused {
		if !errors.Is(err, refused) {
			errs = append(errs, refused)
		}
	}
	return errors.Join(errs...)
}

// refuseOld refuses channel sources that the rehearsal had too: each distributes its events in one term only.
func (t *term) refuseOld() error {
	m := t.mgr
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rehearsed == nil {
		return nil
	}
	old := map[uintptr]bool{}
	for _, r := range m.rehearsed.added {
		for _, c := range channels(r) {
			old[c] = true
		}
	}
	var errs []error
	for _, r := range t.added {
		for _, c := range channels(r) {
			if old[c] {
				errs = append(errs, fmt.Errorf("operator: %s has a source.Channel that was made outside setup, and would be dead from the second term on: call source.Channel in setup. The Go channel that it reads may stay outside", describe(r)))
			}
		}
	}
	return errors.Join(errs...)
}

// start starts r. The caller holds mu.
func (t *term) start(r manager.Runnable) {
	t.running.Add(1)
	go func() {
		defer t.running.Done()
		var err error
		if w, ok := r.(interface{ Warmup(context.Context) error }); ok {
			err = w.Warmup(t.ctx)
		}
		if err == nil {
			err = r.Start(t.ctx)
		}
		if err == nil {
			return
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.first == nil {
			t.first = err
		}
		t.end() // the others stop too
	}()
}

// add adds r to the term, and starts it if the term has begun.
func (t *term) add(r manager.Runnable) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, err := t.check(r)
	if err != nil {
		t.refused = append(t.refused, err)
		return err
	}
	if t.phase >= over || t.ctx.Err() != nil {
		return errTermOver
	}
	if p != nil {
		t.names[p.name] = true
	}
	if t.phase == running {
		t.start(r)
	}
	t.added = append(t.added, r)
	return nil
}

// check refuses what is not for a term, and returns the parts of a controller. The caller holds mu.
func (t *term) check(r manager.Runnable) (*parts, error) {
	_, hasCache := r.(interface{ GetCache() cache.Cache })
	_, isWebhook := r.(webhook.Server)
	if l, ok := r.(manager.LeaderElectionRunnable); hasCache || isWebhook || ok && !l.NeedLeaderElection() {
		return nil, fmt.Errorf("operator: %s needs no leadership, and is not for setup: on a standby it would not run. Add it to the Manager that NewManager returned", describe(r))
	}
	p, err := seeInto(r)
	if p == nil {
		return nil, err
	}
	t.mgr.mu.Lock()
	defer t.mgr.mu.Unlock()
	if t.names[p.name] || t.mgr.names[p.name] {
		return nil, fmt.Errorf("operator: two controllers are named %q: name one of them otherwise, for they share their metrics", p.name)
	}
	return p, p.stopWithTerm()
}

func (t *term) refuse(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused = append(t.refused, err)
	return err
}

// atEnd has f called when all of the term has stopped, or now if it has.
func (t *term) atEnd(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.phase == cleaned {
		f()
		return
	}
	t.cleanup = append(t.cleanup, f)
}

// clean takes away what the term would leave behind.
func (t *term) clean() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.phase = cleaned
	for _, f := range t.cleanup {
		f()
	}
	t.cleanup = nil
	if !t.rehearsal {
		forgetQueues(t.names)
	}
}

// termManager is the Manager as the controllers of one term see it: what is added to it is the term's.
type termManager struct {
	*Manager
	term  *term
	cache *termCache
}

func (m *termManager) Add(r manager.Runnable) error { return m.term.add(r) }

func (m *termManager) GetCache() cache.Cache { return m.cache }

func (m *termManager) GetFieldIndexer() client.FieldIndexer { return m.cache }

// GetWebhookServer is what registers webhooks: on this replica only, and a standby would answer 404.
func (m *termManager) GetWebhookServer() webhook.Server {
	_ = m.term.refuse(errWebhook)
	return m.Manager.GetWebhookServer()
}

func (m *termManager) AddHealthzCheck(string, healthz.Checker) error {
	return m.term.refuse(errHandler)
}

func (m *termManager) AddReadyzCheck(string, healthz.Checker) error { return m.term.refuse(errHandler) }

func (m *termManager) AddMetricsServerExtraHandler(string, http.Handler) error {
	return m.term.refuse(errHandler)
}

func (m *termManager) GetControllerOptions() config.Controller {
	opts := m.Manager.GetControllerOptions()
	opts.SkipNameValidation = ptr.To(true) // the controllers of the last term had the same names
	return opts
}
