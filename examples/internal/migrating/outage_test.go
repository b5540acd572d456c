package migrating

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-go/elector/examples/internal/fleet"
)

// recovering is the main.go of elect with Options.RecoveryDeadline.
func recovering(t *testing.T) string {
	main := read(t, "elect/main.go")
	for old, with := range map[string]string{
		"for the tests\n\t})\n": "for the tests\n\t}, func(o *elector.Options) { o.RecoveryDeadline = 10 * time.Minute })\n",
		"import (\n":            "import (\n\t\"time\"\n\n\t\"github.com/elector-go/elector\"\n",
	} {
		require.Equal(t, 1, strings.Count(main, old), old)
		main = strings.Replace(main, old, with, 1)
	}
	return main
}

// TestFiguresOfAnOutage kills the kube-apiserver for a minute under three processes of each program, and measures what that
// costs. It is not parallel, because no other test may run meanwhile.
func TestFiguresOfAnOutage(t *testing.T) {
	if !*measure {
		t.Skip("takes minutes, and takes the API server away: -figures")
	}
	build(t, "recovering", "./elect", map[string]string{"elect/main.go": recovering(t)})
	for _, program := range []string{"before", "elect", "recovering"} {
		t.Run(program, func(t *testing.T) {
			f := newOperatorsFor(t, 5*time.Minute)
			f.createOrders()
			leader := f.start(program, "-leader-elect")
			f.await(leader, "Starting workers")
			all := []*fleet.Replica{leader, f.standbyOf(program), f.standbyOf(program)}
			time.Sleep(5 * time.Second)
			back := f.outage(time.Minute)
			time.Sleep(20 * time.Second)
			exits := 0
			for _, r := range all {
				select {
				case <-r.Done():
					exits++
				default:
				}
			}
			by, first := f.firstWrite(back)
			t.Logf("figure: exits %d, first write %v after the return of the API, by the leader of before: %v", exits, first.Round(time.Millisecond), by == leader)
			if program == "recovering" {
				require.Zero(t, exits)
				require.Same(t, leader, by)
				require.Less(t, first, 5*time.Second) // for a busy machine; a second is what is to be reached
				require.NotContains(t, f.Log(by), "Lost the lease")
			}
		})
	}
}

// outage kills the API server while orders change, so that reconciliations are under way, and returns when it was back.
func (f *operators) outage(length time.Duration) time.Time {
	f.t.Helper()
	server := shared.Cluster.APIServer
	ctx, stop := context.WithCancel(f.Context())
	var changing sync.WaitGroup
	changing.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			patch := fmt.Sprintf(`{"data":{"number":"changed-%d"}}`, i)
			_, _ = f.Admin.CoreV1().ConfigMaps(f.Namespace).Patch(ctx, fmt.Sprintf("settings-%d", i%orders), types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		}
	})
	time.Sleep(time.Second)
	require.NoError(f.t, server.Signal(os.Kill))
	gone := time.Now()
	stop()
	changing.Wait()
	time.Sleep(time.Until(gone.Add(length)))
	require.NoError(f.t, server.Start())
	require.NoError(f.t, shared.Cluster.WaitReady(f.Context()))
	return time.Now()
}

// firstWrite is who wrote the first checksum after a moment, and how long after it. The API server may answer others a
// little before it says that it is ready; then it is negative.
func (f *operators) firstWrite(since time.Time) (by *fleet.Replica, after time.Duration) {
	for _, l := range f.Lines() {
		if p := parse(l); p.Message == "Wrote a checksum" && p.At.After(since.Add(-10*time.Second)) {
			return l.Replica, p.At.Sub(since)
		}
	}
	return nil, time.Hour
}
