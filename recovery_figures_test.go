package elector_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector/electortest"
)

// A candidate of an outage: what elects, and how its client is cut off by silence.
type contender struct {
	name       string
	join       joiner
	restarts   bool // its process ends with its term, and is started again a second later
	recovers   bool
	moves      bool // leadership moves in some outages
	goesSilent func(c *electortest.Client)
}

var contenders = []contender{
	{name: "elector", join: ours, goesSilent: silence},
	{name: "elector, RecoveryDeadline", recovers: true, goesSilent: silence, join: func(w *world, who string, opts ...option) *replica {
		return w.join(who, append(opts, recovering(10*time.Minute))...)
	}},
	// Without a time-out of the client, client-go's standbys hang for good. The usual one is half of RenewDeadline.
	{name: "client-go", join: clientGo, restarts: true, moves: true, goesSilent: func(c *electortest.Client) {
		c.Intercept(electortest.On(electortest.Fault{After: 5 * time.Second, Err: electortest.Timeout()}))
		c.SilenceWatches(true)
	}},
}

// A recovery is what some outages have cost.
type recovery struct {
	runs, moves, lost, begun int
	back                     []time.Duration // from the API's return to a valid term
}

func (r *recovery) String() string {
	slices.Sort(r.back)
	return fmt.Sprintf("%2d of %d, %3d, %3d, %.2f s / %.2f s", r.moves, r.runs, r.lost, r.begun, median(r.back).Seconds(), worst(r.back).Seconds())
}

// outage lets three replicas live through one, and adds what it has cost.
func (r *recovery) outage(t *testing.T, c contender, o away, length time.Duration, dies bool, seed uint64) {
	cut := o.begin
	if o.name == "silence" {
		cut = c.goesSilent
	}
	inWorld(t, func(w *world) {
		w.lenient = true
		rng := rand.New(rand.NewPCG(seed, 1))
		var out, over atomic.Bool
		var dead atomic.Pointer[replica]
		var start func(pod, n int) *replica
		start = func(pod, n int) *replica {
			x := c.join(w, fmt.Sprintf("pod%d-%d", pod, n))
			if out.Load() {
				cut(x.client)
			}
			if c.restarts {
				go func() {
					<-x.done
					if time.Sleep(time.Second); !over.Load() && x != dead.Load() {
						start(pod, n+1)
					}
				}()
			}
			return x
		}
		for pod := range 3 {
			start(pod, 0)
		}
		time.Sleep(30*time.Second + time.Duration(rng.Int64N(int64(4*time.Second))))
		leader, before := w.leader(), len(w.spans())
		require.NotNil(w, leader)
		end := time.Now().Add(length)
		out.Store(true)
		for _, x := range w.everybody() {
			time.Sleep(time.Duration(rng.Int64N(int64(300 * time.Millisecond))))
			cut(x.client)
		}
		if dies {
			time.Sleep(length / 3)
			dead.Store(leader)
			leader.crash()
		}
		time.Sleep(time.Until(end))
		out.Store(false)
		for _, x := range w.everybody() {
			if x != dead.Load() {
				x.client.SilenceWatches(false)
				back(x.client)
			}
		}
		valid := func() bool { l := w.leader(); return l != nil && (l.el == nil || l.el.IsLeader()) }
		r.back = append(r.back, w.within(time.Minute, "a valid term", valid))
		r.runs++
		if w.leader().name[:4] != leader.name[:4] {
			r.moves++
		}
		time.Sleep(30 * time.Second)
		all := w.spans()
		r.begun += len(all) - before
		for _, s := range all[:before] {
			if !s.told.IsZero() {
				r.lost++
			}
		}
		over.Store(true)
		for _, x := range w.everybody() { // inWorld ends those that it finds, and no more may come
			x.client.Intercept(nil)
			x.client.Partition(electortest.NoPartition)
			x.stop()
			<-x.done
		}
		time.Sleep(2 * time.Second)
	})
}

var outagesEach = flag.Int("outages", 3, "how many outages of each kind TestFiguresOfOutages plays; the README's figures are of 20")

// TestFiguresOfOutages prints the README's figures of outages of the API for everybody, as TestFigures does.
func TestFiguresOfOutages(t *testing.T) {
	runs := *outagesEach
	t.Logf("%-26s %-32s %s", "", "outage, three replicas", "moves, terms lost, callbacks begun, valid after its end: median / worst")
	for _, dies := range []bool{false, true} {
		for _, o := range outages {
			for _, length := range []time.Duration{time.Minute, 5 * time.Minute} {
				for _, c := range contenders {
					r := &recovery{}
					for i := range runs {
						r.outage(t, c, o, length, dies, uint64(i))
					}
					what := fmt.Sprintf("%v of %s", length, o.name)
					if dies {
						what += ", leader dies"
					}
					t.Logf("%-26s %-32s %v", c.name, what, r)
					if c.moves {
						continue
					}
					assert.LessOrEqual(t, worst(r.back), 20*time.Second, "two attempts of RenewDeadline each: %s", what)
					if dies {
						continue
					}
					assert.Zero(t, r.moves, what)
					assert.LessOrEqual(t, worst(r.back), 2*time.Second, what)
					if c.recovers {
						assert.Zero(t, r.lost+r.begun, what)
					}
				}
			}
		}
	}
}
