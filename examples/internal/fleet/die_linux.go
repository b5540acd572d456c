package fleet

import (
	"os/exec"
	"syscall"
)

// dieWithParent also keeps a terminal's Ctrl-C from the process: who started it decides.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
