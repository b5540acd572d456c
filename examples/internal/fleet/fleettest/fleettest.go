// Package fleettest is what the tests of the examples have in common.
package fleettest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-go/elector/e2e/cluster"
	"github.com/elector-go/elector/examples/internal/fleet"
)

// Shared is what the tests of a package share: a real API server, and the folder with the programs built for them.
type Shared struct {
	Cluster  *cluster.Cluster
	Programs string
}

// Main is a TestMain: it starts an API server and builds the packages (see fleet.Build) for the tests, and returns the
// exit code. The first run builds the server too, which takes some minutes.
func (s *Shared) Main(m *testing.M, packages ...string) int {
	code, err := s.main(m, packages)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func (s *Shared) main(m *testing.M, packages []string) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	if s.Programs, err = fleet.Build(ctx, packages...); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.Programs)) }()
	if s.Cluster, err = cluster.Start(ctx, fleet.User); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Cluster.Stop()) }()
	return m.Run(), nil
}

// A Fleet is a fleet.Fleet whose failures are the test's.
type Fleet struct {
	*fleet.Fleet
	t        *testing.T
	ctx      context.Context
	programs string
	next     int // lines of the log that are done with
	started  int
}

// New makes a fleet for a test, with the Roles that READMEs show and no other rights. Its log is shown if the test
// fails, and what still runs at its end is killed.
func (s *Shared) New(t *testing.T, readmes ...string) *Fleet {
	return s.NewFor(t, time.Minute, readmes...)
}

// NewFor is New for a test that may take longer than a minute.
func (s *Shared) NewFor(t *testing.T, limit time.Duration, readmes ...string) *Fleet {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	var roles []string
	for _, readme := range readmes {
		more, err := fleet.Roles(readme)
		require.NoError(t, err)
		require.NotEmpty(t, more, readme)
		roles = append(roles, more...)
	}
	namespace := strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	f, err := fleet.New(ctx, s.Cluster, namespace[:min(63, len(namespace))], roles...)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, f.Close())
		if t.Failed() {
			t.Logf("the logs:\n%s", f.Log(nil))
		}
	})
	return &Fleet{Fleet: f, t: t, ctx: ctx, programs: s.Programs}
}

// Context ends when the test should have.
func (f *Fleet) Context() context.Context { return f.ctx }

// Start starts a program with a free address for its health checks, and logs the reconciliations.
func (f *Fleet) Start(program string, args ...string) *fleet.Replica {
	f.t.Helper()
	addr, err := fleet.Addr()
	require.NoError(f.t, err)
	f.started++
	args = append([]string{"-v=5", "-health-probe-bind-address=" + addr}, args...)
	r, err := f.Fleet.Start(fmt.Sprintf("%s-%d", program, f.started), filepath.Join(f.programs, program), args...)
	require.NoError(f.t, err)
	return r
}

// Standby starts a program, and returns when it stands by.
func (f *Fleet) Standby(program string, args ...string) *fleet.Replica {
	f.t.Helper()
	r := f.Start(program, args...)
	f.Await("a standby", func(l fleet.Line) bool { return l.Replica == r && l.Is("New leader") })
	return r
}

// Await waits for a line of the log after those that were awaited before.
func (f *Fleet) Await(what string, match func(fleet.Line) bool) fleet.Line {
	f.t.Helper()
	l, next, err := f.Fleet.Await(f.ctx, what, f.next, match)
	require.NoError(f.t, err)
	f.next = next
	return l
}

// Leader waits for the next leader.
func (f *Fleet) Leader() *fleet.Replica {
	f.t.Helper()
	return f.Await("a leader", func(l fleet.Line) bool { return l.Is("Became leader") }).Replica
}

// Reconciles waits for a reconciliation by a replica.
func (f *Fleet) Reconciles(r *fleet.Replica) fleet.Line {
	f.t.Helper()
	return f.Await("a reconciliation by "+r.Name, func(l fleet.Line) bool { return l.Replica == r && l.Reconciling() })
}

// Terminate sends SIGTERM, and returns when that was.
func (f *Fleet) Terminate(r *fleet.Replica) time.Time {
	f.t.Helper()
	at := time.Now()
	require.NoError(f.t, r.Signal(syscall.SIGTERM))
	return at
}

// ExitCode waits for the end of a replica.
func (f *Fleet) ExitCode(r *fleet.Replica) int {
	f.t.Helper()
	_, code, err := r.Wait(f.ctx)
	require.NoError(f.t, err)
	return code
}

// OneAtATime fails the test if two replicas were reconciling at once, or none at all ever.
func (f *Fleet) OneAtATime() {
	f.t.Helper()
	n, err := f.Reconciliations()
	require.NoError(f.t, err)
	require.Positive(f.t, n)
	f.t.Logf("%d reconciliations, never two replicas at once", n)
}

// Get asks a replica's server, which may just have been started, and returns the status and the body.
func (f *Fleet) Get(r *fleet.Replica, path string) (int, string) {
	f.t.Helper()
	for {
		resp, err := http.Get("http://" + r.Addr + path)
		if err == nil {
			body, err := io.ReadAll(resp.Body)
			require.NoError(f.t, errors.Join(err, resp.Body.Close()))
			return resp.StatusCode, string(body)
		}
		require.NoError(f.t, f.ctx.Err(), err)
		time.Sleep(10 * time.Millisecond)
	}
}

// Churn keeps ten ConfigMaps, marked as edit does, changing until the test ends, so that there always is something to do.
func (f *Fleet) Churn(edit func(*corev1.ConfigMap)) {
	f.t.Helper()
	require.NoError(f.t, f.CreateConfigMaps(f.ctx, 10, edit))
	ctx, stop := context.WithCancel(f.ctx)
	var churning sync.WaitGroup
	f.t.Cleanup(func() { stop(); churning.Wait() })
	churning.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			patch := fmt.Sprintf(`{"data":{"number":"%d"}}`, i)
			_, err := f.Admin.CoreV1().ConfigMaps(f.Namespace).Patch(ctx, fmt.Sprintf("settings-%d", i%10), types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			if err != nil && ctx.Err() == nil {
				f.t.Errorf("churn: %v", err)
				return
			}
		}
	})
}

// Settle returns when no reconciliation has begun for a while.
func (f *Fleet) Settle() {
	f.t.Helper()
	const while = 300 * time.Millisecond
	for {
		ctx, cancel := context.WithTimeout(f.ctx, while)
		_, next, err := f.Fleet.Await(ctx, "quiet", f.next, fleet.Line.Reconciling)
		cancel()
		f.next = next
		if err != nil {
			require.NoError(f.t, f.ctx.Err())
			return
		}
	}
}
