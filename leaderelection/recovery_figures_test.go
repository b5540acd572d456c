package leaderelection_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector/electortest"
)

// outages are ways in which the API is away. For client-go silence ends with the client's time-out: half of RenewDeadline.
var outages = map[string]func(c *electortest.Client){
	"errors": func(c *electortest.Client) {
		c.Intercept(electortest.On(electortest.Fault{Err: electortest.Unavailable()}))
		c.CloseWatches()
	},
	"refusals": func(c *electortest.Client) {
		c.Intercept(func(r electortest.Request) electortest.Fault {
			return electortest.Fault{Err: electortest.Forbidden(r.Verb)}
		})
		c.CloseWatches()
	},
	"silence": func(c *electortest.Client) {
		c.Intercept(electortest.On(electortest.Fault{After: 5 * time.Second, Err: electortest.Timeout()}))
		c.SilenceWatches(true)
	},
}

// An awayCost is what some outages have cost.
type awayCost struct {
	moves, lost int
	back        []time.Duration // from the API's return to the first moment at which client-go's gate is open
}

// writer is a replica whose writes pass client-go's gate, nil if there is none.
func (f *fleet) writer() *program {
	for _, p := range f.replicas {
		if p.writes() {
			return p
		}
	}
	return nil
}

// runAgain begins each Run anew that has ended.
func (f *fleet) runAgain() {
	for _, p := range f.replicas {
		if !p.isRunning() {
			p.run()
		}
	}
}

// begun is how many terms have begun.
func (f *fleet) begun() (n int) {
	for _, p := range f.replicas {
		n += int(p.terms.Load())
	}
	return n
}

// outage lets three replicas live through one. A Run that has ended begins anew a second later.
func (o *awayCost) outage(t *testing.T, start func(f *fleet, who string, change ...func(p *program)) *program, begin func(c *electortest.Client), length time.Duration, seed uint64) {
	recovering := recovers(t, 0)
	inFleet(t, func(f *fleet) {
		f.lenient = true
		rng := rand.New(rand.NewPCG(seed, 2))
		var all []*program
		for i := range 3 {
			all = append(all, start(f, fmt.Sprint("pod", i), recovering))
		}
		f.pass(30*time.Second + time.Duration(rng.Int64N(int64(4*time.Second))))
		leader := f.writer()
		require.NotNil(f, leader)
		before := f.begun()
		for _, p := range all {
			f.pass(time.Duration(rng.Int64N(int64(300 * time.Millisecond))))
			begin(p.client)
		}
		for range int(length / time.Second) {
			f.pass(time.Second)
			f.runAgain()
		}
		for _, p := range all {
			p.client.Intercept(nil)
			p.client.SilenceWatches(false)
			p.client.CloseWatches()
		}
		healed := time.Now()
		for i := 1; f.writer() == nil; i++ {
			require.Less(f, time.Since(healed), time.Minute)
			f.pass(10 * time.Millisecond)
			if i%100 == 0 {
				f.runAgain()
			}
		}
		o.back = append(o.back, time.Since(healed))
		if f.writer() != leader {
			o.moves++
		}
		f.pass(20 * time.Second)
		if f.begun() > before {
			o.lost++
		}
	})
}

// TestFiguresOfOutagesWithRecovery prints the README's figures of client-go v0.38 with Recovery, and the same programs on
// this package:
//
//	sh internal/compat/recovery.sh v0.38.0-beta.0 -v -run TestFiguresOfOutagesWithRecovery
func TestFiguresOfOutagesWithRecovery(t *testing.T) {
	recovers(t, 0)
	const runs = 20
	for _, what := range []string{"errors", "refusals", "silence"} {
		for _, length := range []time.Duration{time.Minute, 5 * time.Minute} {
			for name, start := range map[string]func(f *fleet, who string, change ...func(p *program)) *program{"client-go": (*fleet).startClientGo, "leaderelection": (*fleet).start} {
				o := &awayCost{}
				for i := range runs {
					o.outage(t, start, outages[what], length, uint64(i))
				}
				slices.Sort(o.back)
				t.Logf("%-15s %4v of %-9s moves %2d of %d, terms lost %2d, the first write passes after %.2f s / %.2f s", name, length, what, o.moves, runs, o.lost, o.back[runs/2].Seconds(), o.back[runs-1].Seconds())
				if name != "client-go" {
					require.Zero(t, o.moves+o.lost)
					require.Less(t, o.back[runs-1], 6*time.Second, "a request of the outage may still wait for its time-out")
				}
			}
		}
	}
}
