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
	utilnet "k8s.io/apimachinery/pkg/util/net"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

// A call is one request under way.
type call struct {
	do      action
	verb    string // the API's: get, create or update
	claim   claim  // what it writes
	on      uint64 // the version of the record that it was decided on
	base    int    // likewise, by the candidate's own count of changes
	repair  bool   // it puts right what another client has changed
	spare   bool   // it uses the second connection
	sent    time.Time
	limit   time.Duration // for an answer: after it, a second attempt may be sent
	attempt *attempt
	giveUp  time.Time // when it was given up
	cancel  context.CancelFunc

	void    bool // a write that wins nothing, because another's record was seen since it was sent (S5, S6)
	ignored bool // another one was answered in its place: its own answer counts no more
	givenUp bool // its ctx has ended, but its client has not returned
}

type reply struct {
	*call
	lease      *coordinationv1.Lease
	err        error
	retryAfter time.Duration // what the API asked for, 0 for nothing
}

// until is when the wait for its answer ends: limit after it has left. While it waits in the process its time does not run,
// but it is not kept for ever.
func (k *call) until(limit time.Duration) time.Time {
	if at, ok := k.attempt.left(); ok {
		return at.Add(limit)
	}
	return k.sent.Add(2 * limit)
}

// maxCalls is how many requests may be under way, a watch that opens among them. There are fewer, unless clients do not
// return although their ctx has ended. Then nothing but a restart of the process helps (L9).
const maxCalls = 4

// calls are the requests under way, oldest first, and where their replies arrive.
type calls struct {
	all     []*call
	replies chan reply // with room for all, so that no client waits for the loop
	asking  bool       // with the next write, a GET is to find out whether the one before was applied
}

// pace is what holds a candidate's next request back.
type pace struct {
	notBefore time.Time     // no request before then, after a failed one
	jitter    time.Duration // this candidate's share of the spread, drawn anew for each record (L4)
	contested int           // writes in a row that were refused as conflicts, or put right what another client had changed
}

// open are those that have not been given up.
func (cs *calls) open() (open []*call) {
	for _, k := range cs.all {
		if !k.givenUp {
			open = append(open, k)
		}
	}
	return open
}

// awaited is the newest one whose answer counts, nil if there is none.
func (cs *calls) awaited() *call {
	for i := len(cs.all) - 1; i >= 0; i-- {
		if k := cs.all[i]; !k.givenUp && !k.ignored {
			return k
		}
	}
	return nil
}

// writing reports whether a write is under way whose answer counts.
func (cs *calls) writing() bool {
	return slices.ContainsFunc(cs.all, func(k *call) bool { return k.do != get && !k.givenUp && !k.ignored })
}

// awaits reports whether the answer to the write that was sent at that time may still come.
func (cs *calls) awaits(sent time.Time) bool {
	return slices.ContainsFunc(cs.all, func(k *call) bool { return k.do != get && !k.givenUp && k.sent.Equal(sent) })
}

// repeats reports whether a write of the claim is under way whose answer counts.
func (cs *calls) repeats(c claim) bool {
	return slices.ContainsFunc(cs.all, func(k *call) bool { return k.do != get && !k.givenUp && !k.ignored && k.claim == c })
}

// ignore marks those whose answers do not count any more once k was answered: the older ones, and repetitions of it.
func (cs *calls) ignore(k *call) {
	for _, other := range cs.all {
		if k.do == get {
			other.ignored = other.ignored || other.do == get
		} else {
			other.ignored = other.ignored || other.base <= k.base
		}
	}
}

// void marks those under way.
func (cs *calls) void() {
	for _, k := range cs.all {
		k.void = true
	}
}

// drop gives all of them up.
func (cs *calls) drop() {
	for _, k := range cs.all {
		k.givenUp = true
		k.cancel()
	}
}

// stuck is how many were given up at least for a second without their clients having returned.
func (cs *calls) stuck(now time.Time) (n int) {
	for _, k := range cs.all {
		if k.givenUp && now.Sub(k.giveUp) >= time.Second {
			n++
		}
	}
	return n
}

// makeRoom reports whether one more request may be sent now. An attempt that is not overdue is waited for. Up to three
// attempts are under way, the third only while a holder's time runs out. For one more, the oldest is given up if it has
// had half of RenewDeadline: an API as slow as that cannot be led on. Otherwise it is the youngest, which repeats the one
// before it: whichever attempt is carried out first, its answer must not be thrown away, because the others then conflict
// (L3). A standby, which is in no hurry, makes two attempts, and gives each RenewDeadline.
func (c *candidate) makeRoom(do action, now time.Time) bool {
	askOnly := c.own.phase != standingBy && do == get // whether a write was applied, without repeating it
	if k := c.calls.awaited(); k != nil && now.Before(k.attempt.overdue(k.limit, now)) && (!askOnly || k.do == get) {
		return false
	}
	open, limit := c.calls.open(), 3
	if c.own.phase == standingBy {
		limit = 2
	}
	if len(open) < limit {
		return len(c.calls.all)+c.watch.underWay() < maxCalls
	}
	victim := open[len(open)-1]
	for _, k := range open {
		if k.ignored || now.Sub(k.sent) >= c.renewDeadline/2 && c.own.phase != standingBy {
			victim = k
			break
		}
	}
	if c.own.phase == standingBy && !victim.ignored {
		return false
	}
	c.giveUp(victim, now) // even if a watch that opens is the fourth: it may hang for as long
	return len(c.calls.all)+c.watch.underWay() < maxCalls
}

// send starts the request of a decision. The time it is counted from is read before anything is sent (S1); every
// write is conditional: a PUT carries the resourceVersion and UID of the record it replaces, and otherwise it is a POST
// (S4). A second attempt, while the first is overdue, uses the other connection.
func (c *candidate) send(do action, now time.Time) {
	ctx, cancel := context.WithCancel(c.ctx)
	k := &call{do: do, verb: "get", on: c.seen.version, base: c.changes, cancel: cancel,
		sent: now, limit: c.attemptLimit(now)}
	if other := c.calls.awaited(); other != nil {
		k.spare = !other.spare
	} else {
		k.spare = do == get && c.watch.doubting
	}
	ctx, k.attempt = newAttempt(ctx, k.spare, c.tells)
	leases := c.leases
	request := func() (*coordinationv1.Lease, error) { return leases.Get(ctx, c.opts.Name, metav1.GetOptions{}) }
	if do != get {
		to, _ := c.seen.transfer()
		edited := c.seen.lease == nil || c.seen.claim != c.own.wrote || names(to, c.identity) && !c.own.isPinned(to)
		k.repair = do == renew && edited && !c.own.mayHaveWritten(c.seen.claim)
		k.claim = c.own.next(c.timing, c.seen, do, now, rand.Int64N(1e6))
		if do == acquire {
			c.stateDir.record(k.claim) // before the write, or a crash in between would leave no proof (S12)
		}
		k.verb, request = c.write(ctx, leases, do, k.claim)
		c.own = c.own.sending(c.seen, do, k.claim, now)
	}
	c.calls.all = append(c.calls.all, k)
	replies := c.calls.replies
	go func() {
		defer cancel()
		lease, err := request()
		replies <- reply{k, lease, err, time.Duration(k.attempt.retryAfter.Load())}
	}()
}

// write prepares the write of a claim onto the Lease as last seen. The write that wins the Lease removes a request to step
// down, and so does its holder if it is the one that is named (L8).
func (c *candidate) write(ctx context.Context, leases coordinationv1client.LeaseInterface, do action, claim claim) (verb string, request func() (*coordinationv1.Lease, error)) {
	if c.seen.lease == nil {
		lease := claim.onto(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: c.opts.Namespace, Name: c.opts.Name}}, c.opts.Labels)
		return "create", func() (*coordinationv1.Lease, error) { return leases.Create(ctx, lease, metav1.CreateOptions{}) }
	}
	lease := claim.onto(c.seen.lease, c.opts.Labels)
	if to, _ := c.seen.transfer(); do == acquire || names(to, c.identity) {
		delete(lease.Annotations, stepDownAnnotation)
	}
	return "update", func() (*coordinationv1.Lease, error) { return leases.Update(ctx, lease, metav1.UpdateOptions{}) }
}

// left is how long a holder has until its authority ends, or while it drains and releases, until its lease does.
func (c *candidate) left(now time.Time) time.Duration {
	if c.own.phase == leading {
		return c.renewDeadline - age(c.own.sent, now)
	}
	return c.leaseDuration - age(c.own.sent, now)
}

// attemptLimit is how long to wait for an answer before a second attempt is made: a third of RenewDeadline, and a holder
// no more than half of the time it has left.
func (c *candidate) attemptLimit(now time.Time) time.Duration {
	limit := c.renewDeadline / 3
	if left := c.left(now); c.own.phase != standingBy && left > 0 {
		limit = min(limit, max(left/2, 50*time.Millisecond))
	}
	return limit
}

// pause is how long to wait after a failed attempt. A leader tries the sooner again the less time it has left (L3). A
// Retry-After is honoured, by a leader as far as its deadline allows, by others up to a LeaseDuration (L5).
func (c *candidate) pause(asked time.Duration, now time.Time) time.Duration {
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
	now, k := time.Now(), r.call
	c.calls.all = slices.DeleteFunc(c.calls.all, func(other *call) bool { return other == k })
	if k.givenUp {
		return
	}
	if at, ok := k.attempt.left(); ok {
		k.sent = at // it cannot have been carried out before (S1)
	}
	if r.err == nil && (r.lease == nil || r.lease.Name != c.opts.Name) {
		r.err = errOtherLease
	}
	c.opts.Metrics.Request(c.lease, k.verb, r.err)
	if k.ignored {
		return
	}
	if k.do == get {
		c.watch.polled(k.sent, r, now)
	}
	switch {
	case r.err == nil && k.do == get:
		c.succeeded(k)
		c.calls.ignore(k)
		c.observe(c.seen.see(r.lease, k.sent, now))
		c.watch.expect(versionOf(r.lease), now) // one that does not show it soon is dead
	case r.err == nil:
		c.succeeded(k)
		c.calls.ignore(k)
		c.applied(k, r.lease, now)
	case k.do == get && apierrors.IsNotFound(r.err):
		c.succeeded(k)
		c.calls.ignore(k)
		c.observe(c.seen.gone(0, k.sent, now))
	case apierrors.IsConflict(r.err), apierrors.IsAlreadyExists(r.err), apierrors.IsNotFound(r.err) && k.verb == "update":
		c.succeeded(k)
		c.conflicted(k, now)
	default:
		c.failed(k, r.err, r.retryAfter, now)
	}
}

// applied takes in the success of a write. The term's authority counts from when the write was sent, however late the
// reply (S1).
func (c *candidate) applied(k *call, lease *coordinationv1.Lease, now time.Time) {
	if k.void {
		// While the write was under way another's record was seen. If that was written later, it is over; and if this is a
		// create, and the other's Lease was deleted in between, that still binds (S6). So this has won nothing.
		c.observe(c.seen.see(lease, k.sent, now))
		return
	}
	c.own = c.own.applied(k.claim, lease, k.sent).pinning(k.do, lease, c.identity)
	if !k.repair {
		c.pace.contested = 0
	} else {
		c.contest(now)
	}
	c.observe(c.seen.see(lease, k.sent, now))
	c.watch.expect(c.own.version, now)
	if k.do == release {
		return
	}
	c.lastRenewal = k.sent
	if c.active != nil {
		c.active.renewed(k.sent)
		c.report.renewed(k.sent, now)
	}
}

// conflicted takes in that the record has changed since it was seen. A standby learns from its watch what it was changed
// to (L4); a holder reads it at once. The write may have been applied all the same, if it was repeated.
func (c *candidate) conflicted(k *call, now time.Time) {
	c.contest(now)
	if c.seen.version > k.on {
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
		c.pace.notBefore = now.Add(c.opts.RetryPeriod)
	} else {
		c.pace.notBefore = now.Add(rand.N(c.opts.RetryPeriod/4 + 1))
	}
}

// contest slows a holder down whose Lease somebody changes again and again, or whose every write is refused as a conflict.
func (c *candidate) contest(now time.Time) {
	if c.pace.contested++; c.pace.contested > 3 && c.own.phase != standingBy {
		c.pace.notBefore = now.Add(c.pause(0, now))
	}
}

// failed takes in a request that was refused, or that may or may not have been carried out.
func (c *candidate) failed(k *call, err error, retryAfter time.Duration, now time.Time) {
	unanswered := errors.Is(err, context.DeadlineExceeded) || utilnet.IsTimeout(err)
	if unanswered {
		k.attempt.suspect(time.Time{})
	}
	if apierrors.IsUnauthorized(err) {
		k.attempt.discard()
	}
	if k.do != get && (unanswered || c.own.phase == releasing) {
		c.seen.stale = true // find out, before anything else, whether it was carried out
	}
	if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
		retryAfter = max(retryAfter, time.Duration(seconds)*time.Second)
	}
	c.pace.notBefore = now.Add(c.pause(retryAfter, now))
	if k.do == renew && c.own.phase != standingBy && c.trouble.failures == 0 && cutOff(err) {
		// Its connection has broken, and it may have been applied. A new connection takes a round trip or two before its
		// first answer, so that there is no time to learn one thing after the other: repeat it, and ask, at once.
		c.calls.asking, c.pace.notBefore = true, now.Add(rand.N(brokenPause))
	}
	c.trouble.failed(c.log, k.verb, err, explain(err, k.verb, c.opts.Namespace, c.opts.Name), now, c.own.phase == releasing)
}

// brokenPause is the longest wait after a connection has broken, for the first time since an answer.
const brokenPause = 100 * time.Millisecond

// cutOff reports whether err leaves open whether the request was carried out, and came before its time was over.
func cutOff(err error) bool {
	var status apierrors.APIStatus
	return !errors.As(err, &status) && !errors.Is(err, context.DeadlineExceeded) && !utilnet.IsTimeout(err) && !utilnet.IsConnectionRefused(err)
}

// succeeded takes in that the API has answered a request. Older attempts on the other connection that are overdue will not
// be answered: that connection is dead.
func (c *candidate) succeeded(k *call) {
	for _, other := range c.calls.all {
		if !other.givenUp && !other.ignored && other.spare != k.spare && k.sent.After(other.sent.Add(other.limit)) {
			other.attempt.suspect(time.Time{})
		}
	}
	c.pace.notBefore = time.Time{}
	if now := time.Now(); k.do == renew && c.own.phase != standingBy {
		c.pace.notBefore = now.Add(max(0, min(now.Sub(k.sent)/2, c.renewDeadline/2-now.Sub(k.sent)))) // a slow server gets a rest
	}
	c.trouble.succeeded(c.log, k.verb)
}

// giveUp ends the wait for an answer, whether the client heeds that or not.
func (c *candidate) giveUp(k *call, now time.Time) {
	k.givenUp, k.giveUp = true, now
	k.cancel()
	if k.ignored {
		return
	}
	c.opts.Metrics.Request(c.lease, k.verb, errNoReply)
	if now.Sub(k.sent) >= c.renewDeadline/3 {
		k.attempt.suspect(time.Time{})
	}
}

// expire gives up the requests that have had their time.
func (c *candidate) expire(now time.Time) {
	for _, k := range c.calls.open() {
		if now.Before(k.until(c.renewDeadline)) {
			continue
		}
		if c.giveUp(k, now); !k.ignored {
			c.failed(k, errNoReply, 0, now)
		}
	}
}

// nextCall is when the requests under way have to be seen to: when one is overdue, or has had its time.
func (c *candidate) nextCall(now time.Time) time.Time {
	at := now.Add(c.leaseDuration)
	for _, k := range c.calls.open() {
		at = earliest(at, k.until(c.renewDeadline))
		if overdue := k.attempt.overdue(k.limit, now); !k.ignored && now.Before(overdue) {
			at = earliest(at, earliest(overdue, latest(k.sent.Add(k.limit), now.Add(k.limit/4)))) // it may have left, or its connection be silent
		}
	}
	return at
}
