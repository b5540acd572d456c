package electortest

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
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
func NotFound() error { return apierrors.NewNotFound(leaseResource, "lease") }

// AlreadyExists is the 409 of a create under a name that is taken.
func AlreadyExists() error { return apierrors.NewAlreadyExists(leaseResource, "lease") }

// Conflict is the 409 of a write with a stale resourceVersion.
func Conflict() error { return conflict("lease") }

// TooManyRequests is the 429 of a server that sheds load. The Retry-After, rounded up to whole seconds, is in the
// error's details, where client-go puts it; 0 is no Retry-After. Client-go's REST client would wait and try again by
// itself up to ten times before its caller sees this error; here the caller sees it at once.
func TooManyRequests(retryAfter time.Duration) error {
	seconds := int((retryAfter + time.Second - 1) / time.Second)
	return apierrors.NewGenericServerResponse(http.StatusTooManyRequests, "request", leaseResource, "",
		"Too many requests, please try again later.", seconds, true)
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

func forbidden(req Request) error {
	why := fmt.Sprintf("User %q cannot %s resource %q in API group %q in the namespace %q",
		req.Client, req.Verb, leaseResource.Resource, leaseResource.Group, req.Namespace)
	return apierrors.NewForbidden(leaseResource, req.Name, errors.New(why))
}

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

// versionOnCreate is what a server answers to an object that is posted with a resourceVersion: a 500 without reason.
func versionOnCreate() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    http.StatusInternalServerError,
		Message: "resourceVersion should not be set on objects to be created",
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
