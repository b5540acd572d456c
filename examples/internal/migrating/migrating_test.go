// Package migrating has the programs that MIGRATING.md shows, before and after, and moves fleets of them over.
package migrating

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
	os.Exit(shared.Main(m, "./internal/migrating/before", "./internal/migrating/elect", "./internal/migrating/wrapped", "./internal/migrating/warm", "./internal/migrating/shapes"))
}

func TestAFleetMovesOverReplicaByReplicaAndBack(t *testing.T) {
	for _, ours := range []string{"elect", "wrapped", "warm"} {
		t.Run(ours, func(t *testing.T) {
			t.Parallel()
			f := newOperators(t)
			f.Churn(checksum.Mark)

			old := f.start("before", "-leader-elect")
			f.await(old, "Reconciling")
			next := f.standby(ours, "-leader-elect")
			f.Terminate(old)
			require.Zero(t, f.ExitCode(old))
			f.await(next, "Became leader") // when the lease that the old one did not release has expired
			f.await(next, "Reconciling")

			back := f.start("before", "-leader-elect")
			f.await(back, "Attempting to acquire leader lease...")
			f.Terminate(next)
			require.Zero(t, f.ExitCode(next))
			f.await(back, "Reconciling")
			f.oneAtATime()
		})
	}
}

func TestWarmLeadsAgainInTheSameProcessWithAnIndex(t *testing.T) {
	t.Parallel()
	f := newOperators(t)
	f.Churn(checksum.Mark)
	r := f.start("warm", "-leader-elect")
	f.await(r, "Reconciling")
	require.NoError(t, f.StealLease(f.Context(), "ecaf1259.my.domain", "somebody", 1))
	f.await(r, "All workers finished")
	f.await(r, "Became leader")
	f.await(r, "Reconciling")
	f.Terminate(r)
	require.Zero(t, f.ExitCode(r))
	f.oneAtATime()
}

func TestWithoutAnElectionTheControllersRun(t *testing.T) {
	for _, ours := range []string{"elect", "wrapped", "warm"} {
		t.Run(ours, func(t *testing.T) {
			t.Parallel()
			f := newOperators(t)
			f.Churn(checksum.Mark)
			r := f.start(ours)
			f.await(r, "Reconciling")
			f.Terminate(r)
			require.Zero(t, f.ExitCode(r))
		})
	}
}

func TestServersServeOnEveryReplica(t *testing.T) {
	for _, program := range []string{"before", "elect", "wrapped", "warm"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			f := newOperators(t)
			for _, says := range []string{"Starting workers", ""} { // a leader, and then a standby
				metrics, err := fleet.Addr()
				require.NoError(t, err)
				r := f.start(program, "-leader-elect", "-metrics-bind-address="+metrics)
				if says != "" {
					f.await(r, says)
				}
				for _, path := range []string{"/healthz", "/readyz"} {
					f.serves(r, path)
				}
				require.Contains(t, f.scrape(metrics, true), "go_goroutines")
				require.Equal(t, "401 Unauthorized", f.scrape(metrics, false))
			}
		})
	}
}

func TestProbesCanBeSwitchedOff(t *testing.T) {
	for name, addr := range map[string]string{"zero": "0", "nothing": ""} {
		for _, program := range []string{"before", "elect", "wrapped", "warm"} {
			t.Run(program+"/"+name, func(t *testing.T) {
				t.Parallel()
				f := newOperators(t)
				f.Churn(checksum.Mark)
				r := f.start(program, "-leader-elect", "-health-probe-bind-address="+addr)
				f.await(r, "Reconciling")
				f.Terminate(r)
				require.Zero(t, f.ExitCode(r))
			})
		}
	}
}

// What kubebuilder create api would do to main.go.
func TestTheNextControllerIsRefusedWhereKubebuilderPutsIt(t *testing.T) {
	t.Parallel()
	const marker = "\t// +kubebuilder:scaffold:builder\n"
	program := read(t, "warm/main.go")
	require.Equal(t, 1, strings.Count(program, marker))
	build(t, "invoice", "./warm", map[string]string{"warm/main.go": strings.Replace(program, marker, `
	if err := (&controller.OrderReconciler{
		Client: mgr.GetClient(),
		Scheme: mgr.GetScheme(),
	}).SetupWithManager(mgr); err != nil {
		setupLog.Error(err, "Failed to create controller", "controller", "invoice")
		os.Exit(1)
	}
`+marker, 1)})

	f := newOperators(t)
	for _, elect := range []string{"-leader-elect", "-leader-elect=false"} {
		r := f.start("invoice", elect)
		require.Equal(t, 1, f.ExitCode(r))
		require.Contains(t, f.Log(r), "add it in setup")
	}
}

// build builds a program with other text in some of its files.
func build(t *testing.T, name, dir string, edited map[string]string) {
	t.Helper()
	temp, replace := t.TempDir(), map[string]string{}
	for file, text := range edited {
		original, err := filepath.Abs(file)
		require.NoError(t, err)
		replace[original] = filepath.Join(temp, filepath.Base(file))
		require.NoError(t, os.WriteFile(replace[original], []byte(text), 0o600))
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(temp, "overlay.json"), overlay, 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", filepath.Join(temp, "overlay.json"),
		"-o", filepath.Join(shared.Programs, name), dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func TestTheGoCodeOfTheGuideIsCompiled(t *testing.T) {
	var sources strings.Builder
	for _, pattern := range []string{"*/*.go", "../../warmstandby/*.go", "../../manager/*.go"} {
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
	require.Len(t, diffs, 3)
	for i, after := range []string{"elect", "warm", "wrapped"} {
		have := lines(read(t, "before/main.go"))
		for line := range strings.Lines(diffs[i]) {
			switch text := unaligned(line[1:]); line[0] {
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

func TestTheScaffoldMovesOverByOneLine(t *testing.T) {
	var added []string
	have := lines(read(t, "before/main.go"))
	for text, n := range lines(read(t, "elect/main.go")) {
		if n > have[text] && text != "\t\"github.com/elector-go/elector/operator\"" {
			added = append(added, text)
		}
	}
	require.Len(t, added, 1)
}

// lines counts the lines of a program, but for what says which it is.
func lines(program string) map[string]int {
	counts := map[string]int{}
	for line := range strings.Lines(program[strings.Index(program, "package main"):]) {
		counts[unaligned(line)]++
	}
	return counts
}

// unaligned is a line without what gofmt does to make columns of it and its neighbours.
func unaligned(line string) string {
	return regexp.MustCompile(" +").ReplaceAllString(strings.TrimRight(line, "\n"), " ")
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
