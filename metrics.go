package elector

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Metrics receives the measurements of one or more candidates. The first argument of each method is the Lease that the
// call is about. For one candidate the calls are made in order and one at a time. The election does not wait for them; if
// one does not return, a thousand wait for it, and further ones are dropped and counted.
//
// An implementation embeds [NoMetrics], so that it goes on to compile when methods are added.
//
// The module github.com/elector-go/elector/metrics implements it for Prometheus.
type Metrics interface {
	// Term reports the term that the candidate now serves, and the zero Term when Elector.Run begins. No call reports
	// the end of a term, because a suspended process could not make it. To find out whether the candidate leads, call
	// Term.Valid on the last term reported.
	Term(lease types.NamespacedName, term Term)

	// Lost reports that a term was lost, as soon as it is, or that it was given up by StepDown, once the callback has
	// returned. It is called at most once for each term.
	Lost(lease types.NamespacedName, reason Reason)

	// Renewed reports a successful renewal. Latency is how long the answer took; left is how much of renewDeadline
	// remained, counted from the previous renewal, when the answer came. A small value of left means that the term was
	// nearly lost.
	Renewed(lease types.NamespacedName, latency, left, renewDeadline time.Duration)

	// HandedOver reports, at the beginning of a term, how long nobody led: the time since this candidate saw another
	// holder release the Lease or, if that holder crashed, renew it for the last time. It is not called for a new
	// Lease.
	HandedOver(lease types.NamespacedName, gap time.Duration)

	// Overrun reports that the callback still runs and the Lease is about to end. It is called when Options.OnOverrun
	// is.
	Overrun(lease types.NamespacedName)

	// Request reports the outcome of a request to the API. Verb is get, create, update or watch. Err is nil for
	// success; otherwise it is an API error, as apimachinery's errors package classifies them, or a
	// context.DeadlineExceeded if no answer came in time. A conflict, or a Lease that is not found, is an error here,
	// although the election handles it. For a watch, it reports how opening the watch went.
	Request(lease types.NamespacedName, verb string, err error)

	// Dropped reports that n calls to the user were dropped, because an earlier one did not return for long. What is "log",
	// "Events", "OnNewLeader" or "Metrics".
	Dropped(lease types.NamespacedName, what string, n int)

	embedsNoMetrics()
}

// NoMetrics is a Metrics that does nothing. Embed it in your own.
type NoMetrics struct{}

// Term does nothing.
func (NoMetrics) Term(types.NamespacedName, Term) {}

// Lost does nothing.
func (NoMetrics) Lost(types.NamespacedName, Reason) {}

// Renewed does nothing.
func (NoMetrics) Renewed(_ types.NamespacedName, _, _, _ time.Duration) {}

// HandedOver does nothing.
func (NoMetrics) HandedOver(types.NamespacedName, time.Duration) {}

// Overrun does nothing.
func (NoMetrics) Overrun(types.NamespacedName) {}

// Request does nothing.
func (NoMetrics) Request(types.NamespacedName, string, error) {}

// Dropped does nothing.
func (NoMetrics) Dropped(types.NamespacedName, string, int) {}

func (NoMetrics) embedsNoMetrics() {}
