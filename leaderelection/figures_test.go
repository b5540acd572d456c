package leaderelection_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector/electortest"
	"github.com/elector-go/elector/leaderelection"
)

type starter func(f *fleet, who string) *program

var starters = []struct {
	name  string
	start starter
}{
	{"Upgrade", func(f *fleet, who string) *program { return f.start(who) }},
	{"NewLock", func(f *fleet, who string) *program { return f.startOnLock(who) }},
}

// clientGo is what the figures are compared with.
func clientGo(f *fleet, who string) *program { return f.startClientGo(who) }

// handOvers measures clean stops: from the end of the work of one to the beginning of that of the next.
func handOvers(f *fleet, start starter, times int) (took []time.Duration) {
	for i := range 3 {
		start(f, fmt.Sprint("first-", i))
	}
	old := f.await(time.Minute, nil)
	for i := range times {
		f.pass(time.Duration(1000+i*137) * time.Millisecond)
		old.stop()
		next := f.await(time.Minute, old)
		<-old.done
		took = append(took, next.at(&next.began).Sub(old.at(&old.ended)))
		start(f, fmt.Sprint("next-", i))
		old = next
	}
	slices.Sort(took)
	return took
}

func TestACleanStopHandsOverInMilliseconds(t *testing.T) {
	for _, s := range starters {
		t.Run(s.name, func(t *testing.T) {
			inFleet(t, func(f *fleet) {
				took := handOvers(f, s.start, 40)
				t.Logf("clean stop, 40 times: median %v, worst %v", took[20], took[39])
				require.Less(t, took[39], 50*time.Millisecond)
			})
		})
	}
	t.Run("client-go", func(t *testing.T) {
		inFleet(t, func(f *fleet) {
			f.lenient = true
			took := handOvers(f, clientGo, 40)
			t.Logf("client-go's own lock: median %v, worst %v", took[20], took[39])
		})
	})
}

func TestACrashedLeaderIsFollowedWhenItsLeaseExpires(t *testing.T) {
	for _, s := range starters {
		t.Run(s.name, func(t *testing.T) {
			inFleet(t, func(f *fleet) {
				for _, who := range []string{"a", "b", "c"} {
					s.start(f, who)
				}
				old := f.await(time.Minute, nil)
				f.pass(17 * time.Second)
				f.lenient = true // a crash is simulated by a silent client
				old.client.Partition(electortest.Both)
				renewed := f.lease().Spec.RenewTime.Time
				old.stop()
				next := f.await(time.Minute, old)
				took := next.at(&next.began).Sub(renewed)
				t.Logf("last renewal to next leader: %v", took)
				require.Less(t, took, 15100*time.Millisecond)
				require.Greater(t, took, 14900*time.Millisecond)
			})
		})
	}
}

func TestAStandbySendsNothing(t *testing.T) {
	for _, s := range starters {
		t.Run(s.name, func(t *testing.T) {
			inFleet(t, func(f *fleet) {
				f.api.SetWatchLifetime(time.Hour, 2*time.Hour) // a watch opened anew comes with a GET
				s.start(f, "a")
				f.await(time.Minute, nil)
				for i := range 5 {
					s.start(f, fmt.Sprint("standby-", i))
				}
				f.pass(time.Minute)
				f.api.ResetRequests()
				f.pass(10 * time.Minute)
				leader, standbys := 0, 0
				for _, verb := range []string{"get", "create", "update", "list"} {
					leader += f.api.Requests("a", verb)
					for i := range 5 {
						standbys += f.api.Requests(fmt.Sprint("standby-", i), verb)
					}
				}
				t.Logf("requests in 10 minutes: leader %d, 5 standbys %d", leader, standbys)
				require.Zero(t, standbys)
				require.InDelta(t, 300, leader, 10)
			})
		})
	}
}

// forbidden makes a program that may not watch, with the durations that OpenShift's operators have, or shorter ones.
func forbidden(leaseDuration, renewDeadline, retryPeriod time.Duration) func(p *program) {
	return func(p *program) {
		p.client.ForbidWatch(true)
		p.config.LeaseDuration, p.config.RenewDeadline, p.config.RetryPeriod = leaseDuration, renewDeadline, retryPeriod
	}
}

func TestWithoutTheRightToWatchNoMoreIsAskedThanByClientGo(t *testing.T) {
	for name, change := range map[string]func(p *program){
		"15, 10, 2 s": forbidden(15*time.Second, 10*time.Second, 2*time.Second), "40, 30, 10 s": forbidden(40*time.Second, 30*time.Second, 10*time.Second),
		"137, 107, 26 s": forbidden(137*time.Second, 107*time.Second, 26*time.Second),
	} {
		count := func(start func(f *fleet, who string, change ...func(p *program)) *program) (leader, standby, watches int) {
			inFleet(t, func(f *fleet) {
				start(f, "leader", change)
				f.await(time.Minute, nil)
				start(f, "standby", change)
				f.pass(20 * time.Minute) // what is refused is tried ever later
				f.api.ResetRequests()
				f.pass(time.Hour)
				watches = max(f.api.Requests("leader", "watch"), f.api.Requests("standby", "watch"))
				leader, standby = f.api.Requests("leader", ""), f.api.Requests("standby", "")
			})
			return leader, standby, watches
		}
		leader, standby, watches := count((*fleet).start)
		theirLeader, theirStandby, _ := count((*fleet).startClientGo)
		t.Logf("%s, requests in an hour: leader %d, standby %d, each with %d watches; client-go %d, %d", name, leader, standby, watches, theirLeader, theirStandby)
		require.LessOrEqual(t, watches, 4, "one each quarter of an hour")
		require.LessOrEqual(t, leader-watches, theirLeader*101/100, "client-go counts RetryPeriod from the answer")
		require.LessOrEqual(t, standby-watches, theirStandby*11/10, "both wait for a random time")
	}
}

func TestWithoutTheRightToWatchAHandOverIsNoSlowerThanClientGos(t *testing.T) {
	change := forbidden(137*time.Second, 107*time.Second, 26*time.Second)
	mean := func(start func(f *fleet, who string, change ...func(p *program)) *program) (mean time.Duration) {
		inFleet(t, func(f *fleet) {
			f.lenient = true
			for _, took := range handOvers(f, func(f *fleet, who string) *program { return start(f, who, change) }, 200) {
				mean += took / 200
			}
		})
		return mean
	}
	ours, theirs := mean((*fleet).start), mean((*fleet).startClientGo)
	t.Logf("clean stop without watch, RetryPeriod 26 s: mean of 200 %v, client-go %v", ours, theirs)
	require.LessOrEqual(t, ours, theirs*6/5, "each is a mean of random waits")
}

func TestALossIsActedOnBeforeTheStopBudgetIsTouched(t *testing.T) {
	for _, s := range starters {
		for kind, cut := range map[string]func(p *program){
			"silence": func(p *program) { p.client.Partition(electortest.Both) },
			"errors": func(p *program) {
				p.client.Intercept(func(electortest.Request) electortest.Fault {
					return electortest.Fault{Err: electortest.Unavailable()}
				})
			},
		} {
			t.Run(s.name+"/"+kind, func(t *testing.T) {
				inFleet(t, func(f *fleet) {
					leader := s.start(f, "a")
					f.await(time.Minute, nil)
					f.pass(20 * time.Second)
					cut(leader)
					renewed := f.lease().Spec.RenewTime.Time
					f.pass(30 * time.Second)
					took := leader.at(&leader.told).Sub(renewed)
					t.Logf("last renewal to the end of the work's context: %v", took)
					require.Positive(t, took)
					require.LessOrEqual(t, took, 10*time.Second+time.Millisecond) // the Lease's times are cut to milliseconds
				})
			})
		}
		t.Run(s.name+"/taken over", func(t *testing.T) {
			inFleet(t, func(f *fleet) {
				leader := s.start(f, "a")
				f.await(time.Minute, nil)
				f.pass(20 * time.Second)
				f.steal("thief")
				at := time.Now()
				f.pass(30 * time.Second)
				took := leader.at(&leader.told).Sub(at)
				t.Logf("another holder to the end of the work's context: %v", took)
				require.Positive(t, took)
				require.Less(t, took, leaderelection.LockRenewDeadline+2*leaderelection.LockRetryPeriod)
			})
		})
	}
}
