package migrating

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-go/elector/examples/internal/fleet"
	"github.com/elector-go/elector/examples/internal/fleet/fleettest"
)

// operators is a fleet whose replicas log as kubebuilder's do.
type operators struct {
	*fleettest.Fleet
	t *testing.T
}

// newOperators makes a fleet whose replicas have these environment variables, and no webhooks unless one says so.
func newOperators(t *testing.T, env ...string) *operators {
	return newOperatorsFor(t, time.Minute, env...)
}

func newOperatorsFor(t *testing.T, limit time.Duration, env ...string) *operators {
	f := &operators{shared.NewFor(t, limit, guide, "../../manager/README.md"), t}
	f.SetEnv(append([]string{"POD_NAMESPACE=" + f.Namespace, "ENABLE_WEBHOOKS=false"}, env...)...)
	return f
}

func (f *operators) start(program string, args ...string) *fleet.Replica {
	f.t.Helper()
	addr, err := fleet.Addr()
	require.NoError(f.t, err)
	args = append([]string{"-zap-encoder=json", "-zap-time-encoding=rfc3339nano", "-zap-log-level=5", "-health-probe-bind-address=" + addr}, args...)
	r, err := f.Fleet.Fleet.Start(program, filepath.Join(shared.Programs, program), args...)
	require.NoError(f.t, err)
	return r
}

func (f *operators) standby(program string, args ...string) *fleet.Replica {
	f.t.Helper()
	r := f.start(program, args...)
	f.await(r, "New leader")
	return r
}

// await waits for a message of a replica, after those that were awaited before.
func (f *operators) await(r *fleet.Replica, message string) {
	f.t.Helper()
	f.Await(r.Name+": "+message, func(l fleet.Line) bool { return l.Replica == r && parse(l).Message == message })
}

type line struct {
	At          time.Time `json:"ts"`
	Message     string    `json:"msg"`
	ReconcileID string    `json:"reconcileID"`
}

func parse(l fleet.Line) (parsed line) {
	_ = json.Unmarshal([]byte(l.Text), &parsed) // not all lines are zap's
	return parsed
}

// oneAtATime fails the test if two replicas were reconciling at once, or none at all ever.
func (f *operators) oneAtATime() {
	f.t.Helper()
	type span struct {
		replica  *fleet.Replica
		from, to time.Time
	}
	var spans []*span
	open := map[string]*span{}
	for _, l := range f.Lines() {
		switch parsed := parse(l); parsed.Message {
		case "Reconciling":
			open[parsed.ReconcileID] = &span{replica: l.Replica, from: parsed.At, to: l.Replica.LastMoment()}
			spans = append(spans, open[parsed.ReconcileID])
		case "Reconcile successful", "Reconciler error", "Reconcile done, requeueing":
			open[parsed.ReconcileID].to = parsed.At
		}
	}
	require.NotEmpty(f.t, spans)
	slices.SortFunc(spans, func(a, b *span) int { return a.from.Compare(b.from) })
	last := spans[0]
	for _, s := range spans {
		require.False(f.t, s.replica != last.replica && s.from.Before(last.to), "%s from %v, %s until %v", s.replica.Name, s.from, last.replica.Name, last.to)
		if s.to.After(last.to) {
			last = s
		}
	}
	f.t.Logf("%d reconciliations, never two replicas at once", len(spans))
}

func (f *operators) serves(r *fleet.Replica, path string) {
	f.t.Helper()
	require.Eventually(f.t, func() bool {
		status, _ := f.Get(r, path)
		return status == http.StatusOK
	}, 10*time.Second, 10*time.Millisecond, path)
}

// mayReview lets the replicas ask whom a token belongs to, and what that user may do, as kubebuilder's
// metrics_auth_role does.
var mayReview = sync.OnceValue(func() error {
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "metrics-auth-role"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"tokenreviews"}, Verbs: []string{"create"}},
		{APIGroups: []string{"authorization.k8s.io"}, Resources: []string{"subjectaccessreviews"}, Verbs: []string{"create"}},
	}}
	rbac := shared.Cluster.Admin().RbacV1()
	if _, err := rbac.ClusterRoles().Create(context.Background(), role, metav1.CreateOptions{}); err != nil {
		return err
	}
	_, err := rbac.ClusterRoleBindings().Create(context.Background(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: fleet.User}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
	}, metav1.CreateOptions{})
	return err
})

// scrape asks for the metrics, by HTTPS, and returns them or, if there are none, the status. The server may just have been started.
func (f *operators) scrape(addr string, admin bool) string {
	f.t.Helper()
	require.NoError(f.t, mayReview())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // it signs its own
	defer client.CloseIdleConnections()
	for {
		req, err := http.NewRequestWithContext(f.Context(), http.MethodGet, "https://"+addr+"/metrics", nil)
		require.NoError(f.t, err)
		if admin {
			req.Header.Set("Authorization", "Bearer "+shared.Cluster.AdminConfig().BearerToken)
		}
		resp, err := client.Do(req)
		if err == nil {
			body, err := io.ReadAll(resp.Body)
			require.NoError(f.t, err)
			require.NoError(f.t, resp.Body.Close())
			if resp.StatusCode == http.StatusInternalServerError { // the authorizer's rules follow behind
				time.Sleep(10 * time.Millisecond)
				continue
			}
			if resp.StatusCode != http.StatusOK {
				return resp.Status
			}
			return string(body)
		}
		require.NoError(f.t, f.Context().Err(), err)
		time.Sleep(10 * time.Millisecond)
	}
}
