// Package termlog writes into the termination log of the container that this process runs in.
package termlog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Limit is how many bytes a kubelet reads of a termination log.
const Limit = 4096

// heading is what people find before the notes in the status of a pod.
const heading = "elector-go.github.io terms:"

// Path finds the termination log. It is a variable for tests, in which no kubelet has made one.
var Path = func() (string, error) { return find("/proc") }

// notes is what is in the file, by key: all of this process share it.
var notes = struct {
	sync.Mutex
	by map[string]string
}{by: map[string]string{}}

// Leave writes a note into the file in place of the one left before with the same key. What else is in the file is
// lost: a program that writes its own termination message does so as it ends, and then takes ours away.
func Leave(key, note string) error {
	path, err := Path()
	if err != nil {
		return err
	}
	notes.Lock()
	defer notes.Unlock()
	before, had := notes.by[key]
	notes.by[key] = note
	text := heading
	for _, k := range slices.Sorted(maps.Keys(notes.by)) {
		text += " " + notes.by[k]
	}
	if len(text) > Limit {
		if delete(notes.by, key); had {
			notes.by[key] = before
		}
		return fmt.Errorf("%s has no more room: a kubelet reads %d bytes", path, Limit)
	}
	// The file is the kubelet's, so it is written in place. It is never empty in between, nor ends in half a note.
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.WriteAt([]byte(text), 0); err != nil {
		return err
	}
	return file.Truncate(int64(len(text)))
}

// kubeletsFile is where a kubelet keeps the termination log of one instance of a container.
var kubeletsFile = regexp.MustCompile(`/pods/[0-9a-f-]{32,36}/containers/[a-z0-9-]+/[0-9a-f]{8}$`)

// find finds the file that a kubelet has made for this instance of the container. There must be just one, and the end of the
// container must be the end of this process: only where the container has a PID namespace of its own does the kernel kill
// all processes in it before anybody is told of the end of the first.
func find(proc string) (string, error) {
	data, err := os.ReadFile(filepath.Join(proc, "self/mountinfo"))
	if err != nil {
		return "", fmt.Errorf("no termination log can be looked for here: %w", err)
	}
	path := ""
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		fields := strings.Fields(lines.Text()) // ID, parent, device, root, mount point, …
		if len(fields) < 5 || !kubeletsFile.MatchString(fields[3]) {
			continue
		}
		if path != "" {
			return "", errors.New("two termination logs are mounted")
		}
		path = fields[4]
	}
	if path == "" {
		return "", errors.New("no termination log of a kubelet is mounted: not in a pod, or in one whose runtime hides it")
	}
	own, err := os.Readlink(filepath.Join(proc, "self/ns/mnt"))
	if err != nil {
		return "", err
	}
	first, err := os.Readlink(filepath.Join(proc, "1/ns/mnt"))
	if err != nil {
		return "", fmt.Errorf("whether the first process is this container's cannot be found out: %w", err)
	}
	if own != first {
		return "", errors.New("the container shares its PID namespace (shareProcessNamespace, hostPID): its end is not the end of its processes")
	}
	return path, nil
}
