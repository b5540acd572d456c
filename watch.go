package elector

import (
	"context"
	"errors"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/elector-go/elector/internal/protocol"
)

// watches are the watch that a candidate has open, if any, and those that it has closed.
type watches struct {
	session *session
	closed  []*session // whose clients may not have returned
	events  chan watchEvent
	last    int   // the session that has ended last
	why     error // why, in words that say what to do
}

// A session is one watch request and the goroutine that reads it.
type session struct {
	id      int
	attempt *attempt
	opened  bool
	heard   time.Time     // when something was last read from its connection, as the machine was told
	ended   chan struct{} // closed when its goroutine has returned
	cancel  context.CancelFunc
}

// A watchEvent is what a session reports: that it is open, what changed, or why it ended.
type watchEvent struct {
	*session
	opened bool
	change watch.EventType
	lease  *coordinationv1.Lease
	err    error
}

var (
	errWatchClosed = errors.New("the server closed the watch")
	errNoWatch     = errors.New("the client returned neither a watch nor an error")
)

// failure is why a session has ended.
func (ws *watches) failure(id int) error {
	if ws.last == id {
		return ws.why
	}
	return errNoReply
}

// heard is what there is to tell of the connection of the watch: that something was read from it. It is ok each half second
// at the most.
func (ws *watches) heard() (ev protocol.Event, ok bool) {
	s := ws.session
	if s == nil || !s.opened {
		return ev, false
	}
	at := s.attempt.heard()
	if at.Sub(s.heard) < time.Second/2 {
		return ev, false
	}
	s.heard = at
	return protocol.Event{Kind: protocol.Heard, ID: s.id, At: instant(at)}, true
}

// returned are the sessions that were closed and have returned since.
func (ws *watches) returned() (ids []int) {
	ws.closed = slices.DeleteFunc(ws.closed, func(s *session) bool {
		select {
		case <-s.ended:
			ids = append(ids, s.id)
			return true
		default:
			return false
		}
	})
	return ids
}

// watch opens a watch. Without a resourceVersion it begins with the Lease as it is, so nothing that happened before is
// missed, except a deletion.
func (c *candidate) watch(id int) {
	ctx, cancel := context.WithCancel(c.ctx)
	s := &session{id: id, ended: make(chan struct{}), cancel: cancel}
	ctx, s.attempt = newAttempt(ctx, false, c.tells)
	c.watches.session = s
	leases, name, events := c.leases, c.opts.Name, c.watches.events
	go func() {
		defer close(s.ended)
		defer cancel()
		pass := func(ev watchEvent) bool {
			ev.session = s
			select {
			case events <- ev:
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
			pass(watchEvent{err: err})
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
		return watchEvent{err: errWatchClosed}
	}
	if ev.Type == watch.Error {
		return watchEvent{err: apierrors.FromObject(ev.Object)}
	}
	lease, _ := ev.Object.(*coordinationv1.Lease)
	if lease != nil && lease.Name != name {
		lease = nil
	}
	return watchEvent{change: ev.Type, lease: lease}
}

// unwatch closes the watch, if it has not ended by itself.
func (c *candidate) unwatch(id int) {
	s := c.watches.session
	if !s.opened {
		c.metrics.Request(c.lease, "watch", c.watches.failure(id))
	}
	s.cancel()
	c.watches.closed, c.watches.session = append(c.watches.closed, s), nil
}

// noticed turns what a session reports into the protocol's event.
func (c *candidate) noticed(ev watchEvent) protocol.Event {
	out := protocol.Event{Kind: protocol.Tick, ID: ev.id}
	switch {
	case ev.err != nil:
		out.Kind, out.Outcome = protocol.WatchEnded, outcome("watch", ev.err)
		c.watches.last, c.watches.why = ev.id, explain(ev.err, "watch", c.opts.Namespace, c.opts.Name)
	case ev.opened:
		out.Kind = protocol.WatchOpened
		ev.session.opened = true
		c.metrics.Request(c.lease, "watch", nil)
	case ev.lease != nil:
		out.Kind, out.Record = protocol.WatchShowed, recordOf(ev.lease)
		if ev.change == watch.Deleted {
			out.Kind = protocol.WatchGone
		}
	}
	return out
}
