//go:build linux

package main

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// With a program that does not end, and no --grace, the Lease is kept no longer than --drain-limit and what it lasts then.
func TestADrainIsLimitedByItsFlag(t *testing.T) {
	s := newStage(t)
	leader, standby, pid := s.pair(`trap "" TERM; echo leading=$$; while :; do sleep 1; done`, append([]string{"--grace=0", "--drain-limit=1s"}, short6...)...)
	leader.signal(syscall.SIGTERM)
	standby.pid("leading")
	require.False(t, alive(pid))
}
