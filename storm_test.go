package elector_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector/electortest"
)

// storm keeps three replicas in bad weather, with callbacks that take 3 s of their stop budget of 5 s to return. (Of what
// Elector is proof against, this is only what any elector meets in a bad week. For the rest see package internal/sim.)
func storm(join joiner, length time.Duration) func(w *world) coverage {
	return func(w *world) coverage {
		rng := rand.New(rand.NewPCG(1, 1))
		some := func(mean time.Duration) time.Duration { return time.Duration(rng.ExpFloat64() * float64(mean)) }
		renewals := w.observeRenewals()
		var alive []*replica
		for n := 0; w.now() < length; {
			alive = slices.DeleteFunc(alive, (*replica).ended)
			for ; len(alive) < 3; n++ {
				alive = append(alive, join(w, fmt.Sprint("r", n), draining(3*time.Second)))
			}
			time.Sleep(some(20 * time.Second))
			victim := alive[rng.IntN(3)]
			if l := w.leader(); l != nil {
				victim = l
			}
			switch rng.IntN(4) {
			case 0:
				victim.stop()
			case 1:
				victim.client.Partition(electortest.Both)
			case 2:
				victim.client.SetLatency(some(2 * time.Second))
			case 3:
				failing(victim.client)
			}
			time.Sleep(some(10 * time.Second))
			answers(victim.client)
			well(victim.client)
			victim.client.SetLatency(roundTrip)
		}
		lasted := w.now()
		for _, r := range alive {
			r.stop()
		}
		time.Sleep(time.Minute) // client-go's elector does not wait for its callback
		return coverageOf(w.spans(), renewals(), lasted)
	}
}

// A renewal is one that was seen in the Lease.
type renewal struct {
	by string
	at time.Time
}

// observeRenewals looks at the Lease again and again, until the function that it returns is called.
func (w *world) observeRenewals() (stop func() []renewal) {
	ctx, cancel := context.WithCancel(w.Context())
	var seen []renewal
	var observer sync.WaitGroup
	observer.Go(func() {
		for ; ctx.Err() == nil; time.Sleep(500 * time.Millisecond) {
			if l, err := w.leases().Get(ctx, name, metav1.GetOptions{}); err == nil && l.Spec.RenewTime != nil {
				seen = append(seen, renewal{ptr.Deref(l.Spec.HolderIdentity, ""), l.Spec.RenewTime.Time})
			}
		}
	})
	return func() []renewal { cancel(); observer.Wait(); return seen }
}

// coverage is how a storm was lived through: for how long two callbacks ran at once, and for how long none did. Of that,
// binding is what the promise costs: the callback has returned, and its Lease, which was not released, still binds the others.
type coverage struct{ length, two, none, binding time.Duration }

func coverageOf(spans []span, renewals []renewal, length time.Duration) (sum coverage) {
	sum.length = length
	last := spans[0] // of the callbacks so far, the one that has run longest
	for _, s := range spans[1:] {
		if s.end.IsZero() {
			s.end = time.Now()
		}
		if gap := s.begin.Sub(last.end); gap < 0 {
			sum.two += earlier(last.end, s.end).Sub(s.begin)
		} else {
			sum.none += gap
			expires := lastRenewal(renewals, last).Add(15 * time.Second)
			if wait := expires.Sub(last.end); wait > 0 && !s.begin.Before(expires) {
				sum.binding += wait
			}
		}
		if s.end.After(last.end) {
			last = s
		}
	}
	return sum
}

// lastRenewal is the last one in a call of a callback.
func lastRenewal(renewals []renewal, s span) (at time.Time) {
	for _, r := range renewals {
		if r.by == s.who && !r.at.After(s.end) {
			at = r.at
		}
	}
	return at
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
