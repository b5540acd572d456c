//go:build unix

package elector_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

var (
	benchTable = flag.Bool("bench.table", false, "measure, and print the table of elector and client-go's elector")
	benchCost  = flag.String("bench.cost", "", "measure one cost in this process: leader or standby, of elector, client-go, elector-client or client-go-client (as leader/elector)")
)

// A figure is one row of the table. Less is better in all of them.
type figure struct {
	what         string
	format       string
	ours, theirs float64
}

// TestBenchmarks prints a table of elector and client-go's elector, at the defaults 15/10/2 over the same in-memory API
// with a round trip of 4 ms. Only the costs are real; all else is virtual time. It asserts nothing: what has to hold is
// in TestFigures.
//
//	go test -run '^TestBenchmarks$' -bench.table -v .
func TestBenchmarks(t *testing.T) {
	if !*benchTable {
		t.Skip("takes about a minute; run it with -bench.table")
	}
	var out strings.Builder
	section := func(title string, figures []figure) {
		fmt.Fprintf(&out, "\n%-66s %12s %12s %8s\n", title, "elector", "client-go", "ratio")
		for _, f := range figures {
			ratio := "-"
			if f.ours > 0 && f.theirs > 0 {
				ratio = fmt.Sprintf("%.3g", f.theirs/f.ours)
			}
			fmt.Fprintf(&out, "  %-64s %12s %12s %8s\n", f.what, fmt.Sprintf(f.format, f.ours), fmt.Sprintf(f.format, f.theirs), ratio)
		}
	}
	section("A new leader (virtual time)", newLeaderFigures(t))
	section("Requests a minute (virtual time)", requestFigures(t))
	section("Herd at a release (virtual time)", herdFigures(t))
	section(fmt.Sprintf("Cost (real, mean of %d in one process, no logging; CPU without GC)", costed), costFigures(t))
	fmt.Printf("%s\nratio: client-go's figure over elector's, so above 1 elector needs less\n", out.String())
}

func newLeaderFigures(t *testing.T) []figure {
	const times = 40
	stops, theirStops := measure(t, false, handOvers(ours, times)), measure(t, true, handOvers(clientGo, times))
	crashes, theirCrashes := measure(t, false, takeovers(ours, times)), measure(t, true, takeovers(clientGo, times))
	return []figure{
		{"hand-over: clean stop to next leader, median of 40", "%.1f ms", millis(median(stops)), millis(median(theirStops))},
		{"hand-over: clean stop to next leader, worst of 40", "%.1f ms", millis(worst(stops)), millis(worst(theirStops))},
		{"takeover: last renewal before a crash to next leader, median of 40", "%.3f s", median(crashes).Seconds(), median(theirCrashes).Seconds()},
		{"takeover: last renewal before a crash to next leader, worst of 40", "%.3f s", worst(crashes).Seconds(), worst(theirCrashes).Seconds()},
	}
}

func requestFigures(t *testing.T) (figures []figure) {
	for _, replicas := range []int{3, 30, 300} {
		us, they := measure(t, false, requests(ours, replicas)), measure(t, true, requests(clientGo, replicas))
		if replicas == 3 {
			figures = append(figures, figure{"leader", "%.1f", us.leader, they.leader}, figure{"busiest standby", "%.2f", us.standby, they.standby})
		}
		figures = append(figures, figure{fmt.Sprintf("%d replicas", replicas), "%.1f", us.all, they.all})
	}
	return figures
}

// A herd is what became of some releases: sorted, but for the writes.
type herd struct {
	gaps     []time.Duration // without a leader
	requests []int           // of all replicas within 5 s of the stop, the release among them
	writes   []int           // those of them that are writes
	most     int             // writes of the busiest of the standbys that did not win
}

// herds stops the leader of many standbys again and again.
func herds(join joiner, standbys, times int) func(w *world) herd {
	return func(w *world) (h herd) {
		for i := range standbys + 1 {
			join(w, fmt.Sprint("r", i))
		}
		l := w.awaitLeader(time.Minute)
		for i := range times {
			time.Sleep(20*time.Second + time.Duration(i)*317*time.Millisecond)
			w.api.ResetRequests()
			stopped := time.Now()
			l.stop()
			<-l.done
			next := w.awaitLeader(time.Minute, l)
			time.Sleep(time.Until(stopped.Add(5 * time.Second)))
			all := w.spans()
			h.gaps = append(h.gaps, all[len(all)-1].begin.Sub(all[len(all)-2].end))
			h.requests = append(h.requests, w.api.Requests("", ""))
			h.writes = append(h.writes, w.api.Requests("", "update")+w.api.Requests("", "create"))
			for _, r := range w.replicas {
				if r != next && r != l {
					h.most = max(h.most, w.api.Requests(r.name, "update")+w.api.Requests(r.name, "create"))
				}
			}
			join(w, fmt.Sprint("again", i))
			l = next
		}
		slices.Sort(h.gaps)
		slices.Sort(h.requests)
		slices.Sort(h.writes)
		return h
	}
}

func herdFigures(t *testing.T) (figures []figure) {
	const times = 10
	for _, standbys := range []int{10, 100, 1000} {
		us, they := measure(t, false, herds(ours, standbys, times)), measure(t, true, herds(clientGo, standbys, times))
		of := func(what string) string { return fmt.Sprintf("%d standbys: %s", standbys, what) }
		figures = append(figures,
			figure{of("gap, median of 10"), "%.1f ms", millis(median(us.gaps)), millis(median(they.gaps))},
			figure{of("gap, worst of 10"), "%.1f ms", millis(worst(us.gaps)), millis(worst(they.gaps))},
			figure{of("writes of one that did not win, most"), "%.0f", float64(us.most), float64(they.most)},
			figure{of("all writes in the 5 s from the stop, median of 10"), "%.0f", float64(us.writes[times/2]), float64(they.writes[times/2])},
			figure{of("all requests in the 5 s from the stop, median of 10"), "%.0f", float64(us.requests[times/2]), float64(they.requests[times/2])},
		)
	}
	return figures
}

// costed is how many electors share a process whose resources are measured.
const costed = 1000

// A cost is what one elector takes, on average.
type cost struct {
	Goroutines, Bytes            float64 // while idle; bytes of heap and stack
	Renewals, Allocs, AllocBytes float64 // in a simulated hour; renewals are its own
	CPU                          float64 // seconds in a simulated hour, without collecting garbage
}

// without is what the elector takes beyond its client. Two measurements differ by some parts in a hundred anyhow, so
// that next to nothing may come out as less than nothing.
func (c cost) without(client cost) cost {
	return cost{
		Goroutines: c.Goroutines - client.Goroutines,
		Bytes:      c.Bytes - client.Bytes,
		Renewals:   c.Renewals,
		Allocs:     max(0, c.Allocs-client.Allocs),
		AllocBytes: max(0, c.AllocBytes-client.AllocBytes),
		CPU:        max(0, c.CPU-client.CPU),
	}
}

// cheaper is the cost with the lesser CPU time of two: whatever else runs on the machine only adds to it.
func (c cost) cheaper(before cost) cost {
	if before.CPU > 0 {
		c.CPU = min(c.CPU, before.CPU)
	}
	return c
}

func costFigures(t *testing.T) []figure {
	costs := map[string]cost{}
	for range 3 { // in turns, so that a busy machine disturbs all alike
		for _, what := range []string{"standby/elector", "standby/client-go", "leader/elector", "leader/client-go"} {
			for _, what := range []string{what, what + "-client"} {
				costs[what] = costOf(t, what).cheaper(costs[what])
			}
		}
	}
	standby, theirStandby := costs["standby/elector"], costs["standby/client-go"]
	leader, theirLeader := costs["leader/elector"], costs["leader/client-go"]
	s, ts := standby.without(costs["standby/elector-client"]), theirStandby.without(costs["standby/client-go-client"])
	l, tl := leader.without(costs["leader/elector-client"]), theirLeader.without(costs["leader/client-go-client"])
	const kib, mib = 1 << 10, 1 << 20
	return []figure{
		{"standby: goroutines, its client's watch included", "%.0f", standby.Goroutines, theirStandby.Goroutines},
		{"standby: goroutines beyond its client", "%.0f", s.Goroutines, ts.Goroutines},
		{"standby: heap and stack beyond its client", "%.1f KiB", s.Bytes / kib, ts.Bytes / kib},
		{"standby: allocations an hour beyond its client", "%.0f", s.Allocs, ts.Allocs},
		{"standby: allocated an hour beyond its client", "%.0f KiB", s.AllocBytes / kib, ts.AllocBytes / kib},
		{"standby: CPU time an hour beyond its client", "%.1f ms", s.CPU * 1e3, ts.CPU * 1e3},
		{"leader: goroutines beyond its client, the callback's included", "%.0f", l.Goroutines, tl.Goroutines},
		{"leader: heap and stack beyond its client", "%.1f KiB", l.Bytes / kib, tl.Bytes / kib},
		{"leader: allocations a renewal beyond its client", "%.1f", l.Allocs / l.Renewals, tl.Allocs / tl.Renewals},
		{"leader: allocated a renewal beyond its client", "%.2f KiB", l.AllocBytes / kib / l.Renewals, tl.AllocBytes / kib / tl.Renewals},
		{"leader: CPU time an hour beyond its client", "%.1f ms", l.CPU * 1e3, tl.CPU * 1e3},
		{"1 000 leaders of 1 000 Leases: goroutines, with the client", "%.0f", leader.Goroutines * costed, theirLeader.Goroutines * costed},
		{"1 000 leaders of 1 000 Leases: heap and stack, with the client", "%.1f MiB", leader.Bytes * costed / mib, theirLeader.Bytes * costed / mib},
		{"1 000 leaders of 1 000 Leases: CPU time a second, with the client", "%.2f ms", leader.CPU * costed / 3.6, theirLeader.CPU * costed / 3.6},
		{"1 000 standbys of one Lease: heap and stack, with the client", "%.1f MiB", standby.Bytes * costed / mib, theirStandby.Bytes * costed / mib},
		{"1 000 standbys of one Lease: CPU time a second, with the client", "%.2f ms", standby.CPU * costed / 3.6, theirStandby.CPU * costed / 3.6},
	}
}

// costOf measures in a process of its own, where nobody has left memory or goroutines behind. With a single P, no idle
// one spins for work, which would count as CPU time.
func costOf(t *testing.T, what string) (c cost) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCost$", "-bench.cost="+what)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	var stderr strings.Builder // the log of client-go's elector, which is not asked for
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s: %s%s", what, out, stderr.String())
	line, _, _ := strings.Cut(string(out), "\n")
	require.NoError(t, json.Unmarshal([]byte(line), &c), "%s: %s", what, out)
	return c
}

// TestCost measures one cost of -bench.cost and prints it as JSON, for TestBenchmarks. By itself it is for profiles:
//
//	go test -run '^TestCost$' -bench.cost leader/elector -cpuprofile cpu.out -memprofile mem.out -memprofilerate 512 .
func TestCost(t *testing.T) {
	role, kind, ok := strings.Cut(*benchCost, "/")
	if !ok {
		t.Skip("a part of TestBenchmarks")
	}
	synctest.Test(t, func(t *testing.T) {
		b := &costBench{T: t, api: electortest.NewServer()}
		ctx, stop := context.WithCancel(logr.NewContext(t.Context(), logr.Discard()))
		defer b.api.Close()
		defer b.running.Wait()
		defer stop()
		result, err := json.Marshal(b.measure(ctx, role, kind))
		require.NoError(t, err)
		fmt.Printf("%s\n", result)
	})
}

// A costBench is many electors of one kind in one process.
type costBench struct {
	*testing.T
	api     *electortest.Server
	running sync.WaitGroup
}

func (b *costBench) measure(ctx context.Context, role, kind string) (c cost) {
	const minutes = 3 // simulated
	elect := map[string]func(ctx context.Context, who, lease string){"elector": b.elector, "client-go": b.clientGo}[strings.TrimSuffix(kind, "-client")]
	require.NotNil(b, elect, "-bench.cost=%s", *benchCost)
	elect(ctx, "first", "shared") // also so that what is made once in a process is there before
	time.Sleep(time.Second)
	before, goroutines := inUse()
	var replays []func()
	for i := range costed {
		who, lease := fmt.Sprint("candidate-", i), "shared"
		if role == "leader" {
			lease = fmt.Sprint("lease-", i)
		}
		if strings.HasSuffix(kind, "-client") {
			replays = append(replays, b.client(ctx, role, kind, who, lease))
		} else {
			elect(ctx, who, lease)
		}
	}
	time.Sleep(1500 * time.Millisecond) // before anyone renews
	after, goroutinesAfter := inUse()
	c.Goroutines, c.Bytes = float64(goroutinesAfter-goroutines)/costed, float64(after-before)/costed
	for _, replay := range replays {
		b.running.Go(replay)
	}
	// Collections come the more often the less memory is in use, so they would be a cost of the client as well.
	debug.SetGCPercent(-1)
	time.Sleep(time.Minute)

	var m, end runtime.MemStats
	b.api.ResetRequests()
	runtime.ReadMemStats(&m)
	cpu := time.Duration(math.MaxInt64)
	for range minutes { // the cheapest, as in cheaper
		runtime.GC()
		begin := cpuTime(b)
		time.Sleep(time.Minute)
		cpu = min(cpu, cpuTime(b)-begin)
	}
	runtime.ReadMemStats(&end)
	const each = 60. / minutes / costed
	c.CPU, c.Renewals = cpu.Seconds()*60/costed, float64(b.api.Requests("", "update"))*each
	c.Allocs, c.AllocBytes = float64(end.Mallocs-m.Mallocs)*each, float64(end.TotalAlloc-m.TotalAlloc)*each
	return c
}

func (b *costBench) leases(who string) coordinationv1client.CoordinationV1Interface {
	client := b.api.Client(who)
	client.SetLatency(roundTrip)
	return client.CoordinationV1()
}

func (b *costBench) elector(ctx context.Context, who, lease string) {
	e, err := elector.New(b.leases(who), elector.Options{Namespace: namespace, Name: lease, Identity: who, Run: untilDone})
	require.NoError(b, err)
	b.running.Go(func() { _ = e.Run(ctx) })
}

func (b *costBench) clientGo(ctx context.Context, who, lease string) {
	e, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta: objectMeta(lease), Client: b.leases(who), LockConfig: resourcelock.ResourceLockConfig{Identity: who},
		},
		LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(ctx context.Context) { _ = untilDone(ctx) }, OnStoppedLeading: func() {}},
	})
	require.NoError(b, err)
	b.running.Go(func() { e.Run(ctx) })
}

func untilDone(ctx context.Context) error { <-ctx.Done(); return nil }

// client opens the watch, if that kind has one, and returns what makes the same requests as an elector, without an
// elector: what its client costs anyhow. Client-go's pauses between two reads are 2 to 4.4 s, at random.
func (b *costBench) client(ctx context.Context, role, kind, who, lease string) (replay func()) {
	c := b.leases(who).Leases(namespace)
	period, watched := 2*time.Second, (<-chan watch.Event)(nil)
	if role == "standby" {
		period = 3200 * time.Millisecond
	}
	open := func() {
		w, err := c.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, lease).String()})
		if err == nil {
			watched = w.ResultChan()
		}
	}
	if kind == "elector-client" {
		period = 10 * time.Second / 3
		open()
	}
	l := &coordinationv1.Lease{ObjectMeta: objectMeta(lease), Spec: coordinationv1.LeaseSpec{
		HolderIdentity: &who, LeaseDurationSeconds: ptr.To(int32(15)), AcquireTime: ptr.To(metav1.NowMicro()), LeaseTransitions: new(int32),
	}}
	if role == "leader" {
		var err error
		l, err = c.Create(ctx, l, metav1.CreateOptions{})
		require.NoError(b, err)
	}
	return func() {
		tick := time.NewTicker(period)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case _, ok := <-watched:
				if !ok {
					open()
				}
			case <-tick.C:
				switch {
				case role == "leader":
					l.Spec.RenewTime = ptr.To(metav1.NowMicro())
					if next, err := c.Update(ctx, l, metav1.UpdateOptions{}); err == nil {
						l = next
					}
				case kind == "client-go-client":
					_, _ = c.Get(ctx, lease, metav1.GetOptions{})
				}
			}
		}
	}
}

// inUse is what is alive: bytes of heap and stack, and goroutines.
func inUse() (bytes int64, goroutines int) {
	runtime.GC()
	runtime.GC() // what pools have kept
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse), runtime.NumGoroutine()
}

// cpuTime is what this process has used so far. Unlike the time on a clock, it hardly depends on what else runs.
func cpuTime(t require.TestingT) time.Duration {
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
