package electortest

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var (
	leaseResource = coordinationv1.Resource("leases")
	leaseKind     = coordinationv1.SchemeGroupVersion.WithKind("Lease").GroupKind()

	errServerClosed = errors.New("electortest: the Server is closed: connection refused")
)

// Forbidden is the 403 that RBAC answers when a role lacks verb on Leases.
func Forbidden(verb string) error {
	return forbidden(Request{Verb: verb, Client: "electortest", Namespace: "default"})
}

// Unauthorized is the 401 of a missing or expired token.
func Unauthorized() error { return apierrors.NewUnauthorized("Unauthorized") }

// NotFound is the 404 of a Lease that does not exist.
func NotFound() error { return notFound("lease") }

// AlreadyExists is the 409 of a create under a name that is taken.
func AlreadyExists() error { return apierrors.NewAlreadyExists(leaseResource, "lease") }

// Conflict is the 409 of a write with a stale resourceVersion.
func Conflict() error { return conflict("lease") }

// TooManyRequests is the 429 of a server that sheds load. The Retry-After, rounded up to whole seconds, is in the
// error's details, where client-go puts it; 0 is no Retry-After. Client-go's REST client would wait and try again by
// itself up to ten times before its caller sees this error; here the caller sees it at once.
func TooManyRequests(retryAfter time.Duration) error {
	return apierrors.NewGenericServerResponse(http.StatusTooManyRequests, "request", leaseResource, "",
		"Too many requests, please try again later.", int(wholeSeconds(retryAfter)), true)
}

// InternalError is the 500 of a server whose storage fails, for instance while etcd has no leader.
func InternalError() error {
	return apierrors.NewInternalError(errors.New("etcdserver: leader changed"))
}

// Unavailable is the 503 of a server, or a load balancer before it, that has nobody to answer.
func Unavailable() error {
	return apierrors.NewServiceUnavailable("the server is currently unable to handle the request")
}

// Timeout is the 504 of a server that gave up on its storage. The request may have been carried out nevertheless;
// to play that, combine the verb's success with [Fault.LoseReply], as this answer alone means it was not.
func Timeout() error {
	return apierrors.NewTimeoutError("request did not complete within the allotted timeout", 0)
}

// DeniedByPolicy is the 422 of a ValidatingAdmissionPolicy, whose code and reason are those of an invalid object.
func DeniedByPolicy(why string) error {
	err := apierrors.NewForbidden(leaseResource, "lease", fmt.Errorf(
		"ValidatingAdmissionPolicy 'electortest' with binding 'electortest' denied request: %s", why))
	err.ErrStatus.Code, err.ErrStatus.Reason = http.StatusUnprocessableEntity, metav1.StatusReasonInvalid
	return err
}

// DeniedByWebhook is the 403 of an admission webhook.
func DeniedByWebhook(why string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    http.StatusForbidden,
		Reason:  metav1.StatusReasonForbidden,
		Message: fmt.Sprintf("admission webhook %q denied the request: %s", "electortest.example.com", why),
	}}
}

// QuotaExceeded is the 403 of a create beyond a ResourceQuota.
func QuotaExceeded() error {
	return apierrors.NewForbidden(leaseResource, "lease", errors.New("exceeded quota: electortest, "+
		"requested: count/leases.coordination.k8s.io=1, used: count/leases.coordination.k8s.io=1, limited: count/leases.coordination.k8s.io=1"))
}

// NamespaceTerminating is the 403 of a create in a namespace that is being deleted.
func NamespaceTerminating() error {
	err := apierrors.NewForbidden(leaseResource, "lease", errors.New(
		"unable to create new content in namespace default because it is being terminated"))
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type:    corev1.NamespaceTerminatingCause,
		Message: "namespace default is being terminated",
		Field:   "metadata.namespace",
	})
	return err
}

// WithRetryAfter returns err, one of the API errors of this package, with a Retry-After as in [TooManyRequests]. It
// panics at an error that no API server answers.
func WithRetryAfter(err error, retryAfter time.Duration) error {
	var status *apierrors.StatusError
	if !errors.As(err, &status) {
		panic(fmt.Sprintf("electortest: WithRetryAfter: not an API error: %v", err))
	}
	answer := *status.ErrStatus.DeepCopy()
	if answer.Details == nil {
		answer.Details = &metav1.StatusDetails{}
	}
	answer.Details.RetryAfterSeconds = wholeSeconds(retryAfter)
	return &apierrors.StatusError{ErrStatus: answer}
}

func wholeSeconds(d time.Duration) int32 { return int32((d + time.Second - 1) / time.Second) }

func forbidden(req Request) error {
	why := fmt.Sprintf("User %q cannot %s resource %q in API group %q in the namespace %q",
		req.Client, req.Verb, leaseResource.Resource, leaseResource.Group, req.Namespace)
	return apierrors.NewForbidden(leaseResource, req.Name, errors.New(why))
}

func notFound(name string) error { return apierrors.NewNotFound(leaseResource, name) }

func conflict(name string) error {
	return apierrors.NewConflict(leaseResource, name, errors.New(
		"the object has been modified; please apply your changes to the latest version and try again"))
}

func preconditionFailed(name, what, want, have string) error {
	why := fmt.Sprintf("Precondition failed: %s in precondition: %v, %s in object meta: %v", what, want, what, have)
	return apierrors.NewConflict(leaseResource, name, errors.New(why))
}

func invalid(name string, errs ...*field.Error) error {
	return apierrors.NewInvalid(leaseKind, name, errs)
}

// unexplained is a 500 without a reason, which a server answers where its storage refuses a resourceVersion.
func unexplained(message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    http.StatusInternalServerError,
		Message: message,
	}}
}

// tooLarge is the 504 of a read at a resourceVersion that is not reached yet, or not any more after a restore.
func tooLarge(version, current int64) error {
	message := fmt.Sprintf("Too large resource version: %d, current: %d", version, current)
	err := apierrors.NewTimeoutError(message, 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{
		Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version",
	}}
	return err
}

// methodNotAllowed is the 405 of a path that is there for other verbs.
func methodNotAllowed() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    http.StatusMethodNotAllowed,
		Reason:  metav1.StatusReasonMethodNotAllowed,
		Message: "the server does not allow this method on the requested resource",
	}}
}

// transportError wraps err as net/http does for client-go, so that errors.Is finds a context's error in it.
func transportError(req Request, err error) error {
	methods := map[string]string{"create": "Post", "update": "Put", "patch": "Patch", "delete": "Delete", "deletecollection": "Delete"}
	method := methods[req.Verb]
	if method == "" {
		method = "Get"
	}
	path := []string{"https://electortest/apis/coordination.k8s.io/v1", "namespaces", req.Namespace, "leases"}
	if req.Namespace == "" {
		path = []string{path[0], "leases"}
	}
	if req.Name != "" && req.Verb != "create" && req.Verb != "watch" && req.Verb != "list" {
		path = append(path, req.Name)
	}
	return &url.Error{Op: method, URL: strings.Join(path, "/"), Err: err}
}
