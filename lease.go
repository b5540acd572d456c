package elector

import (
	"maps"
	"strconv"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector/internal/protocol"
)

// stepDownAnnotation on a Lease asks its holder to step down (L8).
const stepDownAnnotation = "elector-go.github.io/step-down"

// recordOf is what the protocol reads in a Lease. The Lease must not be modified afterwards.
func recordOf(lease *coordinationv1.Lease) protocol.Record {
	micros := func(t *metav1.MicroTime) int64 {
		if t == nil || t.IsZero() {
			return 0
		}
		return t.UnixMicro()
	}
	s := &lease.Spec
	r := protocol.Record{
		Claim: protocol.Claim{
			Holder:      ptr.Deref(s.HolderIdentity, ""),
			Seconds:     ptr.Deref(s.LeaseDurationSeconds, 0),
			Acquired:    micros(s.AcquireTime),
			Renewed:     micros(s.RenewTime),
			Transitions: ptr.Deref(s.LeaseTransitions, 0),
		},
		Version: versionOf(lease),
		UID:     string(lease.UID),
		Created: lease.CreationTimestamp.Unix(),
		Object:  lease,
	}
	r.To, r.Asked = lease.Annotations[stepDownAnnotation]
	return r
}

// versionOf is the Lease's resourceVersion as a number, 0 if it is none.
func versionOf(lease *coordinationv1.Lease) uint64 {
	n, err := strconv.ParseUint(lease.ResourceVersion, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// onto returns a copy of lease that carries the claim and the labels. Everything else in it is kept (S11).
func onto(lease *coordinationv1.Lease, c protocol.Claim, labels map[string]string) *coordinationv1.Lease {
	lease = lease.DeepCopy()
	if len(labels) > 0 && lease.Labels == nil {
		lease.Labels = make(map[string]string, len(labels))
	}
	maps.Copy(lease.Labels, labels)
	acquired, renewed := metav1.NewMicroTime(time.UnixMicro(c.Acquired)), metav1.NewMicroTime(time.UnixMicro(c.Renewed))
	lease.Spec.HolderIdentity = &c.Holder
	lease.Spec.LeaseDurationSeconds = &c.Seconds
	lease.Spec.AcquireTime = &acquired
	lease.Spec.RenewTime = &renewed
	lease.Spec.LeaseTransitions = &c.Transitions
	return lease
}
