package elector

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/klog/v2"
)

// watching is how a candidate learns of changes: by one watch, at most one session of it at a time, and while there is
// none, by reading now and then (L1).
type watching struct {
	*Elector
	log klog.Logger
	ctx context.Context // of the requests

	session *session
	ending  []*session // that were stopped, and whose clients may not have returned
	open    bool       // the session has been accepted
	since   time.Time
	heard   time.Time // when the session last showed something
	retryAt time.Time
	fails   int // sessions in a row that did not serve for long

	latest uint64    // the highest version the session has shown
	owed   uint64    // a version that it has to show, or it is dead
	owedAt time.Time // since when
	lags   int       // sessions in a row that did not show it in time: the watch may be behind rather than dead

	pollAt   time.Time // without a watch: when to read the Lease again
	asked    time.Time // when the last GET was sent that is over
	doubting bool      // the next GET is to find out whether the watch still works (L2)
}

// A session is one watch request and the goroutine that reads it.
type session struct {
	attempt *attempt
	events  chan watchEvent
	ended   chan struct{} // closed when its goroutine has returned
	cancel  context.CancelFunc
}

// A watchEvent is what a session reports: that it is open, what changed, or why it ended.
type watchEvent struct {
	opened bool
	change watch.EventType
	lease  *coordinationv1.Lease
	ended  error
}

var (
	errWatchClosed = errors.New("the server closed the watch")
	errNoWatch     = errors.New("the client returned neither a watch nor an error")
)

func (w *watching) events() <-chan watchEvent {
	if w.session == nil {
		return nil
	}
	return w.session.events
}

// expect notes that the session has to show version soon.
func (w *watching) expect(version uint64, now time.Time) {
	if !w.open || version <= w.latest {
		return
	}
	if w.owed <= w.latest {
		w.owedAt = now
	}
	w.owed = max(w.owed, version)
}

func (w *watching) stop() {
	if w.session != nil {
		w.session.cancel()
		w.ending = append(w.ending, w.session)
	}
	w.session, w.open, w.latest, w.owed = nil, false, 0, 0
}

// lingering is how many sessions were stopped although their clients have not returned.
func (w *watching) lingering() int {
	w.ending = slices.DeleteFunc(w.ending, func(s *session) bool {
		select {
		case <-s.ended:
			return true
		default:
			return false
		}
	})
	return len(w.ending)
}

// underWay is how many of its requests have not been answered, or have not returned.
func (w *watching) underWay() int {
	n := w.lingering()
	if w.session != nil && !w.open {
		n++
	}
	return n
}

// served is how long a session has to serve to be followed by the next one soon.
func (w *watching) served() time.Duration { return 10 * w.opts.RetryPeriod }

// patience is how long an open session may take to show a version that an answer has shown. It grows while the watch is
// behind, up to a minute (L1).
func (w *watching) patience() time.Duration {
	return min(w.opts.RetryPeriod<<min(w.lags, 10), time.Minute)
}

// restart opens the watch anew, because it does not work any more.
func (w *watching) restart(now time.Time) {
	w.stop()
	w.retryAt = now
}

// poll turns waiting into reading now and then, while there is no watch to show changes (L1).
func (w *watching) poll(d decision) decision {
	if d.do != lead && !w.open && (d.do == idle || w.pollAt.Before(d.at)) {
		return decision{do: get, at: w.pollAt}
	}
	return d
}

// check turns waiting into asking once, when renewals have not come for longer than usual: the watch may be dead, and the
// Lease free long since (L2). Each candidate asks at a random moment of its own, by its share of the spread.
func (w *watching) check(d decision, o observed, share time.Duration) decision {
	quiet := o.quiet()
	if d.do != acquire || !w.open || quiet.IsZero() || !w.asked.Before(quiet) {
		return d
	}
	if at := quiet.Add(share * time.Duration(w.opts.RetryPeriod/2/spread)); at.Before(d.at) {
		w.doubting = true
		return decision{do: get, at: at}
	}
	return d
}

// polled takes in that a GET was answered that had been sent at sent. If the watch was in doubt, and has missed what the
// answer shows, it is dead (L2).
func (w *watching) polled(sent time.Time, r reply, now time.Time) {
	if w.doubting && r.err == nil && w.open && versionOf(r.lease) > w.latest {
		w.session.attempt.suspect(w.heard)
		w.restart(now)
	}
	w.asked, w.doubting = sent, false
	w.pollAt = now.Add(w.opts.RetryPeriod + rand.N(w.opts.RetryPeriod/5+1))
}

// tend opens the watch when it is time to, and closes it when it gives no sign of life. It returns when to see to it
// again. While a request is awaited, that request finds out whether the connection is dead; calls is how many have not
// returned.
func (w *watching) tend(now time.Time, awaited bool, calls int) time.Time {
	switch {
	case w.session != nil && !w.open && !now.Before(w.session.attempt.overdue(w.renewDeadline, now)):
		if !awaited {
			w.session.attempt.suspect(time.Time{})
		}
		w.ended(errNoReply, now)
	case w.open && w.owed > w.latest && !now.Before(w.owedAt.Add(w.patience())):
		w.lags++
		w.session.attempt.suspect(w.owedAt)
		w.restart(now)
	case w.open && w.fails > 0 && now.Sub(w.since) >= w.served():
		w.fails = 0
		w.log.Info("The watch works again")
	}
	if w.session == nil && !now.Before(w.retryAt) && w.lingering() < maxCalls-2 && calls+w.lingering() < maxCalls {
		w.begin(now)
	}
	switch {
	case w.session == nil && !now.Before(w.retryAt):
		return now.Add(w.opts.RetryPeriod) // clients have not returned
	case w.session == nil:
		return w.retryAt
	case !w.open:
		return w.session.attempt.overdue(w.renewDeadline, now)
	case w.owed > w.latest:
		return w.owedAt.Add(w.patience())
	case w.fails > 0:
		return w.since.Add(w.served())
	default:
		return now.Add(w.leaseDuration)
	}
}

// begin starts a session. Without a resourceVersion it begins with the Lease as it is, so nothing that happened
// before is missed, except a deletion.
func (w *watching) begin(now time.Time) {
	ctx, cancel := context.WithCancel(w.ctx)
	s := &session{events: make(chan watchEvent), ended: make(chan struct{}), cancel: cancel}
	ctx, s.attempt = newAttempt(ctx, false, w.tells)
	w.session, w.since = s, now
	leases, name := w.leases, w.opts.Name
	go func() {
		defer close(s.ended)
		defer cancel()
		pass := func(ev watchEvent) bool {
			select {
			case s.events <- ev:
				return true
			case <-ctx.Done():
				return false
			}
		}
		w, err := leases.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()})
		if err == nil && w == nil {
			err = errNoWatch
		}
		if err != nil {
			pass(watchEvent{ended: err})
			return
		}
		defer w.Stop()
		for ok := pass(watchEvent{opened: true}); ok; {
			select {
			case ev, more := <-w.ResultChan():
				ok = pass(translate(ev, more, name)) && more
			case <-ctx.Done():
				return
			}
		}
	}()
}

// translate turns a client's event into the loop's.
func translate(ev watch.Event, more bool, name string) watchEvent {
	if !more {
		return watchEvent{ended: errWatchClosed}
	}
	if ev.Type == watch.Error {
		return watchEvent{ended: apierrors.FromObject(ev.Object)}
	}
	lease, _ := ev.Object.(*coordinationv1.Lease)
	if lease != nil && lease.Name != name {
		lease = nil
	}
	return watchEvent{change: ev.Type, lease: lease}
}

// notice takes in what the session reports.
func (w *watching) notice(ev watchEvent, now time.Time) {
	switch {
	case ev.ended != nil:
		w.ended(ev.ended, now)
	case ev.opened:
		w.opts.Metrics.Request(w.lease, "watch", nil)
		w.open, w.since, w.heard = true, now, now
	case ev.lease != nil:
		w.heard = now
		w.latest = max(w.latest, versionOf(ev.lease))
		if w.owed > 0 && w.latest >= w.owed {
			if now.Sub(w.owedAt) < w.opts.RetryPeriod {
				w.lags = 0
			}
			w.owed = 0
		}
	}
}

// ended sets the time for the next session. A session that has served a while is followed soon, at a random moment,
// because a server that goes away ends those of all candidates at once. Others are followed ever later, up to a minute.
// Meanwhile the candidate polls (L1).
func (w *watching) ended(err error, now time.Time) {
	if !w.open {
		w.opts.Metrics.Request(w.lease, "watch", err)
	}
	if !w.pollAt.After(now) {
		w.pollAt = now.Add(rand.N(w.opts.RetryPeriod)) // not all candidates at once
	}
	served := w.open && now.Sub(w.since) >= w.served()
	w.stop()
	if served {
		w.fails = 0
		w.retryAt = now.Add(rand.N(w.opts.RetryPeriod/4 + 1))
		return
	}
	if w.fails == 0 {
		w.log.Info("No watch on the lease: reading it every RetryPeriod instead, and trying the watch again now and then",
			"err", explain(err, "watch", w.opts.Namespace, w.opts.Name).Error())
	}
	w.retryAt = now.Add(min(w.opts.RetryPeriod<<min(w.fails, 5), time.Minute) + rand.N(w.opts.RetryPeriod/4+1))
	w.fails++
}
