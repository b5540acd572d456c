//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// full is a pipe that takes nothing more.
func full(t *testing.T) (out, in *os.File) {
	t.Helper()
	out, in, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { out.Close(); in.Close() })
	raw, err := in.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		for err == nil {
			_, err = unix.Write(int(fd), make([]byte, 1<<16))
		}
		for _, err = unix.Write(int(fd), []byte("x")); err == nil; _, err = unix.Write(int(fd), []byte("x")) {
		}
	}))
	require.ErrorIs(t, err, unix.EAGAIN)
	return out, in
}

// quietly starts elector run with a standard error of its own. The script's output is in the file.
func (s *stage) quietly(stderr *os.File, script string, flags ...string) (r *replica, output func() string) {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "output")
	cmd := s.command("-c", `exec `+s.elector(append(flags, "--", "sh", "-c", "exec >"+path+" 2>/dev/null; "+script)...)+` 2>&3`)
	cmd.Path = "/bin/sh"
	cmd.ExtraFiles = []*os.File{stderr}
	r = s.start(cmd)
	return r, func() string {
		b, _ := os.ReadFile(path)
		return string(b)
	}
}

const trapped = `trap 'echo got TERM; exit 0' TERM; echo leading; while :; do sleep 0.05; done`

func TestAFullStandardErrorHoldsNothingUp(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"Ends": syscall.SIGTERM, "IsKilled": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			_, in := full(t)
			r, output := s.quietly(in, trapped, "-v=8")
			s.within("the program", func() bool { return output() == "leading\n" })
			guard := r.guard()
			r.signal(sig)
			if r.exitCode(); sig == syscall.SIGTERM {
				require.Zero(t, r.exitCode())
				require.Equal(t, "leading\ngot TERM\n", output())
				require.Empty(t, s.holder())
			}
			s.gone(guard)
		})
	}
}

func TestAReaderOfStandardErrorThatGoesAwayCostsTheLogOnly(t *testing.T) {
	s := newStage(t)
	out, in, err := os.Pipe()
	require.NoError(t, err)
	r, output := s.quietly(in, trapped, "-v=8")
	in.Close()
	line := make([]byte, 10)
	_, err = io.ReadFull(out, line)
	require.NoError(t, err)
	s.within("the program", func() bool { return output() == "leading\n" })
	out.Close()
	code, _, stderr := s.ask("step-down", s.namespace+"/batch")
	require.Zero(t, code, stderr)
	s.within("the end of the term", func() bool { return strings.HasPrefix(output(), "leading\ngot TERM\n") })
	r.signal(syscall.SIGTERM)
	require.Zero(t, r.exitCode())
	require.Empty(t, s.holder())
}

// What elector does with signals for itself is not the program's.
func TestTheProgramBeginsWithItsSignalsAsTheyWere(t *testing.T) {
	s := newStage(t)
	const show = "grep -E 'Sig(Ign|Blk)' /proc/$$/status; echo end"
	r := s.run(show)
	r.says("end\n")
	require.Equal(t, ttin|ttou, r.ignored(), "of a program in the background")
	require.Zero(t, signalsOf(r.String(), "SigBlk"))

	cmd := s.command("-c", `trap "" HUP; exec `+s.elector("--", "sh", "-c", show))
	cmd.Path = "/bin/sh"
	r = s.start(cmd)
	r.says("end\n")
	require.Equal(t, mask(syscall.SIGHUP)|ttin|ttou, r.ignored(), "nohup elector run")
}

// A gate is a writer that waits until it is open.
type gate struct {
	opened chan struct{}
	got    strings.Builder
}

func (g *gate) Write(b []byte) (int, error) {
	<-g.opened
	return g.got.Write(b)
}

func TestARelayNeverBlocksAndCountsWhatItDrops(t *testing.T) {
	output, input, err := os.Pipe()
	require.NoError(t, err)
	g := &gate{opened: make(chan struct{})}
	r := newRelay(input, output, g)
	const lines = 50_000 // of 100 bytes: more than it holds
	line := func(n int) string { return fmt.Sprintf("%-99d\n", n) }
	for n := range lines {
		_, err := io.WriteString(input, line(n))
		require.NoError(t, err)
	}
	close(g.opened)
	r.close()
	<-r.done
	rest, n := g.got.String(), 0
	take := func() {
		for after, ok := strings.CutPrefix(rest, line(n)); ok; after, ok = strings.CutPrefix(rest, line(n)) {
			rest, n = after, n+1
		}
	}
	take()
	require.Positive(t, n)
	var dropped int
	_, err = fmt.Sscanf(rest, "elector: %d lines of the log are missing here", &dropped)
	require.NoError(t, err)
	_, rest, _ = strings.Cut(rest, "\n")
	n += dropped
	take() // what was still in the pipe
	require.Equal(t, lines, n)
	require.Empty(t, rest)
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("broken") }

func TestARelayGoesOnWhenAWriteFails(t *testing.T) {
	output, input, err := os.Pipe()
	require.NoError(t, err)
	r := newRelay(input, output, broken{})
	for range 10_000 {
		_, err := io.WriteString(input, strings.Repeat("x", 999)+"\n")
		require.NoError(t, err)
	}
	r.close()
	<-r.done
}
