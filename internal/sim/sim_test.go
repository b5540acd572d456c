package sim

import (
	"flag"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	simSeed   = flag.Uint64("sim.seed", 0, "run this seed only")
	simFirst  = flag.Uint64("sim.first", 1, "the first seed to run")
	simSeeds  = flag.Uint64("sim.seeds", 60, "how many seeds to run")
	simHours  = flag.Float64("sim.hours", 1, "simulated hours for each seed")
	simShrink = flag.Bool("sim.shrink", false, "take faults away from a seed that fails, for as long as it still does")
)

func length() time.Duration { return time.Duration(*simHours * float64(time.Hour)) }

// TestSimulation plays the plans of many seeds, and fails with the timeline of each seed that breaks a promise.
func TestSimulation(t *testing.T) {
	first, last := *simFirst, *simFirst+*simSeeds-1
	if *simSeed != 0 {
		first, last = *simSeed, *simSeed
	}
	begin := cpu()
	var sum Tally
	sum.Excused = map[string]int{}
	failed := 0
	var played time.Duration
	each(first, last, func(seed uint64, r Result) {
		sum.add(r.Tally)
		played += r.Length
		if r.Failure == nil {
			return
		}
		if failed++; failed <= 5 {
			report(t, seed, r)
		}
	})
	used := cpu() - begin
	t.Logf("%.1f hours, %.1f a second of CPU; %+v", played.Hours(), played.Hours()/used.Seconds(), sum)
	if failed > 0 {
		t.Errorf("%d of %d seeds failed", failed, last-first+1)
	}
}

// each plays the seeds on all processors, and calls f for one result after the other.
func each(first, last uint64, f func(seed uint64, r Result)) {
	var lock sync.Mutex
	var all sync.WaitGroup
	next := first
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for {
				lock.Lock()
				seed := next
				next++
				lock.Unlock()
				if seed > last {
					return
				}
				r := Run(NewPlan(seed, length()))
				lock.Lock()
				f(seed, r)
				lock.Unlock()
			}
		})
	}
	all.Wait()
}

func report(t *testing.T, seed uint64, r Result) {
	t.Helper()
	var b strings.Builder
	if *simShrink {
		var p *Plan
		p, r = Shrink(NewPlan(seed, length()), r)
		fmt.Fprintf(&b, "what is left of the plan (%d processes):\n", p.Size)
		for _, f := range p.Faults {
			fmt.Fprintln(&b, f)
		}
	}
	lines := 60
	if *simSeed != 0 {
		lines = timelineLength
	}
	t.Errorf("seed %d: %v\n%sthe last events:\n%sagain: go test ./internal/sim -run TestSimulation -sim.seed=%d -sim.hours=%v [-sim.shrink]",
		seed, r.Failure, b.String(), r.Timeline(lines), seed, *simHours)
}

func (t *Tally) add(o Tally) {
	t.Events += o.Events
	t.Steps += o.Steps
	t.Terms += o.Terms
	t.Requests += o.Requests
	t.Sleeps += o.Sleeps
	t.Faults += o.Faults
	t.Quiet += o.Quiet
	t.Resumed += o.Resumed
	for why, n := range o.Excused {
		t.Excused[why] += n
	}
}
