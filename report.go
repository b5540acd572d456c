package elector

import (
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector/internal/protocol"
	"github.com/elector-go/elector/internal/reading"
)

// An EventRecorder records Kubernetes Events. The EventRecorder of client-go/tools/record is one. For that of
// client-go/tools/events see the example.
type EventRecorder interface {
	Event(object runtime.Object, eventtype, reason, message string)
}

// A reporter says what becomes of a candidate, in the log, Events, Metrics and OnNewLeader. Nothing in the election depends
// on it, and nothing waits for it.
type reporter struct {
	*Elector
	log       logBeside
	holders   *callQueue       // of OnNewLeader
	events    *callQueue       // of Events
	unfit     bool             // Options.Healthy has failed
	renewedAt protocol.Instant // when the last renewal that was reported was sent
	failed    string           // the kind of the failure that was logged last
	failedAt  time.Time
	hung      bool // that clients do not return was logged
}

func newReporter(e *Elector, log klog.Logger) reporter {
	l := logBeside{log: log, calls: &callQueue{}}
	dropped := func(what string) *callQueue {
		return &callQueue{dropped: func(n int) {
			l.Info("Calls were dropped, because an earlier one did not return for long", "calls", what, "dropped", n)
			e.metrics.Dropped(e.lease, what, n)
		}}
	}
	l.calls.dropped = func(n int) {
		log.Info("Lines of the log were dropped, because the log blocked", "dropped", n)
		e.metrics.Dropped(e.lease, "log", n)
	}
	return reporter{Elector: e, log: l, holders: dropped("OnNewLeader"), events: dropped("Events")}
}

// holder reports a new holder.
func (r *reporter) holder(holder string) {
	if r.opts.OnNewLeader != nil {
		r.holders.add(func() { r.opts.OnNewLeader(holder) })
	}
	switch holder {
	case r.opts.Identity:
	case reading.Pauser:
		r.log.Info("The election is paused: nobody leads until it is resumed, or the pause is over")
	default:
		r.log.Info("New leader", "leader", holder)
	}
}

// trouble logs a failure, unless it is one more of the same. One that somebody has to do something about is logged again
// and again; but while a Lease is being released, once that has ended.
func (r *reporter) trouble(err error, refused, releasing bool) {
	if refused && releasing {
		return
	}
	what, _, _ := strings.Cut(err.Error(), ":")
	if what += kind(err); what != r.failed || refused && time.Since(r.failedAt) >= time.Minute {
		r.failed, r.failedAt = what, time.Now()
		r.log.Error(err, "A request failed and is tried again")
	}
}

// noTrouble logs that the API answers again.
func (r *reporter) noTrouble() {
	if r.failed != "" {
		r.log.Info("The API answers again")
	}
	r.failed = ""
}

// stuck logs, once, that clients do not return from requests although their ctx has ended.
func (r *reporter) stuck(stuck bool) {
	if stuck && !r.hung {
		r.log.Error(errStuck, "No more requests are sent")
	}
	r.hung = stuck
}

// begun reports a new term.
func (r *reporter) begun(l *activeTerm, e protocol.Effect, seen *coordinationv1.Lease) {
	l.log.Info("Became leader")
	r.renewedAt = e.Sent
	r.metrics.Term(r.lease, l.term)
	if e.OK {
		r.metrics.HandedOver(r.lease, e.Gap)
	}
	r.event(seen, corev1.EventTypeNormal, "became leader")
}

// suspended reports that a term has no authority for the time being.
func (r *reporter) suspended(l *activeTerm) {
	l.log.Info("Suspended: no renewal succeeded within RenewDeadline; the callback goes on, and may not write", "recoveryDeadline", r.opts.RecoveryDeadline)
	r.event(nil, corev1.EventTypeWarning, "is suspended: no renewal succeeded within RenewDeadline")
}

// resumed reports that a suspended term has its authority again.
func (r *reporter) resumed(l *activeTerm) {
	l.log.Info("Resumed: the lease is renewed again, and nobody else has led")
	r.event(nil, corev1.EventTypeNormal, "leads again after a suspension")
}

// renewed reports a renewal that was sent at sent, and is now found to have been applied.
func (r *reporter) renewed(sent protocol.Instant) {
	now := now()
	left := max(r.opts.RenewDeadline-protocol.Age(r.renewedAt, now), 0)
	r.metrics.Renewed(r.lease, now.Sub(sent), left, r.opts.RenewDeadline)
	r.renewedAt = sent
}

// stopping logs once that the callback's ctx has ended, and why; cause is nil if it has not.
func (r *reporter) stopping(l *activeTerm, cause error, holder string) {
	if l.reportedStop || cause == nil {
		return
	}
	l.reportedStop = true
	msg := "Lost the lease: the callback has to stop"
	if lost := l.loss(cause); lost == nil || lost.givenUp() || lost.Reason == ReasonUnhealthy {
		msg = "The callback has to stop; the lease is kept until it has returned"
	}
	l.log.Info(msg, "reason", cause.Error(), "leader", holder)
}

// draining logs, each minute, that a callback has not returned.
func (r *reporter) draining(l *activeTerm, since time.Time) {
	if minutes := int(time.Since(since) / time.Minute); minutes > l.drained {
		l.drained = minutes
		l.log.Info("The callback has not returned yet", "since", since.Format(time.RFC3339), "leaseKept", l.term.Valid())
	}
}

// released logs how the release of a term has ended.
func (r *reporter) released(l *activeTerm, e protocol.Effect, err error, resigned bool) {
	switch {
	case err != nil:
		l.log.Error(err, "Could not release the lease; others wait until it expires")
	case !e.Released:
	case resigned:
		l.log.Info("Released the lease with notice: this process is about to end", "seconds", e.Lasts.Seconds())
	case e.Lasts > time.Second:
		l.log.Info("Released the lease, but the API server has changed the release, as by an admission policy: others wait", "seconds", e.Lasts.Seconds())
	default:
		l.log.Info("Released the lease")
	}
}

// fitness logs that this replica became unfit to lead, or fit again.
func (r *reporter) fitness(err error) {
	switch {
	case err != nil && !r.unfit:
		r.log.Info("Unhealthy: this replica does not lead until Options.Healthy succeeds", "err", err.Error())
	case err == nil && r.unfit:
		r.log.Info("Healthy again")
	}
	r.unfit = err != nil
}

// ended says once why a term has ended: as soon as it is lost, or else when the callback has returned.
func (r *reporter) ended(l *activeTerm, cause error, seen *coordinationv1.Lease) {
	if l.reportedEnd {
		return
	}
	l.reportedEnd = true
	switch lost := l.loss(cause); {
	case lost != nil:
		r.metrics.Lost(r.lease, lost.Reason)
		eventType := corev1.EventTypeWarning
		if lost.givenUp() {
			eventType = corev1.EventTypeNormal
		}
		r.event(seen, eventType, "stopped leading: "+lost.why())
	case cause != nil:
		r.event(seen, corev1.EventTypeNormal, "stopped leading: asked to stop")
	case l.result != nil:
		r.event(seen, corev1.EventTypeWarning, "stopped leading: the callback failed: "+l.result.Error())
	default:
		r.event(seen, corev1.EventTypeNormal, "stopped leading: the callback returned")
	}
}

// event makes a Kubernetes Event on the Lease. The election does not wait for it.
func (r *reporter) event(seen *coordinationv1.Lease, eventType, what string) {
	if r.opts.Events == nil {
		return
	}
	about := &coordinationv1.Lease{
		TypeMeta:   metav1.TypeMeta{APIVersion: coordinationv1.SchemeGroupVersion.String(), Kind: "Lease"},
		ObjectMeta: metav1.ObjectMeta{Namespace: r.lease.Namespace, Name: r.lease.Name},
	}
	if seen != nil {
		about.UID, about.ResourceVersion = seen.UID, seen.ResourceVersion
	}
	r.events.add(func() { r.opts.Events.Event(about, eventType, "LeaderElection", r.opts.Identity+" "+what) })
}

// wait waits for the last call to the user. A log or Metrics that block are not waited for.
func (r *reporter) wait() {
	r.holders.Wait(0)
	r.events.Wait(0)
	r.metrics.calls.Wait(time.Second)
	r.log.calls.Wait(time.Second)
}
