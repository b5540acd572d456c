//go:build unix

package elector_test

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheLockOfAnotherProcessIsTriedAgainEveryRetryPeriod(t *testing.T) {
	dir := t.TempDir()
	inWorld(t, func(w *world) {
		w.left(dir)
		busy, err := os.OpenFile(stateFile(dir), os.O_RDWR, 0)
		require.NoError(w, err)
		require.NoError(w, syscall.Flock(int(busy.Fd()), syscall.LOCK_EX))
		again := w.join("again", inDir(dir))
		time.Sleep(3 * time.Second)
		require.NotSame(w, again, w.leader())
		require.NoError(w, busy.Close()) // the process that was still alive dies
		w.within(2100*time.Millisecond, "it leads", func() bool { return w.leader() == again })
	})
}
