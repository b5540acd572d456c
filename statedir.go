package elector

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-go/elector/internal/lockfile"
	"github.com/elector-go/elector/internal/mistake"
)

// stateDir is the file in Options.StateDir that proves a process dead (S12). A candidate locks it for as long as its
// process may have a callback, and writes into it, before each write that could win the Lease, what that write says. The
// kernel gives the lock up when the process has died, and not before: so whoever gets it knows that the writers of what
// the file says are dead. nil is the state of a candidate without a StateDir.
type stateDir struct {
	path   string
	named  bool      // by the user: what is wrong with it is logged. The default is used where it can be
	held   *heldFile // nil while this candidate does not have the lock
	failed bool      // a failure was logged
	busy   bool      // another process has the lock
	log    logBeside
}

// A heldFile is a file whose lock this process has, and what it says.
type heldFile struct {
	*lockfile.File
	marks []mark
}

// A mark is what identifies a term in the Lease's record.
type mark struct {
	Identity    string    `json:"identity"`
	AcquireTime time.Time `json:"acquireTime"` // whole microseconds, UTC: marks are compared by ==
}

// maxMarks is how many marks a file keeps: the one of each process that died after it had written the file and before it
// had written the Lease, and the last one that did write it.
const maxMarks = 16

// kept are the files whose candidate has ended while the Lease still named it. Their lock stays with the process: its end
// would pass for the process's, whose work may go on although Run has returned. The next candidate takes them over.
var kept = struct {
	sync.Mutex
	files map[string]*heldFile // by path
}{files: map[string]*heldFile{}}

// podDir is the directory that is used in a pod on Linux if none is named. It is in the memory that the containers of a pod
// share. It outlives each of them, and is writable although their root file systems are not. A variable for tests.
var podDir = "/dev/shm/elector"

// inPod reports whether this process runs in a pod: a kubelet sets the variable in every container, unless the program is
// started without its environment; the file is there unless the pod has no service account. Nothing that is unsafe
// elsewhere depends on it. It keeps the library from writing files where nobody has asked for them.
func inPod() bool {
	_, err := os.Stat(namespaceFile)
	return err == nil || os.Getenv("KUBERNETES_SERVICE_HOST") != ""
}

// stateDirOf returns the directory that Options.StateDir stands for, "" for none, and whether the user has named it.
func stateDirOf(option string) (dir string, named bool) {
	switch {
	case option == "-":
		return "", false
	case option != "":
		return option, true
	case runtime.GOOS == "linux" && inPod():
		return podDir, false
	}
	return "", false
}

func statePath(dir string, lease types.NamespacedName) string {
	return filepath.Join(dir, lease.Namespace+"_"+lease.Name+".lease")
}

// checkStateDir reports what is wrong with a directory that was named, by creating the file that Run will lock, and by
// locking it. If another process has it locked, then locks work.
func checkStateDir(option string, lease types.NamespacedName) error {
	dir, named := stateDirOf(option)
	if !named {
		return nil
	}
	file, err := lockfile.Open(statePath(dir, lease))
	if err == nil {
		return file.Close()
	}
	if errors.Is(err, lockfile.ErrLocked) {
		return nil
	}
	return mistake.In("StateDir", "it must be a directory that exists, can be written to, and is on a file system of this machine, as an emptyDir; in a pod it can be left empty: %w", err)
}

func newStateDir(log logBeside, option string, lease types.NamespacedName) *stateDir {
	dir, named := stateDirOf(option)
	if dir == "" {
		return nil
	}
	return &stateDir{path: statePath(dir, lease), named: named, log: log}
}

// lock tries to get the lock, if it is not held yet, and returns what the file then proves: the terms of dead processes.
// It does not wait.
func (s *stateDir) lock() (dead []mark) {
	if s == nil || s.held != nil || s.takeOver() {
		return nil
	}
	if !s.named {
		makePodDir(filepath.Dir(s.path))
	}
	file, err := lockfile.Open(s.path)
	if errors.Is(err, lockfile.ErrLocked) {
		if !s.busy && s.named {
			s.log.Info("Another process has locked the file in Options.StateDir: it is alive, so nothing proves it dead", "file", s.path)
		}
		s.busy = true
		return nil
	}
	s.busy = false
	if err != nil {
		s.failure(err)
		return nil
	}
	s.held = &heldFile{File: file}
	if err := file.Load(&s.held.marks); err != nil {
		s.held.marks = nil
		if s.named {
			s.log.Info("The file in Options.StateDir cannot be read, and proves nothing: a crashed predecessor's lease has to expire", "file", s.path, "err", err.Error())
		}
	}
	return slices.Clone(s.held.marks)
}

// takeOver takes the file that an earlier candidate of this process has kept locked. It proves nobody dead.
func (s *stateDir) takeOver() bool {
	kept.Lock()
	defer kept.Unlock()
	held := kept.files[s.path]
	if held == nil {
		return false
	}
	delete(kept.files, s.path)
	if !held.IsAt(s.path) {
		held.Close() // it has no name any more
		return false
	}
	s.held, s.busy = held, false
	return true
}

// makePodDir makes the default directory. Everybody may write into it, and nobody remove what is another's: the
// containers of a pod may have different users.
func makePodDir(dir string) {
	if os.Mkdir(dir, 0o700) == nil {
		_ = os.Chmod(dir, 0o777|os.ModeSticky)
	}
}

// waits reports whether another process has the lock, so that it has to be tried again.
func (s *stateDir) waits() bool { return s != nil && s.busy }

// record adds what a write that may win the Lease says. The marks of the dead stay, because the write may never arrive. A
// failure costs no more than the proof.
func (s *stateDir) record(m mark) {
	if s == nil || s.held == nil || slices.Contains(s.held.marks, m) {
		return // without the lock, or a repetition
	}
	marks := s.held.marks
	s.write(append(marks[max(0, len(marks)-maxMarks+1):], m))
}

// forget removes all marks, because a record that none of them names was seen: from then on they prove nothing, even if
// one of the old records comes back.
func (s *stateDir) forget() {
	if s != nil && s.held != nil && len(s.held.marks) > 0 {
		s.write(nil)
	}
}

// won removes all marks but the last: that of the term that begins.
func (s *stateDir) won() {
	if s != nil && s.held != nil && len(s.held.marks) > 1 {
		s.write(s.held.marks[len(s.held.marks)-1:])
	}
}

// unlock ends the candidate's use of the file. If the Lease is still its own, the lock stays with the process.
func (s *stateDir) unlock(holds bool) {
	if s == nil || s.held == nil {
		return
	}
	held := s.held
	s.held = nil
	if !holds && held.Store([]mark{}) == nil {
		held.Close()
		return
	}
	kept.Lock()
	defer kept.Unlock()
	kept.files[s.path] = held
}

func (s *stateDir) write(marks []mark) {
	s.held.marks = marks
	if err := s.held.Store(marks); err != nil {
		s.failure(err)
		return
	}
	s.failed = false
}

func (s *stateDir) failure(err error) {
	if !s.failed && s.named {
		s.log.Error(err, "The file in Options.StateDir cannot be used: after a crash this process's lease has to expire", "file", s.path)
	}
	s.failed = true
}
