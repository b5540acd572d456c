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
// seconds, and otherwise once a minute while nobody leads. Errors of the API do not end it: they are logged to the logger in ctx, and tried again.
//
// A namespace or a name that none can have is an error, as of New; an empty namespace is the pod's own. Nothing is sent before
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
			holder, d := follow(c.seen, c.asked)
			if c.seen.known() && (last == nil || holder != *last) {
				if last = &holder; !yield(holder) {
					return
				}
			}
			c.await(c.act(c.watch.poll(d), time.Now()), ctx.Done(), nil, nil)
		}
	}, nil
}

// follow tells one who only looks, and whose last answered GET was sent at asked, who leads and what to do next. When a
// record expires, or is long without change, he asks, for it may be the watch that is dead.
func follow(o observed, asked time.Time) (holder string, d decision) {
	if asked.Before(o.expires) {
		holder, d = o.holder(), decision{do: get, at: o.expires}
	} else {
		d = decision{do: get, at: asked.Add(time.Minute)}
	}
	if !o.known() || o.stale {
		d.at = time.Time{}
	}
	return holder, d
}
