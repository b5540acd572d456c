//go:build unix

package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// asProgram makes the test's executable be the program: what the play starts is this executable too.
const asProgram = "FENCING_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Setenv(asProgram, "1")
	os.Unsetenv("KUBERNETES_SERVICE_HOST") // a pod would be a replica
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

func program(t *testing.T, args ...string) (cmd *exec.Cmd, stdout, stderr *screen) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd, stdout, stderr = exec.CommandContext(t.Context(), self, args...), &screen{}, &screen{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, stdout, stderr
}

func TestTheProgramShowsTheRefusal(t *testing.T) {
	t.Parallel()
	cmd, stdout, stderr := program(t)
	err := cmd.Run()
	t.Logf("%s", stdout)
	require.NoError(t, err)
	require.Empty(t, stderr.String())
	// The order of things, and that the check before the write showed nothing.
	rest := stdout.String()
	for _, step := range []string{
		"replica-1  LEADS", "replica-1  wrote batch 3",
		"replica-1  is about to write batch 4: Term.Valid() is true", "replica-1  SIGSTOP",
		"replica-2  LEADS", "replica-2  wrote batch 6",
		"replica-1  SIGCONT", "replica-1  REFUSED: its UPDATE of batch 4", "replica-1  its job stopped",
		"batch 6 done",
	} {
		_, after, found := strings.Cut(rest, step)
		require.True(t, found, "%q, after the steps before it", step)
		rest = after
	}
}

// What refuses it then is that the token is raised when a term begins.
func TestAFrozenLeaderIsRefusedBeforeTheNewOneHasWritten(t *testing.T) {
	t.Parallel()
	out, err := tell(t, &flags{lease: "fencing"}, 0)
	require.NoError(t, err, out)
	require.Contains(t, out, "REFUSED")
	require.Contains(t, out, "batch 3 done")
}

func TestWithoutTheConditionTheStoryFails(t *testing.T) {
	t.Parallel()
	for _, newWrites := range []int{0, 3} {
		out, err := tell(t, &flags{lease: "fencing", unfenced: true}, newWrites)
		require.ErrorContains(t, err, "has written over the new one's work", out)
		require.NotContains(t, out, "REFUSED")
		require.Contains(t, out, "batch 4 done", "batches 5 and 6 are forgotten")
	}
}

// tell plays the story in this process; the actors are processes all the same.
func tell(t *testing.T, f *flags, newWrites int) (string, error) {
	t.Helper()
	out := &screen{}
	s := &story{flags: f, newWrites: newWrites, events: make(chan event, 100), out: out, log: io.Discard, start: time.Now()}
	err := s.play(t.Context())
	for _, a := range s.actors {
		require.NotNil(t, a.cmd.ProcessState, "%s has ended", a.name)
	}
	require.NoDirExists(t, s.dir)
	return out.String(), err
}

func TestAnInterruptEndsTheStoryAndItsProcesses(t *testing.T) {
	t.Parallel()
	cmd, stdout, stderr := program(t)
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return strings.Contains(stdout.String(), "SIGSTOP") }, 30*time.Second, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	told := time.Now()
	_ = cmd.Wait() // returns when the actors, who have its standard error, have ended too
	require.Less(t, time.Since(told), 5*time.Second)
	require.Equal(t, 130, cmd.ProcessState.ExitCode(), "%s", stdout)
	require.Empty(t, stderr.String())
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
		{"-api http://127.0.0.1:1 -namespace a -db does/not/exist", 1, "does/not/exist"},
	} {
		var stdout, stderr bytes.Buffer
		require.Equal(t, c.code, run(context.WithoutCancel(t.Context()), strings.Fields(c.args), &stdout, &stderr), c.args)
		require.Empty(t, stdout.String(), c.args)
		require.Contains(t, stderr.String(), c.says, c.args)
	}
}
