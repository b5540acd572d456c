package leaderelection_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	clientgo "k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
	"github.com/elector-go/elector/leaderelection"
)

func TestMain(m *testing.M) {
	leaderelection.SetProvider(provider{})
	os.Exit(m.Run())
}

func each(t *testing.T, test func(f *fleet, start starter)) {
	for _, s := range starters {
		t.Run(s.name, func(t *testing.T) { inFleet(t, func(f *fleet) { test(f, s.start) }) })
	}
}

func TestAFreeLeaseIsAcquiredAndRenewed(t *testing.T) {
	each(t, func(f *fleet, start starter) {
		a := start(f, "a")
		f.await(time.Second, nil)
		require.True(f, a.elector.IsLeader())
		require.Equal(f, "a", *f.lease().Spec.HolderIdentity)
		require.EqualValues(f, 15, *f.lease().Spec.LeaseDurationSeconds)
		f.pass(10 * time.Minute)
		require.Equal(f, 1, int(a.terms.Load()))
		require.WithinDuration(f, time.Now(), f.lease().Spec.RenewTime.Time, 4*time.Second)
	})
}

func TestAHeldLeaseIsLeftAloneUntilItExpires(t *testing.T) {
	each(t, func(f *fleet, start starter) {
		f.makeLease("somebody", 20)
		begin := time.Now()
		a := start(f, "a")
		f.await(time.Minute, nil)
		took := a.at(&a.began).Sub(begin)
		require.Greater(f, took, 20*time.Second)
		require.Less(f, took, 20100*time.Millisecond)
	})
}

func TestEachNewLeaderIsReportedToEveryReplica(t *testing.T) {
	each(t, func(f *fleet, start starter) {
		a := start(f, "a")
		f.await(time.Second, nil)
		b := start(f, "b")
		f.pass(time.Second)
		require.Equal(f, "a", b.elector.GetLeader())
		require.False(f, b.elector.IsLeader())
		a.stop()
		f.await(time.Second, a)
		f.steal("thief")
		f.pass(time.Minute)
		require.Equal(f, []string{"a"}, a.leaders[:1])
		require.Equal(f, []string{"a", "b", "thief"}, b.leaders)
		require.Equal(f, "thief", b.elector.GetLeader())
		require.False(f, b.elector.IsLeader())
	})
}

func TestAReleasedLeaseIsFreeWhenRunHasReturned(t *testing.T) {
	each(t, func(f *fleet, start starter) {
		a := start(f, "a")
		f.await(time.Second, nil)
		f.pass(time.Minute)
		a.stop()
		<-a.done
		require.Empty(f, *f.lease().Spec.HolderIdentity)
		require.False(f, a.elector.IsLeader())
		require.False(f, a.stopped.IsZero())
	})
}

func TestAStandbyThatIsStoppedEndsAtOnceAndWritesNothing(t *testing.T) {
	each(t, func(f *fleet, start starter) {
		start(f, "a")
		f.await(time.Second, nil)
		b := start(f, "b")
		f.pass(time.Second)
		f.api.ResetRequests()
		begin := time.Now()
		b.stop()
		<-b.done
		require.Less(f, time.Since(begin), 100*time.Millisecond)
		require.Zero(f, f.api.Requests("b", "update"))
		require.Equal(f, 0, int(b.terms.Load()))
		require.False(f, b.stopped.IsZero(), "OnStoppedLeading is called whenever Run ends")
	})
}

func TestAStandbyThatIsStoppedLogsNoError(t *testing.T) {
	each(t, func(f *fleet, start starter) {
		start(f, "a")
		f.await(time.Second, nil)
		b := start(f, "b")
		f.pass(time.Second)
		log := logged(f.T)
		b.stop()
		<-b.done
		for line := range strings.Lines(log()) {
			require.NotEqual(f, "E", line[:1], line)
		}
	})
}

func TestACampaignThatIsStoppedAtAnyMomentLeavesNoLeaseBehind(t *testing.T) {
	each(t, func(f *fleet, start starter) {
		for i := range 60 {
			a := start(f, "a")
			time.Sleep(time.Duration(i) * 333 * time.Microsecond)
			a.stop()
			<-a.done
			lease, err := f.api.Client("kubectl").CoordinationV1().Leases(namespace).Get(f.Context(), name, metav1.GetOptions{})
			if err == nil {
				require.Empty(f, ptr.Deref(lease.Spec.HolderIdentity, ""), "stopped after %d thirds of a millisecond", i)
			}
		}
	})
}

func TestALossEndsRunAndRunMayBeCalledAgain(t *testing.T) {
	each(t, func(f *fleet, start starter) {
		a := start(f, "a")
		f.await(time.Second, nil)
		f.pass(20 * time.Second)
		f.steal("thief")
		begin := time.Now()
		<-a.done
		require.Less(f, time.Since(begin), leaderelection.LockRenewDeadline+2*leaderelection.LockRetryPeriod)
		f.pass(time.Second)
		require.Equal(f, 1, int(a.terms.Load()))
		a.run()
		f.await(16*time.Second, nil)
		require.Equal(f, 2, int(a.terms.Load()))
	})
}

// leads has a lock lead, as client-go does it.
func (f *fleet) leads(client *electortest.Client) *leaderelection.Lock {
	l, err := leaderelection.NewLock(client.CoordinationV1(), elector.Options{Namespace: namespace, Name: name, Identity: "a"})
	require.NoError(f, err)
	record, _, err := l.Get(f.Context())
	require.NoError(f, err)
	require.Empty(f, record.HolderIdentity)
	require.NoError(f, l.Update(f.Context(), resourcelock.LeaderElectionRecord{HolderIdentity: "a"}))
	return l
}

func unavailable(electortest.Request) electortest.Fault {
	return electortest.Fault{Err: electortest.Unavailable()}
}

// Else client-go would take the next term for the one that it has lost.
func TestGetBeginsNoCampaignBeforeClientGoHasStopped(t *testing.T) {
	inFleet(t, func(f *fleet) {
		client := f.api.Client("a")
		l := f.leads(client)
		client.Intercept(unavailable)
		f.pass(20 * time.Second) // the term is lost, and the Elector is through with it
		client.Intercept(nil)
		_, _, err := l.Get(f.Context())
		require.ErrorIs(f, err, elector.ErrNotLeader)
		l.RecordEvent("stopped leading")
		ctx, stop := context.WithTimeout(f.Context(), time.Hour)
		record, _, err := l.Get(ctx)
		require.NoError(f, err)
		require.Empty(f, record.HolderIdentity)
		stop()
		f.pass(time.Second)
	})
}

// Client-go asks for a release before it ends the context of the callback, and it may not have heard of a loss.
func TestALostTermIsNotReleased(t *testing.T) {
	inFleet(t, func(f *fleet) {
		client := f.api.Client("a")
		l := f.leads(client)
		client.Intercept(unavailable)
		f.pass(12 * time.Second)
		require.ErrorIs(f, l.Update(f.Context(), resourcelock.LeaderElectionRecord{}), elector.ErrNotLeader)
		l.RecordEvent("stopped leading")
		client.Intercept(nil)
		f.pass(time.Second)
		require.Equal(f, "a", *f.lease().Spec.HolderIdentity)
		f.pass(time.Minute)
	})
}

// Client-go's own lock does that too: it takes its own record up again.
func TestALeaseThatWasNotReleasedIsTakenUpAgainByTheSameReplica(t *testing.T) {
	keeps := func(p *program) { p.config.ReleaseOnCancel = false }
	for name, start := range map[string]func(f *fleet) *program{
		"Upgrade": func(f *fleet) *program { return f.start("a", keeps) },
		"NewLock": func(f *fleet) *program { return f.startOnLock("a", keeps) },
	} {
		for _, after := range []time.Duration{time.Millisecond, 6 * time.Second} {
			t.Run(name+"/"+after.String(), func(t *testing.T) {
				inFleet(t, func(f *fleet) {
					a := start(f)
					f.await(time.Second, nil)
					b := f.start("b")
					f.pass(20 * time.Second)
					a.stop()
					<-a.done
					f.pass(after)
					a.run()
					f.await(time.Second, nil)
					require.Zero(f, int(b.terms.Load()))
					require.Equal(f, 2, int(a.terms.Load()))
					f.pass(time.Minute)
					require.Equal(f, 2, int(a.terms.Load()))
					require.Equal(f, "a", *f.lease().Spec.HolderIdentity)
				})
			})
		}
	}
}

func TestWithoutReleaseOnCancelTheLeaseExpires(t *testing.T) {
	keeps := func(p *program) { p.config.ReleaseOnCancel = false }
	for name, start := range map[string]func(f *fleet) *program{
		"Upgrade": func(f *fleet) *program { return f.start("a", keeps) },
		"NewLock": func(f *fleet) *program { return f.startOnLock("a", keeps) },
	} {
		t.Run(name, func(t *testing.T) {
			inFleet(t, func(f *fleet) {
				a := start(f)
				f.await(time.Second, nil)
				f.pass(20 * time.Second)
				b := f.start("b")
				f.pass(time.Second)
				a.stop()
				<-a.done
				renewed := f.lease().Spec.RenewTime.Time
				require.Equal(f, "a", *f.lease().Spec.HolderIdentity)
				f.await(time.Minute, a)
				took := b.at(&b.began).Sub(renewed)
				require.Greater(f, took, 14900*time.Millisecond)
				require.Less(f, took, 15100*time.Millisecond)
			})
		})
	}
}

func TestTheHealthAdaptorFailsOnlyForALeaderThatDoesNotGetOn(t *testing.T) {
	each(t, func(f *fleet, start starter) {
		healthy := leaderelection.NewLeaderHealthzAdaptor(20 * time.Second)
		a := start(f, "a")
		healthy.SetLeaderElection(a.elector)
		f.await(time.Second, nil)
		f.pass(10 * time.Minute)
		require.NoError(f, healthy.Check(nil), "leading")
		standby := leaderelection.NewLeaderHealthzAdaptor(20 * time.Second)
		standby.SetLeaderElection(start(f, "b").elector)
		f.pass(10 * time.Minute)
		require.NoError(f, standby.Check(nil), "standing by")
	})
}

func TestClientGosMetricsSayWhoLeads(t *testing.T) {
	each(t, func(f *fleet, start starter) {
		gauge.reset()
		a := start(f, "a")
		require.Equal(f, 0, gauge.value())
		f.await(time.Second, nil)
		f.pass(time.Second)
		require.Equal(f, 1, gauge.value())
		f.steal("thief")
		<-a.done
		require.Equal(f, 0, gauge.value())
	})
}

func TestSeveralElectionsInOneProcessDoNotTouchEachOther(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.lenient = true // two work: that is the point
		named := func(name string) func(p *program) {
			return func(p *program) { p.config.Lock.(*resourcelock.LeaseLock).LeaseMeta.Name = name }
		}
		one, two := f.start("a", named("one")), f.start("a", named("two"))
		f.pass(time.Minute)
		require.True(f, one.elector.IsLeader() && two.elector.IsLeader())
		one.stop()
		<-one.done
		f.pass(time.Minute)
		require.True(f, two.elector.IsLeader())
		require.Equal(f, 1, int(two.terms.Load()))
	})
}

func TestUpgradesContextCarriesTheTermAndTheReasonOfItsEnd(t *testing.T) {
	inFleet(t, func(f *fleet) {
		var term elector.Term
		var cause error
		f.start("a", func(p *program) {
			p.work = func(ctx context.Context) {
				term, _ = elector.TermFrom(ctx)
				require.True(f, term.Valid())
				<-ctx.Done()
				cause = context.Cause(ctx)
			}
		})
		f.await(time.Second, nil)
		f.steal("thief")
		f.pass(time.Second)
		require.False(f, term.Valid())
		var lost *elector.LostError
		require.ErrorAs(f, cause, &lost)
		require.Equal(f, "thief", lost.Holder)
	})
}

func TestEventsAreRecordedOnTheLease(t *testing.T) {
	inFleet(t, func(f *fleet) {
		recorder := &recorder{}
		a := f.start("a", func(p *program) { p.config.Lock.(*resourcelock.LeaseLock).LockConfig.EventRecorder = recorder })
		f.await(time.Second, nil)
		a.stop()
		<-a.done
		require.Equal(f, []string{"a became leader", "a stopped leading: asked to stop"}, recorder.all())
	})
}

func TestMixedFleetsWithClientGosOwnLockHandOverBothWays(t *testing.T) {
	each(t, func(f *fleet, start starter) {
		old := f.startClientGo("old")
		f.await(time.Second, nil)
		ours := start(f, "ours")
		f.pass(time.Minute)
		old.stop()
		require.Equal(f, ours, f.await(50*time.Millisecond, old))
		back := f.startClientGo("back")
		f.pass(time.Minute)
		ours.stop()
		require.Equal(f, back, f.await(5*time.Second, ours))
	})
}

func TestStepDownEndsClientGosTermBeforeAnotherLeads(t *testing.T) {
	each(t, func(f *fleet, start starter) {
		a := start(f, "a")
		f.await(time.Second, nil)
		start(f, "b")
		f.pass(10 * time.Second)
		ctx, cancel := context.WithTimeout(f.Context(), time.Minute)
		defer cancel()
		_ = a.lock.Elector().StepDown(ctx)
		f.await(20*time.Second, a)
		<-a.done
	})
}

func TestAllMistakesAreReportedAtOnce(t *testing.T) {
	leases := electortest.NewServer().Client("a").CoordinationV1()
	for name, c := range map[string]struct {
		made func() error
		want []string
	}{
		"NewLock": {
			func() error {
				_, err := leaderelection.NewLock(nil, elector.Options{Namespace: "shop", Run: func(context.Context) error { return nil }, LeaseDuration: time.Millisecond})
				return err
			}, []string{"leases: required", "Options.Run: must be nil", "Options.Name", "Options.LeaseDuration"},
		},
		"NewLockForConfig": {
			func() error {
				_, err := leaderelection.NewLockForConfig(nil, elector.Options{Run: func(context.Context) error { return nil }})
				return err
			}, []string{"cfg: required", "Options.Run: must be nil", "Options.Name"},
		},
		"Upgrade of nothing": {
			func() error {
				_, err := leaderelection.Upgrade(leaderelection.LeaderElectionConfig{Coordinated: true, LeaseDuration: 500 * time.Millisecond})
				return err
			}, []string{"Lock: required", "Coordinated", "OnStartedLeading", "OnStoppedLeading", "LeaseDuration"},
		},
		"Upgrade without a client": {
			func() error {
				_, err := leaderelection.Upgrade(leaderelection.LeaderElectionConfig{Lock: &resourcelock.LeaseLock{}, Callbacks: callbacks})
				return err
			}, []string{"Lock.Client: required", "Lock.LeaseMeta.Name: required"},
		},
		"Upgrade of another lock": {
			func() error {
				_, err := leaderelection.Upgrade(leaderelection.LeaderElectionConfig{Lock: &resourcelock.MultiLock{}, Callbacks: callbacks})
				return err
			}, []string{"*resourcelock.MultiLock: must be a *resourcelock.LeaseLock"},
		},
		"Upgrade twice": {
			func() error {
				l, err := leaderelection.NewLock(leases, elector.Options{Namespace: "shop", Name: "n"})
				if err != nil {
					return nil
				}
				_, err = leaderelection.Upgrade(leaderelection.LeaderElectionConfig{Lock: l, Callbacks: callbacks})
				return err
			}, []string{"upgrade a config once"},
		},
		"Upgrade of an unnamed Lease": {
			func() error {
				_, err := leaderelection.Upgrade(leaderelection.LeaderElectionConfig{
					Lock: &resourcelock.LeaseLock{LeaseMeta: metav1.ObjectMeta{Namespace: "shop"}, Client: leases}, Callbacks: callbacks,
					LeaseDuration: time.Second, RenewDeadline: 2 * time.Second,
				})
				return err
			}, []string{"Lock.LeaseMeta.Name: required", "RenewDeadline: "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.made()
			require.Error(t, err)
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
}

// Who has changed the import path knows the fields of the config, and of a Lock's Options nothing.
func TestMistakesAreNamedByTheFieldsOfTheConfig(t *testing.T) {
	leases := electortest.NewServer().Client("a").CoordinationV1()
	_, err := leaderelection.Upgrade(leaderelection.LeaderElectionConfig{
		Lock:          &resourcelock.LeaseLock{LeaseMeta: metav1.ObjectMeta{Namespace: "a.b", Name: "X_y"}, Client: leases},
		LeaseDuration: 5 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: time.Millisecond,
		Callbacks: leaderelection.LeaderCallbacks{OnStoppedLeading: func() {}},
	}, func(o *elector.Options) {
		o.DrainLimit, o.RecoveryDeadline, o.StateDir = -1, -1, filepath.Join(t.TempDir(), "missing")
		o.Run = func(context.Context) error { return nil }
	})
	text, ok := strings.CutPrefix(err.Error(), "leaderelection: ")
	require.True(t, ok)
	mistakes := strings.Split(text, "\n")
	for i, says := range []string{
		"Callbacks.OnStartedLeading: required",
		"elector.Options.Run: must be nil",
		`Lock.LeaseMeta.Name: "X_y" is not an object name`,
		`Lock.LeaseMeta.Namespace: "a.b" is not a namespace's name`,
		"RenewDeadline: 10s: must be less than LeaseDuration (5s): the difference is the time OnStartedLeading has to stop",
		"elector.Options.RecoveryDeadline: ",
		"elector.Options.DrainLimit: ",
		"RetryPeriod: 1ms: must be",
		"elector.Options.StateDir: it must be a directory that exists",
	} {
		require.True(t, strings.HasPrefix(mistakes[i], says), mistakes[i])
	}
	require.Len(t, mistakes, 9)
}

// What a newer client-go adds must not be lost without a word.
func TestAFieldThatIsNotKnownIsRefusedByName(t *testing.T) {
	type config struct {
		Lock       resourcelock.Interface
		Succession *int
		WriteGate  bool
	}
	require.Empty(t, leaderelection.Unknown(config{Lock: &resourcelock.LeaseLock{}}))
	errs := leaderelection.Unknown(config{Succession: new(int), WriteGate: true})
	require.Len(t, errs, 2)
	require.EqualError(t, errs[0], `Succession: not supported yet: leave it out, or import "k8s.io/client-go/tools/leaderelection" in place of this package`)
	require.ErrorContains(t, errs[1], "WriteGate: not supported yet")
	require.Empty(t, leaderelection.Unknown(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{}, LeaseDuration: 1, RenewDeadline: 1, RetryPeriod: 1, Callbacks: callbacks, WatchDog: &leaderelection.HealthzAdaptor{},
		ReleaseOnCancel: true, Name: "n", Coordinated: true,
	}))
}

func TestUpgradeTakesDurationsThatClientGoTakes(t *testing.T) {
	leases := electortest.NewServer().Client("a").CoordinationV1()
	config := leaderelection.LeaderElectionConfig{
		Lock:          &resourcelock.LeaseLock{LeaseMeta: metav1.ObjectMeta{Namespace: "shop", Name: "n"}, Client: leases, LockConfig: resourcelock.ResourceLockConfig{Identity: "a"}},
		LeaseDuration: 15500 * time.Millisecond, RenewDeadline: 10 * time.Second, RetryPeriod: 8 * time.Second, Callbacks: callbacks,
	}
	upgraded, err := leaderelection.Upgrade(config)
	require.NoError(t, err)
	require.IsType(t, &resourcelock.LeaseLock{}, config.Lock, "the config given is not changed")
	require.Equal(t, 15*time.Second, upgraded.LeaseDuration)
	_, err = clientgo.NewLeaderElector(upgraded)
	require.NoError(t, err)
}

func TestNewLockForConfigChangesNothingInTheConfig(t *testing.T) {
	cfg := &rest.Config{Host: "https://127.0.0.1:1"}
	l, err := leaderelection.NewLockForConfig(cfg, elector.Options{Namespace: "shop", Name: "n", Identity: "a"})
	require.NoError(t, err)
	require.Nil(t, cfg.WrapTransport)
	require.Equal(t, "a", l.Identity())
	require.Equal(t, "shop/n", l.Describe())
	require.Equal(t, "a", l.Elector().Status().Identity)
	require.Error(t, l.Create(t.Context(), resourcelock.LeaderElectionRecord{}))
	require.ErrorIs(t, l.Update(t.Context(), resourcelock.LeaderElectionRecord{HolderIdentity: "a"}), elector.ErrNotLeader)
}

var callbacks = leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) {}, OnStoppedLeading: func() {}}

// provider is a leaderelection.MetricsProvider with one gauge for all.
type provider struct{}

func (provider) NewLeaderMetric() leaderelection.LeaderMetric { return &gauge }

var gauge leaderGauge

type leaderGauge struct {
	mu sync.Mutex
	on int
}

func (g *leaderGauge) On(string)                { g.mu.Lock(); defer g.mu.Unlock(); g.on = 1 }
func (g *leaderGauge) Off(string)               { g.mu.Lock(); defer g.mu.Unlock(); g.on = 0 }
func (g *leaderGauge) SlowpathExercised(string) {}
func (g *leaderGauge) reset()                   { g.Off("") }
func (g *leaderGauge) value() int               { g.mu.Lock(); defer g.mu.Unlock(); return g.on }

type recorder struct {
	mu     sync.Mutex
	events []string
}

func (r *recorder) Eventf(_ runtime.Object, _, _, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, strings.ReplaceAll(format, "%s", args[0].(string)))
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.events
}
