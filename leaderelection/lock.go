package leaderelection

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector"
)

// The durations for client-go's elector on a Lock. They cost no requests: they say how long client-go takes to act on a
// loss, and how long it sleeps after each answer of the Lock. Its LeaseDuration stays that of Options.
const (
	LockRenewDeadline = 500 * time.Millisecond
	LockRetryPeriod   = 20 * time.Millisecond
)

// reaction is what client-go's elector may take, with these durations, from a refused Update to the end of the
// context of OnStartedLeading. NewLock takes it off the authority that a Lock confirms.
const reaction = LockRenewDeadline + 2*LockRetryPeriod

var (
	errUnused = errors.New("leaderelection: Create is never needed: Get has acquired the Lease by the time it returns")
	errLeft   = errors.New("leaderelection: client-go's elector ended without a release (ReleaseOnCancel is off), so the lease is left to expire")
)

// A Lock is a resourcelock.Interface that is backed by an Elector. Make it with NewLock, NewLockForConfig or Upgrade. It is for
// one LeaderElector at a time; another may use it once the Run of the first has returned.
type Lock struct {
	elector  *elector.Elector
	identity string
	name     string        // namespace/name
	seconds  int           // LeaseDuration, for the records that client-go is shown
	margin   time.Duration // how long before a term's end an Update is refused
	joins    bool          // made by Upgrade: OnStartedLeading is waited for
	overruns bool          // Options.OnOverrun is set: a lost term without joins lasts until the process ends
	exits    bool          // made by Upgrade, and the process ends itself: Options.OnOverrun is not set
	hides    bool          // client-go is not shown that a term is suspended
	shows    bool          // it is: its config has Recovery
	releases bool          // with shows: the config has ReleaseOnCancel
	ending   sync.Once     // ends the process
	cutoff   cutoff

	drainLimit time.Duration // Options.DrainLimit

	mu       sync.Mutex // guards what follows; it is never held while waiting
	changed  chan struct{}
	round    *round // nil before the first
	holder   string // last seen in the Lease
	reported string // last shown to client-go as the holder
	records  uint64 // shown so far
	warned   bool   // of a RenewDeadline that is too long
}

// NewLock returns a lock for client-go's elector that uses the caller's client. It sends no request. Options.Run must be
// nil: the lock sets it, and SingleTerm. All else in opts means what it means for elector.New. All mistakes are reported
// at once. Several locks, and Electors, may share a client made by elector.NewClient.
//
// Options.DrainLimit has no effect: when the term is given up, by StepDown or because this replica is not healthy, the
// Lease is left to expire at once.
//
// With Options.RecoveryDeadline client-go goes on leading while the term is suspended. Its callback then has to write through
// the gate of the Elector, see Lock.Elector.
//
// The LeaderElectionConfig that it is put into has RenewDeadline and RetryPeriod of this package, and LeaseDuration of
// opts. A release is sent when client-go asks for it: unlike Upgrade, NewLock cannot know whether OnStartedLeading has
// returned. Nor can it after a loss, so OnOverrun is called then, if it is set, unless the process has ended by the time
// that three quarters of the stop budget are spent.
func NewLock(leases coordinationv1client.LeasesGetter, opts elector.Options) (*Lock, error) {
	return newLock(opts, func(l *Lock, opts elector.Options) (*elector.Elector, error) {
		if leases == nil {
			return elector.New(nil, opts)
		}
		return elector.New(l.cutoff.behind(leases), opts)
	})
}

// NewLockForConfig is NewLock with a client of the lock's own, made from cfg as elector.NewForConfig makes it. cfg is not changed.
func NewLockForConfig(cfg *rest.Config, opts elector.Options) (*Lock, error) {
	return newLock(opts, func(l *Lock, opts elector.Options) (*elector.Elector, error) {
		leases, err := elector.NewClient(cfg)
		if err != nil {
			return elector.NewForConfig(cfg, opts) // whose error names the mistakes in opts, too
		}
		return elector.New(l.cutoff.behind(leases), opts)
	})
}

func newLock(opts elector.Options, makeElector func(*Lock, elector.Options) (*elector.Elector, error)) (*Lock, error) {
	l := &Lock{changed: make(chan struct{}), overruns: opts.OnOverrun != nil, drainLimit: opts.DrainLimit, hides: opts.RecoveryDeadline > 0}
	var taken error
	if opts.Run != nil {
		taken = errors.New("elector.Options.Run: must be nil: the lock sets it; the work of the leader belongs in client-go's OnStartedLeading")
	}
	seen := opts.OnNewLeader
	opts.OnNewLeader = func(identity string) {
		l.see(identity)
		if seen != nil {
			seen(identity)
		}
	}
	opts.Run, opts.SingleTerm = l.lead, true
	el, err := makeElector(l, opts)
	if err = errors.Join(taken, err); err != nil {
		return nil, fmt.Errorf("leaderelection: %w", err)
	}
	promise, err := opts.Promise()
	if err != nil {
		return nil, fmt.Errorf("leaderelection: %w", err)
	}
	l.elector, l.identity = el, el.Status().Identity
	l.name = strings.TrimPrefix(opts.Namespace+"/"+opts.Name, "/")
	l.seconds = int(promise.Takeover / time.Second)
	l.margin = min(reaction, (promise.Takeover-promise.StopBudget)/4)
	return l, nil
}

// Elector returns what the lock is backed by, for its Check, Status, StepDown and WrapTransport. Its Run is the lock's.
func (l *Lock) Elector() *elector.Elector { return l.elector }

// Identity returns the candidate's name in the Lease.
func (l *Lock) Identity() string { return l.identity }

// Describe returns namespace/name of the Lease, for client-go's log.
func (l *Lock) Describe() string { return l.name }

// Create is never called by client-go, because Get does not report that the Lease is missing.
func (l *Lock) Create(context.Context, resourcelock.LeaderElectionRecord) error { return errUnused }

// Get blocks until the Lease is won, another leader is seen, or ctx ends. For a Lease that is won it returns a record
// without a holder, which client-go answers with an Update. While client-go leads it does not block.
func (l *Lock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	for {
		l.mu.Lock()
		if l.asleep(ctx) {
			changed := l.changed
			l.mu.Unlock()
			select {
			case <-changed:
			case <-time.After(LockRetryPeriod): // ctx's end does not count: client-go would log an error, and ask again
			}
			continue
		}
		holder, known, err := l.answer(ctx)
		changed, r := l.changed, l.round
		if known {
			defer l.mu.Unlock()
			return l.record(holder)
		}
		l.mu.Unlock()
		if err != nil {
			return nil, nil, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if l.abandon(r) {
				<-r.ended // the Lease may just have been won, and is released then
			}
			return l.parting(ctx)
		}
	}
}

// parting is what Get returns when ctx has ended: the holder as it was, because client-go logs an error as if something had
// failed.
func (l *Lock) parting(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	holder := cmp.Or(l.another(), l.reported)
	if quits := l.shows && l.round.run != nil; quits || holder != "" && holder != l.identity {
		return l.record(holder)
	}
	return nil, nil, ctx.Err()
}

// answer is what Get returns at this moment: a holder, if known, or an error; neither means to wait for a change. It
// makes the round that client-go needs. The caller holds mu.
func (l *Lock) answer(ctx context.Context) (holder string, known bool, err error) {
	r := l.round
	if r == nil || r.state == over {
		r = l.begin(ctx)
	}
	if r.state == left {
		l.resume(ctx, r)
	}
	switch another := l.another(); r.state {
	case won:
		return "", l.valid(r), nil
	case suspended, missed:
		if l.valid(r) {
			return l.identity, true, nil
		}
		l.reported = another
		return another, true, nil
	case led, refused, unheard:
		if l.valid(r) {
			return l.identity, true, nil
		}
		if l.shows {
			l.move(r, suspends)
			l.reported = another
			return another, true, nil
		}
		if another == "" {
			return "", false, fmt.Errorf("leaderelection: %w", elector.ErrNotLeader)
		}
		l.reported = another
		return another, true, nil
	case campaigning:
		if another != "" && another != l.reported {
			l.reported = another
			return another, true, nil
		}
	}
	return "", false, nil
}

// another is the holder last seen if that is another candidate, else "".
func (l *Lock) another() string {
	if l.holder == l.identity {
		return ""
	}
	return l.holder
}

// record is what client-go is shown. Its bytes differ from those of any before, so that client-go takes it in.
func (l *Lock) record(holder string) (*resourcelock.LeaderElectionRecord, []byte, error) {
	l.records++
	now := metav1.Now()
	return &resourcelock.LeaderElectionRecord{
		HolderIdentity:       holder,
		LeaseDurationSeconds: l.seconds,
		AcquireTime:          now,
		RenewTime:            now,
	}, strconv.AppendUint(nil, l.records, 10), nil
}

// Update confirms a term that is valid, and refuses one that is not with elector.ErrNotLeader; it sends nothing. While
// client-go leads it takes up to half of the time that ctx leaves it, and returns at once when the term is lost. An Update
// without a holder is a release: it returns when the Lease is released, even if ctx ends before.
func (l *Lock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	l.mu.Lock()
	r := l.round
	l.mu.Unlock()
	switch {
	case r == nil:
		return fmt.Errorf("leaderelection: %w", elector.ErrNotLeader)
	case record.HolderIdentity == "":
		return l.release(r)
	case !l.accept(r):
		l.hold(ctx, r)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.leads() && l.valid(r) {
		l.move(r, accepts)
		return nil
	}
	l.move(r, refuses)
	return fmt.Errorf("leaderelection: %w", elector.ErrNotLeader)
}

// hold waits in place of client-go, which would otherwise ask again all the time: until the term has to be checked
// again, ctx ends, or the term is lost.
func (l *Lock) hold(ctx context.Context, r *round) {
	deadline, ok := ctx.Deadline()
	l.mu.Lock()
	term, end := r.term, r.ctx
	l.mu.Unlock()
	if !ok || end == nil {
		return
	}
	l.warn(ctx, time.Until(deadline))
	wait := time.Until(deadline) / 2
	if !l.hides {
		wait = min(wait, time.Until(term.ValidUntil())-l.margin)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-end.Done():
	}
}

// warn logs once that client-go's RenewDeadline is too long for a loss to be acted on in time. Nothing waits for the log.
func (l *Lock) warn(ctx context.Context, left time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.warned || l.joins || left <= 2*LockRenewDeadline {
		return
	}
	l.warned = true
	go klog.FromContext(ctx).Error(nil, "The RenewDeadline of this LeaderElectionConfig should be leaderelection.LockRenewDeadline: client-go acts on a loss only after it",
		"lease", l.name, "renewDeadline", left.Round(time.Millisecond), "want", LockRenewDeadline)
}

// RecordEvent is how client-go says that it has begun to lead and that it has stopped. Unless it has released the Lease
// before, or lost it, nobody knows then whether the callback is over: the Lease is kept until it has returned, and left to
// expire. Events are the Elector's: see Options.Events.
func (l *Lock) RecordEvent(event string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case event != "stopped leading" || l.round == nil:
	case !l.shows:
		l.move(l.round, stops)
	case l.round.state != suspended && l.round.state != missed: // for these it says so while it waits for its term
		l.quit(l.round)
	}
}

// wake lets those who wait decide again. The caller holds mu.
func (l *Lock) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// see takes in the holder seen in the Lease.
func (l *Lock) see(holder string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holder = holder
	l.wake()
}
