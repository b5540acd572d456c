package elector

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/elector-go/elector/internal/protocol"
)

// An Elector is one candidate for one Lease. Create it with New or NewForConfig; the zero value is not usable. Its
// methods may be called from any goroutine.
type Elector struct {
	opts    Options
	lease   types.NamespacedName
	leases  coordinationv1client.LeaseInterface
	metrics metricsBeside
	client  *Client // theirs, if it is from NewClient; else nil
	tells   bool    // it tells when a request has left the process
	running atomic.Bool
	state   atomic.Pointer[snapshot]
	current atomic.Pointer[activeTerm] // nil while standing by
}

// New returns a candidate that uses the given client. It sends no request. It reports all mistakes in opts at once,
// each with its field.
//
// The client should not share its rate limiter with the work of Run, or renewals wait behind that work. NewClient makes
// a client that does not, for any number of Electors. NewForConfig makes the client and the Elector.
func New(leases coordinationv1client.LeasesGetter, opts Options) (*Elector, error) {
	opts, err := opts.complete()
	if isNil(leases) {
		err = errors.Join(errors.New("leases: required: a client for coordination.k8s.io/v1, as clientset.CoordinationV1()"), err)
	}
	if err != nil {
		return nil, prefixed(err)
	}
	e := &Elector{
		opts:  opts,
		lease: types.NamespacedName{Namespace: opts.Namespace, Name: opts.Name},
	}
	e.metrics = newMetricsBeside(e)
	e.leases, e.tells = leases.Leases(opts.Namespace), tellsWhenSent(leases)
	e.client, _ = leases.(*Client)
	e.state.Store(&snapshot{})
	return e, nil
}

// config is what the protocol has to know of the options.
func (e *Elector) config() protocol.Config {
	return protocol.Config{
		Identity:      e.opts.Identity,
		LeaseDuration: e.opts.LeaseDuration,
		RenewDeadline: e.opts.RenewDeadline,
		RetryPeriod:   e.opts.RetryPeriod,
		DrainLimit:    e.opts.DrainLimit,
		Recovery:      e.opts.RecoveryDeadline,
		Traces:        e.tells,
		Yields:        e.opts.Yield != nil,
	}
}

// isNil reports whether there is no client: nil, or a nil pointer.
func isNil(leases coordinationv1client.LeasesGetter) bool {
	v := reflect.ValueOf(leases)
	return !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil()
}

func prefixed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("elector: %w", err)
}

// Run campaigns, leads while it holds the Lease, and campaigns again, until ctx ends or the callback returns by itself.
//
// Run returns nil when ctx has ended and the callback has returned nil or ctx's own error, and nil when the callback
// returned nil by itself. Any other error that the callback returns is returned, wrapped. After a lost term, an error
// of the callback is logged and the election goes on. With Options.SingleTerm, Run returns the *LostError of a lost
// term, joined with the callback's error if there is any. Errors of the API never end it.
//
// Only one Run may be in progress; a second call returns an error at once. After Run has returned it may be called
// again.
//
// When ctx ends while the API is out of reach, Run tries to release the Lease until it expires: at most LeaseDuration
// after the last renewal.
//
// Run logs to the logger in ctx, klog.FromContext(ctx). For slog, pass klog.NewContext(ctx,
// logr.FromSlogHandler(handler)).
func (e *Elector) Run(ctx context.Context) error {
	if !e.running.CompareAndSwap(false, true) {
		return errRunning
	}
	defer e.running.Store(false)
	c := newCandidate(e, ctx, false)
	defer c.close()
	e.metrics.Term(e.lease, Term{})
	return c.run(ctx)
}

// StepDown gives up leadership: the callback's ctx ends with ReasonSteppedDown, and when the callback has returned the
// Lease is released and StepDown returns. The candidate then waits until another leads, for LeaseDuration at most,
// before it campaigns again. The annotation elector-go.github.io/step-down on the Lease asks for the same, with
// ReasonRequested. If its value names a candidate, by its identity or its pod, the others let that candidate go first.
//
// StepDown returns ErrNotLeader if there is nothing to give up, and an error if the Lease could not be released, so
// that others have to wait until it expires. It returns ctx's error if ctx ends first; the term ends nevertheless.
// StepDown waits for the callback. To call it from the callback itself, pass the callback's ctx, which ends as soon as
// StepDown is called.
func (e *Elector) StepDown(ctx context.Context) error {
	l := e.current.Load()
	if l == nil || !l.term.Valid() && l.term.Suspended().IsZero() {
		return ErrNotLeader
	}
	l.stepDownOnce.Do(func() { close(l.stepDown) })
	select {
	case <-l.done:
		return l.err
	case <-ctx.Done():
		return fmt.Errorf("elector: stepping down, but not waited for: %w", context.Cause(ctx))
	}
}

// Resign is for a process that is about to end itself although its callback still runs: it ends the term, and releases the
// Lease with notice. Other candidates lead when the notice has passed, instead of when the Lease expires. The caller must end
// the process within notice of calling Resign, whatever Resign returns: the release may have been carried out although no
// answer came. If none comes, the Lease may have been released or may expire: the process must be gone by the earlier of the
// two, the end of its stop budget (Promise.StopBudget). Notice counts in whole seconds, two at least.
//
// Resign returns once the release is answered, or ctx's error if that ends first. It returns ErrNotLeader if there is no
// callback, and an error if the Lease could not be released, because it has expired, for example. OnOverrun is a place for
// it. Candidates of other libraries may not wait for the notice: they take a Lease without a holder at once.
func (e *Elector) Resign(ctx context.Context, notice time.Duration) error {
	l := e.current.Load()
	if l == nil {
		return ErrNotLeader
	}
	select {
	case l.resign <- notice:
	default: // another call has
	}
	select {
	case <-l.done:
		return l.err
	case <-ctx.Done():
		return fmt.Errorf("elector: resigning, but not waited for: %w", context.Cause(ctx))
	}
}
