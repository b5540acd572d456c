package leaderelection_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientgo "k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/elector-go/elector/electortest"
	"github.com/elector-go/elector/leaderelection"
)

// A library is a package that a program imports as leaderelection.
type library struct {
	runOrDie         func(ctx context.Context, config leaderelection.LeaderElectionConfig)
	newLeaderElector func(config leaderelection.LeaderElectionConfig) (*leaderelection.LeaderElector, error)
}

var (
	ours = library{
		func(ctx context.Context, config leaderelection.LeaderElectionConfig) {
			leaderelection.RunOrDie(ctx, config)
		},
		func(config leaderelection.LeaderElectionConfig) (*leaderelection.LeaderElector, error) {
			return leaderelection.NewLeaderElector(config)
		},
	}
	theirs = library{clientgo.RunOrDie, clientgo.NewLeaderElector}
)

// shapes are the ways in which programs elect, each until its ctx ends.
var shapes = map[string]func(ctx context.Context, lib library, p *program){
	"a loop of RunOrDie": func(ctx context.Context, lib library, p *program) {
		for ctx.Err() == nil {
			lib.runOrDie(ctx, p.config)
		}
	},
	"a loop of NewLeaderElector": func(ctx context.Context, lib library, p *program) {
		for ctx.Err() == nil {
			le, err := lib.newLeaderElector(p.config)
			require.NoError(p.f, err)
			le.Run(ctx)
		}
	},
	"a loop of Run": func(ctx context.Context, lib library, p *program) {
		le, err := lib.newLeaderElector(p.config)
		require.NoError(p.f, err)
		for ctx.Err() == nil {
			le.Run(ctx)
		}
	},
	"Run in OnStoppedLeading": func(ctx context.Context, lib library, p *program) {
		var le *leaderelection.LeaderElector
		p.config.Callbacks.OnStoppedLeading = func() {
			if ctx.Err() == nil {
				le.Run(ctx)
			}
		}
		le, err := lib.newLeaderElector(p.config)
		require.NoError(p.f, err)
		le.Run(ctx)
	},
	"Run in a goroutine of OnStoppedLeading": func(ctx context.Context, lib library, p *program) {
		var le *leaderelection.LeaderElector
		over := make(chan struct{})
		p.config.Callbacks.OnStoppedLeading = func() {
			if ctx.Err() == nil {
				go le.Run(ctx)
			} else {
				close(over)
			}
		}
		le, err := lib.newLeaderElector(p.config)
		require.NoError(p.f, err)
		le.Run(ctx)
		<-over
	},
	"two elections": func(ctx context.Context, lib library, p *program) {
		other := p.config
		other.Lock = &resourcelock.LeaseLock{
			LeaseMeta: p.config.Lock.(*resourcelock.LeaseLock).LeaseMeta, Client: p.client.CoordinationV1(), LockConfig: p.config.Lock.(*resourcelock.LeaseLock).LockConfig,
		}
		other.Lock.(*resourcelock.LeaseLock).LeaseMeta.Name = "other"
		other.Callbacks.OnStartedLeading = func(ctx context.Context) { <-ctx.Done() }
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				lib.runOrDie(ctx, other)
			}
		}()
		for ctx.Err() == nil {
			lib.runOrDie(ctx, p.config)
		}
		<-done
	},
}

// elects starts a replica of a shape.
func (f *fleet) elects(who string, lib library, shape func(ctx context.Context, lib library, p *program), change ...func(p *program)) *program {
	p := f.prepare(who, change...)
	ctx, stop := context.WithCancel(f.Context())
	p.stop = stop
	f.replicas = append(f.replicas, p)
	go func() { defer close(p.done); shape(ctx, lib, p) }()
	return p
}

func TestProgramsOfEachShapeMoveOverByTheImportAlone(t *testing.T) {
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			inFleet(t, func(f *fleet) { // which fails when two work at once
				start := func(who string) *program { return f.elects(who, ours, shape, drains(2*time.Second)) }
				a := start("a")
				f.await(time.Second, nil)
				b := start("b")
				f.pass(20 * time.Second)
				f.steal("thief") // whose Lease expires
				f.pass(3 * time.Second)
				require.True(t, f.leader() == nil)
				require.False(t, a.at(&a.ended).IsZero())
				first := f.await(20*time.Second, nil)
				f.pass(20 * time.Second)
				first.stop()
				second := map[*program]*program{a: b, b: a}[first]
				require.Equal(t, second, f.await(3*time.Second, first))
				require.Less(t, second.at(&second.began).Sub(first.at(&first.ended)), 50*time.Millisecond)
				<-first.done
			})
		})
	}
}

// A process that goes on after a loss leads again when its Lease expires at the latest. Client-go takes a record of its own
// name for its own at once, but it asks every 2 to 4.4 s only.
func TestAfterAnOutageAProgramOfEachShapeLeadsAgain(t *testing.T) {
	for name, shape := range shapes {
		for released, change := range map[string]func(p *program){
			"released": func(*program) {}, "not released": func(p *program) { p.config.ReleaseOnCancel = false },
		} {
			t.Run(name+"/"+released, func(t *testing.T) {
				took := func(lib library) (after time.Duration) {
					inFleet(t, func(f *fleet) {
						a := f.elects("a", lib, shape, change)
						f.await(6*time.Second, nil)
						f.pass(20 * time.Second)
						a.client.Intercept(func(electortest.Request) electortest.Fault { return electortest.Fault{Err: electortest.Unavailable()} })
						renewed := f.lease().Spec.RenewTime.Time
						f.pass(13*time.Second - time.Since(renewed))
						require.True(f, f.leader() == nil)
						a.client.Intercept(nil)
						healed := time.Now()
						f.await(30*time.Second, nil)
						after = a.at(&a.began).Sub(healed)
					})
					return after
				}
				with, without := took(ours), took(theirs)
				t.Logf("the API is away for 13 s; from its return to the next term: %v, client-go %v", with, without)
				require.Less(t, with, 2100*time.Millisecond)
			})
		}
	}
}
