// Mutants breaks each rule of the protocol on purpose, one at a time, in copies of the library, and shows which test
// notices. A mutant that no test notices shows a missing test, and the command fails.
//
//	go run ./internal/mutants [-only REGEXP] [-copies N] [-write FILE]
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
	"sync"
	"time"
)

func main() {
	only := flag.String("only", "", "run the mutants that match this regular expression, as \"^S3: \"")
	copies := flag.Int("copies", 2, "run this many mutants at once")
	write := flag.String("write", "", "write the table to this file, as Markdown")
	flag.Parse()
	log.SetFlags(0)
	chosen, err := regexp.Compile(*only)
	if err != nil {
		log.Fatalf("-only: %v", err)
	}
	rows, err := runAll(chosen, max(*copies, 1))
	if err != nil {
		log.Fatal(err)
	}
	if *write != "" {
		table := "| rule | broken by | noticed by |\n|---|---|---|\n" + strings.Join(rows, "")
		if err := os.WriteFile(*write, []byte(table), 0o644); err != nil {
			log.Fatal(err)
		}
	}
	if n := strings.Count(strings.Join(rows, ""), survived); n > 0 {
		log.Fatalf("%d mutants survived: write the tests that they show to be missing", n)
	}
}

const survived = "**survived**"

// runAll runs the chosen mutants, several at once, each in a copy of its own, and returns their rows of the table.
func runAll(chosen *regexp.Regexp, n int) (rows []string, err error) {
	var copies []string
	defer func() {
		for _, dir := range copies {
			os.RemoveAll(dir)
		}
	}()
	for range n {
		dir, err := copyOfLibrary()
		if err != nil {
			return nil, err
		}
		copies = append(copies, dir)
	}
	for _, m := range mutants { // before any is run
		if _, err := m.source(copies[0]); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", m.rule, m.name, err)
		}
	}
	skip, err := failing(copies[0])
	if err != nil {
		return nil, err
	}

	rows = make([]string, len(mutants))
	errs := make([]error, len(mutants))
	queue := make(chan int, len(mutants))
	for i, m := range mutants {
		if chosen.MatchString(m.rule + ": " + m.name) {
			queue <- i
		}
	}
	close(queue)
	var workers sync.WaitGroup
	for _, dir := range copies {
		workers.Go(func() {
			for i := range queue {
				m, begin := mutants[i], time.Now()
				noticed, err := m.run(dir, skip)
				if err != nil {
					errs[i] = fmt.Errorf("%s: %s: %w", m.rule, m.name, err)
					log.Print(errs[i])
					continue
				}
				rows[i] = fmt.Sprintf("| %s | %s | %s |\n", m.rule, m.name, noticed)
				fmt.Printf("%-7s %-64s %s (%v)\n", m.rule, m.name, noticed, time.Since(begin).Round(time.Second))
			}
		})
	}
	workers.Wait()
	return rows, errors.Join(errs...)
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

// stages are the tests in the order in which they are run: what is quick first, because the first failure is enough.
// Those of figures and of example code guard no rule.
var stages = []string{"^(TestDecisions|TestRandomHistoriesReachEveryState)$", "."}

const guardNothing = "TestFigures|TestBenchmarks|TestCost|TestTheReadme"

// run applies the mutant to the copy and returns the first test that fails. It puts the copy right again.
func (m mutant) run(dir, skip string) (noticed string, err error) {
	path := filepath.Join(dir, m.file)
	content, err := m.source(dir)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(content), m.old, m.new, 1)), 0o644); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.WriteFile(path, content, 0o644)) }()
	if out, err := build(dir); err != nil {
		return "", fmt.Errorf("it does not compile:\n%s", out)
	}
	for _, tests := range stages {
		out, err := test(dir, "-test.failfast", "-test.run", tests, "-test.skip", skip)
		if err != nil {
			return firstFailure(out), nil
		}
	}
	return survived, nil
}

// failing returns a pattern for -test.skip: the tests that guard no rule, and those that fail without a mutant, which
// prove nothing.
func failing(dir string) (skip string, err error) {
	if out, err := build(dir); err != nil {
		return "", fmt.Errorf("the library does not compile:\n%s", out)
	}
	skip = guardNothing
	out, err := test(dir, "-test.skip", skip)
	if err == nil {
		return skip, nil
	}
	names := failures.FindAllSubmatch(out, -1)
	if len(names) == 0 {
		return "", fmt.Errorf("the tests fail without a mutant:\n%s", out)
	}
	for _, name := range names {
		fmt.Printf("left out, because it fails without a mutant: %s\n", name[1])
		skip += "|^" + string(name[1]) + "$"
	}
	return skip, nil
}

// build makes the test binary. A mutant may leave code behind that go vet objects to.
func build(dir string) ([]byte, error) {
	cmd := exec.Command("go", "test", "-vet=off", "-c", "-o", "mutant.test", ".")
	cmd.Dir = dir
	return cmd.CombinedOutput()
}

// test runs the test binary. A mutant may spin without end in a moment of virtual time: its time is bounded, and so is
// its memory.
func test(dir string, args ...string) ([]byte, error) {
	cmd := exec.Command("sh", append([]string{"-c", `ulimit -v 6000000; exec ./mutant.test -test.timeout 90s "$@"`, "mutant"}, args...)...)
	cmd.Dir = dir
	return cmd.CombinedOutput()
}

// firstFailure finds the name of the test that failed in the output of a run.
func firstFailure(out []byte) string {
	if name := failures.FindSubmatch(out); name != nil {
		return string(name[1])
	}
	if name := running.FindSubmatch(out); name != nil {
		return string(name[1]) + " (does not end)"
	}
	return "the run ends in a panic or out of memory"
}

var (
	failures = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)
	running  = regexp.MustCompile(`running tests:\n\t+(\S+)`)
)
