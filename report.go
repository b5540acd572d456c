package elector

import (
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
)

// An EventRecorder records Kubernetes Events. The EventRecorder of client-go/tools/record is one. For that of
// client-go/tools/events see the example.
type EventRecorder interface {
	Event(object runtime.Object, eventtype, reason, message string)
}

// A reporter says what becomes of a candidate, in the log, Events, Metrics and OnNewLeader. Nothing in
// the election depends on it.
type reporter struct {
	*Elector
	log       klog.Logger
	holders   callQueue // of OnNewLeader
	events    callQueue // of Events
	heldUntil time.Time // when a hold on the Lease was last seen to be confirmed by another, or to be let go
	suspected int64     // acquireTime of the record reported by suspect
	unfit     bool      // Options.Healthy has failed
	renewedAt time.Time // when the last renewal that was reported was sent
}

// changed reports that the Lease has changed.
func (r *reporter) changed(before, next observed, own tenure) {
	if own.phase == standingBy {
		r.suspect(before, next, own)
	}
	if !own.owns(next, r.identity) || next.claim.released() {
		r.heldUntil = next.at
	}
	holder := next.holder()
	if holder == "" || holder == before.claim.holder {
		return
	}
	if r.opts.OnNewLeader != nil {
		r.holders.add(func() { r.opts.OnNewLeader(holder) })
	}
	if holder != r.identity {
		r.log.Info("New leader", "leader", holder)
	}
}

// suspect reports a Lease that another process holds, or held, under this candidate's name.
func (r *reporter) suspect(before, next observed, own tenure) {
	if next.holder() != r.identity || own.owns(next, r.identity) || len(own.previous) > 0 {
		return
	}
	switch renewed := before.holder() == r.identity && before.claim.renewed != next.claim.renewed; {
	case renewed && r.suspected != next.claim.acquired:
		r.suspected = next.claim.acquired
		r.log.Error(errNamesake, "Another process leads under this candidate's identity")
	case before.holder() != r.identity:
		r.log.Info("The lease is held under this candidate's identity, by an earlier process or by another one; waiting until it expires")
	}
}

// begun reports a new term.
func (r *reporter) begun(l *activeTerm, seen observed) {
	l.log.Info("Became leader")
	r.renewedAt = l.term.authority.Load().sent
	r.opts.Metrics.Term(r.lease, l.term)
	if !r.heldUntil.IsZero() {
		r.opts.Metrics.HandedOver(r.lease, time.Since(r.heldUntil))
	}
	r.event(seen, corev1.EventTypeNormal, "became leader")
}

// renewed reports a renewal that was sent at sent, and found at now to have been applied.
func (r *reporter) renewed(sent, now time.Time) {
	left := max(r.renewDeadline-age(r.renewedAt, now), 0)
	r.opts.Metrics.Renewed(r.lease, now.Sub(sent), left, r.renewDeadline)
	r.renewedAt = sent
}

// stopping logs once that the callback's ctx has ended, and why; cause is nil if it has not.
func (r *reporter) stopping(l *activeTerm, cause error, seen observed) {
	if l.reportedStop || cause == nil {
		return
	}
	l.reportedStop = true
	msg := "Lost the lease: the callback has to stop"
	if lost := l.loss(cause); lost == nil || lost.givenUp() || lost.Reason == ReasonUnhealthy {
		msg = "The callback has to stop; the lease is kept until it has returned"
	}
	l.log.Info(msg, "reason", cause.Error(), "leader", seen.holder())
}

// draining logs, each minute, that a callback has not returned.
func (r *reporter) draining(l *activeTerm, since, now time.Time) {
	if minutes := int(now.Sub(since) / time.Minute); minutes > l.drained {
		l.drained = minutes
		l.log.Info("The callback has not returned yet", "since", since.Format(time.RFC3339), "leaseKept", l.term.Valid())
	}
}

// released logs how the release of a term has ended; wrote is the last record of the candidate's own.
func (r *reporter) released(l *activeTerm, wrote claim, err error) {
	switch {
	case err != nil:
		l.log.Error(err, "Could not release the lease; others wait until it expires")
	case wrote.holder != "":
	case wrote.seconds > 1:
		l.log.Info("Released the lease, but the API server has changed the release, as by an admission policy: others wait", "seconds", wrote.seconds)
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
func (r *reporter) ended(l *activeTerm, cause error, seen observed) {
	if l.reportedEnd {
		return
	}
	l.reportedEnd = true
	switch lost := l.loss(cause); {
	case lost != nil:
		r.opts.Metrics.Lost(r.lease, lost.Reason)
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
func (r *reporter) event(seen observed, eventType, what string) {
	if r.opts.Events == nil {
		return
	}
	about := &coordinationv1.Lease{
		TypeMeta:   metav1.TypeMeta{APIVersion: coordinationv1.SchemeGroupVersion.String(), Kind: "Lease"},
		ObjectMeta: metav1.ObjectMeta{Namespace: r.lease.Namespace, Name: r.lease.Name},
	}
	if l := seen.lease; l != nil {
		about.UID, about.ResourceVersion = l.UID, l.ResourceVersion
	}
	r.events.add(func() { r.opts.Events.Event(about, eventType, "LeaderElection", r.identity+" "+what) })
}

// wait waits for the last call to the user.
func (r *reporter) wait() {
	r.holders.wait()
	r.events.wait()
}

// A callQueue makes calls to the user, in order and one at a time. The election does not wait for them. It has a
// goroutine only while there is something to report. The zero value is ready.
type callQueue struct {
	mu      sync.Mutex // guards queue and busy
	queue   []func()
	busy    bool
	running sync.WaitGroup
}

func (a *callQueue) add(call func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.queue = append(a.queue, call)
	if !a.busy {
		a.busy = true
		a.running.Go(a.drain)
	}
}

func (a *callQueue) drain() {
	for {
		a.mu.Lock()
		if len(a.queue) == 0 {
			a.busy = false
			a.mu.Unlock()
			return
		}
		call := a.queue[0]
		a.queue = a.queue[1:]
		a.mu.Unlock()
		call()
	}
}

func (a *callQueue) wait() { a.running.Wait() }
