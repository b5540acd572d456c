package migrating

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-go/elector/examples/internal/checksum"
	"github.com/elector-go/elector/examples/internal/fleet"
)

var measure = flag.Bool("figures", false, "measure the figures of MIGRATING.md, which takes minutes")

const (
	orders    = 200
	stops     = 8
	crashes   = 3
	mixedRuns = 4
	quiet     = time.Minute
)

// TestFigures measures what moving kubebuilder's scaffold over by one line changes: three processes on a real
// kube-apiserver, before and after, and in one fleet.
//
//	go -C examples test -count=1 -v -timeout 15m -run TestFigures ./internal/migrating -figures
func TestFigures(t *testing.T) {
	if !*measure {
		t.Skip("takes minutes: -figures")
	}
	programs := []struct {
		key, name, program string
		env                []string
	}{
		{"before", "before", "before", nil},
		{"released", "before, with LeaderElectionReleaseOnCancel", "before", []string{"RELEASE=yes"}},
		{"oneline", "one line", "elect", nil},
		{"warm", "one line, and EnableWarmup", "elect", []string{"WARMUP=yes"}},
	}
	fleets := []struct {
		key, name, leader string
		standbys          []string
		env               []string
	}{
		{"mixed", "before stops; before and one line stand by", "before", []string{"before", "elect"}, nil},
		{"mixed-released", "the same, with LeaderElectionReleaseOnCancel", "before", []string{"before", "elect"}, []string{"RELEASE=yes"}},
		{"mixed-after", "one line stops; before and one line stand by", "elect", []string{"before", "elect"}, nil},
		{"back", "moved back: one line stops; two of before stand by", "elect", []string{"before", "before"}, nil},
	}
	table, way := make([]string, len(programs)+len(fleets)), make([]string, len(programs))
	t.Run("fleets", func(t *testing.T) {
		for i, c := range programs {
			t.Run(c.key, func(t *testing.T) {
				t.Parallel()
				figures, stages := alone(t, c.program, c.env)
				table[i], way[i] = c.name+figures, c.name+stages
			})
		}
		for i, c := range fleets {
			t.Run(c.key, func(t *testing.T) {
				t.Parallel()
				table[len(programs)+i] = c.name + mixed(t, c.leader, c.standbys, c.env)
			})
		}
	})
	t.Logf("three processes, %d orders, two controllers; from the signal to the first reconciliation by the next one, median / worst\n%s", orders,
		columns(slices.Insert(slices.Insert(table, len(programs), fmt.Sprintf("\na mixed fleet\tSIGTERM, %d times\twho followed", mixedRuns)),
			0, fmt.Sprintf("three of\tSIGTERM, %d times\tSIGKILL, %d times\trequests a minute, leader\teach standby", stops, crashes))))
	t.Logf("the way of a SIGTERM, ms after it, medians\n%s", columns(slices.Insert(way, 0, "three of"+strings.Join(stageNames(), ""))))
}

func columns(lines []string) string {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for _, line := range lines {
		fmt.Fprintln(w, line)
	}
	_ = w.Flush() // to memory
	return out.String()
}

// stages are what happens between SIGTERM and the first reconciliation by the next one, and the messages that say so.
var stages = []struct {
	name, message string
	next          bool // logged by the next one
}{
	{"it stops", "Stopping and waiting for non leader election runnables", false},
	{"controllers stopped", "Stopping and waiting for caches", false},
	{"all stopped", "Wait completed, proceeding to shutdown the manager", false},
	{"released", "Released the lease", false},
	{"won", "Became leader", true},
	{"controllers start", "Starting EventSource", true},
	{"workers start", "Starting workers", true},
	{"reconciles", "Reconciling", true},
}

func stageNames() (names []string) {
	for _, s := range stages {
		names = append(names, "\t"+s.name)
	}
	return names
}

// timeline is when each stage was first reached, zero where that was not logged.
func (f *operators) timeline(at time.Time, leader, next *fleet.Replica) []time.Duration {
	times := make([]time.Duration, len(stages))
	for _, l := range f.Lines() {
		parsed := parse(l)
		for i, s := range stages {
			replica := leader
			if s.next {
				replica = next
			}
			if l.Replica == replica && parsed.Message == s.message && parsed.At.After(at) && times[i] == 0 {
				times[i] = parsed.At.Sub(at)
			}
		}
	}
	return times
}

// medians is a row of the second table.
func medians(timelines [][]time.Duration) string {
	var b strings.Builder
	for i := range stages {
		var times []time.Duration
		for _, timeline := range timelines {
			if timeline[i] > 0 {
				times = append(times, timeline[i])
			}
		}
		if len(times) == 0 {
			b.WriteString("\t–")
			continue
		}
		fmt.Fprintf(&b, "\t%.1f", float64(fleet.Median(times).Microseconds())/1000)
	}
	return b.String()
}

// turn keeps the hand-overs of different fleets apart, and with them the starts of the processes for the next ones.
var turn sync.Mutex

// alone measures a fleet of one program, for a row of each table.
func alone(t *testing.T, program string, env []string) (figures, way string) {
	f := newOperatorsFor(t, 10*time.Minute, env...)
	f.createOrders()
	leader := f.scraped(program)
	f.await(leader.Replica, "Reconciling")
	standbys := []*scraped{f.scrapedStandby(program), f.scrapedStandby(program)}
	time.Sleep(5 * time.Second)
	before := []float64{leader.requests(f), standbys[0].requests(f) + standbys[1].requests(f)}
	time.Sleep(quiet)
	led, stoodBy := leader.requests(f)-before[0], (standbys[0].requests(f)+standbys[1].requests(f)-before[1])/2

	stop := f.churn()
	measured := map[os.Signal][]time.Duration{}
	var timelines [][]time.Duration
	for i := range stops + crashes {
		signal, slow := os.Signal(syscall.SIGTERM), program == "before" && !slices.Contains(env, "RELEASE=yes")
		if i >= stops {
			signal, slow = syscall.SIGKILL, true
		}
		if !slow {
			turn.Lock()
		}
		at := time.Now()
		took, next := f.handOver(leader.Replica, signal, standbys[0].Replica, standbys[1].Replica)
		if signal == syscall.SIGTERM {
			timelines = append(timelines, f.timeline(at, leader.Replica, next))
		}
		measured[signal] = append(measured[signal], took)
		if standbys[0].Replica != next {
			slices.Reverse(standbys)
		}
		leader, standbys[0] = standbys[0], f.scrapedStandby(program)
		if !slow {
			turn.Unlock()
		}
		time.Sleep(time.Duration(100+i*137%1000) * time.Millisecond) // not in step with client-go's polls
	}
	stop()
	f.oneAtATime()
	return fmt.Sprintf("\t%s\t%s\t%v\t%v", figure(measured[syscall.SIGTERM]), figure(measured[syscall.SIGKILL]), led, stoodBy), medians(timelines)
}

// mixed measures hand-overs in a fleet of both programs.
func mixed(t *testing.T, leads string, standsBy []string, env []string) string {
	f := newOperatorsFor(t, 10*time.Minute, env...)
	f.createOrders()
	stop := f.churn()
	var measured []time.Duration
	followed := map[string]int{}
	for range mixedRuns {
		leader := f.start(leads, "-leader-elect")
		f.await(leader, "Reconciling")
		standbys := []*fleet.Replica{f.standbyOf(standsBy[0]), f.standbyOf(standsBy[1])}
		if leads == "elect" || len(env) > 0 {
			turn.Lock()
		}
		took, next := f.handOver(leader, syscall.SIGTERM, standbys...)
		if leads == "elect" || len(env) > 0 {
			turn.Unlock()
		}
		measured = append(measured, took)
		followed[next.Name]++
		for _, r := range standbys {
			f.Terminate(r)
			require.Zero(t, f.ExitCode(r))
		}
		require.NoError(t, f.Admin.CoordinationV1().Leases(f.Namespace).Delete(f.Context(), "ecaf1259.my.domain", metav1.DeleteOptions{}))
	}
	stop()
	f.oneAtATime()
	return fmt.Sprintf("\t%s\tbefore %d times, one line %d times", figure(measured), followed["before"], followed["elect"])
}

func figure(times []time.Duration) string {
	return fmt.Sprintf("%.3f / %.3f s", fleet.Median(times).Seconds(), slices.Max(times).Seconds())
}

// handOver sends the leader a signal, and returns how long it is until one of the others reconciles, and which.
func (f *operators) handOver(leader *fleet.Replica, signal os.Signal, others ...*fleet.Replica) (time.Duration, *fleet.Replica) {
	f.t.Helper()
	at := time.Now()
	require.NoError(f.t, leader.Signal(signal))
	l := f.Await("the next leader's first reconciliation", func(l fleet.Line) bool {
		return slices.Contains(others, l.Replica) && parse(l).Message == "Reconciling"
	})
	f.ExitCode(leader)
	return parse(l).At.Sub(at), l.Replica
}

// standbyOf starts a program, and returns when it stands by.
func (f *operators) standbyOf(program string, args ...string) *fleet.Replica {
	f.t.Helper()
	r := f.start(program, append(args, "-leader-elect")...)
	f.await(r, "Attempting to acquire leader lease...")
	time.Sleep(500 * time.Millisecond) // until it has seen who leads
	return r
}

// A scraped replica serves its metrics.
type scraped struct {
	*fleet.Replica
	addr string
}

func (f *operators) scraped(program string) *scraped {
	f.t.Helper()
	addr, err := fleet.Addr()
	require.NoError(f.t, err)
	return &scraped{f.start(program, "-leader-elect", "-metrics-secure=false", "-metrics-bind-address="+addr), addr}
}

func (f *operators) scrapedStandby(program string) *scraped {
	f.t.Helper()
	addr, err := fleet.Addr()
	require.NoError(f.t, err)
	return &scraped{f.standbyOf(program, "-metrics-secure=false", "-metrics-bind-address="+addr), addr}
}

// requests is how many requests the process has sent by clients of client-go.
func (s *scraped) requests(f *operators) (sum float64) {
	f.t.Helper()
	resp, err := http.Get("http://" + s.addr + "/metrics")
	require.NoError(f.t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(f.t, err)
	require.NoError(f.t, resp.Body.Close())
	for line := range strings.Lines(string(body)) {
		if labels, value, _ := strings.Cut(strings.TrimSpace(line), "} "); strings.HasPrefix(labels, "rest_client_requests_total{") {
			n, err := strconv.ParseFloat(value, 64)
			require.NoError(f.t, err)
			sum += n
		}
	}
	require.Positive(f.t, sum)
	return sum
}

// createOrders makes orders with which nothing is left to do.
func (f *operators) createOrders() {
	f.t.Helper()
	require.NoError(f.t, f.CreateConfigMaps(f.Context(), orders, func(cm *corev1.ConfigMap) {
		sum, err := checksum.Sum(cm)
		require.NoError(f.t, err)
		checksum.Mark(cm)
		metav1.SetMetaDataAnnotation(&cm.ObjectMeta, checksum.Annotation, sum)
	}))
}

// churn changes an order 20 times a second, so that there always is something to do, until the function returned is called.
func (f *operators) churn() (stop func()) {
	ctx, cancel := context.WithCancel(f.Context())
	var churning sync.WaitGroup
	churning.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			patch := fmt.Sprintf(`{"data":{"number":"changed-%d"}}`, i)
			_, err := f.Admin.CoreV1().ConfigMaps(f.Namespace).Patch(ctx, fmt.Sprintf("settings-%d", i%orders), types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			if err != nil && ctx.Err() == nil {
				f.t.Errorf("churn: %v", err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	stop = func() { cancel(); churning.Wait() }
	f.t.Cleanup(stop)
	return stop
}
