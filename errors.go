package elector

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

var (
	// ErrLost matches every *LostError: errors.Is(context.Cause(ctx), elector.ErrLost).
	ErrLost = errors.New("elector: leadership lost")

	// ErrNotLeader is returned by StepDown when there is nothing to give up, and, wrapped, by the write gate for a
	// write without a valid term. See Elector.WrapTransport.
	ErrNotLeader = errors.New("elector: not the leader")

	errRunning    = errors.New("elector: Run was called while another Run of the same Elector has not returned; make one Elector for each candidate")
	errNamesake   = errors.New("each process needs an Options.Identity of its own; leave it empty to have one made")
	errGoexit     = errors.New("the callback ended its goroutine by runtime.Goexit")
	errUnreleased = errors.New("the lease could not be released in time")
	errNoReply    = fmt.Errorf("no answer within the time limit of an attempt: %w", context.DeadlineExceeded)
)

// Reason is why a term was lost or given up. A term that ends because the callback returned, or because Run's ctx
// ended, has no reason: the zero value.
type Reason int

const (
	// ReasonTakenOver: the Lease names another holder, or another candidate has won and released it.
	ReasonTakenOver Reason = iota + 1
	// ReasonDeleted: the Lease was deleted and could not be put back before RenewDeadline.
	ReasonDeleted
	// ReasonDeadlinePassed: no renewal succeeded within RenewDeadline.
	ReasonDeadlinePassed
	// ReasonSteppedDown: StepDown was called.
	ReasonSteppedDown
	// ReasonDuplicateIdentity: the Lease names this candidate's identity, but it was another process that wrote it.
	ReasonDuplicateIdentity
)

// String describes the reason.
func (r Reason) String() string {
	switch r {
	case ReasonTakenOver:
		return "taken over"
	case ReasonDeleted:
		return "lease deleted"
	case ReasonDeadlinePassed:
		return "renew deadline passed"
	case ReasonSteppedDown:
		return "stepped down"
	case ReasonDuplicateIdentity:
		return "duplicate identity"
	default:
		return fmt.Sprintf("Reason(%d)", int(r))
	}
}

// A LostError is the context.Cause of the callback's ctx when its term was lost or given up by StepDown. With
// Options.SingleTerm, Run returns it.
type LostError struct {
	Reason Reason
	Holder string // the holder named in the Lease when the term ended, "" if none
}

// Error returns the reason and the holder.
func (e *LostError) Error() string { return ErrLost.Error() + ": " + e.why() }

// why is the reason with what is known of it.
func (e *LostError) why() string {
	switch {
	case e.Reason == ReasonTakenOver && e.Holder != "":
		return fmt.Sprintf("%v by %q", e.Reason, e.Holder)
	case e.Reason == ReasonDuplicateIdentity:
		return fmt.Sprintf("%v: another process also calls itself %q; give each its own Options.Identity", e.Reason, e.Holder)
	default:
		return e.Reason.String()
	}
}

// Is reports whether target is ErrLost.
func (e *LostError) Is(target error) bool { return target == ErrLost }

// explain adds to an API error what its reader has to do about it, if waiting does not help.
func explain(err error, verb, namespace, name string) error {
	what := fmt.Sprintf("%s lease %s/%s", verb, namespace, name)
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%s: forbidden: grant the verb %q on resource %q of apiGroup %q in namespace %q to this identity (Role and RoleBinding): %w",
			what, verb, "leases", "coordination.k8s.io", namespace, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s: unauthorized: the API server does not accept this client's credentials; check its token or certificate: %w", what, err)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s: not found: create namespace %q, or name another in Options.Namespace: %w", what, namespace, err)
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
}

// refused reports whether the API server understood the request and will refuse it until somebody changes its settings.
func refused(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsNotFound(err)
}
