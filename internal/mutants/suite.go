package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
)

// A suite is the tests of a package, with all mutants built in.
type suite struct {
	pkg   string // its directory
	file  string
	build func() error
}

func newSuite(dir, overlay, pkg string) *suite {
	s := &suite{pkg: pkg}
	s.file = filepath.Join(dir, s.name()+".test")
	s.build = sync.OnceValue(func() error {
		build := exec.Command("go", "test", "-vet=off", "-overlay", overlay, "-c", "-o", s.file, "./"+pkg) // vet objects to what mutants leave behind
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("a mutant does not compile; its number is in the name of the function:\n%s", out)
		}
		return nil
	})
	return s
}

func (s *suite) name() string {
	if s.pkg == "." {
		return "elector"
	}
	return path.Base(s.pkg)
}

// none is the number of no mutant.
const none = -1

// run runs tests with mutant i, and returns what they have printed if one of them has failed, nil if none has. A mutant may
// spin without end in a moment of virtual time: its time is bounded, and so is its memory.
func (s *suite) run(i int, args ...string) (out []byte, err error) {
	if err := s.build(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(s.file); errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a package without tests
	}
	cmd := exec.Command("sh", append([]string{"-c", `ulimit -v 6000000; exec "$0" -test.timeout 240s "$@"`, s.file}, args...)...)
	cmd.Dir = s.pkg
	cmd.Env = append(os.Environ(), variable+"="+strconv.Itoa(i))
	out, err = cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return append(out, '\n'), nil
	}
	return nil, err
}

// firstFailure finds the name of the test that failed in what a run has printed, and how, if it did not just fail.
func firstFailure(out []byte) (test, how string) {
	if name := failures.FindSubmatch(out); name != nil {
		return string(name[1]), ""
	}
	if name := running.FindSubmatch(out); name != nil {
		return string(name[1]), " (does not end)"
	}
	if names := started.FindAllSubmatch(out, -1); len(names) > 0 {
		return string(names[len(names)-1][1]), " (crashes)"
	}
	return "", ""
}

var (
	failures   = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)
	started    = regexp.MustCompile(`(?m)^=== RUN +([^/\s]+)$`)
	running    = regexp.MustCompile(`running tests:\n\t+([^/\s]+)`)
	failedSeed = regexp.MustCompile(`seed (\d+):`)
)
