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

// An EventRecorder records Kubernetes Events. A record.EventRecorder of client-go/tools/record is one; for the newer
// one of client-go/tools/events see the example.
type EventRecorder interface {
	Event(object runtime.Object, eventtype, reason, message string)
}

// A reporter tells people and programs what becomes of a candidate: the log, Events, Metrics and OnNewLeader. Nothing in
// the election depends on it.
type reporter struct {
	*Elector
	log       klog.Logger
	holders   callQueue // of OnNewLeader
	events    callQueue // of Events
	heldUntil time.Time // when a hold on the Lease was last seen to be confirmed by another, or to be let go
	suspected int64     // acquireTime of the record reported by suspect
}

// changed tells that the Lease has changed.
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

// suspect tells of a Lease that another process holds, or held, under this candidate's name.
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

// begun tells of a new term.
func (r *reporter) begun(l *activeTerm, seen observed) {
	l.log.Info("Became leader")
	r.opts.Metrics.Term(r.lease, l.term)
	if !r.heldUntil.IsZero() {
		r.opts.Metrics.HandedOver(r.lease, time.Since(r.heldUntil))
	}
	r.event(seen, corev1.EventTypeNormal, "became leader")
}

// stopping says once that the callback was stopping to stop, and why; nil if it was not.
func (r *reporter) stopping(l *activeTerm, cause error, seen observed) {
	if l.reportedStop || cause == nil {
		return
	}
	l.reportedStop = true
	msg := "Lost the lease: the callback was told to stop"
	if l.loss(cause) == nil || l.term.Valid() {
		msg = "The callback was told to stop; the lease is kept until it has returned"
	}
	l.log.Info(msg, "reason", cause.Error(), "leader", seen.holder())
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
		if lost.Reason == ReasonSteppedDown {
			eventType = corev1.EventTypeNormal
		}
		r.event(seen, eventType, "stopped leading: "+lost.why())
	case cause != nil:
		r.event(seen, corev1.EventTypeNormal, "stopped leading: told to stop")
	case l.result != nil:
		r.event(seen, corev1.EventTypeWarning, "stopped leading: the callback failed: "+l.result.Error())
	default:
		r.event(seen, corev1.EventTypeNormal, "stopped leading: the callback returned")
	}
}

// event makes a Kubernetes Event on the Lease, beside the election.
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

// An callQueue makes calls to the user, in order and one at a time, beside the election. It has a goroutine only while
// there is something to tell. The zero value is ready.
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
