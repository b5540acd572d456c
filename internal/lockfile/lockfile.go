// Package lockfile is a file that one process at a time has locked, and that tells the next what its predecessors knew.
// The kernel gives the lock up when the process has died, and not before. So who gets it knows that the writers of what
// the file says are dead, as long as it is this file whose lock they had, and the lock excludes others at all. Open and
// Load check both.
package lockfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

var (
	// ErrLocked is what Open returns when another process has the lock.
	ErrLocked = errors.New("another process has locked the file")

	lock = flock // a variable for tests

	errWritable = errors.New("others than its user may write it")
	errReplaced = errors.New("the file was replaced while it was locked")
	errNoLock   = errors.New("a lock on this file system keeps nobody out: a second one was granted beside the first")
)

// A File is locked until it is closed.
type File struct {
	file *os.File
	id   string // see identify
	size int
}

// contents is what a file says. File is the file that it was written into: in a copy it is another, and a copy proves
// nothing, because the lock that its writer has is on the original.
type contents struct {
	File  string          `json:"file"`
	State json.RawMessage `json:"state"`
}

// Open opens the file, which it creates if there is none, and locks it without waiting. Before the lock counts it is tried
// against itself: where a second one is granted beside it, it keeps out nobody. A file that others could have written, as
// a kubelet makes them for fsGroup, is replaced by an empty one.
func Open(path string) (*File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|openFlags, 0o600)
	if err != nil {
		return nil, err
	}
	f := &File{file: file}
	if f.id, err = identify(file); errors.Is(err, errWritable) && os.Remove(path) == nil {
		file.Close()
		return Open(path)
	}
	if err == nil {
		err = lockAlone(path, file)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return f, nil
}

func lockAlone(path string, file *os.File) error {
	if err := lock(file); err != nil {
		return err
	}
	second, err := os.OpenFile(path, os.O_RDWR|openFlags, 0)
	if err != nil {
		return err
	}
	defer second.Close()
	if info, err := second.Stat(); err != nil || !is(file, info) {
		return errReplaced
	}
	switch err := lock(second); {
	case err == nil:
		return errNoLock
	case !errors.Is(err, ErrLocked):
		return err
	}
	return nil
}

func is(file *os.File, info os.FileInfo) bool {
	own, err := file.Stat()
	return err == nil && os.SameFile(own, info)
}

// IsAt reports whether the file is the one that has that name now.
func (f *File) IsAt(path string) bool {
	info, err := os.Stat(path)
	return err == nil && is(f.file, info)
}

// Load reads what Store has written, into v as package json does. An empty file leaves v as it is. What was not written
// into this file, or while another kernel ran, is an error.
func (f *File) Load(v any) error {
	data, err := io.ReadAll(io.NewSectionReader(f.file, 0, 1<<20))
	f.size = len(data)
	if err != nil || len(data) == 0 {
		return err
	}
	var c contents
	if err := json.Unmarshal(data, &c); err != nil {
		return err
	}
	if c.File != f.id {
		return fmt.Errorf("it was written into file %s, and is file %s: a copy, or from before the machine was started", c.File, f.id)
	}
	return json.Unmarshal(c.State, v)
}

// Store writes v, as package json does, at once. What is left of longer contents becomes spaces: a file that was cut first
// would say nothing if the process is killed before it has written.
func (f *File) Store(v any) error {
	state, err := json.Marshal(v)
	if err != nil {
		return err
	}
	data, err := json.Marshal(contents{f.id, state})
	if err != nil {
		return err
	}
	data = append(data, bytes.Repeat([]byte(" "), max(0, f.size-len(data)))...)
	f.size = len(data)
	if _, err := f.file.WriteAt(data, 0); err != nil {
		return errors.Join(err, f.file.Truncate(0)) // what it says now may no longer be so
	}
	return nil
}

// Close gives the lock up. The file stays.
func (f *File) Close() error { return f.file.Close() }
