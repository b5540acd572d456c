//go:build linux

package main

import (
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A terminal is what script(1) makes of a shell command. What is typed comes from standard input.
func (s *stage) terminal(command string) (r *replica, typed io.Writer) {
	s.t.Helper()
	if _, err := exec.LookPath("script"); err != nil {
		s.t.Skip("no script(1) to make a terminal with")
	}
	cmd := exec.Command("script", "-qec", command, "/dev/null")
	cmd.Env = s.command().Env
	typed, err := cmd.StdinPipe()
	require.NoError(s.t, err)
	return s.start(cmd), typed
}

// elector is a shell's command.
func (s *stage) elector(args ...string) string {
	return shellQuote(append(s.command("run", "--lease", s.namespace+"/batch").Args, args...))
}

func shellQuote(args []string) string {
	var quoted []string
	for _, a := range args {
		quoted = append(quoted, "'"+strings.ReplaceAll(a, "'", `'\''`)+"'")
	}
	return strings.Join(quoted, " ")
}

const ctrlC = "\x03"

// The program is cat and no shell script: dash forgets a Ctrl-C that comes while it starts a program, and waits for that.
// With tostop, the terminal stops who writes to it from the background; elector, whose log goes there, must not be.
func TestCtrlCOnATerminalEndsTheProgram(t *testing.T) {
	for name, flags := range map[string][]string{"Once": nil, "AlsoWithRestart": {"--restart"}} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			r, typed := s.terminal("stty -echo tostop; exec " + s.elector(append(flags, "--", "cat")...))
			r.says("Started the program")
			_, err := io.WriteString(typed, "a line\n")
			require.NoError(t, err)
			r.says("a line") // the program reads from the terminal
			_, err = io.WriteString(typed, ctrlC)
			require.NoError(t, err)
			require.Equal(t, 130, r.exitCode())
			require.Empty(t, s.holder())
		})
	}
}

var (
	tstp, ttin, ttou = mask(syscall.SIGTSTP), mask(syscall.SIGTTIN), mask(syscall.SIGTTOU)
)

// ignored are the signals that the program ignores.
func (r *replica) ignored() int {
	r.s.t.Helper()
	require.Contains(r.s.t, r.String(), "SigIgn:")
	return signalsOf(r.String(), "SigIgn")
}

func TestTheTerminalsSignalsThatAProgramIgnores(t *testing.T) {
	const show = `echo "leading=$$"; grep SigIgn /proc/$$/status; read line; echo "status=$?"; `
	t.Run("InTheForeground", func(t *testing.T) {
		s := newStage(t)
		r, typed := s.terminal(s.elector("--", "sh", "-c", show))
		r.pid("leading")
		_, err := io.WriteString(typed, "a line\n")
		require.NoError(t, err)
		require.Zero(t, r.pid("status"))
		require.Equal(t, tstp, r.ignored(), "Ctrl-Z does not stop a leader")
		require.Zero(t, r.exitCode())
	})
	t.Run("InTheForegroundAgain", func(t *testing.T) {
		s := newStage(t)
		r, typed := s.terminal(s.elector("--restart", "--", "sh", "-c", `read line; echo "read $line"`))
		for _, line := range []string{"one", "two"} {
			_, err := io.WriteString(typed, line+"\n")
			require.NoError(t, err)
			r.says("read " + line)
		}
	})
	t.Run("InTheBackground", func(t *testing.T) {
		s := newStage(t)
		r, _ := s.terminal("set -m; " + s.elector("--", "sh", "-c", show) + " & wait $!")
		require.NotZero(t, r.pid("status"), "reading is an error, and does not stop a leader")
		require.Equal(t, ttin|ttou, r.ignored())
	})
}

func TestWithItsTerminalElectorEnds(t *testing.T) {
	cat, survivor := []string{"--restart", "--", "cat"}, []string{"--", "sh", "-c", `trap "" HUP; echo deaf; while :; do sleep 0.1; done`}
	for name, c := range map[string]struct {
		shell string // runs elector in the place of its %s
		flags []string
		says  string
	}{
		"WhileItsProgramRuns": {"exec %s", cat, "Started the program"},
		"WhileItStandsBy":     {"exec %s", cat, "New leader"},
		// The kernel tells the shell and the foreground, which is the program.
		"AndOnlyTheProgramIsTold":             {"%s; :", cat, "Started the program"},
		"AndOnlyTheProgramIsToldAndIgnoresIt": {"%s; :", survivor, "deaf"},
		"WithAnotherStandardInput":            {"exec %s </dev/null", survivor, "deaf"},
		"InTheBackground":                     {"set -m; %s & wait", survivor, "deaf"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			if name == "WhileItStandsBy" {
				s.run(polite).pid("leading")
			}
			elector := "sh -c " + shellQuote([]string{"echo elector=$$; exec " + s.elector(append(short6, c.flags...)...)})
			r, _ := s.terminal(fmt.Sprintf(c.shell, elector))
			r.says(c.says)
			self := r.pid("elector")
			r.signal(syscall.SIGKILL)
			<-r.done
			if name == "InTheBackground" { // where an interactive bash tells all its jobs
				require.NoError(t, syscall.Kill(self, syscall.SIGHUP))
			}
			s.gone(self)
		})
	}
}
