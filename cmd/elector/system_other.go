//go:build unix && !linux

package main

import (
	"os"
	"syscall"
	"time"
)

// ownBinary is the file that this process runs, unless it has been replaced since.
var ownBinary, _ = os.Executable()

// sharedClock is the wall clock: the best that every other Unix has in common between processes.
func sharedClock() time.Duration { return time.Duration(time.Now().UnixNano()) }

// Only Linux needs a file system for that.
func checkProc() error { return nil }

// Only Linux has these. Without them the program's process group is killed when elector dies, but what has left the
// group goes on.
func becomeSubreaper()                                     {}
func dieWithParent(*syscall.SysProcAttr)                   {}
func wakeWithParent(*syscall.SysProcAttr)                  {}
func descendants(int, func(process) bool) (list []process) { return nil }
func adopted(int, func(process) bool) ([]process, error)   { return nil, nil }
func killTree(int)                                         {}
func reapUntil(done <-chan error) error                    { return <-done }

// listsAll says that descendants are all there are.
const listsAll = false

type process struct{ pid, parent, group int }

func (process) has(string) bool { return false }
