package elector

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Metrics receives the numbers of one or more candidates, each call with the Lease it is about. The calls come from the
// election's goroutine, but Overrun from another one; all have to return at once.
//
// The module github.com/elector-go/elector/metrics has one for Prometheus.
type Metrics interface {
	// Term tells the term that the candidate now serves; as Elector.Run begins, the zero Term. Whether the candidate
	// leads is to be read from the last one at the moment of asking, by Term.Valid: nothing tells of a term's end, for
	// a suspended process could not.
	Term(lease types.NamespacedName, term Term)

	// Lost tells that a term was lost, as soon as it is, or that it was given up by StepDown, when the callback has
	// returned. Once for each term at most.
	Lost(lease types.NamespacedName, reason Reason)

	// Renewed tells of a successful renewal: how long its answer took, and how much was left of RenewDeadline, counted
	// from the renewal before, when the answer came. The less is left, the nearer the term came to being lost.
	Renewed(lease types.NamespacedName, latency, left, renewDeadline time.Duration)

	// HandedOver tells, at the beginning of a term, how long it was since this candidate saw another's hold on the
	// Lease: since its release, or since the last renewal of one that crashed. It is not called for a new Lease.
	HandedOver(lease types.NamespacedName, gap time.Duration)

	// Overrun tells what OnOverrun does: the callback still runs, and the lease is about to end.
	Overrun(lease types.NamespacedName)

	// Request tells of an answer of the API, or that none came in time: verb is get, create, update or watch, and err
	// as apimachinery's errors package tells them apart, or a context.DeadlineExceeded, nil for success. A conflict, or
	// a Lease that is not found, is an error here, although the election goes on with it. Of a watch it is the opening
	// that is told.
	Request(lease types.NamespacedName, verb string, err error)
}

type noMetrics struct{}

func (noMetrics) Term(types.NamespacedName, Term)                       {}
func (noMetrics) Lost(types.NamespacedName, Reason)                     {}
func (noMetrics) Renewed(_ types.NamespacedName, _, _, _ time.Duration) {}
func (noMetrics) HandedOver(types.NamespacedName, time.Duration)        {}
func (noMetrics) Overrun(types.NamespacedName)                          {}
func (noMetrics) Request(types.NamespacedName, string, error)           {}
