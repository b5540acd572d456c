//go:build unix

package process

import (
	"os"
	"syscall"
)

// ask has a process end by itself. One that is suspended does not see SIGTERM before it is continued.
var ask = []os.Signal{syscall.SIGCONT, syscall.SIGTERM}
