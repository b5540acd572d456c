// Package leaderelection is client-go's leader election with an Elector under it. It has the names of
// k8s.io/client-go/tools/leaderelection, so a program moves over by its import path and nothing else:
//
//	import "github.com/elector-go/elector/leaderelection"
//
// The types are client-go's own. [RunOrDie] and [NewLeaderElector] put a [Lock] into the config, in place of its
// *resourcelock.LeaseLock, and hand it to client-go's functions of the same names.
//
// # What it gives
//
//   - A clean stop hands over in milliseconds: the next replica learns of a release from its watch, and does not poll.
//   - Standbys send nothing but their watch.
//   - Nothing is released while OnStartedLeading still runs, and its context ends at once when the Lease is lost. If
//     OnStartedLeading has not returned shortly before another replica can lead, the process ends.
//   - After a crash the next replica leads when the Lease expires, not up to a poll later.
//   - GetLeader, IsLeader, OnNewLeader, HealthzAdaptor and client-go's metrics go on working, on standbys too.
//   - [Lock.Elector] gives access to Check, Status and WrapTransport: see [Upgrade].
//   - Recovery and WriteGate of client-go v0.38 (beta) work: see below.
//   - elector.Options that client-go has no field for, such as StateDir and DrainLimit, are set by a function: see [RunOrDie].
//
// # What only Options.Run can give
//
// Client-go's Run returns at the first loss. It calls OnStartedLeading in a goroutine, and does not wait for it. So:
//
//   - A loss ends Run, and most programs exit then. Options.Run is called again in the next term.
//   - OnStartedLeading cannot return an error. Options.Run can, and Elector.Run returns it.
//   - If OnStartedLeading starts goroutines and returns, the lock cannot know when they have ended. With
//     ReleaseOnCancel the Lease is released a second after its context has ended, so two replicas can work at once if
//     they take longer. The same can happen if OnStartedLeading does not use its context.
//   - An OnStartedLeading that does not return within LeaseDuration − RenewDeadline of being asked to, or DrainLimit, is
//     ended with its process. Options.Run is waited for.
//   - A lock made by [NewLock] does not know when OnStartedLeading returns. Use it where a framework waits for the work
//     before it ends client-go's context, as controller-runtime's manager does with LeaderElectionReleaseOnCancel.
//     Client-go notices a loss up to [LockRenewDeadline] later than Options.Run does. A term that is not renewed ends that
//     much earlier to make up for it. Nothing makes up for it when another holder takes the Lease.
//   - Elector.StepDown ends client-go's Run as a loss does. With NewLock the Lease then has to expire.
//   - The identity is the config's. A process that is restarted under the name that it had when it crashed leads at once
//     if the old process is proven dead, as it is in a pod on Linux and with Options.StateDir, and waits otherwise until its
//     old Lease has expired. Client-go's own lock takes that Lease at once, without a proof.
//   - Without ReleaseOnCancel, a second Run continues the same term if it is still valid, and otherwise waits for the
//     Lease.
//
// # Outages of the API
//
// Recovery in the config of client-go v0.38 becomes Options.RecoveryDeadline, which the Elector decides by. While the term is
// suspended client-go's WriteGate is closed, IsLeader is false, GetLeader and OnNewLeader say "", and client-go's metric is
// 0. As there, OnStoppedLeading is called at each suspension, Run goes on, and the context of OnStartedLeading ends with the
// term. The gate closes before the term's authority ends by the clock, and within [LockRetryPeriod] when another holder is
// seen. The gate of the Elector ([Lock.Elector], WrapTransport) reads the clock at each request. Run returns once the term is lost.
// The names RecoveryConfig and ErrWriteGateClosed are in client-go's package only.
//
// With older versions, set Options.RecoveryDeadline by a function, as in [NewLeaderElector], and write through the gate of the
// Elector. Client-go then knows of no suspension: IsLeader stays true, and its metric 1. Ask Lock.Elector().IsLeader. A lock made
// by [NewLock] shows none either, so leave Recovery out of its config.
//
// Coordinated leader election, and locks that are not Leases, are refused.
package leaderelection
