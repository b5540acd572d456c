// Package lock puts an Elector under client-go's leader election, and under what is built on it, through client-go's own
// extension point: a resourcelock.Interface. A program keeps its leaderelection.LeaderElectionConfig and its callbacks, and
// changes a line:
//
//	lock.RunOrDie(ctx, leaderelection.LeaderElectionConfig{ /* unchanged */ })
//
// or, where it makes the LeaderElector itself:
//
//	config, err := lock.Upgrade(config)
//
// # What it gives
//
//   - A clean stop hands over in milliseconds: the next replica learns of a release from its watch, and does not poll.
//   - Standbys send nothing but their watch.
//   - With Upgrade, nothing is released while OnStartedLeading still runs, and its context ends at once when the Lease is
//     lost. If it outlasts a loss, the process ends before another replica can lead.
//   - After a crash the next one leads when the Lease expires, not up to a poll later.
//   - GetLeader, IsLeader, OnNewLeader, HealthzAdaptor and client-go's metrics go on working, on standbys too.
//   - [Lock.Elector] is there for its Check, Status and WrapTransport.
//   - elector.Options that client-go has no field for, such as StateDir and DrainLimit, are set by a function: see [Upgrade].
//
// # What only Options.Run can give
//
// Client-go ends its Run with the first loss, and calls OnStartedLeading in a goroutine that it does not wait for. So:
//
//   - A loss ends Run; most programs exit then. Options.Run is called again in the next term.
//   - Errors are not returned. With Options.Run, Elector.Run returns the callback's error.
//   - Work that OnStartedLeading has started and not waited for is not known here, nor whether it has ended. With
//     ReleaseOnCancel the Lease is released all the same, as with client-go's own lock, so two can work at once. The
//     same holds for OnStartedLeading if it has never asked its context for its end within a second of that.
//   - With [New] even OnStartedLeading is not known: use it where a framework waits for the work before it ends client-go's
//     context, as controller-runtime's manager does with LeaderElectionReleaseOnCancel. A loss is acted on up to
//     [RenewDeadline] later than by Options.Run; that time is taken off the end of a term that is not renewed, but not off
//     the loss to another holder.
//   - Elector.StepDown ends client-go's Run as a loss does. With New the Lease is then left to expire.
//   - The identity is the config's. A process that is restarted with the name of its crashed predecessor waits until that
//     one's Lease has expired, where client-go takes it for its own at once, unproven. With Options.StateDir, which Upgrade
//     and RunOrDie set in one more line, it leads at once, too.
//   - Run again after ReleaseOnCancel false takes the same term up again, if it is still valid, or else waits for the Lease.
//
// Locks that are not Leases and coordinated leader election are refused.
package lock
