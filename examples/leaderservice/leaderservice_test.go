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
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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

// A scene is a rollout of the manifests, and what the API server's watches have told about it.
type scene struct {
	*rollout.Rollout
	t    *testing.T
	next int // lines of the log that are done with

	mu      sync.Mutex
	history []change
}

// A change is a write, in the order of the API server's resourceVersions, which pods and Leases share.
type change struct {
	version  uint64
	pod      string // "" for the Lease
	labelled bool
	holder   string
}

func newScene(t *testing.T) *scene {
	t.Helper()
	r, err := rollout.New(t.Context(), shared.Cluster, strings.ToLower(t.Name()), filepath.Join(shared.Programs, rollout.App), t.TempDir(), nil)
	require.NoError(t, err)
	s := &scene{Rollout: r, t: t}
	pods, err := r.Admin.CoreV1().Pods(r.Namespace).Watch(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	leases, err := r.Admin.CoordinationV1().Leases(r.Namespace).Watch(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	var watching sync.WaitGroup
	for _, w := range []watch.Interface{pods, leases} {
		watching.Go(func() {
			for ev := range w.ResultChan() {
				s.record(ev)
			}
		})
	}
	t.Cleanup(func() {
		require.NoError(t, r.Close())
		pods.Stop()
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
	case *corev1.Pod:
		c = change{pod: o.Name, labelled: o.Labels[label] == yes && ev.Type != watch.Deleted}
		c.version, _ = strconv.ParseUint(o.ResourceVersion, 10, 64)
	case *coordinationv1.Lease:
		c.holder = *cmp.Or(o.Spec.HolderIdentity, new(string))
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

const leadsHere = "The Service leads to this pod"

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

// neverTwo fails the test if the label was on two pods at once, after any of the writes.
func (s *scene) neverTwo() {
	s.t.Helper()
	on := map[string]bool{}
	for _, c := range s.sorted() {
		if c.pod == "" {
			continue
		}
		if delete(on, c.pod); c.labelled {
			on[c.pod] = true
		}
		require.LessOrEqual(s.t, len(on), 1, "pods with the label at version %d: %v", c.version, on)
	}
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

func off(pod string) func(change) bool {
	return func(c change) bool { return c.pod == pod && !c.labelled }
}
func on(pod string) func(change) bool {
	return func(c change) bool { return c.pod == pod && c.labelled }
}
func released(c change) bool { return c.pod == "" && c.holder == "" }

func TestTheLabelComesOffBeforeTheLeaseIsReleased(t *testing.T) {
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

		labelled := s.version(0, on(leader.Name))
		cameOff := s.version(labelled, off(leader.Name))
		release := s.version(labelled, released)
		require.Less(t, cameOff, release)
		require.Less(t, release, s.version(0, on(standby.Name)))
		leader = standby
	}
	s.neverTwo()
}

func TestTheNextLeaderTakesTheLabelOffACrashedOne(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	leader := s.launch("pod-0")
	s.await(leader, leadsHere)
	standby := s.launch("pod-1")
	s.await(standby, "New leader")
	require.NoError(t, leader.Signal(os.Kill))
	s.selects("pod-0") // nobody has taken it off yet
	s.await(standby, "Took the label off the pod of a past leader")
	s.await(standby, leadsHere)
	s.selects("pod-1")
	s.neverTwo()
}

func TestAContainerThatStartsAgainTakesItsOldLabelOffFirst(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	leader := s.launch("pod-0")
	s.await(leader, leadsHere)
	require.NoError(t, leader.Signal(os.Kill))
	_, _, err := leader.Wait(t.Context())
	require.NoError(t, err)
	again := s.launch("pod-0")
	s.await(again, "New leader") // its former self, until the lease expires
	s.selects()
	s.await(again, leadsHere)
	s.selects("pod-0")
}

// A frozen process cannot take its label off; when it wakes it finds that done, and touches nobody else's.
func TestALeaderThatWasFrozenLeavesTheNextOnesLabelAlone(t *testing.T) {
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
	s.selects("pod-1")
	s.neverTwo()
}

func TestALabelThatSomebodyElsePutsOnComesOff(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	leader := s.launch("pod-0")
	s.await(leader, leadsHere)
	pod, err := s.Pod(t.Context(), "pod-1")
	require.NoError(t, err)
	pod.Labels[label] = yes
	_, err = s.Admin.CoreV1().Pods(s.Namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = s.Admin.CoreV1().Pods(s.Namespace).Patch(t.Context(), "pod-0", types.MergePatchType, []byte(`{"metadata":{"labels":{"`+label+`":null}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	s.selects("pod-1")
	s.selects("pod-0")
}

// A label is taken off another pod as that was seen, or not at all.
func TestALateRemovalIsAConflict(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	pod, err := s.Pod(t.Context(), "pod-0")
	require.NoError(t, err)
	pods := s.Admin.CoreV1().Pods(s.Namespace)
	seen, err := pods.Create(t.Context(), pod, metav1.CreateOptions{})
	require.NoError(t, err)
	b := &badge{pods: pods, self: "pod-0"}
	require.NoError(t, b.set(t.Context(), "pod-0", metav1.ObjectMeta{}, yes))
	err = b.set(t.Context(), "pod-0", seen.ObjectMeta, nil)
	require.True(t, apierrors.IsConflict(err), "%v", err)
	now, err := pods.Get(t.Context(), "pod-0", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, "1000", now.Annotations[corev1.PodDeletionCost])
	require.NoError(t, b.set(t.Context(), "pod-0", now.ObjectMeta, nil))
	now, err = pods.Get(t.Context(), "pod-0", metav1.GetOptions{})
	require.NoError(t, err)
	require.NotContains(t, now.Labels, label)
	require.Empty(t, now.Annotations)
}

func TestTheServiceSelectsTheLabel(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	service, err := s.Admin.CoreV1().Services(s.Namespace).Get(t.Context(), rollout.App, metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, yes, service.Spec.Selector[label])
}

func TestWithoutThePodsNameItSaysWhereThatComesFrom(t *testing.T) {
	t.Setenv("POD_NAME", "")
	require.ErrorContains(t, run(t.Context(), ""), "examples/deploy")
}
