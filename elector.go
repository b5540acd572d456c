package elector

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

const (
	// spread is what standbys scatter their writes over when a Lease falls free (L4). Twice as much would halve the
	// writes of a thousand standbys again, and cost a single one 5 ms more.
	spread = 10 * time.Millisecond

	// pulse is how often a leader reads its clocks, so that it soon notices that its machine was suspended (S2).
	pulse = time.Second
)

// An Elector is one candidate for one Lease. Create it with New or NewForConfig; the zero value is not usable. Its
// methods may be called from any goroutine.
type Elector struct {
	timing
	opts    Options
	lease   types.NamespacedName
	links   [2]coordinationv1client.LeaseInterface // the first and the spare one, which differ only for NewClient's client
	client  *client                                // theirs, if it is from NewClient; else nil
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
	if leases == nil {
		err = errors.Join(errors.New("leases: required: a client for coordination.k8s.io/v1, as clientset.CoordinationV1()"), err)
	}
	if err != nil {
		return nil, prefixed(err)
	}
	e := &Elector{
		timing: timing{opts.Identity, opts.LeaseDuration, opts.RenewDeadline, opts.RetryPeriod, opts.DrainLimit},
		opts:   opts,
		lease:  types.NamespacedName{Namespace: opts.Namespace, Name: opts.Name},
	}
	e.links[0] = leases.Leases(opts.Namespace)
	e.links[1] = e.links[0]
	switch c := leases.(type) {
	case *client:
		e.client, e.links[1] = c, c.links[1].leases.Leases(opts.Namespace)
	case wrapper:
		if inner, ok := c.Unwrap().(*client); ok {
			e.client, e.links[1] = inner, c.Wrap(inner.links[1].leases.Leases(opts.Namespace))
		}
	}
	e.state.Store(&snapshot{})
	return e, nil
}

// A wrapper is a client around another, as in package leaderelection. It does the same on the spare connection of NewClient's.
type wrapper interface {
	Unwrap() coordinationv1client.LeasesGetter
	Wrap(leases coordinationv1client.LeaseInterface) coordinationv1client.LeaseInterface
}

func prefixed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("elector: %w", err)
}

// connection is the client for a request.
func (e *Elector) connection(spare bool) coordinationv1client.LeaseInterface {
	if spare {
		return e.links[1]
	}
	return e.links[0]
}

// redial closes a connection on which the request at sent was not answered.
func (e *Elector) redial(spare bool, sent time.Time) {
	switch {
	case e.client == nil:
	case spare:
		e.client.links[1].redial(sent)
	default:
		e.client.links[0].redial(sent)
	}
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
	c := newCandidate(e, ctx)
	defer c.close()
	e.opts.Metrics.Term(e.lease, Term{})
	for {
		if !c.standBy(ctx) {
			return nil
		}
		if again, err := c.lead(ctx); !again {
			return err
		}
	}
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
	if l == nil || !l.term.Valid() {
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
