package elector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
)

// NewForConfig is New with a client of the candidate's own, made from cfg: it has connections of its own and no
// client-side rate limit, so that renewals never wait behind the work of Run; "leader-election" in its user agent; and
// after a request without an answer the next one opens a new connection, so that a dead one does not cost the term.
//
// cfg itself is not changed. Where it has a Transport of its own, that one's connections are used as they are.
func NewForConfig(cfg *rest.Config, opts Options) (*Elector, error) {
	if cfg == nil {
		_, err := opts.complete()
		return nil, fmt.Errorf("elector: %w", errors.Join(errors.New("cfg: required: a *rest.Config, as from rest.InClusterConfig"), err))
	}
	cfg = rest.CopyConfig(cfg)
	cfg.UserAgent = cmp.Or(cfg.UserAgent, rest.DefaultKubernetesUserAgent()) + "/leader-election"
	cfg.RateLimiter, cfg.QPS = nil, -1
	cfg.Timeout = 0 // it would end the watch too; each attempt has a limit of its own
	redial := func(time.Time) {}
	if cfg.Transport == nil {
		cfg.Dial, redial = redialling(cfg.Dial)
	}
	client, err := coordinationv1client.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("elector: cfg: %w", err)
	}
	e, err := New(client, opts)
	if err != nil {
		return nil, err
	}
	e.redial = redial
	return e, nil
}

// redialling returns a dial function, and one that closes the connections it has made, so that the next request opens
// another. A connection that is younger than the request without an answer stays: it may only be slow, and the next
// request may need all of the time that the handshake has taken.
func redialling(dial connrotation.DialFunc) (connrotation.DialFunc, func(sent time.Time)) {
	if dial == nil {
		dial = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	dialer := connrotation.NewDialer(dial)
	var last atomic.Pointer[time.Time] // when the youngest connection was made
	dialNow := func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if now := time.Now(); err == nil {
			last.Store(&now)
		}
		return conn, err
	}
	return dialNow, func(sent time.Time) {
		if made := last.Load(); made == nil || !made.After(sent) {
			dialer.CloseAll()
		}
	}
}

// A call is one request under way.
type call struct {
	do     verb
	verb   string // the API's: get, create or update
	claim  claim  // what it writes
	on     uint64 // the version of the record that it was decided on
	repair bool   // it puts right what another hand has changed
	sent   time.Time
	giveUp time.Time
	reply  chan reply
	cancel context.CancelFunc
}

type reply struct {
	lease *coordinationv1.Lease
	err   error
}

// replies is where the call's reply arrives; it blocks for ever for no call.
func (c *call) replies() <-chan reply {
	if c == nil {
		return nil
	}
	return c.reply
}

// send starts the request of a decision. The time it is counted from is read before anything is sent (S1); every
// write is conditional: a PUT carries the resourceVersion and UID of the record it replaces, and otherwise it is a POST
// (S4). The reply has a buffer, so a late one that nobody waits for any more is dropped without a goroutine left behind.
func (c *candidate) send(do verb) {
	now := time.Now()
	limit := c.attemptLimit(now)
	ctx, cancel := context.WithTimeout(c.ctx, limit)
	call := &call{do: do, verb: "get", sent: now, giveUp: now.Add(limit), on: c.seen.version, reply: make(chan reply, 1), cancel: cancel}
	c.call = call
	request := func() (*coordinationv1.Lease, error) { return c.leases.Get(ctx, c.opts.Name, metav1.GetOptions{}) }
	if do != look {
		call.repair = do == renew && (c.seen.lease == nil || c.seen.claim != c.own.wrote) && !c.own.doubts(c.seen.claim)
		call.claim = c.own.next(c.timing, c.seen, do, now, rand.Int64N(1e6))
		call.verb, request = c.write(ctx, call.claim)
	}
	if do == take && c.own.doubts(c.seen.claim) {
		c.own.adopted++
	}
	if do != look && !c.own.doubts(call.claim) {
		// From here on it may be applied, whatever becomes of the reply: a watch event may even tell so first.
		c.own.doubt = append(c.own.doubt, call.claim)
	}
	go func() {
		defer cancel()
		lease, err := request()
		call.reply <- reply{lease, err}
	}()
}

// write prepares the write of a claim onto the Lease as last seen.
func (c *candidate) write(ctx context.Context, claim claim) (verb string, request func() (*coordinationv1.Lease, error)) {
	if c.seen.lease == nil {
		lease := claim.onto(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: c.opts.Namespace, Name: c.opts.Name}}, c.opts.Labels)
		return "create", func() (*coordinationv1.Lease, error) { return c.leases.Create(ctx, lease, metav1.CreateOptions{}) }
	}
	lease := claim.onto(c.seen.lease, c.opts.Labels)
	return "update", func() (*coordinationv1.Lease, error) { return c.leases.Update(ctx, lease, metav1.UpdateOptions{}) }
}

// left is how long a holder has until its authority ends, or while it drains and releases, until its lease does.
func (c *candidate) left(now time.Time) time.Duration {
	if c.own.phase == leading {
		return c.renewDeadline - age(c.own.sent, now)
	}
	return c.leaseDuration - age(c.own.sent, now)
}

// attemptLimit is how long to wait for an answer: a third of RenewDeadline, and a leader no more than half of the time
// it has left, so that no request can use that up. An API that is slower cannot be led on.
func (c *candidate) attemptLimit(now time.Time) time.Duration {
	limit := c.renewDeadline / 3
	if left := c.left(now); c.own.phase != standingBy && left > 0 {
		limit = min(limit, max(left/2, 50*time.Millisecond))
	}
	return limit
}

// pause is how long to wait after a failed attempt. A leader tries the sooner again the less time it has left (L3). A
// Retry-After is honoured, by a leader as far as its deadline allows, by others up to a LeaseDuration (L5).
func (c *candidate) pause(err error, now time.Time) time.Duration {
	var asked time.Duration
	if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
		asked = time.Duration(seconds) * time.Second
	}
	jittered := func(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2+1) }
	left := c.left(now)
	if c.own.phase == standingBy || left <= 0 {
		backoff := c.opts.RetryPeriod / 4 << min(c.failures, 3)
		return max(jittered(backoff), min(asked, c.leaseDuration))
	}
	soon := min(max(left/10, 10*time.Millisecond), c.opts.RetryPeriod)
	return min(max(jittered(soon), asked), max(left/2, 10*time.Millisecond))
}

// settle takes in a reply.
func (c *candidate) settle(r reply) {
	now, call := time.Now(), c.call
	c.call = nil
	if r.err == nil && r.lease == nil {
		r.err = errors.New("the client returned neither a Lease nor an error")
	}
	c.opts.Metrics.Request(c.lease, call.verb, r.err)
	if call.do == look {
		c.asked = call.sent
		c.pollAt = now.Add(c.opts.RetryPeriod + rand.N(c.opts.RetryPeriod/5+1))
	}
	switch {
	case r.err == nil && call.do == look:
		c.succeeded(call.verb)
		c.fold(c.seen.see(r.lease, call.sent, now))
		c.watch.expect(versionOf(r.lease), now) // one that does not show it soon is dead
	case r.err == nil:
		c.succeeded(call.verb)
		c.applied(call, r.lease, now)
	case call.do == look && apierrors.IsNotFound(r.err):
		c.succeeded(call.verb)
		c.fold(c.seen.gone(0, call.sent, now))
	case apierrors.IsConflict(r.err), apierrors.IsAlreadyExists(r.err), apierrors.IsNotFound(r.err) && call.verb == "update":
		c.succeeded(call.verb)
		c.conflicted(call, now)
	default:
		c.failed(call, r.err, now)
	}
}

// applied takes in the success of a write. The term's authority counts from when the write was sent, however late the
// reply (S1).
func (c *candidate) applied(call *call, lease *coordinationv1.Lease, now time.Time) {
	if call.verb == "create" && !c.own.doubts(call.claim) {
		// While the POST was under way something else was seen, and then deleted. That still binds (S6), so this has won
		// nothing: the record is as good as another's.
		c.fold(c.seen.see(lease, call.sent, now))
		return
	}
	left := max(c.renewDeadline-age(c.own.sent, now), 0)
	c.own.wrote, c.own.sent, c.own.version, c.own.doubt = claimOf(lease), call.sent, versionOf(lease), nil
	c.own.adopted = 0
	if !call.repair {
		c.contested = 0
	} else {
		c.contest(now)
	}
	c.fold(c.seen.see(lease, call.sent, now))
	c.watch.expect(c.own.version, now)
	if call.do == release {
		return
	}
	c.lastRenewal = call.sent
	if c.leader != nil {
		c.leader.renewed(call.sent)
		c.opts.Metrics.Renewed(c.lease, now.Sub(call.sent), left, c.renewDeadline)
	}
}

// conflicted takes in that the record has changed since it was seen. What it was changed to, the watch tells a standby
// (L4); a holder looks at once. The write may have been applied all the same, if the client repeated it by itself.
func (c *candidate) conflicted(call *call, now time.Time) {
	c.contest(now)
	if c.seen.version > call.on {
		return // the watch was faster
	}
	c.seen.stale = true
	if c.own.phase != standingBy {
		return
	}
	if c.seen.version > 0 {
		c.watch.expect(c.seen.version+1, now)
	}
	if c.watch.open {
		c.notBefore = now.Add(c.opts.RetryPeriod)
	} else {
		c.notBefore = now.Add(rand.N(c.opts.RetryPeriod/4 + 1))
	}
}

// contest slows a holder down whose Lease somebody changes again and again, or whose every write is refused as a conflict.
func (c *candidate) contest(now time.Time) {
	if c.contested++; c.contested > 3 && c.own.phase != standingBy {
		c.notBefore = now.Add(c.pause(nil, now))
	}
}

// failed takes in a request that was refused, or that may or may not have been carried out.
func (c *candidate) failed(call *call, err error, now time.Time) {
	unanswered := errors.Is(err, context.DeadlineExceeded) || utilnet.IsTimeout(err)
	if unanswered {
		c.redial(call.sent) // the connection may be dead
	}
	if call.do != look && (unanswered || c.own.phase == releasing) {
		c.seen.stale = true // find out, before anything else, whether it was carried out
	}
	c.notBefore = now.Add(c.pause(err, now))
	c.failures++
	if !refused(err) {
		c.refusedVerb, c.refusedSince = "", time.Time{}
	} else if c.refusedVerb == "" {
		c.refusedVerb, c.refusedSince = call.verb, now
	}
	c.lastError = explain(err, call.verb, c.opts.Namespace, c.opts.Name)
	if what := call.verb + kind(err); what != c.loggedError || refused(err) && now.Sub(c.loggedAt) >= time.Minute {
		c.loggedError, c.loggedAt = what, now // one that somebody has to do something about, again and again
		c.log.Error(c.lastError, "A request failed and is tried again")
	}
}

// succeeded takes in that the API has answered a request of the verb. Where it refuses another verb that is needed,
// that is not cured by this.
func (c *candidate) succeeded(verb string) {
	c.failures, c.notBefore = 0, time.Time{}
	if c.refusedVerb != "" && c.refusedVerb != verb {
		return
	}
	if c.loggedError != "" {
		c.log.Info("The API answers again")
	}
	c.forgive()
}

// forgive forgets the last error.
func (c *candidate) forgive() {
	c.lastError, c.loggedError, c.refusedVerb, c.refusedSince = nil, "", "", time.Time{}
}

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

// abandon gives up on a request that has had its time, whether its client notices or not.
func (c *candidate) abandon() {
	call := c.call
	c.drop()
	c.opts.Metrics.Request(c.lease, call.verb, errNoReply)
	c.failed(call, errNoReply, time.Now())
}

// drop forgets the request under way.
func (c *candidate) drop() {
	if c.call != nil {
		c.call.cancel()
		c.call = nil
	}
}

// watching is the candidate's one watch: at most one session at a time, and when to open the next.
type watching struct {
	session *session
	open    bool // the session has been accepted
	since   time.Time
	retryAt time.Time
	fails   int

	latest uint64    // the highest version the session has shown
	owed   uint64    // a version that it has to show, or it is dead
	owedAt time.Time // since when
}

// A session is one watch request and the goroutine that reads it.
type session struct {
	news   chan watchEvent
	cancel context.CancelFunc
}

// A watchEvent is what a session tells: that it is open, what changed, or why it ended.
type watchEvent struct {
	opened bool
	change watch.EventType
	lease  *coordinationv1.Lease
	ended  error
}

var errWatchClosed = errors.New("the server closed the watch")

func (w *watching) events() <-chan watchEvent {
	if w.session == nil {
		return nil
	}
	return w.session.news
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
	}
	w.session, w.open, w.latest, w.owed = nil, false, 0, 0
}

// tend opens the watch when it is time to, and closes it when it gives no sign of life. It returns when to see to it
// again.
func (c *candidate) tend(now time.Time) time.Time {
	w := &c.watch
	switch {
	case w.session != nil && !w.open && !now.Before(w.since.Add(c.renewDeadline/3)):
		if c.call == nil { // otherwise that one tells whether the connection is dead
			c.redial(w.since)
		}
		c.watchEnded(errNoReply, now)
	case w.open && w.owed > w.latest && !now.Before(w.owedAt.Add(c.opts.RetryPeriod)):
		w.stop()
		w.retryAt = now
	}
	if w.session == nil && !now.Before(w.retryAt) {
		c.openWatch(now)
	}
	switch {
	case w.session == nil:
		return w.retryAt
	case !w.open:
		return w.since.Add(c.renewDeadline / 3)
	case w.owed > w.latest:
		return w.owedAt.Add(c.opts.RetryPeriod)
	default:
		return now.Add(c.leaseDuration)
	}
}

// openWatch starts a session. Without a resourceVersion it begins with the Lease as it is, so nothing that happened
// before is missed, except a deletion.
func (c *candidate) openWatch(now time.Time) {
	ctx, cancel := context.WithCancel(c.ctx)
	s := &session{news: make(chan watchEvent), cancel: cancel}
	c.watch.session, c.watch.since = s, now
	leases, name := c.leases, c.opts.Name
	go func() {
		defer cancel()
		tell := func(ev watchEvent) bool {
			select {
			case s.news <- ev:
				return true
			case <-ctx.Done():
				return false
			}
		}
		w, err := leases.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()})
		if err != nil {
			tell(watchEvent{ended: err})
			return
		}
		defer w.Stop()
		for ok := tell(watchEvent{opened: true}); ok; {
			select {
			case ev, more := <-w.ResultChan():
				ok = tell(translate(ev, more)) && more
			case <-ctx.Done():
				return
			}
		}
	}()
}

// translate turns a client's event into the loop's.
func translate(ev watch.Event, more bool) watchEvent {
	if !more {
		return watchEvent{ended: errWatchClosed}
	}
	if ev.Type == watch.Error {
		return watchEvent{ended: apierrors.FromObject(ev.Object)}
	}
	lease, _ := ev.Object.(*coordinationv1.Lease)
	return watchEvent{change: ev.Type, lease: lease}
}

// notice takes in what the watch tells.
func (c *candidate) notice(ev watchEvent) {
	now, w := time.Now(), &c.watch
	switch {
	case ev.ended != nil:
		c.watchEnded(ev.ended, now)
	case ev.opened:
		c.opts.Metrics.Request(c.lease, "watch", nil)
		if w.fails > 0 {
			c.log.Info("The watch works again")
		}
		w.open, w.since, w.fails = true, now, 0
		if c.own.phase == standingBy && c.seen.looked {
			c.seen.stale = true // a deletion before the watch began is not told by it
		}
	case ev.lease == nil || ev.lease.Name != c.opts.Name:
	default:
		version := versionOf(ev.lease)
		w.latest = max(w.latest, version)
		if ev.change == watch.Deleted {
			c.fold(c.seen.gone(version, time.Time{}, now))
		} else {
			c.fold(c.seen.see(ev.lease, time.Time{}, now))
		}
	}
}

// watchEnded makes the time for the next session. A session that has served a while is followed soon, at a random
// moment, for a server that goes away ends those of all candidates at once; others are followed ever later, up to a
// minute. Meanwhile the candidate polls (L1).
func (c *candidate) watchEnded(err error, now time.Time) {
	w := &c.watch
	if !w.open {
		c.opts.Metrics.Request(c.lease, "watch", err)
	}
	if !c.pollAt.After(now) {
		c.pollAt = now.Add(rand.N(c.opts.RetryPeriod)) // not all candidates at once
	}
	served := w.open && now.Sub(w.since) > c.opts.RetryPeriod
	w.stop()
	if served {
		w.retryAt = now.Add(rand.N(c.opts.RetryPeriod/4 + 1))
		return
	}
	if w.fails == 0 {
		c.log.Info("No watch on the lease: looking at it every RetryPeriod instead, and trying the watch again now and then",
			"err", explain(err, "watch", c.opts.Namespace, c.opts.Name).Error())
	}
	w.retryAt = now.Add(min(c.opts.RetryPeriod<<min(w.fails, 5), time.Minute) + rand.N(c.opts.RetryPeriod/4+1))
	w.fails++
}
