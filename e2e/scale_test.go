package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"math/big"
	"math/bits"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"

	"github.com/elector-go/elector/e2e/cluster"
	"github.com/elector-go/elector/e2e/internal/process"
)

var (
	scale     = flag.Bool("scale", false, "run the tests of many elections in one process: they take minutes, and load the machine")
	elections = flag.Int("scale.elections", 600, "how many elections each process has")
	profiles  = flag.String("scale.profiles", "", "folder for CPU profiles of the processes")
)

// TestScale runs two processes with many elections each, which share one client, on idle processors and on busy ones, beside
// client-go's elector. An election is led while the work runs.
func TestScale(t *testing.T) {
	if !*scale {
		t.Skip("only with -scale")
	}
	for _, spinning := range []int{0, 6, 12} {
		for _, kind := range []electorKind{clientGo, ours} {
			t.Run(fmt.Sprintf("%s with %d busy loops", kind, spinning), func(t *testing.T) {
				s := &crowds{t: t, kind: kind, spinning: spinning}
				s.play()
				scaleFigures.add(s)
				if kind == ours {
					s.check()
				}
			})
		}
	}
}

// crowds are the two processes of a run, and what was measured.
type crowds struct {
	t        *testing.T
	kind     electorKind
	spinning int
	program  string
	cfg      *rest.Config

	started, handedOver time.Duration // until all were led; by the other process after the first has been stopped
	led, both           float64       // of all, by one at least and by two, on average in the quiet minute
	lost                int64         // terms, in that minute
	connections         [2]int        // the most of each
	requests            float64       // a minute
	watches             float64
}

// A crowd is one process.
type crowd struct {
	proc *process.Process

	mu    sync.Mutex // guards what follows
	who   big.Int    // leads, a bit for each election
	begun int64
}

const quiet = time.Minute

func (s *crowds) play() {
	s.program = filepath.Join(s.t.TempDir(), "crowd")
	out, err := exec.CommandContext(s.t.Context(), "go", "build", "-o", s.program, "./crowd").CombinedOutput()
	require.NoError(s.t, err, string(out))
	f := newFleetWithout(s.t)
	require.NoError(s.t, shared.cluster.GrantLeases(s.t.Context(), operator, f.namespace, "create", "get", "update", "watch"))
	s.cfg = shared.cluster.UserConfig(operator)
	before := s.metric(watchesNow)

	for range s.spinning {
		s.run("-spin")
	}
	start := time.Now()
	a := s.join(f.namespace, "a")
	s.await(time.Minute, func() bool { return a.leads() == *elections })
	s.started = time.Since(start)
	b := s.join(f.namespace, "b")
	time.Sleep(20 * time.Second)

	requests, begun := s.metric(requestsSoFar), a.terms()+b.terms()
	parts := s.breakdown(nil)
	samples := 0
	for end := time.Now().Add(quiet); time.Now().Before(end); time.Sleep(time.Second) {
		one, other := a.leaders(), b.leaders()
		s.led += float64(count(new(big.Int).Or(&one, &other))) / float64(*elections)
		s.both += float64(count(new(big.Int).And(&one, &other))) / float64(*elections)
		samples++
		for i, c := range []*crowd{a, b} {
			s.connections[i] = max(s.connections[i], s.connected(c))
		}
	}
	s.led, s.both = s.led/float64(samples), s.both/float64(samples)
	s.requests = (s.metric(requestsSoFar) - requests) / quiet.Minutes()
	s.t.Log("requests in the quiet minute:", s.breakdown(parts))
	s.lost = a.terms() + b.terms() - begun
	s.watches = s.metric(watchesNow) - before

	stop := time.Now()
	require.NoError(s.t, a.proc.Signal(os.Interrupt))
	s.await(time.Minute, func() bool { return b.leads() == *elections })
	s.handedOver = time.Since(stop)
}

// check is what a process with many elections must be worth.
func (s *crowds) check() {
	require.Equal(s.t, 1.0, s.led, "elections led")
	require.Zero(s.t, s.lost, "terms lost")
	require.LessOrEqual(s.t, max(s.connections[0], s.connections[1]), 10, "connections")
	require.Equal(s.t, float64(2**elections), s.watches)
}

func (s *crowds) await(limit time.Duration, is func() bool) {
	for end := time.Now().Add(limit); !is() && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
}

func (s *crowds) run(args ...string) *crowd {
	c := &crowd{}
	cmd := exec.Command(s.program, args...)
	log := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = &lines{each: c.take}, log
	var err error
	c.proc, err = process.Start(cmd)
	require.NoError(s.t, err)
	s.t.Cleanup(func() {
		_ = c.proc.Signal(os.Kill)
		<-c.proc.Done()
		if text := log.String(); s.t.Failed() {
			s.t.Log(text[max(0, len(text)-4<<10):])
		}
	})
	return c
}

func (s *crowds) join(namespace, id string) *crowd {
	kubeconfig := filepath.Join(s.t.TempDir(), id)
	require.NoError(s.t, cluster.WriteKubeconfig(kubeconfig, s.cfg))
	args := []string{"-kubeconfig=" + kubeconfig, "-namespace=" + namespace, "-id=" + id, "-elector=" + string(s.kind), fmt.Sprint("-elections=", *elections)}
	if *profiles != "" {
		args = append(args, fmt.Sprintf("-profile=%s/%s-%d-%s.pprof", *profiles, s.kind, s.spinning, id))
	}
	return s.run(args...)
}

func (c *crowd) take(line []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	who, begun, _ := strings.Cut(string(line), " ")
	_, _ = c.who.SetString(who, 16)
	_, _ = fmt.Sscan(begun, &c.begun)
}

func (c *crowd) leaders() (who big.Int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	who.Set(&c.who)
	return who
}

func (c *crowd) leads() int {
	who := c.leaders()
	return count(&who)
}

// count is how many bits are set.
func count(of *big.Int) (n int) {
	for _, word := range of.Bits() {
		n += bits.OnesCount(uint(word))
	}
	return n
}

func (c *crowd) terms() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.begun
}

// What the API server counts.
var (
	requestsSoFar = regexp.MustCompile(`(?m)^apiserver_request_total\{[^}]*resource="leases"[^}]*\} (\S+)$`)
	verbAndCode   = regexp.MustCompile(`(code|verb)="([^"]*)"`)
	watchesNow    = regexp.MustCompile(`(?m)^apiserver_longrunning_requests\{[^}]*resource="leases"[^}]*\} (\S+)$`)
)

func (s *crowds) metrics() (text []byte) {
	s.await(time.Minute, func() (ok bool) {
		var err error
		text, err = shared.cluster.Admin().Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(s.t.Context())
		return err == nil
	})
	require.NotEmpty(s.t, text)
	return text
}

func (s *crowds) metric(line *regexp.Regexp) (sum float64) {
	text := s.metrics()
	for _, found := range line.FindAllSubmatch(text, -1) {
		value, err := strconv.ParseFloat(string(found[1]), 64)
		require.NoError(s.t, err)
		sum += value
	}
	return sum
}

// breakdown is the requests since before, by verb and code.
func (s *crowds) breakdown(before map[string]float64) map[string]float64 {
	parts := map[string]float64{}
	for _, found := range requestsSoFar.FindAllSubmatch(s.metrics(), -1) {
		label := verbAndCode.FindAllSubmatch(found[0], -1)
		value, err := strconv.ParseFloat(string(found[1]), 64)
		require.NoError(s.t, err)
		key := string(label[1][2]) + " " + string(label[0][2])
		parts[key] += value
	}
	for key, value := range before {
		parts[key] -= value
	}
	return parts
}

// connected is how many connections to the API server a process has open.
func (s *crowds) connected(c *crowd) (n int) {
	_, port, _ := strings.Cut(strings.TrimPrefix(s.cfg.Host, "https://"), ":")
	number, err := strconv.Atoi(port)
	require.NoError(s.t, err)
	table, err := os.ReadFile("/proc/net/tcp")
	require.NoError(s.t, err)
	toServer := map[string]bool{} // by inode
	for line := range bytes.Lines(table) {
		const remote, state, inode, established = 2, 3, 9, "01"
		if f := strings.Fields(string(line)); len(f) > inode && strings.HasSuffix(f[remote], fmt.Sprintf(":%04X", number)) && f[state] == established {
			toServer["socket:["+f[inode]+"]"] = true
		}
	}
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", c.proc.PID()))
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && toServer[to] {
			n++
		}
	}
	return n
}

// scaleFigures collects what was measured.
var scaleFigures scaleTable

type scaleTable struct {
	mu   sync.Mutex // guards runs
	runs []*crowds
}

func (s *scaleTable) add(run *crowds) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs = append(s.runs, run)
}

// table is "" if nothing was measured.
func (s *scaleTable) table() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.runs) == 0 {
		return ""
	}
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 1, ' ', tabwriter.Debug)
	fmt.Fprintf(w, "\n%d elections in each of two processes \t busy loops \t all led after \t led \t by two \t terms lost \t connections of each \t requests a minute \t watches \t hand-over of all \n", *elections)
	for _, r := range s.runs {
		fmt.Fprintf(w, "%s \t %d \t %.1f s \t %.1f %% \t %.1f %% \t %d \t %d, %d \t %.0f \t %.0f \t %.1f s \n", r.kind, r.spinning,
			r.started.Seconds(), 100*r.led, 100*r.both, r.lost, r.connections[0], r.connections[1], r.requests, r.watches, r.handedOver.Seconds())
	}
	w.Flush()
	return text.String()
}
