//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package elector

import (
	"os"
	"syscall"
)

const canLock = true

// flock locks the file for this process without waiting. The kernel unlocks it when the process has ended.
func flock(file *os.File) error {
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
