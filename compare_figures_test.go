package elector_test

import (
	"fmt"
	"runtime"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector/electortest"
)

// A joiner starts a replica of one kind or the other, so that both are measured alike.
type joiner func(w *world, who string, opts ...option) *replica

var (
	ours     joiner = (*world).join
	clientGo joiner = (*world).joinClientGo
)

// measure runs f in a world of its own and returns what it measured.
func measure[T any](t *testing.T, lenient bool, f func(w *world) T) (result T) {
	inWorld(t, func(w *world) {
		w.lenient = lenient
		result = f(w)
	})
	return result
}

// again ends the leader of three replicas again and again, at different moments, and returns how long after the time
// that end returns the next leader led, in order of length.
func again(join joiner, times int, end func(w *world, l *replica) time.Time) func(w *world) []time.Duration {
	return func(w *world) (gaps []time.Duration) {
		for _, who := range []string{"a", "b", "c"} {
			join(w, who)
		}
		for i := range times {
			l := w.awaitLeader(time.Minute)
			time.Sleep(20*time.Second + time.Duration(i)*317*time.Millisecond)
			since := end(w, l)
			w.awaitLeader(time.Minute, l)
			gaps = append(gaps, w.last().begin.Sub(since))
			join(w, fmt.Sprintf("%s%d", l.name[:1], i))
		}
		slices.Sort(gaps)
		return gaps
	}
}

// handOvers stops leaders cleanly and returns the gaps from the end of one callback to the beginning of the next.
func handOvers(join joiner, times int) func(w *world) []time.Duration {
	return again(join, times, func(w *world, l *replica) (ended time.Time) {
		l.stop()
		<-l.done
		for _, s := range w.spans() {
			if s.who == l.name {
				ended = s.end
			}
		}
		return ended
	})
}

// takeovers crashes leaders and returns the times from the last renewal to the next leader.
func takeovers(join joiner, times int) func(w *world) []time.Duration {
	return again(join, times, func(w *world, l *replica) time.Time {
		renewed := w.lease().Spec.RenewTime.Time
		l.crash()
		return renewed
	})
}

// actsOn returns how long a leader goes on after another name was written into the Lease.
func actsOn(join joiner) func(w *world) time.Duration {
	return func(w *world) time.Duration {
		a := join(w, "a")
		w.awaitLeader(time.Minute)
		time.Sleep(time.Minute)
		w.kubectl(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = ptr.To("else") })
		return w.within(time.Minute, "the callback ends", func() bool { return w.leader() != a })
	}
}

type load struct{ leader, standby, all float64 }

// requests counts the requests a minute over an hour, of the leader, of the busiest standby and of all.
func requests(join joiner, replicas int) func(w *world) load {
	return func(w *world) (m load) {
		for i := range replicas {
			join(w, strings.Repeat("r", i+1))
		}
		l := w.awaitLeader(time.Minute)
		time.Sleep(time.Minute)
		w.api.ResetRequests()
		time.Sleep(time.Hour)
		for _, r := range w.replicas {
			n := float64(w.api.Requests(r.name, "")) / 60
			m.all += n
			if r == l {
				m.leader = n
			} else {
				m.standby = max(m.standby, n)
			}
		}
		return m
	}
}

// survives reports whether an outage costs no term, at whatever moment it begins.
func survives(join joiner, cut, heal func(c *electortest.Client), outage time.Duration) func(w *world) bool {
	return func(w *world) bool {
		a := join(w, "a")
		w.awaitLeader(time.Minute)
		for i := range 12 {
			time.Sleep(20*time.Second + time.Duration(i)*311*time.Millisecond)
			cut(a.client)
			time.Sleep(outage)
			heal(a.client)
			time.Sleep(5 * time.Second)
			if len(w.spans()) > 1 || w.leader() == nil {
				return false
			}
		}
		return true
	}
}

func (r *replica) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// The outages that figures are measured with, and their ends.
func silence(c *electortest.Client) { c.Partition(electortest.Both) }
func answers(c *electortest.Client) { c.Partition(electortest.NoPartition) }
func well(c *electortest.Client)    { c.Intercept(nil) }
func failing(c *electortest.Client) {
	c.Intercept(func(electortest.Request) electortest.Fault { return electortest.Fault{Err: electortest.Unavailable()} })
}

// longest returns the longest outage, to a tenth of a second, that costs no term.
func longest(t *testing.T, join joiner, cut, heal func(c *electortest.Client)) time.Duration {
	const step = 100 * time.Millisecond
	n := sort.Search(150, func(i int) bool {
		return !measure(t, true, survives(join, cut, heal, time.Duration(i+1)*step))
	})
	return time.Duration(n) * step
}

func median(d []time.Duration) time.Duration { return d[len(d)/2] }
func worst(d []time.Duration) time.Duration  { return d[len(d)-1] }

// TestFigures prints the figures of the README, with those of client-go's elector in the same world, and holds ours
// to their bounds. Everything is virtual time, at a round trip of 4 ms with the defaults 15/10/2.
func TestFigures(t *testing.T) {
	stops, theirStops := measure(t, false, handOvers(ours, 40)), measure(t, true, handOvers(clientGo, 40))
	crashes, theirCrashes := measure(t, false, takeovers(ours, 40)), measure(t, true, takeovers(clientGo, 40))
	on, theirOn := measure(t, false, actsOn(ours)), measure(t, true, actsOn(clientGo))
	three, theirThree := measure(t, false, requests(ours, 3)), measure(t, true, requests(clientGo, 3))
	thirty, theirThirty := measure(t, false, requests(ours, 30)), measure(t, true, requests(clientGo, 30))
	outage, theirOutage := longest(t, ours, silence, answers), longest(t, clientGo, silence, answers)
	errs, theirErrs := longest(t, ours, failing, well), longest(t, clientGo, failing, well)
	const hours = 4
	weather, theirs := measure(t, false, storm(ours, hours*time.Hour)), measure(t, true, storm(clientGo, hours*time.Hour))

	ms, sec := time.Millisecond, func(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }
	t.Logf("%-56s %12s %12s", "figure (virtual time, round trip 4 ms)", "elector", "client-go")
	row := func(what string, a, b any) { t.Logf("%-56s %12v %12v", what, a, b) }
	row("clean stop to next leader, median of 40", median(stops).Round(ms/10), median(theirStops).Round(ms))
	row("clean stop to next leader, worst of 40", worst(stops).Round(ms/10), worst(theirStops).Round(ms))
	row("crash: last renewal to next leader, median of 40", sec(median(crashes)), sec(median(theirCrashes)))
	row("crash: last renewal to next leader, worst of 40", sec(worst(crashes)), sec(worst(theirCrashes)))
	row("acts on after another holder is in the Lease", on, theirOn.Round(ms))
	row("requests a minute, leader", fmt.Sprintf("%.1f", three.leader), fmt.Sprintf("%.1f", theirThree.leader))
	row("requests a minute, standby", fmt.Sprintf("%.2f", three.standby), fmt.Sprintf("%.2f", theirThree.standby))
	row("requests a minute, 30 replicas", fmt.Sprintf("%.1f", thirty.all), fmt.Sprintf("%.1f", theirThirty.all))
	row("longest outage by errors that costs no term", errs, theirErrs)
	row("longest outage by silence that costs no term", outage, theirOutage)
	row(fmt.Sprintf("two callbacks at once in %d hours of a light storm", hours), weather.two.Round(ms), theirs.two.Round(time.Second))
	percent := func(d time.Duration) string { return fmt.Sprintf("%.2f %%", 100*d.Seconds()/weather.length.Seconds()) }
	row("– none, of the time", percent(weather.none), percent(theirs.none))
	row("– none, and the last one's Lease binds the others", percent(weather.binding), percent(theirs.binding))

	assert.Zero(t, weather.two)
	assert.LessOrEqual(t, weather.none, weather.length/50)
	assert.Greater(t, theirs.two, time.Minute, "the storm is one")
	assert.LessOrEqual(t, median(stops), 15*ms)
	assert.LessOrEqual(t, worst(stops), 100*ms)
	assert.LessOrEqual(t, worst(crashes), 15100*ms)
	assert.GreaterOrEqual(t, crashes[0], 15*time.Second)
	assert.LessOrEqual(t, on, 50*ms)
	assert.LessOrEqual(t, three.leader, 31.0)
	assert.LessOrEqual(t, three.standby, 0.5)
	assert.LessOrEqual(t, thirty.all, 50.0)
	assert.GreaterOrEqual(t, errs, 7900*ms)
	assert.GreaterOrEqual(t, outage, 7500*ms)
}

// A course is how an election of three went whose API takes long to answer.
type course struct {
	first time.Duration // until somebody led
	led   time.Duration // of the ten minutes after that
	terms int           // begun
}

// slowly has every answer of the API come after d.
func slowly(join joiner, d time.Duration) func(w *world) course {
	return func(w *world) (c course) {
		for _, who := range []string{"a", "b", "c"} {
			slow(join(w, who), d, false)
		}
		c.first = w.within(time.Hour, "a leader", func() bool { return w.leader() != nil })
		end := time.Now().Add(10 * time.Minute)
		time.Sleep(time.Until(end))
		for _, s := range w.spans() {
			if s.end.IsZero() {
				s.end = end
			}
			c.led += s.end.Sub(s.begin)
			c.terms++
		}
		return c
	}
}

// lagging counts the requests a minute of 30 standbys together whose watches are 5 s behind.
func lagging(join joiner) func(w *world) float64 {
	return func(w *world) (sum float64) {
		join(w, "leader")
		w.awaitLeader(time.Minute)
		for i := range 30 {
			r := join(w, strings.Repeat("r", i+1))
			r.client.SetWatchLag(5 * time.Second)
			r.client.CloseWatches()
		}
		time.Sleep(5 * time.Minute)
		w.api.ResetRequests()
		time.Sleep(10 * time.Minute)
		for _, r := range w.replicas[1:] {
			sum += float64(w.api.Requests(r.name, "")) / 10
		}
		return sum
	}
}

// cutAtOnce counts the watches a minute of a standby whose watches end 300 ms after they were opened.
func cutAtOnce(w *world) float64 {
	w.join("a")
	w.awaitLeader(time.Second)
	b := w.join("b")
	b.client.Intercept(electortest.On(electortest.Fault{EndWatch: 300 * time.Millisecond}, "watch"))
	time.Sleep(10 * time.Minute)
	w.api.ResetRequests()
	time.Sleep(time.Hour)
	return float64(w.api.Requests("b", "watch")) / 60
}

// A farewell is a release that a policy makes 10 s long.
type farewell struct {
	writes int
	late   time.Duration // how long Run takes to return
}

func rewritten(join joiner) func(w *world) farewell {
	return func(w *world) farewell {
		w.raising(10)
		a := join(w, "a")
		w.awaitLeader(time.Minute)
		time.Sleep(30 * time.Second)
		before, stopped := w.api.Requests("a", "update"), time.Now()
		a.stop()
		<-a.done
		return farewell{w.api.Requests("a", "update") - before, time.Since(stopped)}
	}
}

// hung returns how many goroutines there are more after a day with a client that never returns.
func hung(w *world) int {
	a := w.join("a")
	w.awaitLeader(time.Second)
	w.pass(time.Minute)
	before := runtime.NumGoroutine()
	a.client.CloseWatches()
	a.client.Intercept(electortest.On(electortest.Fault{LoseReply: true, IgnoreContext: true}))
	w.pass(24 * time.Hour)
	return runtime.NumGoroutine() - before
}

// TestFiguresOfFaults prints the README's figures of faults, as TestFigures does.
func TestFiguresOfFaults(t *testing.T) {
	ms := time.Millisecond
	t.Logf("%-56s %18s %18s", "figure (virtual time, round trip 4 ms)", "elector", "client-go")
	row := func(what string, a, b any) { t.Logf("%-56s %18v %18v", what, a, b) }
	for _, d := range []time.Duration{3500 * ms, 4000 * ms, 4900 * ms} {
		c, theirs := measure(t, false, slowly(ours, d)), measure(t, true, slowly(clientGo, d))
		row(fmt.Sprintf("every answer takes %v: somebody leads after", d), c.first.Round(ms), theirs.first.Round(ms))
		row("  led in the ten minutes after that, terms", fmt.Sprintf("%.0f %%, %d", c.led.Minutes()*10, c.terms), fmt.Sprintf("%.0f %%, %d", theirs.led.Minutes()*10, theirs.terms))
		assert.LessOrEqual(t, c.first, 3*d+100*ms)
		assert.Equal(t, 1, c.terms)
	}
	lags, theirLags := measure(t, false, lagging(ours)), measure(t, true, lagging(clientGo))
	row("watches 5 s behind: requests a minute, 30 standbys", fmt.Sprintf("%.1f", lags), fmt.Sprintf("%.1f", theirLags))
	cuts := measure(t, false, cutAtOnce)
	row("watches end after 300 ms: watches a minute, one standby", fmt.Sprintf("%.1f", cuts), "-")
	last, theirLast := measure(t, false, rewritten(ours)), measure(t, true, rewritten(clientGo))
	row("a policy makes the release 10 s long: writes, Run late by", fmt.Sprint(last.writes, ", ", last.late), fmt.Sprint(theirLast.writes, ", ", theirLast.late))
	more := measure(t, false, hung)
	row("a day with a client that never returns: more goroutines", more, "-")

	assert.LessOrEqual(t, lags, 60.0)
	assert.LessOrEqual(t, cuts, 4.0)
	assert.LessOrEqual(t, last.writes, 3)
	assert.LessOrEqual(t, last.late, time.Second)
	assert.LessOrEqual(t, more, 10)
}

func TestAMixedFleetWithClientGoHandsOverBothWays(t *testing.T) {
	inWorld(t, func(w *world) {
		var leaders []string
		a := w.joinClientGo("client-go")
		w.awaitLeader(time.Second)
		for i := range 6 {
			time.Sleep(20 * time.Second)
			leaders = append(leaders, w.leader().name)
			var next *replica
			if i%2 == 0 {
				next = w.join("elector")
			} else {
				next = w.joinClientGo("client-go")
			}
			time.Sleep(5 * time.Second)
			assert.Same(w, a, w.leader())
			a.stop()
			<-a.done
			a = w.awaitLeader(5*time.Second, a)
			assert.Same(w, next, a)
		}
		assert.Equal(w, []string{"client-go", "elector", "client-go", "elector", "client-go", "elector"}, leaders)
	})
}

func TestAMixedFleetTakesOverFromACrashedPeerOfTheOtherKind(t *testing.T) {
	for name, kinds := range map[string][2]joiner{"elector after client-go": {clientGo, ours}, "client-go after elector": {ours, clientGo}} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				a := kinds[0](w, "a")
				w.awaitLeader(time.Second)
				kinds[1](w, "b")
				time.Sleep(20 * time.Second)
				a.crash()
				w.lenient = true // a runs on unseen
				w.awaitLeader(25*time.Second, a)
			})
		})
	}
}
