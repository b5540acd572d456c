//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package lockfile

import (
	"errors"
	"os"
)

const openFlags = 0

func flock(*os.File) error { return errors.ErrUnsupported }

func identify(*os.File) (string, error) {
	return "", errors.New("this platform has no file lock that ends with its process")
}
