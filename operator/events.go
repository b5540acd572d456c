package operator

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
)

// events records the Events of an election as a manager without an Elector does. Client-go has one connection for all
// clients of a config, so they go over the manager's. Until the first Event there is nothing to stop.
type events struct {
	cfg    *rest.Config
	source string // the candidate's identity

	mu          sync.Mutex // guards the fields below
	stopped     bool
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
}

// Event records an Event. It does not wait for the API.
func (e *events) Event(object runtime.Object, eventtype, reason, message string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped {
		return
	}
	if e.broadcaster == nil {
		client, err := corev1client.NewForConfig(e.cfg)
		if err != nil {
			klog.Background().Error(err, "There are no Events of the election")
			e.stopped = true
			return
		}
		e.broadcaster = record.NewBroadcaster()
		e.broadcaster.StartRecordingToSink(&corev1client.EventSinkImpl{Interface: client.Events("")})
		e.recorder = e.broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: e.source})
	}
	e.recorder.Event(object, eventtype, reason, message)
}

// stop ends the recording. What is under way may still be sent, for as long as the process lives and at most for a while.
func (e *events) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broadcaster != nil && !e.stopped {
		time.AfterFunc(5*time.Second, e.broadcaster.Shutdown)
	}
	e.stopped = true
}
