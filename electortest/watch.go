package electortest

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// logKept is how many events a watch can start in the past of.
	logKept = 1000
	// maxBacklog is how many undelivered events end a watch, as its reader is too slow.
	maxBacklog = 1000
)

// event is one change of one Lease.
type event struct {
	version int64
	at      time.Time
	change  watch.EventType // Added, Modified, Deleted
	key     types.NamespacedName
	old     *coordinationv1.Lease // before, nil if there was none
	lease   *coordinationv1.Lease // after; if deleted, the last state with the resourceVersion of the deletion
}

// eventLog keeps the latest events, for watches that start at a resourceVersion.
type eventLog struct {
	events  []event
	trimmed int64 // everything up to this version is gone
}

func (l *eventLog) add(e event) {
	if len(l.events) >= 2*logKept {
		l.trimmed = l.events[logKept-1].version
		kept := copy(l.events, l.events[logKept:])
		clear(l.events[kept:])
		l.events = l.events[:kept]
	}
	l.events = append(l.events, e)
}

func (l *eventLog) since(version int64) []event {
	first := sort.Search(len(l.events), func(i int) bool { return l.events[i].version > version })
	return l.events[first:]
}

// after returns the events later than a moment.
func (l *eventLog) after(moment time.Time) []event {
	first := sort.Search(len(l.events), func(i int) bool { return l.events[i].at.After(moment) })
	return l.events[first:]
}

// seenBy translates an event for a watch that may see the Lease only in some states, because of its label selector.
func (e event) seenBy(sel selection) (watch.EventType, *coordinationv1.Lease, bool) {
	before, after := sel.matches(e.old), e.change != watch.Deleted && sel.matches(e.lease)
	switch {
	case before && after:
		return watch.Modified, e.lease, true
	case after:
		return watch.Added, e.lease, true
	case before && e.change == watch.Deleted:
		return watch.Deleted, e.lease, true
	case before:
		gone := e.old.DeepCopy()
		gone.ResourceVersion = e.lease.ResourceVersion
		return watch.Deleted, gone, true
	}
	return "", nil, false
}

// publish logs an event and sends it to the watches it concerns, which are found without a search through the others.
func (s *Server) publish(e event) {
	e.at = time.Now()
	s.log.add(e)
	for _, key := range []types.NamespacedName{e.key, {Namespace: e.key.Namespace}, {Name: e.key.Name}, {}} {
		for _, w := range s.watches[key] {
			w.send(e)
		}
	}
}

// openWatch starts a watch at the server; its events wait in it until [leaseWatch.start]. With a cutAfter that is not
// 0 it ends then at the latest.
func (s *Server) openWatch(c *Client, sel selection, opts metav1.ListOptions, cutAfter time.Duration) (*leaseWatch, error) {
	if opts.SendInitialEvents != nil {
		return nil, invalid("", field.Forbidden(field.NewPath("sendInitialEvents"), // reflectors then list first
			"sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"))
	}
	from, err := readVersion(opts.ResourceVersion)
	if err != nil {
		return nil, unexplained(err.Error())
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	w := newLeaseWatch(c, sel, from)
	switch {
	case from == 0:
		s.sendState(w)
	case from < s.log.trimmed:
		expired := apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", from, s.log.trimmed))
		w.enqueue(delivery{change: watch.Error, object: &expired.ErrStatus})
		w.enqueue(delivery{end: true})
	default:
		for _, e := range s.log.since(from) {
			w.send(e)
		}
	}
	c.watches[w] = struct{}{}
	s.watches[sel.key] = append(s.watches[sel.key], w)
	lifetime := s.lifetime()
	if opts.TimeoutSeconds != nil && *opts.TimeoutSeconds > 0 {
		lifetime = time.Duration(*opts.TimeoutSeconds) * time.Second
	}
	if cutAfter > 0 && (lifetime <= 0 || cutAfter < lifetime) {
		lifetime = cutAfter
	}
	if lifetime > 0 {
		w.expiry = time.AfterFunc(lifetime, func() { s.expire(w) })
	}
	return w, nil
}

// sendState sends what there was [Client.SetWatchLag] ago, and then what has happened since.
func (s *Server) sendState(w *leaseWatch) {
	seen := time.Now().Add(-w.client.lag())
	late := s.log.after(seen)
	before := map[types.NamespacedName]*coordinationv1.Lease{} // of those that have changed since: nil was none
	for _, e := range slices.Backward(late) {
		before[e.key] = e.old
	}
	for _, lease := range s.selected(w.sel) {
		if _, changed := before[types.NamespacedName{Namespace: lease.Namespace, Name: lease.Name}]; !changed {
			w.enqueue(delivery{sent: seen, change: watch.Added, object: lease})
		}
	}
	for _, lease := range before {
		if w.sel.matches(lease) {
			w.enqueue(delivery{sent: seen, change: watch.Added, object: lease})
		}
	}
	for _, e := range late {
		w.send(e)
	}
}

// expire ends a watch from the server's side, at the end of its lifetime.
func (s *Server) expire(w *leaseWatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unregister(w)
	w.enqueue(delivery{end: true})
}

// unregister stops the server's sending to w. mu is held.
func (s *Server) unregister(w *leaseWatch) {
	if w.expiry != nil {
		w.expiry.Stop()
	}
	key := w.sel.key
	if i := slices.Index(s.watches[key], w); i >= 0 {
		s.watches[key] = slices.Delete(s.watches[key], i, i+1)
	}
	if len(s.watches[key]) == 0 {
		delete(s.watches, key)
	}
}

// forget removes a watch that its client no longer listens to.
func (s *Server) forget(w *leaseWatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unregister(w)
	delete(w.client.watches, w)
}

// leaseWatch is one open watch: a queue on the way from the server to the client, and the client's end of it.
type leaseWatch struct {
	client *Client
	sel    selection
	from   int64 // only events of later resourceVersions are sent
	result chan watch.Event
	wake   chan struct{} // has room for one: the queue has changed
	stop   chan struct{} // closed by Stop
	once   sync.Once
	expiry *time.Timer // set before any other goroutine knows the watch, then guarded by server.mu

	mu     sync.Mutex // may be taken while server.mu is held, not the other way round
	queue  []delivery // delivered in order, so none overtakes another when the latency becomes less
	silent bool
}

// delivery is one event, or the end of the watch, on its way to the client.
type delivery struct {
	sent    time.Time // when it happened, for what a watch cache may have late; the zero Time for the rest
	leaves  time.Time // the server
	arrives time.Time // at the client
	change  watch.EventType
	object  runtime.Object // the server's own; copied when it is handed to the reader
	end     bool
	forced  bool // arrives on a silent watch too
}

var _ watch.Interface = (*leaseWatch)(nil)

func newLeaseWatch(c *Client, sel selection, from int64) *leaseWatch {
	return &leaseWatch{
		client: c,
		sel:    sel,
		from:   from,
		result: make(chan watch.Event),
		wake:   make(chan struct{}, 1),
		stop:   make(chan struct{}),
		silent: c.silent.Load(),
	}
}

// start begins the delivery, in a goroutine that ends with ctx, Stop, the watch's end or the server.
func (w *leaseWatch) start(ctx context.Context) { go w.deliver(ctx) }

// Stop ends the watch; its channel is closed soon after.
func (w *leaseWatch) Stop() { w.once.Do(func() { close(w.stop) }) }

// ResultChan is closed after Stop, when the context of the Watch call ends, and when the server ends the watch.
func (w *leaseWatch) ResultChan() <-chan watch.Event { return w.result }

func (w *leaseWatch) send(e event) {
	if e.version <= w.from {
		return
	}
	if change, lease, ok := e.seenBy(w.sel); ok {
		w.enqueue(delivery{sent: e.at, change: change, object: lease})
	}
}

// enqueue sends d on its way, unless the link is cut.
func (w *leaseWatch) enqueue(d delivery) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.client.cut(Inbound) {
		w.lose()
		return
	}
	if w.silent && !d.forced {
		return
	}
	now := time.Now()
	d.leaves = now
	if late := d.sent.Add(w.client.lag()); !d.sent.IsZero() && late.After(now) {
		d.leaves = late
	}
	d.arrives = d.leaves.Add(w.client.oneWay())
	if d.end { // what a late watch cache has not sent yet is not sent any more
		w.queue = slices.DeleteFunc(w.queue, func(q delivery) bool { return q.leaves.After(now) })
	}
	if len(w.queue) >= maxBacklog {
		w.queue, d = nil, delivery{arrives: d.arrives, end: true}
	}
	w.queue = append(w.queue, d)
	w.signal()
}

// silence makes the watch deliver nothing more.
func (w *leaseWatch) silence() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lose()
}

// lose drops what is under way. A stream has no gaps: what has lost one event can deliver no later one. mu is held.
func (w *leaseWatch) lose() {
	w.silent = true
	w.queue = nil
	w.signal()
}

func (w *leaseWatch) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// next returns what has arrived, or how long it takes until something may have; 0 if nothing is under way.
func (w *leaseWatch) next() (d delivery, ok bool, wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		return delivery{}, false, 0
	}
	if wait := time.Until(w.queue[0].arrives); wait > 0 {
		return delivery{}, false, wait
	}
	if w.client.cut(Inbound) {
		w.lose()
		return delivery{}, false, 0
	}
	d = w.queue[0]
	w.queue[0] = delivery{}
	if w.queue = w.queue[1:]; len(w.queue) == 0 {
		w.queue = nil
	}
	return d, true, 0
}

// deliver passes to the reader what arrives, until one side ends the watch.
func (w *leaseWatch) deliver(ctx context.Context) {
	defer close(w.result)
	defer w.client.server.forget(w)
	for {
		d, ok, wait := w.next()
		switch {
		case !ok:
			if !w.pause(ctx, wait) {
				return
			}
		case d.end:
			return
		default:
			select {
			case w.result <- watch.Event{Type: d.change, Object: d.object.DeepCopyObject()}:
			case <-ctx.Done():
				return
			case <-w.stop:
				return
			case <-w.client.server.closed:
				return
			}
		}
	}
}

// pause waits until the queue changes or, if wait is not 0, for that long. It returns false when the watch is over.
func (w *leaseWatch) pause(ctx context.Context, wait time.Duration) bool {
	var arrival <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		arrival = timer.C
	}
	select {
	case <-w.wake:
		return true
	case <-arrival:
		return true
	case <-ctx.Done():
		return false
	case <-w.stop:
		return false
	case <-w.client.server.closed:
		return false
	}
}
