package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/klog/v2"

	"github.com/elector-go/elector/electortest"
)

// asProgram makes the test's executable be the program.
const asProgram = "QUICKSTART_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// A screen is what a process has printed so far.
type screen struct {
	mu      sync.Mutex
	printed bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.printed.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.printed.String()
}

// program is the program as a process, on a machine that is no pod.
func program(t *testing.T, args ...string) (cmd *exec.Cmd, stdout, stderr *screen) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd, stdout, stderr = exec.CommandContext(t.Context(), self, args...), &screen{}, &screen{}
	cmd.Env = append(os.Environ(), asProgram+"=1", "KUBERNETES_SERVICE_HOST=")
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, stdout, stderr
}

// inBubble plays a drama in virtual time, without the library's log.
func inBubble(t *testing.T, f func(ctx context.Context, d *drama, screen *bytes.Buffer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var screen bytes.Buffer
		d := newDrama(&screen)
		f(klog.NewContext(t.Context(), klog.Logger{}), d, &screen)
		for _, r := range d.replicas {
			<-r.exited // also one that crashed, which the drama does not wait for
		}
	})
}

func TestTheProgramPlaysTheDramaToItsEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 14 s of real time")
	}
	t.Parallel()
	cmd, stdout, stderr := program(t)
	start := time.Now()
	err := cmd.Run()
	t.Logf("after %v:\n%s", time.Since(start).Round(time.Millisecond), stdout)
	require.NoError(t, err)
	require.Less(t, time.Since(start), 30*time.Second)
	require.Empty(t, stderr.String())
	for _, event := range []string{"election", "crash", "clean stop", "lost lease", "step down"} {
		require.Contains(t, stdout.String(), "\n"+event+"  ", "a row of the summary")
	}
	require.Contains(t, stdout.String(), "Two leaders at once: never")
}

func TestAnInterruptEndsTheProgramCleanly(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no way to send an interrupt")
	}
	t.Parallel()
	cmd, stdout, stderr := program(t)
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return strings.Contains(stdout.String(), "LEADS") }, 20*time.Second, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	told := time.Now()
	err := cmd.Wait()
	require.Less(t, time.Since(told), 5*time.Second)
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 130, exit.ExitCode(), "%s", stdout)
	require.Empty(t, stderr.String())
	require.Contains(t, stdout.String(), "Interrupted: all replicas stop.")
	require.Contains(t, stdout.String(), "work has ended")
	require.Contains(t, stdout.String(), "Two leaders at once: never")
}

func TestAnInterruptAtAnyMomentLeavesNothingRunning(t *testing.T) {
	for at := 250 * time.Millisecond; at < 13*time.Second; at += 250 * time.Millisecond {
		inBubble(t, func(ctx context.Context, d *drama, screen *bytes.Buffer) {
			ctx, interrupt := context.WithCancelCause(ctx)
			time.AfterFunc(at, func() { interrupt(errors.New("interrupt signal received")) })
			assert.Equal(t, 130, d.play(ctx), "%v\n%s", at, screen)
		}) // which fails if a goroutine is left that does not end
	}
}

func TestTheDramaEndsWellWhoeverIsElected(t *testing.T) {
	first := map[string]bool{}
	for range 50 {
		inBubble(t, func(ctx context.Context, d *drama, screen *bytes.Buffer) {
			require.Equal(t, 0, d.play(ctx), "%s", screen)
			first[d.rows[0].leader] = true
			for line := range strings.Lines(screen.String()) {
				require.LessOrEqual(t, len(line), 101, "a line for a narrow screen: %s", line)
			}
		})
	}
	require.Len(t, first, 3)
}

func TestAStepThatDoesNotHappenInTimeIsAFailure(t *testing.T) {
	inBubble(t, func(ctx context.Context, d *drama, screen *bytes.Buffer) {
		time.AfterFunc(time.Second, func() {
			for _, name := range []string{"replica-1", "replica-2", "replica-3"} {
				d.api.Client(name).Partition(electortest.Both)
			}
		})
		require.Equal(t, 1, d.play(ctx), "%s", screen)
		require.Contains(t, screen.String(), "FAILED: act 2: the next step did not happen within")
	})
}

func TestTwoLeadersAtOnceAreAFailure(t *testing.T) {
	inBubble(t, func(ctx context.Context, d *drama, screen *bytes.Buffer) {
		d.census.begin() // somebody who has no Lease
		require.Equal(t, 1, d.play(ctx), "%s", screen)
		require.Contains(t, screen.String(), "LEADS BESIDE ANOTHER")
		require.Contains(t, screen.String(), "Two leaders at once: 5 times")
	})
}

func TestMistakesInTheCommandAreExplained(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"-h", 0, "-kubeconfig"},
		{"-nonsense", 2, "-nonsense"},
		{"nonsense", 2, `unknown argument "nonsense"`},
		{"-kubeconfig does/not/exist", 1, "does/not/exist"},
	} {
		var stdout, stderr bytes.Buffer
		require.Equal(t, c.code, run(t.Context(), strings.Fields(c.args), &stdout, &stderr), c.args)
		require.Empty(t, stdout.String(), c.args)
		require.Contains(t, stderr.String(), c.says, c.args)
	}
}

// What the table says of a hand-over is what the story's times say.
func TestTheTimesShownAddUp(t *testing.T) {
	var out bytes.Buffer
	start := time.Now()
	s := &stage{out: &out, start: start}
	r := &replica{name: "replica-1", dead: make(chan struct{})}
	s.show(event{what: ends, who: r, at: start.Add(1200900 * time.Microsecond)})
	s.show(event{what: begins, who: r, at: start.Add(1212100 * time.Microsecond)})
	assert.Contains(t, out.String(), "   1.200s  replica-1  work has ended\n")
	assert.Contains(t, out.String(), "   1.212s  replica-1  LEADS")
	assert.Contains(t, out.String(), "no leader for 12 ms")
	assert.Equal(t, "12 ms", short(s.gap))
}
