// Package migrating has the programs that MIGRATING.md shows, before and after, and moves fleets of them over.
package migrating

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/elector-go/elector/examples/internal/checksum"
	"github.com/elector-go/elector/examples/internal/fleet"
	"github.com/elector-go/elector/examples/internal/fleet/fleettest"
)

const guide = "../../MIGRATING.md"

var shared fleettest.Shared

func TestMain(m *testing.M) {
	ctrl.SetLogger(klog.Background())
	os.Exit(shared.Main(m, "./internal/migrating/before", "./internal/migrating/wrapped", "./internal/migrating/warm"))
}

func TestAFleetMovesOverReplicaByReplicaAndBack(t *testing.T) {
	for _, ours := range []string{"wrapped", "warm"} {
		t.Run(ours, func(t *testing.T) {
			t.Parallel()
			f := shared.New(t, guide, "../../manager/README.md")
			f.Churn(checksum.Mark)
			f.SetEnv("POD_NAMESPACE=" + f.Namespace)

			old := f.Start("before", "-leader-elect")
			f.Reconciles(old)
			next := f.Standby(ours, "-leader-elect")
			f.Terminate(old)
			require.Zero(t, f.ExitCode(old))
			require.Same(t, next, f.Leader(), "when the lease that the old one did not release has expired")
			f.Reconciles(next)

			back := f.Start("before", "-leader-elect")
			f.Await("the old kind, standing by", func(l fleet.Line) bool {
				return l.Replica == back && strings.Contains(strings.ToLower(l.Text), "attempting to acquire leader lease")
			})
			f.Terminate(next)
			require.Zero(t, f.ExitCode(next))
			f.Reconciles(back)
			f.OneAtATime()
		})
	}
}

func TestTheGoCodeOfTheGuideIsCompiled(t *testing.T) {
	var sources strings.Builder
	for _, pattern := range []string{"*/*.go", "../../warmstandby/*.go", "../../warmstandby/term/*.go", "../../manager/*.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, file := range files {
			sources.WriteString(read(t, file))
		}
	}
	blocks, err := fleet.Blocks(guide, "go")
	require.NoError(t, err)
	require.NotEmpty(t, blocks)
	for _, block := range blocks {
		require.Contains(t, flush(sources.String()), flush(block))
	}
}

func TestTheDiffsOfTheGuideAreWhole(t *testing.T) {
	diffs, err := fleet.Blocks(guide, "diff")
	require.NoError(t, err)
	require.Len(t, diffs, 2)
	for i, after := range []string{"wrapped", "warm"} {
		have := lines(read(t, "before/main.go"))
		for line := range strings.Lines(diffs[i]) {
			switch text := strings.TrimRight(line[1:], "\n"); line[0] {
			case '-':
				have[text]--
			case '+':
				have[text]++
			case ' ':
				require.Positive(t, have[text], "not in before/main.go: %q", text)
			}
		}
		for text, n := range lines(read(t, after+"/main.go")) {
			require.Equal(t, n, have[text], "%s: %q", after, text)
			delete(have, text)
		}
		for text, n := range have {
			require.Zero(t, n, "%s: %q", after, text)
		}
	}
}

// lines counts the lines of a program, but for what says which it is.
func lines(program string) map[string]int {
	counts := map[string]int{}
	for line := range strings.Lines(program[strings.Index(program, "package main"):]) {
		counts[strings.TrimRight(line, "\n")]++
	}
	return counts
}

// flush is text without indentation.
func flush(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimLeft(line, "\t"))
	}
	return b.String()
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}
