package leaderelection_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/elector-go/elector/electortest"
)

// One invariant: two never work at once, as long as the work stops within the stop budget once its ctx has ended. Run
// it longer with -count.
func TestUnderRandomFaultsTwoNeverWorkAtOnce(t *testing.T) {
	for i := range 12 {
		seed := rand.Uint64()
		if i == 0 {
			seed = 1
		}
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			inFleet(t, func(f *fleet) { simulate(f, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func simulate(f *fleet, random *rand.Rand) {
	const replicas = 4
	n := 0
	start := func() *program {
		n++
		drain := func(p *program) { p.drain = time.Duration(random.Int64N(int64(3 * time.Second))) }
		who := fmt.Sprint("r", n)
		switch random.IntN(3) {
		case 0:
			return f.start(who, drain, backgroundsUnlessReleased)
		case 1:
			return f.startOnLock(who, func(p *program) { // what NewLock cannot wait for has to stop at once
				p.config.ReleaseOnCancel = random.IntN(2) == 0
			})
		default:
			return f.start(who, drain, func(p *program) { p.config.ReleaseOnCancel = random.IntN(3) > 0 })
		}
	}
	var alive []*program
	for range replicas {
		alive = append(alive, start())
	}
	led := 0
	for end := time.Now().Add(2 * time.Hour); time.Now().Before(end); {
		f.pass(time.Duration(random.Int64N(int64(20 * time.Second))))
		if f.leader() != nil {
			led++
		}
		i := random.IntN(replicas)
		alive[i] = disturb(f, random, alive[i], start)
	}
	if led < 20 {
		f.Errorf("somebody led at %d moments only: the faults leave nothing to test", led)
	}
}

// backgroundsUnlessReleased works in a goroutine, which nobody can wait for, so it must not release.
func backgroundsUnlessReleased(p *program) {
	backgrounds(p)
	p.config.ReleaseOnCancel = false
}

// disturb does something to a replica, and returns the replica that takes its place.
func disturb(f *fleet, random *rand.Rand, p *program, start func() *program) *program {
	select {
	case <-p.done: // a loss has ended it
		return start()
	default:
	}
	switch random.IntN(7) {
	case 0:
		p.stop()
		return start()
	case 1:
		p.client.Partition(electortest.Partition(random.IntN(4)))
	case 2:
		p.client.Partition(electortest.NoPartition)
		p.client.Intercept(nil)
	case 3:
		p.client.Intercept(faults(random))
	case 4:
		p.client.CloseWatches()
		p.client.SilenceWatches(random.IntN(2) == 0)
	case 5:
		p.client.SetLatency(time.Duration(random.Int64N(int64(500 * time.Millisecond))))
	case 6:
		if random.IntN(4) == 0 {
			f.steal(fmt.Sprint("thief", random.IntN(100)))
		}
	}
	return p
}

func faults(random *rand.Rand) func(electortest.Request) electortest.Fault {
	errs := []error{electortest.Unavailable(), electortest.Timeout(), electortest.TooManyRequests(time.Second), electortest.InternalError()}
	share, err, after := random.Float64(), errs[random.IntN(len(errs))], random.IntN(2) == 0
	return func(electortest.Request) electortest.Fault {
		if rand.Float64() > share {
			return electortest.Fault{}
		}
		if after {
			return electortest.Fault{LoseReply: true}
		}
		return electortest.Fault{Err: err}
	}
}

// With Recovery what must not happen is a write through client-go's gate without a valid term.
func TestUnderRandomFaultsNoWritePassesTheGateWithoutAValidTerm(t *testing.T) {
	recovering := recovers(t, 0)
	short := recovers(t, 20*time.Second)
	for range 4 {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			inFleet(t, func(f *fleet) {
				f.lenient = true
				random, n := rand.New(rand.NewPCG(seed, 0)), 0
				start := func() *program {
					n++
					change := recovering
					if random.IntN(3) == 0 {
						change = short
					}
					return f.start(fmt.Sprint("r", n), change, drains(time.Second), func(p *program) { p.config.ReleaseOnCancel = random.IntN(3) > 0 })
				}
				alive := []*program{start(), start(), start()}
				written := 0
				for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); {
					f.gated(time.Duration(random.Int64N(int64(20*time.Second))), nil, alive...)
					for _, p := range alive {
						if p.writes() {
							written++
						}
					}
					i := random.IntN(len(alive))
					if alive[i].isRunning() && random.IntN(8) == 0 {
						alive[i].stop()
						<-alive[i].done
						alive[i].run()
						continue
					}
					alive[i] = disturb(f, random, alive[i], start)
				}
				if written < 10 {
					f.Errorf("somebody could write at %d moments only: the faults leave nothing to test", written)
				}
			})
		})
	}
}

func (p *program) isRunning() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}
