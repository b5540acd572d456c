package metrics

import (
	"context"
	"errors"
	"net"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// expected are the outcomes that are there with 0 from the beginning: those that alerts read, and success.
var expected = []string{"success", "not_found", "unauthorized", "forbidden"}

// outcome is the value of the label of that name: one of a fixed set, whatever the error says.
func outcome(err error) string {
	var status apierrors.APIStatus
	var transport net.Error // every error of client-go's that is not the server's: it is a *url.Error
	switch {
	case err == nil:
		return "success"
	case errors.As(err, &status):
		return answered(err, int(status.Status().Code))
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case !errors.As(err, &transport):
		return "other"
	case transport.Timeout():
		return "timeout"
	default:
		return "unreachable"
	}
}

// answered is the outcome of a request that the API server, or something before it, has answered.
func answered(err error, code int) string {
	switch {
	case apierrors.IsAlreadyExists(err):
		return "already_exists"
	case apierrors.IsConflict(err):
		return "conflict"
	case apierrors.IsNotFound(err):
		return "not_found"
	case apierrors.IsUnauthorized(err):
		return "unauthorized"
	case apierrors.IsForbidden(err):
		return "forbidden"
	case apierrors.IsTooManyRequests(err):
		return "too_many_requests"
	case apierrors.IsInvalid(err):
		return "invalid"
	case code >= http.StatusInternalServerError:
		return "server_error"
	default:
		return "other"
	}
}
