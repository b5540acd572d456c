// Package elector elects a leader among the replicas of a program. The replicas share a coordination.k8s.io/v1 Lease.
// One of them at a time runs the function [Options.Run], called the callback below; the others stand by.
//
// # The promise
//
//   - One at a time. If the callback returns within the stop budget after a loss, it never runs in two replicas at
//     once: not after a release or a loss, not when replies are late or missing, not in a partition, not when the Lease
//     is edited, not when two replicas use the same identity. (A deleted Lease has an exception: see below.) A clean
//     stop needs no budget: the lease is kept while the callback drains, for minutes if necessary, and nobody else
//     leads before it has returned. If the API is out of reach the lease cannot be kept; the drain then has what is
//     left of it, and [Options.OnOverrun] is called before it ends.
//   - Hand-over is immediate. After a clean stop the next replica leads within one watch event and one write. After a
//     crash it leads as soon as the Lease expires. With [Options.StateDir], a crashed process that is started again leads
//     at once.
//   - Losing leadership does not end the process. The callback is stopped and waited for, and the replica campaigns
//     again.
//   - A standby sends no requests except its watch, as long as the leader renews.
//   - When the promise cannot be kept, that is reported before another replica may lead: by [Options.OnOverrun], by
//     [Elector.Check], and by the cause of the callback's ctx, a [*LostError].
//
// # The states
//
//	                   the Lease is free or has expired:
//	                   one conditional write wins it
//	┌─────────────┐ ─────────────────────────────────────► ┌─────────┐ ─┐ renewed every
//	│ standing by │                                        │ leading │  │ RetryPeriod
//	└─────────────┘ ◄─┐                                    └─────────┘ ◄┘
//	                  │                                         │ ctx ends, StepDown, unhealthy,
//	    released, or  │                                         │ another holder seen,
//	    not ours      │                                         ▼ RenewDeadline passed
//	                  │   ┌───────────┐  Run returned      ┌──────────┐ ─┐ renewed
//	                  └── │ releasing │ ◄───────────────── │ draining │  │ while ours,
//	                      └───────────┘                    └──────────┘ ◄┘ until DrainLimit
//
// A renewal is sent every RetryPeriod, or every third of RenewDeadline if that is sooner. An answer that takes longer than a
// third of RenewDeadline is still waited for, while further attempts are made. An API that takes up to half of
// RenewDeadline for every answer is led on. If it takes longer, a term is not begun that could not be renewed.
//
// # The timing
//
// A leader counts from just before it sends a renewal. A standby counts from just after it has received that renewal.
// Each uses its own monotonic clock, so times of different machines are never compared, and the standby's period always
// ends later:
//
//	sent + RenewDeadline   the term ends, and with it the callback's ctx
//	sent + LeaseDuration   the earliest time at which another replica may lead
//
//	stop budget = LeaseDuration − RenewDeadline
//
// Clocks may run at different rates. If a standby's clock is faster than the leader's by the factor 1+r, and the
// callback takes s to return, the promise holds as long as
//
//	(RenewDeadline + s) · (1+r) ≤ LeaseDuration
//
// With the default durations and a callback that returns within 3 s, a clock may gain 15 %.
//
// The wall clock only serves to notice that the machine was suspended: a term ends when either clock says that
// RenewDeadline has passed. Setting the wall clock forward by seconds may therefore cost a term. Setting it back has no
// effect.
//
// # What is not promised
//
// A process that is suspended, or gets no CPU, cannot stop itself, and a request that was sent cannot be taken back.
// [Term.Valid] reads the clocks at each call, so it is false on the first call after the process resumes. With
// [Term.Token], an outside system can refuse the writes of a past leader.
//
// A deleted Lease binds everyone who has seen it until it would have expired, and its leader puts it back at once. A
// candidate that has not seen it, because it starts at that moment or was cut off, may win before the Lease is back.
// The old leader stops as soon as it sees this, but for that time two callbacks run at once. The same can happen while
// candidates use different values of LeaseDuration, if one of them missed the present holder's record and knows only
// shorter ones. Do not delete the Lease of a running program; use [Elector.StepDown].
//
// An edit that is exactly like a release (no holder, a duration of one second, a new renewTime) frees the Lease,
// even if its holder still runs. Removing only the holder, or changing only the duration, does not free it for the
// candidates that saw the record before. A candidate that starts afterwards knows only what it finds.
//
// An API that is restored from a backup goes back in time. A candidate keeps to what it saw, but one that has not seen
// what was undone is not bound by it. Tokens of later terms may be smaller, or repeat, because resourceVersions do.
//
// Some edits need another client that writes an old record back, as from a cache or a backup. A candidate that did not see
// another's term since, and finds its own last record put back, takes the Lease at once. So does a restarted process with
// a [Options.StateDir] that finds the record of the process before it put back, before it sees the new leader. A standby
// that has missed a renewal, because the record before was put back over it, does not count it.
//
// The lock in StateDir proves a process dead only if the kernel keeps it for as long as the process lives. A network file
// system may end it sooner. Do not use one.
//
// When candidates of other libraries use the same Lease, the promise is only as good as theirs. Client-go's elector,
// for example, can release the Lease before its callback has stopped.
package elector
