package elector

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-go/elector/internal/protocol"
	"github.com/elector-go/elector/internal/reading"
)

var (
	// ErrLost matches every *LostError: errors.Is(context.Cause(ctx), elector.ErrLost).
	ErrLost = errors.New("elector: leadership lost")

	// ErrNotLeader is returned by StepDown when there is nothing to give up, and, wrapped, by the write gate for a
	// write without a valid term. See Elector.WrapTransport.
	ErrNotLeader = errors.New("elector: not the leader")

	// ErrSuspended is the cause of a context of Term.Context that has ended because the term is suspended. It is an
	// ErrNotLeader, too.
	ErrSuspended = fmt.Errorf("elector: the term is suspended: %w", ErrNotLeader)

	errRunning    = errors.New("elector: Run was called while another Run of the same Elector has not returned; make one Elector for each candidate")
	errNamesake   = errors.New("each process needs an identity of its own")
	errResigned   = errors.New("elector: Resign was called, and the process did not end; the Lease may be another's by now")
	errGoexit     = errors.New("the callback ended its goroutine by runtime.Goexit")
	errUnreleased = errors.New("the lease could not be released in time")
	errOtherLease = errors.New("the answer is not about this Lease: is there a proxy between this process and the API server?")
	errStuck      = errors.New("requests have not returned although their time was up: a credential plugin or a transport of the client hangs; restart this process")
	errNoRun      = errors.New("the last Run ended while the connection was made")
	errNoReply    = fmt.Errorf("no answer within the time limit of an attempt: %w", context.DeadlineExceeded)
)

// Reason is why a term was lost or given up. A term that ends because the callback returned, or because Run's ctx
// ended, has no reason: the zero value.
type Reason int

const (
	// ReasonTakenOver: the Lease names another holder, or another candidate has won and released it.
	ReasonTakenOver = Reason(protocol.TakenOver)
	// ReasonDeleted: the Lease was deleted and could not be put back before RenewDeadline.
	ReasonDeleted = Reason(protocol.Deleted)
	// ReasonDeadlinePassed: no renewal succeeded within RenewDeadline.
	ReasonDeadlinePassed = Reason(protocol.DeadlinePassed)
	// ReasonSteppedDown: StepDown was called.
	ReasonSteppedDown = Reason(protocol.SteppedDown)
	// ReasonDuplicateIdentity: the Lease names this candidate's identity, but it was another process that wrote it.
	ReasonDuplicateIdentity = Reason(protocol.DuplicateIdentity)
	// ReasonUnhealthy: Options.Healthy failed, or did not answer in time.
	ReasonUnhealthy = Reason(protocol.Unhealthy)
	// ReasonRequested: an annotation on the Lease asked its holder to step down. See Elector.StepDown.
	ReasonRequested = Reason(protocol.Requested)
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
	case ReasonUnhealthy:
		return "unhealthy"
	case ReasonRequested:
		return "asked to step down"
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

// lostError is what the protocol says, for the user.
func lostError(l protocol.Lost) *LostError {
	return &LostError{Reason: Reason(l.Reason), Holder: l.Holder}
}

// Error returns the reason and the holder.
func (e *LostError) Error() string { return ErrLost.Error() + ": " + e.why() }

// givenUp reports whether the term was given up so that another candidate may lead.
func (e *LostError) givenUp() bool {
	return e.Reason == ReasonSteppedDown || e.Reason == ReasonRequested
}

// why is the reason with what is known of it.
func (e *LostError) why() string {
	switch {
	case e.Reason == ReasonTakenOver && e.Holder == reading.Pauser:
		return fmt.Sprintf("%v by a pause of the election", e.Reason)
	case e.Reason == ReasonTakenOver && e.Holder != "":
		return fmt.Sprintf("%v by %q", e.Reason, e.Holder)
	case e.Reason == ReasonDuplicateIdentity:
		return fmt.Sprintf("%v: another process also calls itself %q; each needs an identity of its own", e.Reason, e.Holder)
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
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return fmt.Errorf("%s: namespace %q is being deleted: nothing can be created in it: %w", what, namespace, err)
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota"):
		return fmt.Errorf("%s: a ResourceQuota of namespace %q forbids one more object: raise it, or create the Lease beforehand: %w", what, namespace, err)
	case apierrors.IsForbidden(err) && (verb == "get" || verb == "watch" || strings.Contains(err.Error(), "cannot "+verb+" resource")):
		// What is read passes no admission check, so it is a right that is missing, also where the error does not say so.
		advice := fmt.Sprintf("grant the verb %q on resource %q of apiGroup %q in namespace %q to this identity (Role and RoleBinding)",
			verb, "leases", "coordination.k8s.io", namespace)
		if verb == "create" {
			advice += ", or create the Lease beforehand"
		}
		return fmt.Errorf("%s: forbidden: %s: %w", what, advice, err)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%s: forbidden by a webhook or by another admission check of the API server, not by a missing Role; its message says which: %w", what, err)
	case apierrors.IsInvalid(err):
		return fmt.Errorf("%s: refused by a validation or an admission policy; its message says which: %w", what, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s: unauthorized: the API server does not accept this client's credentials; check its token or certificate: %w", what, err)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s: not found: create namespace %q, or use another for the Lease: %w", what, namespace, err)
	case badCertificate(err):
		return fmt.Errorf("%s: the API server's certificate is not trusted: check the address and the certificate authority of this client's configuration, and the clock: %w", what, err)
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
}

// refused reports whether this candidate will be refused until somebody changes a setting: of the API server, or of this
// client.
func refused(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsNotFound(err) || apierrors.IsInvalid(err) || badCertificate(err)
}

func badCertificate(err error) bool {
	var verification *tls.CertificateVerificationError
	return errors.As(err, &verification)
}

// kind is what stays the same in an error that repeats, whatever ports and times its text names.
func kind(err error) string {
	if reason := apierrors.ReasonForError(err); reason != metav1.StatusReasonUnknown {
		return string(reason)
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}
