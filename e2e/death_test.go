package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-go/elector/e2e/internal/event"
)

// S13. No kubelet runs here: the test sends the patches of a pod's status that a kubelet sends, and makes its files.

// newPodFleet is a fleet whose replicas may read pods by the given verbs.
func newPodFleet(t *testing.T, verbs ...string) *fleet {
	t.Helper()
	f := newFleet(t)
	ctx, admin := t.Context(), shared.cluster.Admin()
	meta := metav1.ObjectMeta{Name: "pods"}
	_, err := admin.RbacV1().Roles(f.namespace).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: verbs}}}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = admin.RbacV1().RoleBindings(f.namespace).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: meta, Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: operator}}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "pods"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		r, err := admin.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: operator, ResourceAttributes: &authorizationv1.ResourceAttributes{Resource: "pods", Namespace: f.namespace, Verb: verbs[len(verbs)-1]}}}, metav1.CreateOptions{})
		return err == nil && r.Status.Allowed
	}, 10*time.Second, 20*time.Millisecond)
	return f
}

// A container is an instance of the container "main" in a pod, as a kubelet keeps it.
type container struct {
	f        *fleet
	pod      string
	uid      types.UID
	id       string
	log      string
	restarts int32
	last     *corev1.ContainerStateTerminated
}

func (f *fleet) pod(name string) *container {
	f.t.Helper()
	pod, err := shared.cluster.Admin().CoreV1().Pods(f.namespace).Create(f.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{NodeName: "node-1", Containers: []corev1.Container{{Name: "main", Image: "x"}, {Name: "side", Image: "x"}}},
	}, metav1.CreateOptions{})
	require.NoError(f.t, err)
	c := &container{f: f, pod: name, uid: pod.UID}
	c.run()
	return c
}

// run makes a new instance with a termination log of its own, as kuberuntime does.
func (c *container) run() {
	c.id = fmt.Sprintf("containerd://%016x", rand.Uint64())
	c.log = filepath.Join(c.f.t.TempDir(), fmt.Sprintf("%08x", rand.Uint32()))
	require.NoError(c.f.t, os.WriteFile(c.log, nil, 0o666))
	now := metav1.Now()
	c.patch(corev1.ContainerStatus{Name: "main", ContainerID: c.id, RestartCount: c.restarts, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}}, corev1.PodRunning)
}

func (c *container) terminated(reason string, code int32) *corev1.ContainerStateTerminated {
	text, err := os.ReadFile(c.log)
	require.NoError(c.f.t, err)
	return &corev1.ContainerStateTerminated{ContainerID: c.id, Reason: reason, ExitCode: code, StartedAt: metav1.Now(), FinishedAt: metav1.Now(), Message: string(text)}
}

func (c *container) ends(end *corev1.ContainerStateTerminated) time.Time {
	return c.patch(corev1.ContainerStatus{Name: "main", ContainerID: c.id, RestartCount: c.restarts, State: corev1.ContainerState{Terminated: end}}, corev1.PodRunning)
}

// patch patches the status by a strategic merge patch with the pod's UID, as the kubelet's status manager does. It returns
// when that was sent.
func (c *container) patch(s corev1.ContainerStatus, phase corev1.PodPhase) time.Time {
	c.f.t.Helper()
	s.LastTerminationState.Terminated = c.last
	data, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": c.uid},
		"status":   map[string]any{"phase": phase, "containerStatuses": []corev1.ContainerStatus{s}},
	})
	require.NoError(c.f.t, err)
	sent := time.Now()
	_, err = shared.cluster.Admin().CoreV1().Pods(c.f.namespace).Patch(c.f.t.Context(), c.pod, types.StrategicMergePatchType, data, metav1.PatchOptions{}, "status")
	require.NoError(c.f.t, err)
	return sent
}

// inPod starts a replica in a pod that is named as the replica.
func (f *fleet) inPod(flags ...string) (*replica, *container) {
	f.mu.Lock()
	name := fmt.Sprintf("%s-%d", ours, len(f.replicas)+1)
	f.mu.Unlock()
	c := f.pod(name)
	return f.start(ours, append(flags, "-termination-log="+c.log)...), c
}

// killAndTell kills the leader, tells of it as a kubelet does, up to a second later, and returns how long after the death
// the next one leads.
func (f *fleet) killAndTell(leader *replica, c *container, within time.Duration) (next *replica, took time.Duration) {
	f.t.Helper()
	f.kill(leader)
	died := time.Now()
	time.Sleep(50*time.Millisecond + rand.N(time.Second)) // until the kubelet looks at its containers again
	c.ends(c.terminated("OOMKilled", 137))
	next, begin := f.nextLeader(within)
	return next, begin.At.Sub(died)
}

func TestADeathThatTheKubeletConfirmsIsNotWaitedFor(t *testing.T) {
	for _, mode := range []struct {
		name  string
		verbs []string
		flags []string
		limit time.Duration // what a renewal is late by, a second, and a machine that is busy
	}{
		{"watch", []string{"get", "watch"}, nil, leaseDuration / 2},
		{"get alone", []string{"get"}, nil, leaseDuration / 2},
		{"a Lease of 137 s", []string{"get", "watch"}, []string{"-lease-duration=137s", "-renew-deadline=107s", "-retry-period=26s"}, 30 * time.Second},
	} {
		t.Run(mode.name, func(t *testing.T) {
			f := newPodFleet(t, mode.verbs...)
			leader, pod := f.inPod(mode.flags...)
			f.nextLeader(20 * time.Second)
			pods := map[string]*container{leader.id: pod}
			for range 2 {
				r, c := f.inPod(mode.flags...)
				pods[r.id] = c
				f.settle(leader, r)
			}
			var all []time.Duration
			for range 5 {
				time.Sleep(rand.N(2 * retryPeriod))
				next, took := f.killAndTell(leader, pods[leader.id], 60*time.Second)
				require.Less(t, took, mode.limit)
				all = append(all, took.Round(time.Millisecond))
				r, c := f.inPod(mode.flags...)
				pods[r.id] = c
				leader = next
				f.settle(leader, r)
			}
			f.requireOneAtATime()
			slices.Sort(all)
			t.Logf("death to the next leader: %v median, %v worst of %d", all[len(all)/2], all[len(all)-1], len(all))
		})
	}
}

// Each of these leaves the Lease to expire.
func TestWhatProvesNoDeath(t *testing.T) {
	for name, attack := range map[string]func(f *fleet, r *replica, c *container){
		"ContainerStatusUnknown": func(f *fleet, r *replica, c *container) {
			f.kill(r)
			c.ends(&corev1.ContainerStateTerminated{Reason: "ContainerStatusUnknown", ExitCode: 137, Message: "The container could not be located when the pod was terminated"})
		},
		"the shim has died, exit 137 Error": func(f *fleet, r *replica, c *container) {
			f.kill(r)
			c.ends(c.terminated("Error", 137))
		},
		"exit 255 Unknown": func(f *fleet, r *replica, c *container) {
			f.kill(r)
			c.ends(c.terminated("Unknown", 255))
		},
		"no containerID": func(f *fleet, r *replica, c *container) {
			f.kill(r)
			end := c.terminated("Error", 2)
			end.ContainerID = ""
			c.ends(end)
		},
		"phase Failed by pod GC, container still running": func(f *fleet, r *replica, c *container) {
			f.kill(r)
			c.patch(corev1.ContainerStatus{Name: "main", ContainerID: c.id, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}, corev1.PodFailed)
		},
		"force-deleted": func(f *fleet, r *replica, c *container) {
			f.kill(r)
			zero := int64(0)
			require.NoError(f.t, shared.cluster.Admin().CoreV1().Pods(f.namespace).Delete(f.t.Context(), c.pod, metav1.DeleteOptions{GracePeriodSeconds: &zero}))
		},
		"recreated under the same name, and its new instance ends": func(f *fleet, r *replica, c *container) {
			f.kill(r)
			zero := int64(0)
			require.NoError(f.t, shared.cluster.Admin().CoreV1().Pods(f.namespace).Delete(f.t.Context(), c.pod, metav1.DeleteOptions{GracePeriodSeconds: &zero}))
			again := f.pod(c.pod)
			require.NoError(f.t, os.WriteFile(again.log, []byte("panic: something"), 0o666))
			again.ends(again.terminated("Error", 2))
		},
		"another container of the pod ends": func(f *fleet, r *replica, c *container) {
			f.kill(r)
			c.patch(corev1.ContainerStatus{Name: "side", ContainerID: "containerd://side", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: "containerd://side", Reason: "Error", ExitCode: 1, FinishedAt: metav1.Now(), Message: "bye"}}}, corev1.PodRunning)
		},
		"the instance before ended, as a restarted container shows": func(f *fleet, r *replica, c *container) {
			f.kill(r)
			c.last = &corev1.ContainerStateTerminated{ContainerID: "containerd://before", Reason: "Error", ExitCode: 2, FinishedAt: metav1.Now(), Message: "elector-go.github.io terms: AAAAAAAAAAAAAAAAAAAAAA"}
			c.restarts = 1
			c.run()
		},
		"the note was cut off": func(f *fleet, r *replica, c *container) {
			f.kill(r)
			end := c.terminated("Error", 2)
			end.Message = end.Message[:len(end.Message)-1]
			c.ends(end)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newPodFleet(t, "get", "watch")
			leader, pod := f.inPod()
			f.nextLeader(20 * time.Second)
			standby, _ := f.inPod()
			f.settle(leader, standby)
			time.Sleep(2 * retryPeriod)
			attack(f, leader, pod)
			renewed := f.getLease(t.Context()).Spec.RenewTime.Time
			_, begin := f.nextLeader(25 * time.Second)
			requireNotBeforeExpiry(t, begin.At.Sub(renewed))
			f.requireOneAtATime()
		})
	}
}

// The container is started again in the same pod: the proof is in lastState, and the standby does not wait for the new
// instance.
func TestADeathIsConfirmedInLastState(t *testing.T) {
	t.Parallel()
	f := newPodFleet(t, "get", "watch")
	leader, pod := f.inPod()
	f.nextLeader(20 * time.Second)
	standby, _ := f.inPod()
	f.settle(leader, standby)
	time.Sleep(2 * retryPeriod)
	f.kill(leader)
	died := time.Now()
	pod.last = pod.terminated("Error", 2)
	pod.restarts = 1
	pod.run()
	_, begin := f.nextLeader(20 * time.Second)
	f.requireOneAtATime()
	t.Logf("%v after the death", begin.At.Sub(died))
	require.Less(t, begin.At.Sub(died), 5*time.Second)
}

// A false word about a process that lives. The leader ends as soon as it sees that its Lease is taken: that is what the
// word costs while the leader can reach the API.
func TestWhatAFalseWordCosts(t *testing.T) {
	t.Parallel()
	f := newPodFleet(t, "get", "watch")
	leader, pod := f.inPod()
	f.nextLeader(20 * time.Second)
	standby, _ := f.inPod()
	f.settle(leader, standby)
	time.Sleep(2 * retryPeriod)
	pod.ends(pod.terminated("OOMKilled", 137))
	next, _ := f.nextLeader(20 * time.Second)
	require.Equal(t, standby.id, next.id)
	f.awaitFrom(leader, event.End, 20*time.Second)
	overlap := longestOverlap(f.spans())
	t.Log("both work for", overlap)
	require.Less(t, overlap, leaseDuration/3)
}

func TestWithoutTheRightToReadPodsTheLeaseHasToExpire(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	leader, pod := f.inPod()
	f.nextLeader(20 * time.Second)
	standby, _ := f.inPod()
	f.settle(leader, standby)
	time.Sleep(2 * retryPeriod)
	f.kill(leader)
	renewed := f.getLease(t.Context()).Spec.RenewTime.Time
	pod.ends(pod.terminated("Error", 2))
	_, begin := f.nextLeader(25 * time.Second)
	requireNotBeforeExpiry(t, begin.At.Sub(renewed))
	require.True(t, logged(standby, "Whether the holder has died cannot be watched"), "it says why it waits")
	f.requireOneAtATime()
}
