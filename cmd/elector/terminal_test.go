//go:build linux

package main

import (
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A terminal is what script(1) makes; Ctrl-C is typed into it.
func TestCtrlCOnATerminalEndsTheProgram(t *testing.T) {
	if _, err := exec.LookPath("script"); err != nil {
		t.Skip("no script(1) to make a terminal with")
	}
	s := newStage(t)
	inner := s.command("run", "--lease", s.namespace+"/batch", "--", "sh", "-c", `echo leading=$$; read line; echo "read $line"; sleep 999`)
	cmd := exec.Command("script", "-qec", shellQuote(inner.Args), "/dev/null")
	cmd.Env = inner.Env
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	r := s.start(cmd)
	r.says("leading=")
	_, err = io.WriteString(stdin, "a line\n")
	require.NoError(t, err)
	r.says("read a line") // the program reads from the terminal
	_, err = stdin.Write([]byte{3})
	require.NoError(t, err)
	require.Equal(t, 130, r.exitCode())
	require.Empty(t, s.holder())
}

func shellQuote(args []string) string {
	var quoted []string
	for _, a := range args {
		quoted = append(quoted, "'"+strings.ReplaceAll(a, "'", `'\''`)+"'")
	}
	return strings.Join(quoted, " ")
}
