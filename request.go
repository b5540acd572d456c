package elector

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// A call is one request under way.
type call struct {
	do     action
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
func (c *candidate) send(do action) {
	now := time.Now()
	limit := c.attemptLimit(now)
	ctx, cancel := context.WithTimeout(c.ctx, limit)
	call := &call{do: do, verb: "get", sent: now, giveUp: now.Add(limit), on: c.seen.version, reply: make(chan reply, 1), cancel: cancel}
	c.call = call
	request := func() (*coordinationv1.Lease, error) { return c.leases.Get(ctx, c.opts.Name, metav1.GetOptions{}) }
	if do != get {
		call.repair = do == renew && (c.seen.lease == nil || c.seen.claim != c.own.wrote) && !c.own.mayHaveWritten(c.seen.claim)
		call.claim = c.own.next(c.timing, c.seen, do, now, rand.Int64N(1e6))
		call.verb, request = c.write(ctx, call.claim)
		c.own = c.own.sending(c.seen, do, call.claim)
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
		backoff := c.opts.RetryPeriod / 4 << min(c.trouble.failures, 3)
		return max(jittered(backoff), min(asked, c.leaseDuration))
	}
	soon := min(max(left/10, 10*time.Millisecond), c.opts.RetryPeriod)
	return min(max(jittered(soon), asked), max(left/2, 10*time.Millisecond))
}

// answered takes in a reply.
func (c *candidate) answered(r reply) {
	now, call := time.Now(), c.call
	c.call = nil
	if r.err == nil && r.lease == nil {
		r.err = errors.New("the client returned neither a Lease nor an error")
	}
	c.opts.Metrics.Request(c.lease, call.verb, r.err)
	if call.do == get {
		c.asked = call.sent
		c.watch.looked(now)
	}
	switch {
	case r.err == nil && call.do == get:
		c.succeeded(call.verb)
		c.observe(c.seen.see(r.lease, call.sent, now))
		c.watch.expect(versionOf(r.lease), now) // one that does not show it soon is dead
	case r.err == nil:
		c.succeeded(call.verb)
		c.applied(call, r.lease, now)
	case call.do == get && apierrors.IsNotFound(r.err):
		c.succeeded(call.verb)
		c.observe(c.seen.gone(0, call.sent, now))
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
	if call.verb == "create" && !c.own.mayHaveWritten(call.claim) {
		// While the POST was under way something else was seen, and then deleted. That still binds (S6), so this has won
		// nothing: the record is as good as another's.
		c.observe(c.seen.see(lease, call.sent, now))
		return
	}
	left := max(c.renewDeadline-age(c.own.sent, now), 0)
	c.own = c.own.applied(lease, call.sent)
	if !call.repair {
		c.contested = 0
	} else {
		c.contest(now)
	}
	c.observe(c.seen.see(lease, call.sent, now))
	c.watch.expect(c.own.version, now)
	if call.do == release {
		return
	}
	c.lastRenewal = call.sent
	if c.active != nil {
		c.active.renewed(call.sent)
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
	if call.do != get && (unanswered || c.own.phase == releasing) {
		c.seen.stale = true // find out, before anything else, whether it was carried out
	}
	c.notBefore = now.Add(c.pause(err, now))
	c.trouble.failed(c.log, call.verb, err, explain(err, call.verb, c.opts.Namespace, c.opts.Name), now)
}

// succeeded takes in that the API has answered a request of the verb.
func (c *candidate) succeeded(verb string) {
	c.notBefore = time.Time{}
	c.trouble.succeeded(c.log, verb)
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
