package e2e

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector/e2e/internal/event"
)

// TestAnOutageOfTheAPIServerCostsNoTerm runs before the parallel tests, because it takes the API server away.
func TestAnOutageOfTheAPIServerCostsNoTerm(t *testing.T) {
	const length = time.Minute
	server := shared.cluster.APIServer
	for name, outage := range map[string]struct{ begin, end func() error }{
		"suspended": {func() error { return server.Signal(syscall.SIGSTOP) }, func() error { return server.Signal(syscall.SIGCONT) }},
		"killed":    {func() error { return server.Signal(os.Kill) }, server.Start},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			leader := f.start(ours, "-recovery-deadline=10m")
			_, begin := f.nextLeader(20 * time.Second)
			f.settle(leader, f.start(ours, "-recovery-deadline=10m"), f.start(ours, "-recovery-deadline=10m"))
			time.Sleep(2 * retryPeriod)

			require.NoError(t, outage.begin())
			gone := time.Now()
			suspended := f.awaitFrom(leader, event.Suspended, renewDeadline+20*time.Second)
			require.False(t, suspended.Valid)
			time.Sleep(time.Until(gone.Add(length)))
			require.NoError(t, outage.end())
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			require.NoError(t, shared.cluster.WaitReady(ctx))
			back := time.Now()
			resumed := f.awaitFrom(leader, event.Resumed, 20*time.Second)
			t.Logf("suspended %v after the API server was gone, valid %v after its return", suspended.At.Sub(gone), resumed.At.Sub(back))
			require.Equal(t, begin.Token, resumed.Token)

			time.Sleep(leaseDuration + 5*time.Second)
			require.Equal(t, leader.id, *f.getLease(t.Context()).Spec.HolderIdentity)
			require.Equal(t, []int{1, 1, 0, 0}, []int{f.countOf(event.Begin), f.countOf(event.Suspended), f.countOf(event.Cancelled), f.countOf(event.Exit)})
			require.Less(t, resumed.At.Sub(back), 10*time.Second)
		})
	}
}
