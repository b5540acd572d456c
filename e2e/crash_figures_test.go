package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"
)

// A crashCase is how a leader ends, and what is said of it. No kubelet runs here: see death_test.go.
type crashCase struct {
	name    string
	says    string        // the reason that the kubelet gives, "" for nothing
	code    int32         // with it
	back    time.Duration // after which the container is started again in its pod; 0 for never
	alone   bool          // there is no standby
	deleted bool          // SIGTERM
	waits   bool          // elector has to wait for the Lease, too
}

var crashCases = []crashCase{
	{name: "killed by the kernel for want of memory (137 OOMKilled)", says: "OOMKilled", code: 137},
	{name: "exit 1", says: "Error", code: 1},
	{name: "panic (exit 2)", says: "Error", code: 2},
	{name: "SIGKILL by the node (137 Error)", says: "Error", code: 137, waits: true},
	{name: "killed, back in place at once, nothing configured", back: time.Millisecond},
	{name: "crash loop: one replica, back after 10 s, nothing configured", back: 10 * time.Second, alone: true},
	{name: "pod deleted (SIGTERM)", deleted: true},
	{name: "node lost", waits: true},
}

// A lasting is the durations of an election.
type lasting struct {
	lease  time.Duration
	rounds int
	flags  []string
}

var lastings = []lasting{
	{leaseDuration, 3, nil},
	{137 * time.Second, 1, []string{"-lease-duration=137s", "-renew-deadline=107s", "-retry-period=26s"}},
}

// play ends a leader, and returns the time from its end to the next one, and for how long both worked. A container that is
// back has another identity, as by controller-runtime's default.
func (c crashCase) play(t *testing.T, kind electorKind, l lasting) (took, overlap time.Duration) {
	f := newPodFleet(t, "get", "watch")
	t.Cleanup(func() { os.Remove("/dev/shm/elector/" + f.namespace + "_" + leaseName + ".lease") })
	var leader *replica
	var pod *container
	without := append(slices.Clone(l.flags), "-state-dir=") // for client-go, which has none
	if kind == ours {
		without = append(slices.Clone(l.flags), "-state-dir=-")
	}
	in := func(flags []string) (*replica, *container) {
		if c.back > 0 || kind != ours {
			return f.start(kind, flags...), nil // nothing is configured
		}
		return f.inPod(flags...)
	}
	if c.back > 0 {
		leader, pod = in(l.flags)
	} else {
		leader, pod = in(without)
	}
	_, first := f.nextLeader(20 * time.Second)
	if !c.alone {
		standby, _ := in(without)
		f.settle(leader, standby)
	}
	time.Sleep(time.Until(first.At.Add(2*retryPeriod + rand.N(retryPeriod))))
	var died time.Time
	if c.deleted {
		died = f.signal(leader, syscall.SIGTERM)
	} else {
		f.kill(leader)
		died, _ = leader.proc.Result()
	}
	if c.back > 0 {
		time.Sleep(c.back)
		f.start(kind, l.flags...)
	}
	if c.says != "" && pod != nil {
		time.Sleep(50*time.Millisecond + rand.N(time.Second)) // until the kubelet looks at its containers again
		pod.ends(pod.terminated(c.says, c.code))
	}
	_, begin := f.nextLeader(l.lease + time.Minute)
	took = begin.At.Sub(died)
	if kind == ours {
		f.requireOneAtATime()
		if c.waits {
			require.Greater(t, took, l.lease-l.lease/3, "nothing proves the death") // a third is more than the time between two renewals
		} else {
			require.Less(t, took, c.back+l.lease/2, "the Lease is not waited for")
		}
	}
	return took, longestOverlap(f.spans())
}

// TestChaosFiguresOfCrashes prints what a crash costs. A Lease of 137 s is that of a Kubernetes component of OpenShift.
func TestChaosFiguresOfCrashes(t *testing.T) {
	if !*chaos {
		t.Skip("only with -chaos")
	}
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has /dev/shm")
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1") // for the replicas: as in a pod
	var mu sync.Mutex
	type cell struct{ took, overlap []time.Duration }
	cells := map[string]*cell{}
	key := func(c crashCase, l lasting, kind electorKind) string { return fmt.Sprint(c.name, l.lease, kind) }
	t.Run("all", func(t *testing.T) {
		for _, c := range crashCases {
			for _, l := range lastings {
				for _, kind := range []electorKind{ours, clientGo} {
					repeatAs(t, fmt.Sprintf("%s, %v, %s", c.name, l.lease, kind), l.rounds, func(t *testing.T) {
						took, overlap := c.play(t, kind, l)
						mu.Lock()
						defer mu.Unlock()
						k := key(c, l, kind)
						if cells[k] == nil {
							cells[k] = &cell{}
						}
						cells[k].took, cells[k].overlap = append(cells[k].took, took), append(cells[k].overlap, max(0, overlap))
					})
				}
			}
		}
	})
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 1, ' ', tabwriter.Debug)
	fmt.Fprintf(w, "\nend of the leader, median / worst to the next \t Lease \t elector \t overlap \t client-go \t overlap \n")
	for _, c := range crashCases {
		for _, l := range lastings {
			fmt.Fprintf(w, "%s \t %v ", c.name, l.lease)
			for _, kind := range []electorKind{ours, clientGo} {
				if x := cells[key(c, l, kind)]; x != nil {
					slices.Sort(x.took)
					fmt.Fprintf(w, "\t %.2f s / %.2f s \t %.2f s ", x.took[len(x.took)/2].Seconds(), slices.Max(x.took).Seconds(), slices.Max(x.overlap).Seconds())
				}
			}
			fmt.Fprintln(w)
		}
	}
	w.Flush()
	t.Log(text.String())
}

// repeatAs runs test n times under a name, beside all else that is parallel.
func repeatAs(t *testing.T, name string, n int, test func(*testing.T)) {
	for i := range n {
		t.Run(fmt.Sprint(name, ", ", i+1), func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}
