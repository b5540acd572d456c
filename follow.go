package elector

import (
	"context"
	"iter"

	"k8s.io/apimachinery/pkg/util/uuid"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/elector-go/elector/internal/protocol"
)

// Follow yields the holders of a Lease to a program that is not a candidate: first the present holder, then each
// change, in order, until ctx ends or the loop is left. The empty string means that nobody holds the Lease: it does not
// exist, was released, or has expired, counted by the caller's own clock from the last renewal it saw. While the API is
// out of reach, the last holder stays.
//
// The loop runs in the caller's goroutine; only the watch has one of its own. Changes that arrive while the loop's body
// is busy are yielded afterwards, and a holder that came and went meanwhile may be left out.
//
// Follow needs the verbs get and watch on the Lease. Where watch is forbidden or broken it polls every two seconds.
// While nobody leads it also reads the Lease once a minute. Errors of the API do not end the loop: they are logged to
// the logger in ctx, and the request is repeated.
//
// An empty namespace means the pod's own. Follow returns an error for a namespace or name that cannot exist, as New
// does. Nothing is sent before the loop begins. Each loop over the sequence starts afresh.
func Follow(ctx context.Context, leases coordinationv1client.LeasesGetter, namespace, name string) (iter.Seq[string], error) {
	e, err := New(leases, Options{
		Namespace: namespace,
		Name:      name,
		Identity:  "follower_" + string(uuid.NewUUID()), // nobody's, and never written
		Run:       func(context.Context) error { return nil },
	})
	if err != nil {
		return nil, err
	}
	return func(yield func(string) bool) {
		c := newCandidate(e, ctx, true)
		defer c.close()
		var last *string
		for ev := (protocol.Event{}); ctx.Err() == nil; ev = c.await(ctx) {
			c.step(ctx, ev)
			s := c.machine.Status()
			if s.Known && (last == nil || s.Holder != *last) {
				if last = &s.Holder; !yield(s.Holder) {
					return
				}
			}
		}
	}, nil
}
