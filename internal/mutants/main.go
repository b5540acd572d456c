// Mutants breaks each rule of the protocol on purpose, one at a time, in a copy of the library, and shows which tests
// notice. A mutant that none notices is a missing test, and the command fails.
//
//	go run ./internal/mutants [-only PART-OF-A-NAME] [-write FILE]
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	only := flag.String("only", "", "run the mutants with this in their name")
	write := flag.String("write", "", "write the table to this file, as Markdown")
	flag.Parse()
	log.SetFlags(0)
	dir, err := copyOfLibrary()
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, m := range mutants { // before any is run
		if _, err := m.source(dir); err != nil {
			log.Fatalf("%s: %s: %v", m.rule, m.name, err)
		}
	}

	var table strings.Builder
	fmt.Fprint(&table, "| rule | broken by | tests that fail | among them |\n|---|---|---|---|\n")
	survivors := 0
	for _, m := range mutants {
		if !strings.Contains(m.rule+": "+m.name, *only) {
			continue
		}
		begin := time.Now()
		failed, err := m.run(dir)
		if err != nil {
			log.Fatalf("%s: %s: %v", m.rule, m.name, err)
		}
		if len(failed) == 0 {
			survivors++
			failed = []string{"**survived**"}
		}
		fmt.Fprintf(&table, "| %s | %s | %d | %s |\n", m.rule, m.name, len(failed), strings.Join(failed[:min(len(failed), 2)], ", "))
		fmt.Printf("%-4s %-52s %2d failed, among them %s (%v)\n", m.rule, m.name, len(failed), failed[0], time.Since(begin).Round(time.Second))
	}
	if *write != "" {
		if err := os.WriteFile(*write, []byte(table.String()), 0o644); err != nil {
			log.Fatal(err)
		}
	}
	if survivors > 0 {
		log.Fatalf("%d mutants survived: write the tests that they show to be missing", survivors)
	}
}

// copyOfLibrary copies what git tracks of the root package and of electortest.
func copyOfLibrary() (string, error) {
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return "", err
	}
	files, err := exec.Command("git", "ls-files", "*.go", "go.mod", "go.sum", "README.md").Output()
	if err != nil {
		return "", fmt.Errorf("git ls-files: %w", err)
	}
	for line := bufio.NewScanner(bytes.NewReader(files)); line.Scan(); {
		path := line.Text()
		if top, _, deep := strings.Cut(path, "/"); deep && top != "electortest" {
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, path), content, 0o644); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// source is the file that the mutant changes.
func (m mutant) source(dir string) ([]byte, error) {
	content, err := os.ReadFile(filepath.Join(dir, m.file))
	if n := strings.Count(string(content), m.old); err == nil && n != 1 {
		err = fmt.Errorf("%s holds %d times, not once, what the mutant replaces: %q", m.file, n, m.old)
	}
	return content, err
}

// run applies the mutant to the copy, runs the tests, and returns those that fail. It puts the copy right again.
func (m mutant) run(dir string) (failed []string, err error) {
	path := filepath.Join(dir, m.file)
	content, err := m.source(dir)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(content), m.old, m.new, 1)), 0o644); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.WriteFile(path, content, 0o644)) }()

	// A mutant may spin without end in a moment of virtual time: bound its time, and its memory.
	cmd := exec.Command("sh", "-c", "ulimit -v 6000000; exec go test -timeout 60s -skip TestFigures .")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil, nil
	}
	if bytes.Contains(out, []byte("[build failed]")) {
		return nil, fmt.Errorf("it does not compile:\n%s", out)
	}
	for _, name := range failures.FindAllSubmatch(out, -1) {
		failed = append(failed, string(name[1]))
	}
	for _, name := range running.FindAllSubmatch(out, -1) {
		failed = append(failed, string(name[1])+" (does not end)")
	}
	if len(failed) == 0 {
		failed = []string{"the run ends in a panic or out of memory"}
	}
	return failed, nil
}

var (
	failures = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)
	running  = regexp.MustCompile(`running tests:\n\t+(\S+)`)
)
