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
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
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
	log    klog.Logger
}

// A heldFile is a file whose lock this process has, and what it says.
type heldFile struct {
	*os.File
	id    string // which file it is, see identify
	size  int
	marks []mark
}

// A mark is what identifies a term in the Lease's record.
type mark struct {
	Identity    string    `json:"identity"`
	AcquireTime time.Time `json:"acquireTime"` // whole microseconds, UTC: marks are compared by ==
}

// contents is what a file says. File is the file that it was written into: in a copy it is another, and a copy proves
// nothing, because the lock that its writer has is on the original.
type contents struct {
	File  string `json:"file"`
	Marks []mark `json:"marks"`
}

// maxMarks is how many marks a file keeps: the one of each process that died after it had written the file and before it
// had written the Lease, and the last one that did write it.
const maxMarks = 16

var (
	errLocked   = errors.New("another process has locked the file")
	errReplaced = errors.New("the file was replaced by another while it was locked")
	errNoLock   = errors.New("a lock on this file system keeps nobody out: a second one was granted beside the first")
)

// kept are the files whose candidate has ended while the Lease still named it. Their lock stays with the process: its end
// would pass for the process's, whose work may go on although Run has returned. The next candidate takes them over.
var kept = struct {
	sync.Mutex
	files map[string]*heldFile // by path
}{files: map[string]*heldFile{}}

// podDir is the directory that is used in a pod if none is named; "" on other systems than Linux. A variable for tests.
var podDir = defaultPodDir

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
	case inPod():
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
	held, err := acquireFile(statePath(dir, lease))
	if err == nil {
		return held.Close()
	}
	if errors.Is(err, errLocked) || errors.Is(err, errReplaced) {
		return nil
	}
	return fmt.Errorf("Options.StateDir: it must be a directory that exists, can be written to, and is on a file system of this machine, as an emptyDir; in a pod it can be left empty: %w", err)
}

func newStateDir(log klog.Logger, option string, lease types.NamespacedName) *stateDir {
	dir, named := stateDirOf(option)
	if dir == "" {
		return nil
	}
	return &stateDir{path: statePath(dir, lease), named: named, log: log}
}

// acquireFile opens the file, and locks it without waiting. Before the lock counts it is tried against itself: where a
// second one is granted beside it, it keeps out nobody.
func acquireFile(path string) (*heldFile, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|openFlags, 0o600)
	if err != nil {
		return nil, err
	}
	held := &heldFile{File: file}
	if held.id, err = identify(file); err == nil {
		err = lockAlone(path, file)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return held, nil
}

func lockAlone(path string, file *os.File) error {
	if err := flock(file); err != nil {
		return err
	}
	second, err := os.OpenFile(path, os.O_RDWR|openFlags, 0)
	if err != nil {
		return err
	}
	defer second.Close()
	if !sameFile(file, second) {
		return errReplaced
	}
	switch err := flock(second); {
	case err == nil:
		return errNoLock
	case !errors.Is(err, errLocked):
		return err
	}
	return nil
}

func sameFile(a, b *os.File) bool {
	one, err1 := a.Stat()
	two, err2 := b.Stat()
	return err1 == nil && err2 == nil && os.SameFile(one, two)
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
	held, err := acquireFile(s.path)
	if errors.Is(err, errLocked) {
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
	s.held = held
	if err := held.read(); err != nil && s.named {
		s.log.Info("The file in Options.StateDir cannot be read, and proves nothing: a crashed predecessor's lease has to expire", "file", s.path, "err", err.Error())
	}
	return slices.Clone(held.marks)
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
	now, err := os.Stat(s.path)
	was, err2 := held.Stat()
	if err != nil || err2 != nil || !os.SameFile(now, was) {
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
	if !holds && held.write(nil) == nil {
		held.Close()
		return
	}
	kept.Lock()
	defer kept.Unlock()
	kept.files[s.path] = held
}

func (s *stateDir) write(marks []mark) {
	if err := s.held.write(marks); err != nil {
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

func (h *heldFile) read() error {
	data, err := io.ReadAll(h)
	h.size = len(data)
	if err != nil || len(data) == 0 {
		return err
	}
	var c contents
	if err := json.Unmarshal(data, &c); err != nil {
		return err
	}
	if c.File != h.id {
		return fmt.Errorf("it was written as %s and is %s now: a copy, or from before the machine was started again", c.File, h.id)
	}
	h.marks = c.Marks
	return nil
}

// write writes all marks at once. What is left of longer marks becomes spaces: a file that was cut first would prove
// nothing if the process is killed before it has written.
func (h *heldFile) write(marks []mark) error {
	h.marks = marks
	data, err := json.Marshal(contents{h.id, marks})
	if err != nil {
		return err
	}
	data = append(data, bytes.Repeat([]byte(" "), max(0, h.size-len(data)))...)
	if _, err := h.WriteAt(data, 0); err != nil {
		return err
	}
	h.size = len(data)
	return nil
}
