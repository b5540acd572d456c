package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/elector-go/elector/examples/deploy/rollout"
	"github.com/elector-go/elector/examples/internal/fleet"
	"github.com/elector-go/elector/examples/internal/fleet/fleettest"
)

var shared fleettest.Shared

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "16") // the tests wait much and compute little
	os.Exit(shared.Main(m, "./leaderservice"))
}

// A scene is a rollout of the manifests, and what the API server's watches have shown of it.
type scene struct {
	*rollout.Rollout
	t    *testing.T
	next int // lines of the log that are done with

	mu      sync.Mutex
	history []change
}

// A change is a write, in the order of the API server's resourceVersions, which EndpointSlices and Leases share.
type change struct {
	version uint64
	lease   bool
	pod     string // that the EndpointSlice leads to
	holder  string // of the Lease
}

func newScene(t *testing.T) *scene {
	t.Helper()
	r, err := rollout.New(t.Context(), shared.Cluster, strings.ToLower(t.Name()), filepath.Join(shared.Programs, rollout.App), t.TempDir(), nil)
	require.NoError(t, err)
	s := &scene{Rollout: r, t: t}
	endpoints, err := r.Admin.DiscoveryV1().EndpointSlices(r.Namespace).Watch(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	leases, err := r.Admin.CoordinationV1().Leases(r.Namespace).Watch(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	var watching sync.WaitGroup
	for _, w := range []watch.Interface{endpoints, leases} {
		watching.Go(func() {
			for ev := range w.ResultChan() {
				s.record(ev)
			}
		})
	}
	t.Cleanup(func() {
		require.NoError(t, r.Close())
		endpoints.Stop()
		leases.Stop()
		watching.Wait()
		if t.Failed() {
			for _, l := range r.Lines() {
				t.Logf("%s %s %s", l.At.Format("15:04:05.000"), l.Replica.Name, l.Text)
			}
			t.Logf("%+v", s.sorted())
		}
	})
	return s
}

func (s *scene) record(ev watch.Event) {
	c := change{}
	switch o := ev.Object.(type) {
	case *discoveryv1.EndpointSlice:
		if len(o.Endpoints) > 0 {
			c.pod = o.Endpoints[0].TargetRef.Name
		}
		c.version, _ = strconv.ParseUint(o.ResourceVersion, 10, 64)
	case *coordinationv1.Lease:
		c.lease, c.holder = true, *cmp.Or(o.Spec.HolderIdentity, new(string))
		c.version, _ = strconv.ParseUint(o.ResourceVersion, 10, 64)
	default:
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history = append(s.history, c)
}

func (s *scene) sorted() []change {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(slices.Values(s.history), func(a, b change) int { return cmp.Compare(a.version, b.version) })
}

func (s *scene) launch(pod string) *fleet.Replica {
	s.t.Helper()
	r, _, err := s.Launch(s.t.Context(), pod)
	require.NoError(s.t, err)
	return r
}

// await waits for a line of a replica's log, after those awaited before.
func (s *scene) await(r *fleet.Replica, message string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	_, next, err := s.Await(ctx, r.Name+": "+message, s.next, func(l fleet.Line) bool { return l.Replica == r && l.Is(message) })
	require.NoError(s.t, err)
	s.next = next
}

const sliceName = "leaderservice-leader"

const leadsHere = "The Service leads to this replica"

// selects waits until the Service selects these pods and no others.
func (s *scene) selects(pods ...string) {
	s.t.Helper()
	var selected []string
	assert.Eventually(s.t, func() (same bool) {
		var err error
		selected, err = s.Selected(s.t.Context())
		return err == nil && slices.Equal(selected, pods)
	}, 20*time.Second, 20*time.Millisecond)
	require.Equal(s.t, pods, selected)
}

// led are the pods that the Service led to, in order, each once in a row; "" is none.
func (s *scene) led() (pods []string) {
	for _, c := range s.sorted() {
		if !c.lease && (len(pods) == 0 || pods[len(pods)-1] != c.pod) {
			pods = append(pods, c.pod)
		}
	}
	return pods
}

// version returns that of the first change after another one that is as given.
func (s *scene) version(after uint64, is func(change) bool) (version uint64) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		for _, c := range s.sorted() {
			if c.version > after && is(c) {
				version = c.version
				return true
			}
		}
		return false
	}, 20*time.Second, 20*time.Millisecond)
	return version
}

func on(pod string) func(change) bool { // "" is none
	return func(c change) bool { return !c.lease && c.pod == pod }
}
func released(c change) bool { return c.lease && c.holder == "" }

func TestTheEndpointSliceIsEmptiedBeforeTheLeaseIsReleased(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	leader := s.launch("pod-0")
	s.await(leader, leadsHere)
	s.selects("pod-0")
	for i := range 3 { // each stops while the next one stands by
		standby := s.launch(fmt.Sprintf("pod-%d", i+1))
		s.await(standby, "New leader")
		require.NoError(t, leader.Signal(syscall.SIGTERM))
		s.await(standby, leadsHere)
		s.selects(standby.Name)
		_, code, err := leader.Wait(t.Context())
		require.NoError(t, err)
		require.Zero(t, code)

		began := s.version(0, on(leader.Name))
		emptied := s.version(began, on(""))
		release := s.version(began, released)
		require.Less(t, emptied, release)
		require.Less(t, release, s.version(0, on(standby.Name)))
		leader = standby
	}
	require.Equal(t, []string{"", "pod-0", "", "pod-1", "", "pod-2", "", "pod-3"}, s.led())
}

func TestTheNextLeadersFirstWriteReplacesACrashedOne(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	leader := s.launch("pod-0")
	s.await(leader, leadsHere)
	standby := s.launch("pod-1")
	s.await(standby, "New leader")
	require.NoError(t, leader.Signal(os.Kill))
	s.selects("pod-0") // nobody can know yet
	s.await(standby, leadsHere)
	s.selects("pod-1")
	require.Equal(t, []string{"", "pod-0", "pod-1"}, s.led())
}

// A frozen process cannot empty it. When it wakes, it finds that done, and leaves the next leader's address alone.
func TestALeaderThatWasFrozenLeavesTheNextOnesAddressAlone(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	leader := s.launch("pod-0")
	s.await(leader, leadsHere)
	standby := s.launch("pod-1")
	s.await(standby, "New leader")
	require.NoError(t, leader.Signal(syscall.SIGSTOP))
	s.await(standby, leadsHere)
	s.selects("pod-1")
	require.NoError(t, leader.Signal(syscall.SIGCONT))
	// It woke after more than its lease, and OnOverrun ends it, or it stands by again.
	require.NoError(t, leader.Signal(syscall.SIGTERM))
	_, _, err := leader.Wait(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"", "pod-0", "pod-1"}, s.led())
}

func TestWhatSomebodyWritesIsPutRightAndACheckWritesNothing(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.await(s.launch("pod-0"), leadsHere)
	client := s.Admin.DiscoveryV1().EndpointSlices(s.Namespace)
	before, err := client.Get(t.Context(), sliceName, metav1.GetOptions{})
	require.NoError(t, err)
	time.Sleep(11 * time.Second) // longer than between two checks
	after, err := client.Get(t.Context(), sliceName, metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, before.ResourceVersion, after.ResourceVersion)
	after.Endpoints = nil
	_, err = client.Update(t.Context(), after, metav1.UpdateOptions{})
	require.NoError(t, err)
	s.selects("pod-0")
}

func TestWithoutThePodsAddressItSaysWhereThatComesFrom(t *testing.T) {
	t.Setenv("POD_IP", "")
	require.ErrorContains(t, run(t.Context(), "", false), "examples/deploy")
}
