package fleet

import (
	"runtime"
	"time"
)

// run starts the process and waits for its end. On Linux the process dies with this one, however this one ends; to the
// kernel its parent is the thread that has started it, which must live on for that.
func (r *Replica) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dieWithParent(r.cmd)
	err := r.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	_ = r.cmd.Wait() // ProcessState says more
	r.ended = time.Now()
	close(r.done)
}
