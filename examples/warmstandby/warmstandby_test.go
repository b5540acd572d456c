package main

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/elector-go/elector/examples/internal/checksum"
	"github.com/elector-go/elector/examples/internal/fleet"
	"github.com/elector-go/elector/examples/internal/fleet/fleettest"
)

var shared fleettest.Shared

func TestMain(m *testing.M) {
	ctrl.SetLogger(klog.Background())
	os.Exit(shared.Main(m, "./warmstandby", "./manager"))
}

const noMetrics = "-metrics-bind-address=0"

func TestASignalHandsOver(t *testing.T) {
	t.Parallel()
	f := shared.New(t, "README.md")
	f.Churn(checksum.Mark)
	first := f.Start("warmstandby", noMetrics)
	require.Same(t, first, f.Leader())
	f.Reconciles(first)
	second := f.Standby("warmstandby", noMetrics)

	f.Terminate(first)
	require.Same(t, second, f.Leader())
	require.Zero(t, f.ExitCode(first))
	f.Reconciles(second)
	f.Terminate(second)
	require.Zero(t, f.ExitCode(second))
	f.OneAtATime()

	order := []string{"All workers finished", "Released the lease", "Stopping and waiting for caches"}
	for _, l := range f.Lines() {
		if l.Replica == second && len(order) > 0 && l.Is(order[0]) {
			order = order[1:]
		}
	}
	require.Empty(t, order, "the workers stop, then the lease is released, then the caches stop")
}

func TestALossIsSurvivedAgainAndAgain(t *testing.T) {
	t.Parallel()
	f := shared.New(t, "README.md")
	f.Churn(checksum.Mark)
	first := f.Start("warmstandby", noMetrics)
	require.Same(t, first, f.Leader())
	f.Reconciles(first)
	f.OneAtATime()

	// Alone, so that it is sure to lead again when the thief's lease has expired.
	require.NoError(t, f.StealLease(f.Context(), "checksum", "somebody", 1))
	f.Await("the end of the term", func(l fleet.Line) bool { return l.Is("All workers finished") })
	require.Same(t, first, f.Leader(), "the same process leads again")
	f.Reconciles(first)

	second := f.Standby("warmstandby", noMetrics)
	f.Terminate(first)
	require.Zero(t, f.ExitCode(first))
	require.Same(t, second, f.Leader())
	f.Reconciles(second)
	f.OneAtATime()
}

func TestStandbysAreHealthyAndReady(t *testing.T) {
	t.Parallel()
	f := shared.New(t, "README.md")
	require.Same(t, f.Start("warmstandby", noMetrics), f.Leader())
	standby := f.Standby("warmstandby", noMetrics)
	for _, path := range []string{"/healthz", "/readyz"} {
		status, body := f.Get(standby, path)
		require.Equal(t, 200, status, "%s: %s", path, body)
	}
}

// TestFigures measures the time from SIGTERM of the leader to the first reconciliation by the next leader.
func TestFigures(t *testing.T) {
	const configMaps, handOvers = 500, 5
	finished := func(cm *corev1.ConfigMap) { // so that nothing is left to write
		sum, err := checksum.Sum(cm)
		require.NoError(t, err)
		checksum.Mark(cm)
		metav1.SetMetaDataAnnotation(&cm.ObjectMeta, checksum.Annotation, sum)
	}
	type figure struct{ leads, works time.Duration }
	measure := func(t *testing.T, program string, args ...string) (median figure) {
		f := shared.New(t, "README.md")
		require.NoError(t, f.CreateConfigMaps(f.Context(), configMaps, finished))
		leader := f.Start(program, args...)
		require.Same(t, leader, f.Leader())
		f.Reconciles(leader)
		var leads, works []time.Duration
		for range handOvers {
			next := f.Standby(program, args...)
			f.Settle()
			told := f.Terminate(leader)
			leads = append(leads, f.Await("the next leader", func(l fleet.Line) bool { return l.Replica == next && l.Is("Became leader") }).At.Sub(told))
			works = append(works, f.Reconciles(next).At.Sub(told))
			require.Zero(t, f.ExitCode(leader))
			leader = next
		}
		f.OneAtATime()
		return figure{fleet.Median(leads), fleet.Median(works)}
	}
	var oneLine, warm figure
	t.Run("elect", func(t *testing.T) { oneLine = measure(t, "manager", noMetrics) })
	t.Run("warm", func(t *testing.T) { warm = measure(t, "warmstandby", noMetrics) })
	ms := func(d time.Duration) int64 { return d.Round(time.Millisecond).Milliseconds() }
	t.Logf("SIGTERM of the leader to the next one's first reconciliation, %d ConfigMaps, median of %d:", configMaps, handOvers)
	t.Logf("%-24s %5d ms, of which until it leads %5d ms", "manager (Elect)", ms(oneLine.works), ms(oneLine.leads))
	t.Logf("%-24s %5d ms, of which until it leads %5d ms", "warmstandby", ms(warm.works), ms(warm.leads))
}
