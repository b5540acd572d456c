//go:build unix && !linux

package main

import (
	"syscall"
	"time"
)

// sharedClock is the wall clock: the best that every other Unix has in common between processes.
func sharedClock() time.Duration { return time.Duration(time.Now().UnixNano()) }

// Only Linux has these. Without them the guard kills the program's process group when elector dies, but what has left
// the group goes on.
func becomeSubreaper()                    {}
func dieWithParent(*syscall.SysProcAttr)  {}
func descendants(int, map[int]bool) []int { return nil }
func marked(string) []int                 { return nil }
func orphans() []int                      { return nil }
