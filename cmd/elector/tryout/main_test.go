//go:build linux

package main

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) says(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return strings.Contains(o.text.String(), text)
	}, 2*time.Minute, 20*time.Millisecond, "waited for: %s", text)
}

// The commands that it prints are run as they are, but for the folder.
func TestWhatItSaysToType(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	folder := filepath.Join(t.TempDir(), "tryout")
	var out output
	ended := make(chan error)
	go func() { ended <- tryOut(ctx, folder, &out) }()
	out.says(t, "Ready")
	var typed []string
	for line := range strings.Lines(out.text.String()) {
		if command, ok := strings.CutPrefix(line, "  "); ok {
			typed = append(typed, strings.ReplaceAll(command, "bin/tryout", folder))
		}
	}
	require.Len(t, typed, 5)
	var terminals []*output
	for range 2 {
		cmd := exec.Command("sh", "-c", typed[0]+"exec "+typed[1])
		terminal := &output{}
		cmd.Stdout, cmd.Stderr = terminal, terminal
		cmd.WaitDelay = time.Second
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
		require.NoError(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() })
		terminal.says(t, " leader")
		terminals = append(terminals, terminal)
	}
	text, err := exec.Command("sh", "-c", strings.Join(typed[2:], "")).CombinedOutput()
	require.NoError(t, err, "%s", text)
	require.Regexp(t, `(?s)State: +held.*asked .* to step down.* leads, after `, string(text))
	terminals[1].says(t, "Started the program")
	stop()
	require.NoError(t, <-ended)
	require.NoDirExists(t, folder)
}
