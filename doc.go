// Package elector elects a leader among the replicas of a program. The replicas share a coordination.k8s.io/v1 Lease.
// One of them at a time runs the function [Options.Run], called the callback below; the others stand by.
//
// # The promise
//
//   - One at a time. If the callback returns within the stop budget after a loss (LeaseDuration − RenewDeadline, 5 s by
//     default), it never runs in two replicas at once: not after a release or a loss, not when replies are late or
//     missing, not in a partition, not when the Lease is edited, not when two replicas use the same identity. (The
//     exceptions are below, under What is not promised.) A clean stop needs no budget: the Lease is kept while the
//     callback drains, that is, finishes its work after its ctx has ended. That may take minutes, and nobody else leads
//     before it has returned. If the API is out of reach, the Lease cannot be kept. The callback can then drain until
//     the Lease expires, and [Options.OnOverrun] is called before that.
//   - Hand-over is immediate. After a clean stop the next replica leads after a watch event and a write. After a crash
//     it leads as soon as the Lease expires. With [Options.StateDir], a crashed process that is started again leads at
//     once.
//   - With [Options.RecoveryDeadline] an outage of the API stops no work. A term that cannot be renewed is suspended, and goes
//     on when the API is back. The first promise is then another: no two terms are valid at once, and nothing is written
//     through the gate of [Elector.WrapTransport] without a valid one.
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
// A renewal is sent every RetryPeriod, or every third of RenewDeadline if that is sooner. If there is no answer after a
// third of RenewDeadline, a further request is sent, and the first answer counts. A leader keeps its term while every
// answer takes up to half of RenewDeadline. With slower answers no term begins, because it could not be renewed.
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
// [Term.Valid] reads the clocks at each call, so it is false on the first call after the process resumes, unless both
// clocks stood still, as in a virtual machine that was paused. With [Term.Token], an outside system can refuse the writes of
// a past leader.
//
// While a term is suspended (see [Options.RecoveryDeadline]), another replica may lead, so two callbacks may run at once. Only
// one of their terms is valid. A write without the gate has to carry [Term.Token] to something that checks it, or wait in
// [Term.Await] first, and even then it may be under way when the term is suspended. If another replica has led meanwhile
// and somebody writes the record of the suspended leader back, with both its times, the suspended leader does not notice; see
// below.
//
// After a Lease was deleted, candidates that have seen it still wait until it would have expired, and its leader puts
// it back at once. A candidate that has not seen it, because it starts at that moment or was cut off, may win before
// the Lease is back. The old leader stops as soon as it sees this, but for that time two callbacks run at once. The
// same can happen while candidates use different values of LeaseDuration, if one of them missed the present holder's
// record and knows only shorter ones. Do not delete the Lease of a running program; use [Elector.StepDown].
//
// An edit that is exactly like a release (no holder, a duration of one second, a new renewTime) frees the Lease,
// even if its holder still runs. Removing only the holder, or changing only the duration, does not free it for the
// candidates that saw the record before. A candidate that starts afterwards knows only what it finds.
//
// An API that is restored from a backup goes back in time. Candidates still wait for what they saw before the restore.
// A candidate that did not see it cannot. Tokens of later terms may be smaller, or repeat, because resourceVersions do.
// Restore etcd with etcdutl's --bump-revision. Without it a resourceVersion is given out twice, and a write that a
// candidate has decided on before the restore can replace a record of the same version from after it. So can a write
// that is still on its way while the API is restored. Then two callbacks may run at once.
//
// Another client may write an old record back into the Lease, as from a cache or a backup. A candidate whose own last
// record is put back, and that has not seen the term of another since, takes the Lease at once. So does a restarted
// process with [Options.StateDir], if the record of the process before it is put back and it has not seen the new
// leader yet. A standby does not count a renewal that it missed because an older record was put back over it. In these
// cases two callbacks may run at once.
//
// A process that is copied while it runs, as a virtual machine that is cloned or a checkpoint that is started twice, leads
// beside its copy until they have heard of each other: for RenewDeadline, and for longer while one of them is cut off. A
// candidate that was copied while it was about to win does so, too: each may repeat that write, and take it for its own.
//
// The lock in StateDir proves a process dead only if the kernel keeps it for as long as the process lives. A network
// file system may end it sooner, so do not use such a file system.
//
// When candidates of other libraries use the same Lease, the promise is only as good as theirs. Client-go's elector,
// for example, can release the Lease before its callback has stopped.
package elector
