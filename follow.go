package elector

import (
	"context"
	"iter"
	"time"

	"k8s.io/apimachinery/pkg/util/uuid"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

// Follow yields the holders of a Lease, for those who want to know who leads without being a candidate: first the
// present one, then each change, in order, until ctx ends or the loop is left. "" is nobody: there is no Lease, or it
// was released, or it has expired, counted by the follower's own clock from the last renewal that it saw. While the API
// is out of reach, the last holder stays.
//
// All happens in the caller's goroutine, but for reading the one watch. What changes while the loop's body is busy is told
// afterwards; a holder that came and went meanwhile may be left out. It needs the verbs get and watch on the Lease; where watch is forbidden or broken, it looks every two
// seconds. Errors of the API do not end it: they are logged to the logger in ctx, and tried again.
//
// A namespace or a name that none can have is an error; an empty namespace is the pod's own. Nothing is sent before
// the loop begins, and each loop over the sequence begins anew.
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
		c := newCandidate(e, ctx)
		defer c.close()
		var last *string
		for ctx.Err() == nil {
			if holder := c.seen.leading(); c.seen.looked && (last == nil || holder != *last) {
				if last = &holder; !yield(holder) {
					return
				}
			}
			c.await(c.act(c.poll(follow(c.seen)), time.Now()), ctx.Done(), nil, nil)
		}
	}, nil
}

// leading is the holder whose record has not expired, "" if there is none. That one has expired must have been seen
// afterwards: otherwise it may be the watch that is dead.
func (o observed) leading() string {
	if !o.at.Before(o.expires) {
		return ""
	}
	return o.holder()
}

// follow decides for one who only looks.
func follow(o observed) decision {
	switch {
	case !o.looked || o.stale:
		return decision{do: look}
	case o.at.Before(o.expires):
		return decision{do: look, at: o.expires}
	default:
		return decision{do: idle}
	}
}
