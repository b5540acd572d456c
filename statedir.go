package elector

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-go/elector/internal/protocol"
)

// stateDir is the file in Options.StateDir that proves a process dead (S12). A candidate locks it for as long as its Run
// may have a callback, and writes into it, before each write that could win the Lease, what that write says. The kernel
// gives the lock up when the process has died, and not before: so whoever gets it knows that the writers of what the file
// says are dead. nil is the state of a candidate without a StateDir.
type stateDir struct {
	path   string
	file   *os.File // locked; nil while another process has the lock
	size   int      // the file's
	marks  []mark   // what the file says
	failed bool     // a failure to write was logged
	busy   bool     // that another process has the lock was logged
	log    logBeside
}

// A mark is what identifies a term in the Lease's record.
type mark struct {
	Identity    string    `json:"identity"`
	AcquireTime time.Time `json:"acquireTime"`
}

// maxMarks is how many marks a file keeps: the one of each process that died after it had written the file and before it
// had written the Lease, and the last one that did write it.
const maxMarks = 16

func statePath(dir string, lease types.NamespacedName) string {
	return filepath.Join(dir, lease.Namespace+"_"+lease.Name+".lease")
}

// checkStateDir reports what is wrong with a StateDir, by creating the file that Run will lock.
func checkStateDir(dir string, lease types.NamespacedName) error {
	if !canLock {
		return errors.New("Options.StateDir: this platform has no file lock that ends with its process: leave it empty")
	}
	file, err := os.OpenFile(statePath(dir, lease), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("Options.StateDir: it must be a directory that exists and can be written to, as an emptyDir: %w", err)
	}
	return file.Close()
}

func newStateDir(log logBeside, dir string, lease types.NamespacedName) *stateDir {
	if dir == "" {
		return nil
	}
	return &stateDir{path: statePath(dir, lease), log: log}
}

// lock tries to get the lock, if it is not held yet, and returns what the file then proves: the claims of dead processes.
// It does not wait.
func (s *stateDir) lock() (dead []protocol.Mark) {
	if s == nil || s.file != nil {
		return nil
	}
	file, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		s.failure(err)
		return nil
	}
	if err := flock(file); err != nil {
		file.Close()
		if !s.busy {
			s.log.Info("Another process has locked the file in Options.StateDir: it is alive, so nothing proves it dead", "file", s.path, "err", err.Error())
		}
		s.busy = true
		return nil
	}
	s.file, s.busy = file, false
	data, err := io.ReadAll(file)
	s.size = len(data)
	if err == nil && len(data) > 0 {
		err = json.Unmarshal(data, &s.marks)
	}
	if err != nil {
		s.marks = nil
		s.log.Info("The file in Options.StateDir cannot be read, and proves nothing: a crashed predecessor's lease has to expire", "file", s.path, "err", err.Error())
	}
	for _, m := range s.marks {
		dead = append(dead, protocol.Mark{Holder: m.Identity, Acquired: m.AcquireTime.UnixMicro()})
	}
	return dead
}

// waits reports whether another process has the lock, so that it has to be tried again.
func (s *stateDir) waits() bool { return s != nil && s.busy }

// record adds what a write that may win the Lease says. The marks of the dead stay, because the write may never arrive. A
// failure costs no more than the proof.
func (s *stateDir) record(c protocol.Claim) {
	if s == nil || s.file == nil {
		return
	}
	m := mark{c.Holder, time.UnixMicro(c.Acquired).UTC()}
	if slices.Contains(s.marks, m) {
		return // a repetition
	}
	s.write(append(s.marks[max(0, len(s.marks)-maxMarks+1):], m))
}

// forget removes all marks, because a record that none of them names was seen: from then on they prove nothing, even if
// one of the old records comes back.
func (s *stateDir) forget() {
	if s != nil && s.file != nil && len(s.marks) > 0 {
		s.write(nil)
	}
}

// won removes all marks but the last: that of the term that begins.
func (s *stateDir) won() {
	if s != nil && s.file != nil && len(s.marks) > 1 {
		s.write(s.marks[len(s.marks)-1:])
	}
}

// write writes all marks at once. What is left of longer marks becomes spaces: a file that was cut first would prove
// nothing if the process is killed before it has written.
func (s *stateDir) write(marks []mark) {
	s.marks = marks
	data, err := json.Marshal(marks)
	if err == nil {
		data = append(data, bytes.Repeat([]byte(" "), max(0, s.size-len(data)))...)
		_, err = s.file.WriteAt(data, 0)
	}
	if err != nil {
		s.failure(err)
		return
	}
	s.size, s.failed = len(data), false
}

func (s *stateDir) failure(err error) {
	if !s.failed {
		s.log.Error(err, "The file in Options.StateDir cannot be written: after a crash this process's lease has to expire", "file", s.path)
	}
	s.failed = true
}

// unlock gives the lock up. The file stays.
func (s *stateDir) unlock() {
	if s != nil && s.file != nil {
		s.file.Close()
		s.file = nil
	}
}
