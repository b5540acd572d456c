package electortest

import (
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// matchNamespace fills in the request's namespace and refuses another one.
func matchNamespace(lease *coordinationv1.Lease, namespace string) error {
	if lease.Namespace == "" {
		lease.Namespace = namespace
	}
	if lease.Namespace != namespace {
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}

// normalize does to a Lease what its way over the wire does: times lose what is below a microsecond and their
// monotonic clock reading, a zero time is none, an empty map is none.
func normalize(lease *coordinationv1.Lease) {
	lease.TypeMeta = metav1.TypeMeta{}
	lease.Spec.AcquireTime = normalTime(lease.Spec.AcquireTime)
	lease.Spec.RenewTime = normalTime(lease.Spec.RenewTime)
	if len(lease.Labels) == 0 {
		lease.Labels = nil
	}
	if len(lease.Annotations) == 0 {
		lease.Annotations = nil
	}
}

func normalTime(t *metav1.MicroTime) *metav1.MicroTime {
	if t.IsZero() {
		return nil
	}
	normal := metav1.NewMicroTime(time.UnixMicro(t.UnixMicro()))
	return &normal
}

// validate is Kubernetes' ValidateLease (pkg/apis/coordination/validation).
func validate(lease *coordinationv1.Lease) field.ErrorList {
	errs := validation.ValidateObjectMeta(&lease.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	path, spec := field.NewPath("spec"), &lease.Spec
	if d := spec.LeaseDurationSeconds; d != nil && *d <= 0 {
		errs = append(errs, field.Invalid(path.Child("leaseDurationSeconds"), *d, "must be greater than 0"))
	}
	if n := spec.LeaseTransitions; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(path.Child("leaseTransitions"), *n, "must be greater than or equal to 0"))
	}
	if spec.Strategy != nil {
		errs = append(errs, validateStrategy(*spec.Strategy, path.Child("strategy"))...)
	}
	if spec.PreferredHolder != nil && *spec.PreferredHolder != "" && (spec.Strategy == nil || *spec.Strategy == "") {
		errs = append(errs, field.Forbidden(path.Child("preferredHolder"), "may only be specified if `strategy` is defined"))
	}
	return errs
}

// validateStrategy accepts Kubernetes' own strategy and qualified names.
func validateStrategy(strategy coordinationv1.CoordinatedLeaseStrategy, path *field.Path) field.ErrorList {
	if strategy == coordinationv1.OldestEmulationVersion {
		return nil
	}
	if !strings.Contains(string(strategy), "/") {
		return field.ErrorList{field.NotSupported(path, strategy, []coordinationv1.CoordinatedLeaseStrategy{coordinationv1.OldestEmulationVersion})}
	}
	var errs field.ErrorList
	for _, msg := range utilvalidation.IsQualifiedName(string(strategy)) {
		errs = append(errs, field.Invalid(path, strategy, msg))
	}
	return errs
}
