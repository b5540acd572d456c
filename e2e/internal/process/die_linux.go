package process

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the kernel kill the child when this process is gone, which no deferred call can do after a SIGKILL.
func dieWithParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
