package deploy_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/elector-go/elector/examples/deploy"
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

// roll applies the manifests in a namespace of the test's own.
func roll(t *testing.T, edit func(*unstructured.Unstructured)) *rollout.Rollout {
	t.Helper()
	namespace := strings.ToLower(strings.NewReplacer("/", "-", "_", "-", "#", "-").Replace(t.Name()))
	namespace = strings.Trim(namespace[max(0, len(namespace)-60):], "-")
	r, err := rollout.New(t.Context(), shared.Cluster, namespace, filepath.Join(shared.Programs, rollout.App), t.TempDir(), edit)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, r.Close())
		if t.Failed() {
			for _, l := range r.Lines() {
				t.Logf("%s %s %s", l.At.Format("15:04:05.000"), l.Replica.Name, l.Text)
			}
		}
	})
	return r
}

func launch(t *testing.T, r *rollout.Rollout, pod string) (*fleet.Replica, string) {
	t.Helper()
	replica, addr, err := r.Launch(t.Context(), pod)
	require.NoError(t, err)
	return replica, addr
}

// await waits for a line of the log that has all the parts.
func await(t *testing.T, r *rollout.Rollout, since int, parts ...string) (fleet.Line, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	line, next, err := r.Await(ctx, strings.Join(parts, "…"), since, func(l fleet.Line) bool {
		for _, part := range parts {
			if !strings.Contains(l.Text, part) {
				return false
			}
		}
		return true
	})
	require.NoError(t, err)
	return line, next
}

// With the manifests as they are: elected, renewed, handed over, and not one request refused.
func TestTheRolesAreEnough(t *testing.T) {
	t.Parallel()
	r := roll(t, nil)
	first, _ := launch(t, r, "pod-1")
	_, next := await(t, r, 0, "The Service leads to this replica", "pod-1")
	second, _ := launch(t, r, "pod-2")
	await(t, r, next, "New leader") // pod-2 has seen who leads
	leases := r.Admin.CoordinationV1().Leases(r.Namespace)
	before, err := leases.Get(t.Context(), rollout.App, metav1.GetOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		lease, err := leases.Get(t.Context(), rollout.App, metav1.GetOptions{})
		return err == nil && lease.Spec.RenewTime.After(before.Spec.RenewTime.Time)
	}, 10*time.Second, 50*time.Millisecond, "a renewal")

	require.NoError(t, first.Signal(syscall.SIGTERM))
	await(t, r, next, "The Service leads to this replica", "pod-2")
	require.NoError(t, second.Signal(syscall.SIGTERM))
	for _, replica := range []*fleet.Replica{first, second} {
		_, code, err := replica.Wait(t.Context())
		require.NoError(t, err)
		require.Zero(t, code)
		for _, sign := range []string{"forbidden", "403", "No watch", "A request failed", "Unauthorized"} {
			require.NotContains(t, r.Log(replica), sign)
		}
	}
	lease, err := leases.Get(t.Context(), rollout.App, metav1.GetOptions{})
	require.NoError(t, err)
	require.Empty(t, *lease.Spec.HolderIdentity, "released")
	selected, err := r.Selected(t.Context())
	require.NoError(t, err)
	require.Empty(t, selected)
}

// The Deployment's emptyDir proves that the container that was killed is dead.
func TestAContainerThatIsKilledAndStartedAgainLeadsAtOnce(t *testing.T) {
	t.Parallel()
	r := roll(t, nil)
	first, _ := launch(t, r, "pod-1")
	_, next := await(t, r, 0, "The Service leads to this replica", "pod-1")
	launch(t, r, "pod-2")
	_, next = await(t, r, next, "New leader") // pod-2 has seen who leads
	require.NoError(t, first.Signal(syscall.SIGKILL))
	_, _, err := first.Wait(t.Context())
	require.NoError(t, err)
	killed := time.Now()
	launch(t, r, "pod-1")
	line, _ := await(t, r, next, "The Service leads to this replica")
	require.Contains(t, line.Text, "pod-1", "pod-2 has to wait until the lease expires")
	t.Logf("killed, started again, and leading after %v", line.At.Sub(killed).Round(time.Millisecond))
	require.Less(t, line.At.Sub(killed), 10*time.Second, "before the lease expires")
}

// Each verb taken away is missed.
func TestTheRolesAreTheLeast(t *testing.T) {
	t.Parallel()
	forbidden := func(verb, resource string) []string {
		return []string{"forbidden", fmt.Sprintf(`cannot %s resource \"%s\"`, verb, resource)} // quoted twice in the log
	}
	for _, c := range []struct {
		verb, resource string
		missed         []string // parts of a line of the log
	}{
		{"create", "leases", forbidden("create", "leases")},
		{"get", "leases", forbidden("get", "leases")},
		{"update", "leases", forbidden("update", "leases")},
		{"watch", "leases", append(forbidden("watch", "leases"), "No watch on the lease")},
		{"get", "endpointslices", append(forbidden("get", "endpointslices"), "The Service may not lead to the leader")},
		{"create", "endpointslices", append(forbidden("create", "endpointslices"), "The Service may not lead to the leader")},
		{"update", "endpointslices", append(forbidden("update", "endpointslices"), "The Service may not lead to the leader")},
	} {
		t.Run(c.verb+"-"+c.resource, func(t *testing.T) {
			t.Parallel()
			removed := 0
			r := roll(t, func(o *unstructured.Unstructured) { removed += revoke(o, c.verb, c.resource) })
			require.Equal(t, 1, removed, "the Roles grant it once")
			launch(t, r, "pod-1")
			await(t, r, 0, c.missed...)
		})
	}
	// So the table above has them all.
	granted := 0
	objects, err := deploy.Objects()
	require.NoError(t, err)
	for _, o := range objects {
		for _, rule := range rules(o) {
			granted += len(rule["verbs"].([]any))
		}
	}
	require.Equal(t, 7, granted)
}

func rules(o *unstructured.Unstructured) (rules []map[string]any) {
	list, _, _ := unstructured.NestedSlice(o.Object, "rules")
	for _, rule := range list {
		rules = append(rules, rule.(map[string]any))
	}
	return rules
}

// revoke takes a verb out of a Role, and returns how often it was there. A rule without verbs is not one.
func revoke(o *unstructured.Unstructured, verb, resource string) (removed int) {
	if o.GetKind() != "Role" {
		return 0
	}
	var kept []any
	for _, rule := range rules(o) {
		verbs := rule["verbs"].([]any)
		if i := slices.Index(verbs, any(verb)); i >= 0 && rule["resources"].([]any)[0] == resource {
			verbs, removed = slices.Delete(verbs, i, i+1), removed+1
		}
		if rule["verbs"] = verbs; len(verbs) > 0 {
			kept = append(kept, rule)
		}
	}
	_ = unstructured.SetNestedSlice(o.Object, kept, "rules")
	return removed
}

func TestTheRolesAllowNothingElse(t *testing.T) {
	t.Parallel()
	r := roll(t, nil)
	for _, c := range []struct {
		verb, group, resource, namespace, name string
		allowed                                bool
	}{
		{"get", "coordination.k8s.io", "leases", r.Namespace, rollout.App, true}, // the question is the right one
		{"get", "coordination.k8s.io", "leases", r.Namespace, "another", false},
		{"update", "coordination.k8s.io", "leases", r.Namespace, "another", false},
		{"watch", "coordination.k8s.io", "leases", r.Namespace, "", false},
		{"patch", "coordination.k8s.io", "leases", r.Namespace, rollout.App, false},
		{"delete", "coordination.k8s.io", "leases", r.Namespace, rollout.App, false},
		{"get", "coordination.k8s.io", "leases", "kube-system", rollout.App, false},
		{"get", "", "pods", r.Namespace, "pod-1", false},
		{"list", "", "pods", r.Namespace, "", false},
		{"patch", "", "pods", r.Namespace, "pod-1", false},
		{"get", "discovery.k8s.io", "endpointslices", r.Namespace, "leaderservice-leader", true},
		{"update", "discovery.k8s.io", "endpointslices", r.Namespace, "another", false},
		{"delete", "discovery.k8s.io", "endpointslices", r.Namespace, "leaderservice-leader", false},
		{"create", "", "events", r.Namespace, "", false},
		{"get", "", "secrets", r.Namespace, "", false},
	} {
		allowed, err := r.May(t.Context(), c.verb, c.group, c.resource, c.namespace, c.name)
		require.NoError(t, err)
		require.Equal(t, c.allowed, allowed, "%+v", c)
	}
	// And as a client with the account's token sees it.
	client, err := kubernetes.NewForConfig(r.Config)
	require.NoError(t, err)
	_, err = client.CoreV1().Secrets(r.Namespace).List(t.Context(), metav1.ListOptions{})
	require.True(t, apierrors.IsForbidden(err), "%v", err)
	require.ErrorContains(t, err, "system:serviceaccount:"+r.Namespace+":"+rollout.App)
}

// What deaths.yaml adds.
func TestTheRoleForDeathsIsEnoughToReadPods(t *testing.T) {
	t.Parallel()
	r := roll(t, nil)
	client, err := dynamic.NewForConfig(shared.Cluster.AdminConfig())
	require.NoError(t, err)
	objects, err := deploy.Read("deaths.yaml")
	require.NoError(t, err)
	for _, o := range objects {
		deploy.Move(o, r.Namespace)
		require.NoError(t, deploy.Apply(t.Context(), client, o))
	}
	for verb, allowed := range map[string]bool{"get": true, "watch": true, "list": false, "patch": false, "delete": false} {
		require.Eventually(t, func() bool {
			may, err := r.May(t.Context(), verb, "", "pods", r.Namespace, "pod-1")
			return err == nil && may == allowed
		}, 10*time.Second, 50*time.Millisecond, verb)
	}
	may, err := r.May(t.Context(), "get", "", "pods", "kube-system", "pod-1")
	require.NoError(t, err)
	require.False(t, may)
}

func TestAFieldThatDoesNotExistIsRefused(t *testing.T) {
	t.Parallel()
	client, err := dynamic.NewForConfig(shared.Cluster.AdminConfig())
	require.NoError(t, err)
	r := roll(t, nil)
	objects, err := deploy.Objects()
	require.NoError(t, err)
	for _, o := range objects {
		deploy.Move(o, r.Namespace)
		require.NoError(t, deploy.Apply(t.Context(), client, o), "a second time")
		o.Object["speck"] = map[string]any{}
		require.Error(t, deploy.Apply(t.Context(), client, o), "%s", o.GetKind())
	}
}

// The API server admits the pod in the namespace's restricted standard, and none that is laxer.
func TestThePodIsRestricted(t *testing.T) {
	t.Parallel()
	r := roll(t, nil)
	create := func(edit func(*corev1.Pod)) error {
		pod, err := r.Pod(t.Context(), "pod")
		require.NoError(t, err)
		edit(pod)
		_, err = r.Admin.CoreV1().Pods(r.Namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	require.NoError(t, create(func(*corev1.Pod) {}))
	for what, edit := range map[string]func(*corev1.Pod){
		"runAsNonRoot":             func(p *corev1.Pod) { p.Spec.SecurityContext.RunAsNonRoot = nil },
		"seccompProfile":           func(p *corev1.Pod) { p.Spec.SecurityContext.SeccompProfile = nil },
		"allowPrivilegeEscalation": func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = nil },
		"capabilities":             func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext.Capabilities = nil },
	} {
		err := create(edit)
		require.True(t, apierrors.IsForbidden(err), "%s: %v", what, err)
		require.ErrorContains(t, err, what)
	}
}

func TestTheProbesAskWhatTheProgramAnswers(t *testing.T) {
	t.Parallel()
	r := roll(t, nil)
	_, leader := launch(t, r, "pod-1")
	_, next := await(t, r, 0, "Became leader")
	_, standby := launch(t, r, "pod-2")
	await(t, r, next, "New leader")
	pod, err := r.Pod(t.Context(), "pod")
	require.NoError(t, err)
	container := pod.Spec.Containers[0]
	for _, addr := range []string{leader, standby} {
		require.Equal(t, http.StatusOK, get(t, addr, container.LivenessProbe.HTTPGet.Path))
		require.Equal(t, http.StatusOK, get(t, addr, container.ReadinessProbe.HTTPGet.Path), "on a standby too")
	}
	require.Equal(t, http.StatusOK, get(t, leader, "/"))
	require.Equal(t, http.StatusServiceUnavailable, get(t, standby, "/"))
	require.Contains(t, container.Args, fmt.Sprintf("-bind-address=:%d", container.Ports[0].ContainerPort))
}

func get(t *testing.T, addr, path string) int {
	t.Helper()
	resp, err := http.Get("http://" + addr + path)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

// What one manifest says must be what another says.
func TestTheManifestsFitTogether(t *testing.T) {
	t.Parallel()
	r := roll(t, nil)
	d, err := r.Admin.AppsV1().Deployments(r.Namespace).Get(t.Context(), rollout.App, metav1.GetOptions{})
	require.NoError(t, err)
	budget, err1 := r.Admin.PolicyV1().PodDisruptionBudgets(r.Namespace).Get(t.Context(), rollout.App, metav1.GetOptions{})
	service, err2 := r.Admin.CoreV1().Services(r.Namespace).Get(t.Context(), rollout.App, metav1.GetOptions{})
	require.NoError(t, errors.Join(err1, err2))
	require.Equal(t, d.Spec.Template.Labels, d.Spec.Selector.MatchLabels)
	require.Equal(t, d.Spec.Selector.MatchLabels, budget.Spec.Selector.MatchLabels)
	require.Equal(t, d.Spec.Selector.MatchLabels, d.Spec.Template.Spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels)
	require.Empty(t, service.Spec.Selector)
	require.Equal(t, d.Spec.Template.Spec.Containers[0].Ports[0].Name, service.Spec.Ports[0].Name)
	require.Equal(t, "registry.example.com/leaderservice:v1", d.Spec.Template.Spec.Containers[0].Image)
	require.Greater(t, *d.Spec.Template.Spec.TerminationGracePeriodSeconds, int64(15), "more than a LeaseDuration")
}
