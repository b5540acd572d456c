package electortest

import (
	"context"
	"fmt"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// Partition says in which direction the link between one client and the server is cut.
type Partition int32

// The directions in which a link can be cut. A message is lost if its direction is cut when it is sent or when it
// would arrive. Nothing lost is delivered later: a call whose message is lost hangs until its context ends, also if
// the partition heals before.
const (
	// NoPartition heals the link. A watch that lost an event meanwhile stays open but silent, as a connection does whose
	// other end has given up. A watch that lost nothing goes on.
	NoPartition Partition = 0
	// Outbound cuts client to server: requests never reach the server.
	Outbound Partition = 1
	// Inbound cuts server to client: the server acts, but its replies and watch events never arrive.
	Inbound Partition = 2
	// Both cuts both directions.
	Both Partition = Outbound | Inbound
)

// Request is one request for Leases, as seen by [Client.Intercept].
type Request struct {
	// Client is the name of the client that sends it.
	Client string
	// Verb is get, list, watch, create, update, patch, delete or deletecollection.
	Verb string
	// Namespace is "" for a list or watch of all namespaces.
	Namespace string
	// Name is the Lease's name. For a list or watch it is what the field selector fixes metadata.name to, if it does.
	Name string
	// Lease is a copy of the object sent by create and update, nil for the other verbs.
	Lease *coordinationv1.Lease
}

// Fault says what goes wrong with one request. The zero value is no fault. The fields combine; of Err and the losses,
// a loss wins, because a lost answer is not seen.
type Fault struct {
	// Before is how much later, beyond the client's latency, the request arrives at the server; After how much later
	// the answer arrives at the client. A create, update, patch or delete that is under way still reaches the server
	// in time, even if the caller gives up: it cannot be taken back.
	Before, After time.Duration
	// LoseRequest drops the request: the server never sees it. LoseReply drops the answer: the server acts, and the
	// client never hears of it. Either way the call hangs until its context ends and then returns that error,
	// wrapped in a *url.Error as by client-go.
	LoseRequest, LoseReply bool
	// IgnoreContext makes the call not return when its context ends, like a client without time-outs on a dead
	// connection: a delayed one returns when its answer is there, a lost one when the Server is closed.
	IgnoreContext bool
	// Err is answered instead of acting, with the delays of above. The functions of this package make the usual
	// ones. nil lets the server act.
	Err error
	// Answer is what the client reads instead of the Lease that the server answers to a get, create, update or patch:
	// an older state, as from a cache, another Lease, or &coordinationv1.Lease{} for a proxy that answers {} with
	// status 200. The server acts all the same, and its errors stay. nil, and on other verbs: the server's answer.
	Answer *coordinationv1.Lease
	// EndWatch is how long after it opened a watch is ended from outside, as by a proxy with a time limit of its own.
	// It counts in addition to the Server's own limit ([Server.SetWatchLifetime]). 0, and on other verbs: never.
	EndWatch time.Duration
	// NoWatch makes Watch return nil and no error, as some hand-written fakes do. The server opens no watch.
	NoWatch bool
}

// On returns a function for [Client.Intercept] that plays fault on every request with one of these verbs, or on every
// request if there are none. It panics at a verb that [Request.Verb] cannot have.
//
//	client.Intercept(electortest.On(electortest.Fault{After: 4 * time.Second}))               // a slow API
//	client.Intercept(electortest.On(electortest.Fault{Err: electortest.InternalError()}))     // an outage, until
//	time.AfterFunc(8*time.Second, func() { client.Intercept(nil) })                           // 8 s later
//	client.Intercept(electortest.On(electortest.Fault{Err: electortest.Forbidden("update")}, "update"))
func On(fault Fault, verbs ...string) func(Request) Fault {
	for _, verb := range verbs {
		if !slices.Contains(allVerbs, verb) {
			panic(fmt.Sprintf("electortest: On: verb %q is not one of %q", verb, allVerbs))
		}
	}
	return func(req Request) Fault {
		if len(verbs) == 0 || slices.Contains(verbs, req.Verb) {
			return fault
		}
		return Fault{}
	}
}

var allVerbs = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}

// roundTrip plays one request: the way to the server, what act does there, and the way back.
func roundTrip[T any](ctx context.Context, c *Client, req Request, act func(Fault) (T, error)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, transportError(req, err)
	}
	c.server.count(c.name, req.Verb)
	t := trip{client: c, req: req, fault: c.fault(req), done: ctx.Done()}
	if t.fault.IgnoreContext {
		t.done = nil
	}
	if err := t.there(ctx, func() { _, _ = act(t.fault) }); err != nil {
		return none, err
	}
	result, err := none, t.fault.Err
	if err == nil {
		result, err = act(t.fault)
	}
	if lost := t.back(ctx); lost != nil {
		return none, lost
	}
	return result, err
}

// leaseTrip is roundTrip for the requests that are answered with a Lease.
func leaseTrip(ctx context.Context, c *Client, req Request, act func() (*coordinationv1.Lease, error)) (*coordinationv1.Lease, error) {
	return orEmpty(roundTrip(ctx, c, req, func(fault Fault) (*coordinationv1.Lease, error) {
		lease, err := act()
		if err == nil && fault.Answer != nil {
			lease = fault.Answer.DeepCopy()
		}
		return lease, err
	}))
}

// orEmpty returns an empty object with an error, as client-go does: it decodes into an object that it has made before.
func orEmpty[T any](object *T, err error) (*T, error) {
	if object == nil {
		object = new(T)
	}
	return object, err
}

// trip is one request under way.
type trip struct {
	client *Client
	req    Request
	fault  Fault
	done   <-chan struct{} // the context's, or nil if the call ignores it
}

// there takes the request to the server. An error means that the caller has given up or the server is closed; act
// is then left to happen when the request arrives.
func (t *trip) there(ctx context.Context, act func()) error {
	if t.fault.LoseRequest || t.client.cut(Outbound) {
		return t.hang(ctx)
	}
	delay := t.fault.Before + t.client.oneWay()
	arrival := time.Now().Add(delay)
	if err := t.travel(ctx, delay); err != nil {
		if t.fault.Err == nil && isWrite(t.req.Verb) {
			t.arriveAbandoned(time.Until(arrival), act)
		}
		return err
	}
	if t.client.cut(Outbound) {
		return t.hang(ctx)
	}
	return nil
}

// back takes the answer to the client.
func (t *trip) back(ctx context.Context) error {
	if t.fault.LoseReply || t.client.cut(Inbound) {
		return t.hang(ctx)
	}
	if err := t.travel(ctx, t.fault.After+t.client.oneWay()); err != nil {
		return err
	}
	if t.client.cut(Inbound) {
		return t.hang(ctx)
	}
	return nil
}

// travel waits for d, shorter only if the caller gives up or the server is closed.
func (t *trip) travel(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		select {
		case <-t.client.server.closed:
			return transportError(t.req, errServerClosed)
		default:
			return nil
		}
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-t.done:
		return transportError(t.req, ctx.Err())
	case <-t.client.server.closed:
		return transportError(t.req, errServerClosed)
	}
}

// hang waits for an answer that never comes.
func (t *trip) hang(ctx context.Context) error {
	select {
	case <-t.done:
		return transportError(t.req, ctx.Err())
	case <-t.client.server.closed:
		return transportError(t.req, errServerClosed)
	}
}

// arriveAbandoned lets a write reach the server after its caller has given up. It takes a timer and no goroutine, so
// that a synctest bubble can end before.
func (t *trip) arriveAbandoned(in time.Duration, act func()) {
	time.AfterFunc(in, func() {
		select {
		case <-t.client.server.closed:
		default:
			if !t.client.cut(Outbound) {
				act()
			}
		}
	})
}

func isWrite(verb string) bool {
	switch verb {
	case "get", "list", "watch":
		return false
	}
	return true
}
