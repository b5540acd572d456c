package migrating

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-go/elector/examples/internal/fleet"
	"github.com/elector-go/elector/examples/internal/fleet/fleettest"
)

const (
	clientGosImport = `"k8s.io/client-go/tools/leaderelection"`
	ourImport       = `"github.com/elector-go/elector/leaderelection"`
)

// A shape is a program of the guide, and what moving it over has to give.
type shape struct {
	program string
	joined  bool          // the next one works only after the old one has stopped
	within  time.Duration // from SIGTERM to the next leader's work: much more than it takes, for a machine under load
	slow    bool          // before, nothing is released
	leads   time.Duration // for how long it leads before it is stopped
	killed  bool          // it does not stop by itself: before it exits in OnStoppedLeading, and afterwards it says why it ends
}

var shapes = []shape{
	{program: "runOrDie", joined: true, within: 10 * time.Second},
	{program: "loopOfRun", joined: true, within: 10 * time.Second},
	{program: "restarts", joined: true, within: 10 * time.Second},
	{program: "several", joined: true, within: 10 * time.Second},
	{program: "deaf", within: 10 * time.Second},
	{program: "late", within: 10 * time.Second, killed: true}, // a drain of 5 s, and the notice of 2 s
	{program: "background", joined: true, within: 10 * time.Second},
	{program: "unreleased", within: 30 * time.Second, slow: true},
	{program: "hostname", joined: true, within: 10 * time.Second},
	{program: "health", joined: true, within: 10 * time.Second},
	{program: "throttled", joined: true, within: 10 * time.Second, leads: 30 * time.Second},
}

func TestClientGoProgramsMoveOverByTheImportAlone(t *testing.T) {
	move(t)
	for _, c := range shapes {
		t.Run(c.program, func(t *testing.T) {
			t.Parallel()
			took := map[string]time.Duration{}
			for _, binary := range []string{"shapes", "moved"} {
				t.Run(binary, func(t *testing.T) { took[binary] = handOver(t, c, binary) })
			}
			t.Logf("SIGTERM to the next one's work: before %v, after %v", took["shapes"], took["moved"])
			require.Less(t, took["moved"], c.within)
			if c.slow {
				require.Greater(t, took["shapes"], 10*time.Second, "the case is none")
			}
		})
	}
}

// handOver terminates a leader of a shape, and returns the time from then to the work of the next leader.
func handOver(t *testing.T, c shape, binary string) time.Duration {
	f := newShapes(t, "watch")
	old := f.start(binary, c.program)
	f.await(old, "Working")
	next := f.standby(binary, c.program)
	if c.program == "health" {
		code, body := f.Get(old, "/healthz")
		require.Equal(t, 200, code, body)
	}
	time.Sleep(c.leads)
	require.NotContains(t, f.Log(old), "Stopped")
	at := f.Terminate(old)
	works := f.await(next, "Working")
	if ended := f.ExitCode(old); c.killed && binary == "moved" {
		require.Equal(t, 1, ended)
		require.Contains(t, f.Log(old), "OnStartedLeading has not returned within DrainLimit of being asked to: this process ends")
	} else {
		require.Zero(t, ended)
	}
	if c.joined && binary == "moved" {
		require.False(t, works.At.Before(f.await(old, "Stopped").At), "two work at once")
	}
	return works.At.Sub(at).Round(time.Millisecond)
}

func TestClientGoProgramsMoveOverWithoutTheRightToWatch(t *testing.T) {
	move(t)
	f := newShapes(t)
	old := f.start("moved", "runOrDie")
	f.await(old, "Working")
	next := f.standby("moved", "runOrDie")
	f.Terminate(old)
	stopped := f.await(old, "Stopped")
	require.False(t, f.await(next, "Working").At.Before(stopped.At))
}

func TestClientGoProgramsMoveOverReplicaByReplica(t *testing.T) {
	move(t)
	f := newShapes(t, "watch")
	old := f.start("shapes", "runOrDie")
	f.await(old, "Working")
	next := f.standby("moved", "runOrDie")
	f.Terminate(old)
	f.await(next, "Working")
	back := f.standby("shapes", "runOrDie")
	f.Terminate(next)
	stopped := f.await(next, "Stopped")
	require.False(t, f.await(back, "Working").At.Before(stopped.At))
}

// A container that is killed is started again in its pod, and has the host name that it had. Nothing is configured.
func TestAClientGoProgramThatIsKilledAndIsBackInItsPodLeadsAtOnce(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has /dev/shm")
	}
	move(t)
	f := newShapes(t, "watch")
	t.Cleanup(func() { os.Remove("/dev/shm/elector/" + f.Namespace + "_one.lease") })
	took := map[string][]time.Duration{}
	for _, binary := range []string{"shapes", "moved"} {
		pod := []string{"TEST_HOSTNAME=" + binary, "KUBERNETES_SERVICE_HOST=10.0.0.1"} // the replicas use the kubeconfig
		r := f.startIn(pod, binary, "hostname")
		f.await(r, "Working")
		for range 3 {
			require.NoError(t, r.Signal(os.Kill))
			<-r.Done()
			at := time.Now()
			r = f.startIn(pod, binary, "hostname")
			took[binary] = append(took[binary], f.await(r, "Working").At.Sub(at).Round(time.Millisecond))
		}
		f.Terminate(r)
		require.Zero(t, f.ExitCode(r))
	}
	t.Logf("start after a SIGKILL to its work: before %v, after %v", took["shapes"], took["moved"])
	require.Less(t, slices.Max(took["moved"]), 5*time.Second, "where the Lease binds for 15 s")
}

// move builds the programs with another import path and no other change, as moved.
func move(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob("shapes/*.go")
	require.NoError(t, err)
	edited := map[string]string{}
	for _, file := range files {
		if text := read(t, file); strings.Contains(text, clientGosImport) {
			edited[file] = strings.ReplaceAll(text, clientGosImport, ourImport)
		}
	}
	require.NotEmpty(t, edited)
	build(t, "moved", "./shapes", edited)
}

// shapesFleet is a fleet of these programs.
type shapesFleet struct {
	*fleettest.Fleet
	t *testing.T
}

// newShapes makes a fleet that may get, create and update Leases, and more.
func newShapes(t *testing.T, more ...string) *shapesFleet {
	f := &shapesFleet{shared.New(t), t}
	_, err := f.Admin.RbacV1().Roles(f.Namespace).Create(f.Context(), &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "leases"},
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: append([]string{"get", "create", "update"}, more...),
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

func (f *shapesFleet) start(binary, program string) *fleet.Replica {
	f.t.Helper()
	host, err := fleet.Addr() // pods have host names of their own
	require.NoError(f.t, err)
	return f.startIn([]string{"TEST_HOSTNAME=" + host}, binary, program)
}

// startIn starts a program in a pod with these environment variables.
func (f *shapesFleet) startIn(pod []string, binary, program string) *fleet.Replica {
	f.t.Helper()
	addr, err := fleet.Addr()
	require.NoError(f.t, err)
	f.SetEnv(pod...)
	r, err := f.Fleet.Fleet.Start(binary+"-"+program, filepath.Join(shared.Programs, binary), "-program="+program, "-health-probe-bind-address="+addr)
	require.NoError(f.t, err)
	return r
}

func (f *shapesFleet) standby(binary, program string) *fleet.Replica {
	f.t.Helper()
	r := f.start(binary, program)
	f.await(r, "New leader")
	return r
}

// await waits for a message of a replica.
func (f *shapesFleet) await(r *fleet.Replica, message string) fleet.Line {
	f.t.Helper()
	l, _, err := f.Fleet.Fleet.Await(f.Context(), r.Name+": "+message, 0, func(l fleet.Line) bool { return l.Replica == r && l.Is(message) })
	require.NoError(f.t, err)
	return l
}
