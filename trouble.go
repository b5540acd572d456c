package elector

import (
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
)

// trouble is what is wrong with the API for a candidate: for Status, for Check and for the log. The zero value is none.
type trouble struct {
	failures int       // requests failed in a row
	err      error     // why the last one failed, in words that say what to do; nil once the API has answered since
	refused  string    // the verb that the API refuses this candidate, "" for none
	since    time.Time // when it began to
	logged   string    // the verb and kind of the failure that was logged last
	loggedAt time.Time
	hung     bool // that clients do not return was logged
}

// failed takes in a failure, and logs it unless it is one more of the same. One that somebody has to do something about
// is logged again and again.
func (t *trouble) failed(log klog.Logger, verb string, err, explained error, now time.Time, releasing bool) {
	t.failures++
	t.err = explained
	if !refused(err) {
		t.refused, t.since = "", time.Time{}
	} else if t.refused == "" {
		t.refused, t.since = verb, now
	}
	if releasing && refused(err) {
		return // logged once the attempt to release has ended
	}
	if what := verb + kind(err); what != t.logged || refused(err) && now.Sub(t.loggedAt) >= time.Minute {
		t.logged, t.loggedAt = what, now
		log.Error(explained, "A request failed and is tried again")
	}
}

// succeeded takes in that the API has answered a request of the verb. Where it refuses another verb that is needed,
// that is not cured by this.
func (t *trouble) succeeded(log klog.Logger, verb string) {
	t.failures = 0
	if t.refused != "" && t.refused != verb {
		return
	}
	if t.logged != "" {
		log.Info("The API answers again")
	}
	t.forgive()
}

// stuck logs, once, that clients do not return from requests although their ctx has ended.
func (t *trouble) stuck(log klog.Logger, stuck bool) {
	if stuck && !t.hung {
		log.Error(errStuck, "No more requests are sent")
	}
	t.hung = stuck
}

// forgive forgets the last error.
func (t *trouble) forgive() { t.err, t.logged, t.refused, t.since = nil, "", "", time.Time{} }

// kind is what stays the same in an error that repeats, whatever ports and times its text names.
func kind(err error) string {
	if reason := apierrors.ReasonForError(err); reason != metav1.StatusReasonUnknown {
		return string(reason)
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}
