// Package elector elects a leader among the replicas of a program, by a coordination.k8s.io/v1 Lease that they share.
// One of them at a time runs the function given as [Options.Run]; the others stand by.
//
// # The promise
//
//   - One at a time. While the callback returns within the stop budget of being told, no two replicas are inside it at
//     once: not on release, not on loss, not under lost or late replies, partitions, deleted or edited Leases (but see
//     below), or equal identities. A clean stop needs no budget: the callback may drain for minutes, and nobody else
//     leads before it has returned, because the lease is kept meanwhile. (If the API is out of reach, it cannot be
//     kept; then a drain has what is left of the lease, and [Options.OnOverrun] tells.)
//   - Hand-over is immediate: after a clean stop the next replica leads one watch event and one write later; after a
//     crash, at the moment the Lease expires.
//   - Leadership is a phase, not a process. Losing it stops the callback, waits for it, and campaigns again.
//   - A quiet standby sends no requests but its watch.
//   - When the promise cannot be kept, that is said before another replica may lead: [Options.OnOverrun],
//     [Elector.Check], and the cause of the callback's ctx, a [*LostError].
//
// # The states
//
//	                   the Lease is free or has expired:
//	                   one conditional write wins it
//	┌─────────────┐ ─────────────────────────────────────► ┌─────────┐ ─┐ renewed every
//	│ standing by │                                        │ leading │  │ RenewDeadline/3
//	└─────────────┘ ◄─┐                                    └─────────┘ ◄┘
//	                  │                                         │ ctx ends, StepDown,
//	    released, or  │                                         │ another holder seen,
//	    not ours      │                                         ▼ RenewDeadline passed
//	                  │   ┌───────────┐  Run returned      ┌──────────┐ ─┐ renewed
//	                  └── │ releasing │ ◄───────────────── │ draining │  │ while ours
//	                      └───────────┘                    └──────────┘ ◄┘
//
// # The timing
//
// A leader counts from just before it sends a renewal, a standby from after it has received it, each by its own
// monotonic clock. So a standby's patience always begins later, and no clocks are compared:
//
//	sent + RenewDeadline   the term's authority ends; the callback is told
//	sent + LeaseDuration   the earliest time at which another replica may lead
//
//	stop budget = LeaseDuration − RenewDeadline
//
// If the standby's clock runs faster than the leader's by the factor 1+r, and the callback takes s to return, one at a
// time holds as long as
//
//	(RenewDeadline + s) · (1+r) ≤ LeaseDuration
//
// which with the defaults, and a callback that stops within 3 s, is a clock that gains 15 %.
//
// The wall clock is used for one thing only, to notice that a machine was suspended: a term ends when either clock says
// that RenewDeadline has passed. So a wall clock that is set forward by seconds costs a term, and one set back nothing.
//
// # What is not promised
//
// A process that is suspended, or starved of CPU, cannot stop itself, and what it has sent cannot be called back.
// [Term.Valid] is worked out from two clocks at each call, so it is false from the first look after waking; and
// [Term.Token] lets the outside system refuse the writes of a past leader.
//
// A deleted Lease binds everybody who has seen it until it would have expired, and its leader puts it back at once. A
// candidate that has not seen the Lease that was deleted, because it starts only then or was cut off, cannot know: in
// the moment before the Lease is back, or while the leader is cut off, it may win. A leader that sees this stops at
// once, but beside it. (While candidates differ in LeaseDuration, as in a rolling change of it, that goes also for one
// that has missed the present holder's record, and knows only of shorter ones.) Do not delete the Lease of a running
// program; use [Elector.StepDown].
//
// A hand that writes just what a release looks like (no holder, for one second, with a new renewTime) releases the
// Lease, whoever leads. Blanking out the holder, or changing the duration, does not; but a candidate that starts only then
// knows of no other duration.
//
// An API server that takes longer than RenewDeadline/3 to answer cannot be led on.
//
// On a Lease shared with candidates of other libraries, the promise is as good as theirs: client-go's elector, for one,
// can release before its callback has stopped.
package elector
