package main

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector/examples/internal/checksum"
	"github.com/elector-go/elector/examples/internal/fleet/fleettest"
)

var shared fleettest.Shared

func TestMain(m *testing.M) { os.Exit(shared.Main(m, "./manager")) }

const noMetrics = "-metrics-bind-address=0"

func TestASignalHandsOver(t *testing.T) {
	t.Parallel()
	f := shared.New(t, "README.md")
	f.Churn(checksum.Mark)
	first := f.Start("manager", noMetrics)
	require.Same(t, first, f.Leader())
	f.Reconciles(first)
	second := f.Standby("manager", noMetrics)

	told := f.Terminate(first)
	require.Same(t, second, f.Leader())
	t.Logf("the next one leads %v after SIGTERM", time.Since(told).Round(time.Millisecond))
	require.Zero(t, f.ExitCode(first))
	f.Reconciles(second)

	f.Terminate(second)
	require.Zero(t, f.ExitCode(second))
	f.OneAtATime()

	order := []string{"All workers finished", "Stopping and waiting for caches", "Released the lease"}
	for _, l := range f.Lines() {
		if l.Replica == second && len(order) > 0 && l.Is(order[0]) {
			order = order[1:]
		}
	}
	require.Empty(t, order, "the lease is released when the workers have stopped")
}

func TestALossEndsTheProcess(t *testing.T) {
	t.Parallel()
	f := shared.New(t, "README.md")
	f.Churn(checksum.Mark)
	first := f.Start("manager", noMetrics)
	require.Same(t, first, f.Leader())
	f.Reconciles(first)
	second := f.Standby("manager", noMetrics)

	require.NoError(t, f.StealLease(f.Context(), "checksum", "somebody", 1))
	require.Equal(t, 1, f.ExitCode(first))
	require.Contains(t, f.Log(first), `leadership lost: taken over by`)
	require.Same(t, second, f.Leader(), "when the Lease has expired")
	f.Reconciles(second)
	f.OneAtATime()
}

func TestACrashCostsALeaseNotMore(t *testing.T) {
	t.Parallel()
	f := shared.New(t, "README.md")
	f.Churn(checksum.Mark)
	first := f.Start("manager", noMetrics)
	require.Same(t, first, f.Leader())
	f.Reconciles(first)
	second := f.Standby("manager", noMetrics)

	require.NoError(t, first.Signal(syscall.SIGKILL))
	require.Equal(t, -1, f.ExitCode(first))
	require.Same(t, second, f.Leader(), "after 15 s")
	f.Reconciles(second)
	f.OneAtATime()
}

func TestStandbysAreHealthyAndReady(t *testing.T) {
	t.Parallel()
	f := shared.New(t, "README.md")
	leader := f.Start("manager", noMetrics)
	require.Same(t, leader, f.Leader())
	standby := f.Standby("manager", noMetrics)
	for _, r := range []*struct{ path, body string }{
		{"/healthz", "ok"}, {"/readyz", "ok"},
	} {
		status, body := f.Get(standby, r.path)
		require.Equal(t, 200, status, r.path)
		require.Contains(t, body, r.body)
		status, _ = f.Get(leader, r.path)
		require.Equal(t, 200, status, r.path)
	}
}
