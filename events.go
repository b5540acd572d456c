package elector

import (
	"sync"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// An EventRecorder records Kubernetes Events. A record.EventRecorder of client-go/tools/record is one; for the newer
// one of client-go/tools/events see the example.
type EventRecorder interface {
	Event(object runtime.Object, eventtype, reason, message string)
}

// tellEnd says once why a term has ended: as soon as it is lost, or else when the callback has returned.
func (c *candidate) tellEnd(l *leadership, cause error) {
	if l.told {
		return
	}
	l.told = true
	switch lost := l.loss(cause); {
	case lost != nil:
		c.opts.Metrics.Lost(c.lease, lost.Reason)
		eventType := corev1.EventTypeWarning
		if lost.Reason == ReasonSteppedDown {
			eventType = corev1.EventTypeNormal
		}
		c.record(eventType, "stopped leading: "+lost.why())
	case cause != nil:
		c.record(corev1.EventTypeNormal, "stopped leading: told to stop")
	case l.result != nil:
		c.record(corev1.EventTypeWarning, "stopped leading: the callback failed: "+l.result.Error())
	default:
		c.record(corev1.EventTypeNormal, "stopped leading: the callback returned")
	}
}

// record makes a Kubernetes Event on the Lease, beside the election.
func (c *candidate) record(eventType, what string) {
	if c.opts.Events == nil {
		return
	}
	about := &coordinationv1.Lease{
		TypeMeta:   metav1.TypeMeta{APIVersion: coordinationv1.SchemeGroupVersion.String(), Kind: "Lease"},
		ObjectMeta: metav1.ObjectMeta{Namespace: c.lease.Namespace, Name: c.lease.Name},
	}
	if l := c.seen.lease; l != nil {
		about.UID, about.ResourceVersion = l.UID, l.ResourceVersion
	}
	c.events.tell(func() { c.opts.Events.Event(about, eventType, "LeaderElection", c.identity+" "+what) })
}

// An announcer makes calls to the user, in order and one at a time, beside the election. It has a goroutine only while
// there is something to tell. The zero value is ready.
type announcer struct {
	mu      sync.Mutex // guards queue and busy
	queue   []func()
	busy    bool
	running sync.WaitGroup
}

func (a *announcer) tell(call func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.queue = append(a.queue, call)
	if !a.busy {
		a.busy = true
		a.running.Go(a.drain)
	}
}

func (a *announcer) drain() {
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

func (a *announcer) wait() { a.running.Wait() }
