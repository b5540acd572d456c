package migrating

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-go/elector/examples/internal/fleet"
	"github.com/elector-go/elector/examples/internal/fleet/fleettest"
)

// oneLine is the cases of the guide: how many lines change, and what moving over has to give.
var oneLine = []struct {
	program string
	lines   int
	joined  bool          // the next one works only after the old one has stopped
	within  time.Duration // from SIGTERM to the next leader's work: much more than it takes, for a machine under load
	slow    bool          // before, nothing is released
}{
	{program: "clientset", lines: 1, joined: true, within: 10 * time.Second},
	{program: "library", lines: 1, joined: true, within: 10 * time.Second},
	{program: "deaf", lines: 1, within: 10 * time.Second},
	{program: "background", lines: 2, joined: true, within: 10 * time.Second},
	{program: "unreleased", lines: 2, joined: true, within: 10 * time.Second, slow: true},
	{program: "several", lines: 2, joined: true, within: 10 * time.Second},
	{program: "hostname", lines: 1, joined: true, within: 10 * time.Second},
	{program: "health", lines: 1, joined: true, within: 10 * time.Second},
}

func TestClientGoProgramsMoveOverInOneLine(t *testing.T) {
	for _, c := range oneLine {
		t.Run(c.program, func(t *testing.T) {
			require.Equal(t, c.lines, changed(t, c.program))
			f := newOneLine(t)
			before := f.handOver(c.program+"-before", false)
			after := f.handOver(c.program+"-after", c.joined)
			t.Logf("SIGTERM to the next one's work: before %v, after %v", before.Round(time.Millisecond), after.Round(time.Millisecond))
			require.Less(t, after, c.within)
			if c.slow {
				require.Greater(t, before, c.within, "the case is none")
			}
		})
	}
}

func TestClientGoProgramsMoveOverReplicaByReplica(t *testing.T) {
	f := newOneLine(t)
	old := f.start("clientset-before")
	f.await(old, "Working")
	next := f.standby("clientset-after")
	f.Terminate(old)
	f.await(next, "Working")
	back := f.standby("clientset-before")
	f.Terminate(next)
	stopped := f.await(next, "Stopped")
	require.False(t, f.await(back, "Working").At.Before(stopped.At))
}

// changed counts the lines of a program that are new in its later form.
func changed(t *testing.T, program string) (n int) {
	source := read(t, filepath.Join("oneline", program+".go"))
	prefix := program
	if program == "library" {
		prefix = "elect" // what changes is the library
	}
	old := lines("package main\n" + function(t, source, prefix+"Before"))
	for line, count := range lines("package main\n" + function(t, source, prefix+"After")) {
		n += max(count-old[line], 0)
	}
	return n
}

// function is the body of a function.
func function(t *testing.T, source, name string) string {
	_, body, found := strings.Cut(source, "\nfunc "+name+"(")
	require.True(t, found, name)
	_, body, found = strings.Cut(body, "{\n")
	require.True(t, found, name)
	body, _, found = strings.Cut(body, "\n}\n")
	require.True(t, found, name)
	return body
}

// oneLineFleet is a fleet of these programs.
type oneLineFleet struct {
	*fleettest.Fleet
	t *testing.T
}

func newOneLine(t *testing.T) *oneLineFleet {
	f := &oneLineFleet{shared.New(t), t}
	_, err := f.Admin.RbacV1().Roles(f.Namespace).Create(f.Context(), &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "leases"},
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get", "create", "update", "watch"},
		}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = f.Admin.RbacV1().RoleBindings(f.Namespace).Create(f.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "leases"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: fleet.User}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "leases"},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	return f
}

func (f *oneLineFleet) start(program string) *fleet.Replica {
	f.t.Helper()
	addr, err := fleet.Addr()
	require.NoError(f.t, err)
	f.SetEnv("TEST_HOSTNAME=" + addr) // pods have host names of their own
	r, err := f.Fleet.Fleet.Start(program, filepath.Join(shared.Programs, "oneline"), "-program="+program, "-health-probe-bind-address="+addr)
	require.NoError(f.t, err)
	return r
}

func (f *oneLineFleet) standby(program string) *fleet.Replica {
	f.t.Helper()
	r := f.start(program)
	f.await(r, "New leader")
	return r
}

// await waits for a message of a replica.
func (f *oneLineFleet) await(r *fleet.Replica, message string) fleet.Line {
	f.t.Helper()
	l, _, err := f.Fleet.Fleet.Await(f.Context(), r.Name+": "+message, 0, func(l fleet.Line) bool { return l.Replica == r && l.Is(message) })
	require.NoError(f.t, err)
	return l
}

// handOver terminates a leader, and returns the time from then to the work of the next leader. Then that leader is gone
// too.
func (f *oneLineFleet) handOver(program string, joined bool) time.Duration {
	f.t.Helper()
	old := f.start(program)
	f.await(old, "Working")
	next := f.standby(program)
	if strings.HasPrefix(program, "health") {
		code, body := f.Get(old, "/healthz")
		require.Equal(f.t, 200, code, body)
	}
	at := f.Terminate(old)
	works := f.await(next, "Working")
	require.Zero(f.t, f.ExitCode(old))
	if joined {
		require.False(f.t, works.At.Before(f.await(old, "Stopped").At), "two work at once")
	}
	f.Terminate(next)
	require.Zero(f.t, f.ExitCode(next))
	return works.At.Sub(at)
}
