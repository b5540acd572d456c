//go:build linux

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
)

// mayReadPods grants what the README says of --deaths.
func (s *stage) mayReadPods() {
	s.t.Helper()
	ctx, admin, meta := s.t.Context(), shared.Admin(), metav1.ObjectMeta{Name: "pods"}
	_, err := admin.RbacV1().Roles(s.namespace).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get", "watch"}}}}, metav1.CreateOptions{})
	require.NoError(s.t, err)
	_, err = admin.RbacV1().RoleBindings(s.namespace).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: meta,
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name}}, metav1.CreateOptions{})
	require.NoError(s.t, err)
	s.within("the authorizer, which follows behind", func() bool {
		r, err := admin.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user, ResourceAttributes: &authorizationv1.ResourceAttributes{Resource: "pods", Namespace: s.namespace, Verb: "watch"}}}, metav1.CreateOptions{})
		return err == nil && r.Status.Allowed
	})
}

// inPod starts elector run in a container of which a kubelet keeps the termination log: here the test does.
func (s *stage) inPod(script string, flags ...string) (r *replica, log string) {
	s.t.Helper()
	log = filepath.Join(s.t.TempDir(), "1a2b3c4d")
	require.NoError(s.t, os.WriteFile(log, nil, 0o666))
	cmd := s.command(append(append([]string{"run", "--lease", s.namespace + "/batch"}, flags...), "--", "sh", "-c", script)...)
	cmd.Env = append(cmd.Env, terminationLog+"="+log)
	return s.start(cmd), log
}

// No kubelet runs here: the test patches the status of a pod that has the name of this machine, as the pod's host has.
func TestWithDeathsTheLeaseOfAContainerThatHasEndedIsNotWaitedFor(t *testing.T) {
	s := newStage(t)
	host, err := os.Hostname()
	require.NoError(t, err)
	if reasons := validation.IsDNS1123Subdomain(host); len(reasons) > 0 {
		t.Skipf("no pod can have this machine's name, %s: %v", host, reasons)
	}
	s.mayReadPods()
	pods := shared.Admin().CoreV1().Pods(s.namespace)
	pod, err := pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: host},
		Spec: corev1.PodSpec{NodeName: "node-1", Containers: []corev1.Container{{Name: "main", Image: "x"}}}}, metav1.CreateOptions{})
	require.NoError(t, err)

	leader, log := s.inPod(polite, "--deaths")
	pid := leader.pid("leading")
	standby, _ := s.inPod(polite, "--deaths")
	standby.says("New leader")
	at := leader.signal(syscall.SIGKILL)
	s.gone(pid)
	require.NotContains(t, standby.String(), "leading=", "before the kubelet has said anything")
	note, err := os.ReadFile(log)
	require.NoError(t, err)
	end := corev1.ContainerStateTerminated{ContainerID: "containerd://1", Reason: "OOMKilled", ExitCode: 137, FinishedAt: metav1.Now(), Message: string(note)}
	status, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": corev1.PodStatus{Phase: corev1.PodRunning,
		ContainerStatuses: []corev1.ContainerStatus{{Name: "main", ContainerID: "containerd://1", State: corev1.ContainerState{Terminated: &end}}}}})
	require.NoError(t, err)
	_, err = pods.Patch(t.Context(), host, types.StrategicMergePatchType, status, metav1.PatchOptions{}, "status")
	require.NoError(t, err)
	standby.pid("leading")
	took := time.Since(at)
	t.Logf("figure: SIGKILL of elector to the next leader's program, with the kubelet's word: %v of 15 s", took.Round(time.Millisecond))
	require.Less(t, took, 11*time.Second) // the last renewal was 2.4 s old at the most, so it lasts for 12.6 s
}
