package elector

import (
	"cmp"
	"context"
	"errors"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/elector-go/elector/internal/protocol"
)

// A request is one that has not returned.
type request struct {
	id        int
	verb      string
	attempt   *attempt
	told      bool // the machine knows that it has left the process
	cancel    context.CancelFunc
	cancelled bool
}

// leaves says that a request has left the process since the machine was told last, or that it waits for a connection for
// longer than limit. Otherwise it says nothing: a Tick.
func (k *request) leaves(limit time.Duration) (ev protocol.Event) {
	switch at, left := k.attempt.left(); {
	case k.told:
	case left:
		k.told = true
		return protocol.Event{Kind: protocol.Left, ID: k.id, At: instant(at)}
	case k.attempt.dials(limit):
		return protocol.Event{Kind: protocol.Dials, ID: k.id}
	}
	return ev
}

type reply struct {
	*request
	lease *coordinationv1.Lease
	err   error
}

// requests are those that have not returned, and where their replies arrive.
type requests struct {
	under   map[int]*request
	replies chan reply // with room for all, so that no client waits for the loop
	last    reply      // the one that the loop took in last
	why     error      // why it failed, in words that say what to do
}

// failure is why a request has failed. An answer that came too late is none.
func (c *candidate) failure(id int) error {
	rs := &c.requests
	if rs.last.request != nil && rs.last.id == id {
		return cmp.Or(rs.why, errNoReply)
	}
	return explain(errNoReply, rs.under[id].verb, c.opts.Namespace, c.opts.Name)
}

// send sends a request. What proves this process dead is left before a write that may win the Lease (S12, S13): a
// crash in between would leave no proof.
func (c *candidate) send(id int, r protocol.Request) {
	if r.Wins {
		m := mark{r.Claim.Holder, time.UnixMicro(r.Claim.Acquired).UTC()}
		c.stateDir.record(m)
		c.deaths.record(m)
	}
	ctx, cancel := context.WithCancel(c.ctx)
	k := &request{id: id, verb: r.Verb.String(), told: !c.tells, cancel: cancel}
	ctx, k.attempt = newAttempt(ctx, r.Spare, c.tells)
	k.attempt.need = need{pressesAt: timeOf(r.Presses), deadline: timeOf(r.Deadline)}
	leases, call := c.leases, func() (*coordinationv1.Lease, error) { return nil, nil }
	switch r.Verb {
	case protocol.Get:
		call = func() (*coordinationv1.Lease, error) { return leases.Get(ctx, c.opts.Name, metav1.GetOptions{}) }
	case protocol.Create:
		lease := onto(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: c.opts.Namespace, Name: c.opts.Name}}, r.Claim, c.opts.Labels)
		call = func() (*coordinationv1.Lease, error) { return leases.Create(ctx, lease, metav1.CreateOptions{}) }
	case protocol.Update:
		lease := onto(r.On.Object.(*coordinationv1.Lease), r.Claim, c.opts.Labels)
		if r.Clear {
			delete(lease.Annotations, stepDownAnnotation)
		}
		call = func() (*coordinationv1.Lease, error) { return leases.Update(ctx, lease, metav1.UpdateOptions{}) }
	}
	c.requests.under[id] = k
	replies := c.requests.replies
	go func() {
		defer cancel()
		lease, err := call()
		replies <- reply{k, lease, err}
	}()
}

// cancel gives a request up, whether its client heeds that or not. An answer that does not count is not counted.
func (c *candidate) cancel(id int, ignored bool) {
	k := c.requests.under[id]
	if k == nil {
		return // its reply has come, too late, and is the next to be handed in
	}
	k.cancelled = true
	k.cancel()
	if !ignored {
		c.metrics.Request(c.lease, k.verb, errNoReply)
	}
}

// suspect closes the connection of a request or a watch, if nothing has been read from it since it was sent, nor since the
// time given.
func (c *candidate) suspect(id int, since time.Time) {
	if k := c.requests.under[id]; k != nil {
		k.attempt.suspect(since)
	} else if k := c.requests.last.request; k != nil && k.id == id {
		k.attempt.suspect(since)
	} else if w := c.watches.session; w != nil && w.id == id {
		w.attempt.suspect(since)
	}
}

// answered turns a reply into the protocol's event.
func (c *candidate) answered(r reply) protocol.Event {
	delete(c.requests.under, r.id)
	if r.err == nil && (r.lease == nil || r.lease.Name != c.opts.Name) {
		r.err = errOtherLease
	}
	if !r.cancelled {
		c.metrics.Request(c.lease, r.verb, r.err)
	}
	ev := protocol.Event{Kind: protocol.Answered, ID: r.id, Outcome: outcome(r.verb, r.err), RetryAfter: time.Duration(r.attempt.retryAfter.Load())}
	if left := r.leaves(0); left.Kind == protocol.Left {
		ev.At = left.At
	}
	c.requests.last, c.requests.why = r, nil
	if r.err == nil {
		ev.Record = recordOf(r.lease)
		return ev
	}
	c.requests.why = explain(r.err, r.verb, c.opts.Namespace, c.opts.Name)
	if seconds, ok := apierrors.SuggestsClientDelay(r.err); ok {
		ev.RetryAfter = max(ev.RetryAfter, time.Duration(seconds)*time.Second)
	}
	if apierrors.IsUnauthorized(r.err) {
		r.attempt.discard()
	}
	return ev
}

// outcome says what an error means for the protocol.
func outcome(verb string, err error) protocol.Outcome {
	switch {
	case err == nil:
		return protocol.OK
	case verb == "get" && apierrors.IsNotFound(err):
		return protocol.Missing
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), verb == "update" && apierrors.IsNotFound(err):
		return protocol.Conflict
	case refused(err):
		return protocol.Refused
	case errors.Is(err, context.DeadlineExceeded), utilnet.IsTimeout(err):
		return protocol.Unanswered
	default:
		return protocol.Failed
	}
}
