//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package lockfile

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

const openFlags = syscall.O_NOFOLLOW

// flock locks the file for this process without waiting. The kernel unlocks it when the process has ended.
func flock(file *os.File) error {
	err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}

// identify names the file: by its device and its number on it, and by the kernel whose lock it is. It must be this user's
// alone, because whoever can write it can say that anybody is dead.
func identify(file *os.File) (string, error) {
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || !info.Mode().IsRegular():
		return "", errors.New("it is not a file")
	case int(stat.Uid) != os.Geteuid():
		return "", fmt.Errorf("it is user %d's, and not user %d's", stat.Uid, os.Geteuid())
	case info.Mode().Perm()&0o022 != 0:
		return "", errWritable
	}
	kernel, err := kernelOf(file)
	return fmt.Sprintf("%d:%d%s", stat.Dev, stat.Ino, kernel), err
}
