package leaderelection_test

import (
	"context"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
	"github.com/elector-go/elector/internal/lockfile/lockfiletest"
	"github.com/elector-go/elector/leaderelection"
)

func drains(d time.Duration) func(p *program) {
	return func(p *program) { p.drain = d }
}

func TestAReleaseWaitsForWorkThatDrainsAndHoldsTheLeaseMeanwhile(t *testing.T) {
	inFleet(t, func(f *fleet) { // which fails when two work at once
		a := f.start("a", drains(time.Minute), limits(0))
		f.await(time.Second, nil)
		f.start("b")
		f.pass(10 * time.Second)
		begin := time.Now()
		a.stop()
		next := f.await(2*time.Minute, a)
		require.Less(t, next.at(&next.began).Sub(a.at(&a.ended)), 50*time.Millisecond)
		require.GreaterOrEqual(t, next.at(&next.began).Sub(begin), time.Minute)
		require.False(t, a.at(&a.stopped).Before(a.at(&a.ended)), "OnStoppedLeading may exit, so it comes last")
	})
}

// The same fleet on client-go's own lock has two at once. Else the test above would prove nothing.
func TestClientGosOwnLockDoesNotWaitForWork(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.lenient = true
		a := f.startClientGo("a", drains(time.Minute))
		f.await(time.Second, nil)
		f.startClientGo("b")
		f.pass(10 * time.Second)
		a.stop()
		f.pass(30 * time.Second)
		require.Positive(t, f.overlaps)
	})
}

func TestWorkThatHasOnlyJustBegunIsWaitedFor(t *testing.T) {
	inFleet(t, func(f *fleet) {
		for range 20 {
			a := f.start("a", drains(2*time.Second))
			b := f.start("b", drains(2*time.Second))
			f.await(time.Second, nil)
			a.stop()
			b.stop()
			<-a.done
			<-b.done
		}
	})
}

// As with csi-lib-utils: the work has a stop channel of its own, and OnStoppedLeading exits.
func TestWorkThatNeverAsksItsContextIsGivenASecond(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.lenient = true // until the process has ended
		end := make(chan struct{})
		a := f.start("a", func(p *program) {
			p.work = func(context.Context) { <-end }
			p.config.Callbacks.OnStoppedLeading = func() { close(end) } // os.Exit
		})
		f.await(time.Second, nil)
		b := f.start("b")
		f.pass(10 * time.Second)
		begin := time.Now()
		a.stop()
		<-a.done
		f.await(time.Second, a)
		require.Less(t, time.Since(begin), 1100*time.Millisecond)
		require.Less(t, a.at(&a.ended).Sub(b.at(&b.began)).Abs(), 50*time.Millisecond, "exited as the next one begins")
	})
}

func TestWorkThatStopsByAnotherContextWithinASecondIsWaitedFor(t *testing.T) {
	inFleet(t, func(f *fleet) {
		signal, stop := context.WithCancel(f.Context())
		a := f.start("a", func(p *program) {
			p.work = func(context.Context) { <-signal.Done() }
			p.drain = 500 * time.Millisecond
		})
		f.await(time.Second, nil)
		f.start("b")
		f.pass(10 * time.Second)
		stop()
		a.stop()
		f.await(time.Second, a)
	})
}

func TestWorkThatAsksThroughAContextOfItsOwnIsWaitedFor(t *testing.T) {
	type key struct{}
	for name, derive := range map[string]func(ctx context.Context) context.Context{
		"WithCancel": func(ctx context.Context) context.Context { c, cancel := context.WithCancel(ctx); _ = cancel; return c },
		"WithValue":  func(ctx context.Context) context.Context { return context.WithValue(ctx, key{}, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			inFleet(t, func(f *fleet) {
				a := f.start("a", drains(4*time.Second), func(p *program) {
					p.work = func(ctx context.Context) { <-derive(ctx).Done() }
				})
				f.await(time.Second, nil)
				f.start("b")
				f.pass(10 * time.Second)
				a.stop()
				f.await(10*time.Second, a)
			})
		})
	}
}

// backgrounds makes a program that returns from OnStartedLeading at once and works in a goroutine.
func backgrounds(p *program) {
	p.config.Callbacks.OnStartedLeading = func(ctx context.Context) { go p.lead(ctx) }
}

func TestACallbackThatReturnsAtOnceGoesOnLeading(t *testing.T) {
	inFleet(t, func(f *fleet) {
		a := f.start("a", backgrounds)
		f.await(time.Second, nil)
		f.start("b")
		f.pass(10 * time.Minute)
		require.Equal(t, a, f.leader())
		require.Equal(t, 1, int(a.terms.Load()))
		stopped := time.Now()
		a.stop()
		next := f.await(2*time.Second, a)
		require.GreaterOrEqual(t, next.at(&next.began).Sub(stopped), time.Second, "its goroutines are given a second")
		require.Less(t, next.at(&next.began).Sub(stopped), 1050*time.Millisecond)
	})
}

// What goroutines still do when the Lease is released, another replica may do at the same time. Client-go releases at
// once, and its standbys ask every 2 to 4.4 s, so that they come too early now and then.
func TestGoroutinesOfACallbackThatReturnedOverlapNoMoreThanWithClientGo(t *testing.T) {
	for _, flight := range []time.Duration{50 * time.Millisecond, 300 * time.Millisecond, time.Second} {
		count := func(start func(f *fleet, who string, change ...func(p *program)) *program) (overlaps int) {
			inFleet(t, func(f *fleet) {
				f.lenient = true
				launch := func(f *fleet, who string) *program { return start(f, who, backgrounds, drains(flight)) }
				handOvers(f, launch, 40)
				overlaps = f.overlaps
			})
			return overlaps
		}
		ours, theirs := count((*fleet).start), count((*fleet).startClientGo)
		t.Logf("%v in flight, 40 clean stops: overlaps %d, client-go %d", flight, ours, theirs)
		require.LessOrEqual(t, ours, theirs)
	}
}

func TestTheCtxOfACallbackThatReturnedAtOnceEndsAtOnceOnALoss(t *testing.T) {
	inFleet(t, func(f *fleet) {
		defer leaderelection.SetExit(func(int) { t.Error("exits, though the callback has returned") })()
		a := f.start("a", backgrounds, drains(4*time.Second))
		f.await(time.Second, nil)
		f.start("b")
		f.pass(20 * time.Second)
		a.client.Partition(electortest.Both)
		f.await(30*time.Second, a) // and never two
		require.False(t, a.at(&a.ended).IsZero())
	})
}

// The Elector would release the Lease when the API answers again, because its own callback has returned.
func TestALostTermWhoseWorkIsNotJoinedIsNotReleased(t *testing.T) {
	for name, start := range map[string]func(f *fleet) *program{
		"Upgrade": func(f *fleet) *program { return f.start("a", backgrounds, drains(4*time.Second)) },
		"NewLock": func(f *fleet) *program { return f.startOnLock("a", drains(4*time.Second)) },
	} {
		t.Run(name, func(t *testing.T) {
			inFleet(t, func(f *fleet) {
				a := start(f)
				f.await(time.Second, nil)
				b := f.start("b")
				f.pass(20 * time.Second)
				a.client.Intercept(func(electortest.Request) electortest.Fault {
					return electortest.Fault{Err: electortest.Unavailable()}
				})
				renewed := f.lease().Spec.RenewTime.Time
				f.pass(10*time.Second - time.Since(renewed) + 100*time.Millisecond)
				require.False(t, a.at(&a.told).IsZero())
				a.client.Intercept(nil)
				f.await(30*time.Second, a)
				require.Greater(t, b.at(&b.began).Sub(renewed), 14900*time.Millisecond)
			})
		})
	}
}

func TestWorkThatOutlastsALossEndsTheProcessBeforeAnotherLeads(t *testing.T) {
	inFleet(t, func(f *fleet) {
		end := make(chan struct{})
		var code atomic.Int32
		defer leaderelection.SetExit(func(c int) { code.Store(int32(c)); close(end) })()
		a := f.start("a", func(p *program) { p.work = func(ctx context.Context) { <-ctx.Done(); <-end } })
		f.await(time.Second, nil)
		f.start("b")
		f.pass(20 * time.Second)
		a.client.Partition(electortest.Both)
		f.await(30*time.Second, a)
		require.EqualValues(t, 1, code.Load())
	})
}

func limits(d time.Duration) func(p *program) {
	return func(p *program) { p.options = func(o *elector.Options) { o.DrainLimit = d } }
}

// hangs makes a program whose work does not end before the process does, or the test has long failed.
func hangs(t *testing.T, f *fleet) (change func(p *program), exited func() bool) {
	end := make(chan struct{})
	t.Cleanup(leaderelection.SetExit(func(int) { close(end) }))
	exited = func() bool {
		select {
		case <-end:
			return true
		default:
			return false
		}
	}
	return func(p *program) {
		p.work = func(ctx context.Context) {
			<-ctx.Done()
			select {
			case <-end:
			case <-time.After(3 * time.Hour):
			}
		}
	}, exited
}

func TestADrainThatLastsLongerThanDrainLimitEndsTheProcessBeforeAnotherLeads(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(p *program)
		end     func(a *program)
		expires bool // it is not released, so that there is no hurry: the process ends after the loss
	}{
		"stopped": {func(*program) {}, func(a *program) { a.stop() }, false},
		"stepped down": {func(*program) {}, func(a *program) {
			_ = a.lock.Elector().StepDown(canceled())
		}, false},
		"stopped without ReleaseOnCancel": {func(p *program) { p.config.ReleaseOnCancel = false }, func(a *program) { a.stop() }, true},
		"stopped without ReleaseOnCancel, and run again": {func(p *program) { p.config.ReleaseOnCancel = false }, func(a *program) {
			a.stop()
			<-a.done
			a.run()
		}, true},
	} {
		for how, limit := range map[string]struct {
			change func(p *program)
			is     time.Duration
		}{"by default": {func(*program) {}, 5 * time.Second}, "by Options": {limits(30 * time.Second), 30 * time.Second}} {
			t.Run(name+"/"+how, func(t *testing.T) {
				inFleet(t, func(f *fleet) { // which fails when two work at once
					hang, exited := hangs(t, f)
					a := f.start("a", hang, limit.change, c.change)
					f.await(time.Second, nil)
					f.start("b")
					f.pass(10 * time.Second)
					c.end(a)
					f.pass(limit.is - time.Millisecond)
					require.False(t, exited())
					f.pass(50 * time.Millisecond) // one request, to resign with notice
					require.Equal(t, !c.expires, exited())
					soon := 3 * time.Second
					if c.expires {
						soon = 16 * time.Second
					}
					f.await(soon, a)
					require.True(t, exited())
				})
			})
		}
	}
}

func TestTheProcessSaysWhyItEnds(t *testing.T) {
	inFleet(t, func(f *fleet) {
		hang, exited := hangs(t, f)
		a := f.start("a", hang)
		f.await(time.Second, nil)
		log := logged(t)
		a.stop()
		f.pass(6 * time.Second)
		require.True(t, exited())
		require.Contains(t, log(), "OnStartedLeading has not returned within DrainLimit of being asked to: this process ends")
	})
}

// blocking is a log that blocks until it is opened.
func blocking() (log klog.Logger, open func()) {
	opened := make(chan struct{})
	return funcr.New(func(string, string) { <-opened }, funcr.Options{}), func() { close(opened) }
}

func TestTheProcessEndsBeforeAnotherLeadsThoughTheLogBlocks(t *testing.T) {
	for name, c := range map[string]struct {
		end func(a *program)
		by  time.Duration
	}{
		"a drain": {func(a *program) { _ = a.lock.Elector().StepDown(canceled()) }, 5*time.Second + 1900*time.Millisecond}, // resigned with a notice of 2 s
		"a loss":  {func(a *program) { a.client.Partition(electortest.Both) }, 14900 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			inFleet(t, func(f *fleet) { // which fails when two work at once
				hang, exited := hangs(t, f)
				a := f.start("a", hang)
				f.await(time.Second, nil)
				f.start("b")
				f.pass(10 * time.Second)
				log, open := blocking()
				defer open()
				defer leaderelection.SetLog(log)()
				c.end(a)
				f.pass(c.by)
				require.True(t, exited())
				f.await(2*time.Second, a)
			})
		})
	}
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestAWarningOfTheLocksIsNotWaitedFor(t *testing.T) {
	inFleet(t, func(f *fleet) {
		lock, err := leaderelection.NewLock(f.api.Client("a").CoordinationV1(), elector.Options{Namespace: namespace, Name: name, Identity: "a"})
		require.NoError(t, err)
		ctx, stop := context.WithTimeout(f.Context(), 10*time.Second) // a RenewDeadline of 10 s
		defer stop()
		_, _, err = lock.Get(ctx)
		require.NoError(t, err)
		record := resourcelock.LeaderElectionRecord{HolderIdentity: "a"}
		require.NoError(t, lock.Update(ctx, record))
		log, open := blocking()
		defer open()
		begin := time.Now()
		require.NoError(t, lock.Update(klog.NewContext(ctx, log), record))
		require.Less(t, time.Since(begin), 6*time.Second, "half of the time that ctx leaves it")
		require.NoError(t, lock.Update(context.Background(), resourcelock.LeaderElectionRecord{}))
		require.Empty(t, *f.lease().Spec.HolderIdentity)
	})
}

func TestWithAnOnOverrunOfItsOwnTheProcessIsNotEnded(t *testing.T) {
	inFleet(t, func(f *fleet) {
		defer leaderelection.SetExit(func(int) { t.Error("exits") })()
		overrun, end := make(chan time.Time, 1), make(chan struct{})
		defer close(end)
		a := f.start("a", func(p *program) {
			p.work = func(ctx context.Context) { <-ctx.Done(); <-end }
			p.options = func(o *elector.Options) { o.OnOverrun = func(elector.Term) { overrun <- time.Now() } }
		})
		f.await(time.Second, nil)
		f.pass(10 * time.Second)
		asked := time.Now()
		a.stop()
		took := (<-overrun).Sub(asked)
		require.Greater(t, took, 13750*time.Millisecond) // a DrainLimit of 5 s, and an ordinary loss
		require.Less(t, took, 19*time.Second)
	})
}

func TestAfterStepDownTheLeaseIsKeptWhileWorkDrains(t *testing.T) {
	inFleet(t, func(f *fleet) {
		a := f.start("a", drains(time.Minute), limits(0))
		f.await(time.Second, nil)
		b := f.start("b")
		f.pass(10 * time.Second)
		require.NoError(t, a.lock.Elector().StepDown(f.Context()))
		f.await(time.Second, a)
		require.Less(t, b.at(&b.began).Sub(a.at(&a.ended)), 50*time.Millisecond)
	})
}

func TestADrainWithoutALimitKeepsTheLeaseAndIsSeenInStatus(t *testing.T) {
	inFleet(t, func(f *fleet) {
		hang, exited := hangs(t, f)
		a := f.start("a", hang, limits(0))
		f.await(time.Second, nil)
		f.start("b")
		f.pass(10 * time.Second)
		a.stop()
		stopped := time.Now()
		f.pass(time.Hour)
		require.False(t, exited())
		require.Equal(t, a, f.leader())
		require.WithinDuration(t, stopped, a.lock.Elector().Status().Draining, time.Second)
		a.client.Partition(electortest.Both) // so that it ends
		f.await(30*time.Second, a)
	})
}

// A process cannot die in virtual time, so a dead one's file is put in place.
func TestAProcessThatIsProvenDeadByStateDirIsNotWaitedFor(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, namespace+"_"+name+".lease")
	inFleet(t, func(f *fleet) {
		pod := func(p *program) { // with the name of its pod for an identity, as often with client-go
			p.options = func(o *elector.Options) { o.Identity, o.StateDir = "pod", dir }
		}
		dead := f.start("a", pod)
		f.await(time.Second, nil)
		f.pass(20 * time.Second)
		f.lenient = true // the dead one only falls silent
		dead.client.Partition(electortest.Both)
		require.NoError(t, lockfiletest.Inherit(file, file))
		begin := time.Now()
		again := f.start("b", pod)
		f.await(time.Second, dead)
		require.Less(t, again.at(&again.began).Sub(begin), 50*time.Millisecond)
	})
}

func TestOnNewLockOnOverrunIsCalledAfterALossUnlessTheProcessHasEnded(t *testing.T) {
	inFleet(t, func(f *fleet) {
		p := f.prepare("a")
		overrun := make(chan time.Time, 1)
		l, err := leaderelection.NewLock(p.client.CoordinationV1(), elector.Options{
			Namespace: namespace, Name: name, Identity: "a", OnOverrun: func(elector.Term) { overrun <- time.Now() },
		})
		require.NoError(t, err)
		p.lock, p.config.Lock = l, l
		p.config.RenewDeadline, p.config.RetryPeriod = leaderelection.LockRenewDeadline, leaderelection.LockRetryPeriod
		p.launch()
		f.await(time.Second, nil)
		f.pass(20 * time.Second)
		p.client.Partition(electortest.Both)
		renewed := f.lease().Spec.RenewTime.Time
		took := (<-overrun).Sub(renewed)
		require.InDelta(t, 13.75, took.Seconds(), 0.01)
		require.Error(t, l.Elector().Check(nil))
		p.client.Partition(electortest.NoPartition)
		f.pass(time.Minute)
		p.run() // a program that lives on: what was waited for is over
		f.await(time.Minute, nil)
		require.Equal(t, 2, int(p.terms.Load()))
	})
}

func TestWithoutReleaseOnCancelTheLeaseIsKeptWhileWorkDrains(t *testing.T) {
	inFleet(t, func(f *fleet) {
		a := f.start("a", drains(time.Minute), limits(0), func(p *program) { p.config.ReleaseOnCancel = false })
		f.await(time.Second, nil)
		b := f.start("b")
		f.pass(10 * time.Second)
		a.stop()
		<-a.done
		require.Equal(t, a, f.leader(), "client-go does not wait for it")
		f.await(2*time.Minute, a)
		took := b.at(&b.began).Sub(a.at(&a.ended))
		require.Greater(t, took, 11*time.Second, "not released")
		require.Less(t, took, 15100*time.Millisecond)
	})
}

func TestWithoutReleaseOnCancelTheLeaseIsKeptForASecondForWorkThatNeverAsks(t *testing.T) {
	inFleet(t, func(f *fleet) { // which fails when two work at once
		end := make(chan struct{})
		defer leaderelection.SetExit(func(int) { close(end) })()
		a := f.start("a", func(p *program) {
			p.config.ReleaseOnCancel = false
			p.work = func(context.Context) { <-end }
		})
		f.await(time.Second, nil)
		f.start("b")
		f.pass(10 * time.Second)
		begin := time.Now()
		log := logged(t)
		a.stop()
		f.await(time.Minute, a)
		require.Greater(t, time.Since(begin), 12*time.Second)
		require.Less(t, time.Since(begin), 16100*time.Millisecond)
		require.LessOrEqual(t, strings.Count(log(), "is tried again"), 5, "answers and refusals do not alternate")
	})
}

func TestAReleaseIsTriedForAsLongAsTheLeaseLasts(t *testing.T) {
	inFleet(t, func(f *fleet) {
		a := f.start("a")
		f.await(time.Second, nil)
		f.pass(20 * time.Second)
		renewed := f.lease().Spec.RenewTime.Time
		a.client.Intercept(func(electortest.Request) electortest.Fault { return electortest.Fault{Err: electortest.Unavailable()} })
		a.stop()
		f.pass(12*time.Second - time.Since(renewed)) // the term is over, and so is the work
		a.client.Intercept(nil)
		<-a.done
		require.Empty(t, *f.lease().Spec.HolderIdentity)
	})
}
