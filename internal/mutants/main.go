// Mutants breaks each rule of the protocol on purpose, one at a time, in a copy of the library, and shows which test
// notices. A mutant that no test notices shows a missing test, and the command fails.
//
//	go run ./internal/mutants [-only REGEXP] [-at-once N] [-write FILE]
package main

import (
	"bufio"
	"bytes"
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
	atOnce := flag.Int("at-once", 2, "run this many mutants at once")
	write := flag.String("write", "", "write the table to this file, as Markdown")
	flag.Parse()
	log.SetFlags(0)
	chosen, err := regexp.Compile(*only)
	if err != nil {
		log.Fatalf("-only: %v", err)
	}
	rows, err := runAll(chosen, max(*atOnce, 1))
	if err != nil {
		log.Fatal(err)
	}
	if *write != "" {
		table := heading + strings.Join(rows, "")
		if err := os.WriteFile(*write, []byte(table), 0o644); err != nil {
			log.Fatal(err)
		}
	}
	if n := strings.Count(strings.Join(rows, ""), survived); n > 0 {
		log.Fatalf("%d mutants survived: write the tests that they show to be missing", n)
	}
}

const survived = "**survived**"

const heading = `# Mutants

Each rule of [PROTOCOL.md](../../PROTOCOL.md) broken on purpose, one at a time, and the first test that notices; others may
notice too. Written by ` + "`go run ./internal/mutants -write internal/mutants/TABLE.md`" + `.

| rule | broken by | noticed by |
|---|---|---|
`

// runAll runs the chosen mutants, n at once, and returns their rows of the table.
func runAll(chosen *regexp.Regexp, n int) (rows []string, err error) {
	dir, err := copyOfLibrary()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := weave(dir, mutants); err != nil {
		return nil, err
	}
	skip, err := failing(dir)
	if err != nil {
		return nil, err
	}

	rows = make([]string, len(mutants))
	queue := make(chan int, len(mutants))
	for i, m := range mutants {
		if chosen.MatchString(m.rule + ": " + m.name) {
			queue <- i
		}
	}
	close(queue)
	var workers sync.WaitGroup
	for range n {
		workers.Go(func() {
			for i := range queue {
				m, begin := mutants[i], time.Now()
				noticed := run(dir, i, skip)
				rows[i] = fmt.Sprintf("| %s | %s | %s |\n", m.rule, m.name, noticed)
				fmt.Printf("%-7s %-64s %s (%v)\n", m.rule, m.name, noticed, time.Since(begin).Round(time.Second))
			}
		})
	}
	workers.Wait()
	return rows, nil
}

// copyOfLibrary copies what git tracks of the root package, and of the packages that its tests use.
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
		if top, _, deep := strings.Cut(path, "/"); deep && top != "electortest" && top != "leaderelection" {
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

// stages are the tests in the order in which they are run: what is quick first, because the first failure is enough.
// Those of figures and of example code guard no rule.
var stages = []string{"^(TestDecisions|TestRandomHistoriesReachEveryState)$", "."}

const guardNothing = "TestFigures|TestBenchmarks|TestCost|TestTheReadme"

// run runs the tests with mutant i, and returns the first one that fails.
func run(dir string, i int, skip string) (noticed string) {
	for _, tests := range stages {
		if out, err := test(dir, i, "-test.v", "-test.failfast", "-test.run", tests, "-test.skip", skip); err != nil {
			return firstFailure(out)
		}
	}
	return survived
}

// failing builds the tests and returns a pattern for -test.skip: the tests that guard no rule, and those that fail
// without a mutant, which prove nothing.
func failing(dir string) (skip string, err error) {
	build := exec.Command("go", "test", "-vet=off", "-c", "-o", "mutants.test", ".") // vet objects to what mutants leave behind
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("a mutant does not compile; its number is in the name of the function:\n%s", out)
	}
	skip = guardNothing
	out, err := test(dir, -1, "-test.skip", skip)
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

// test runs the tests with mutant i, or with none for -1. A mutant may spin without end in a moment of virtual time: its
// time is bounded, and so is its memory.
func test(dir string, i int, args ...string) ([]byte, error) {
	cmd := exec.Command("sh", append([]string{"-c", `ulimit -v 6000000; exec ./mutants.test -test.timeout 240s "$@"`, "mutants"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", variable, i))
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
	if names := started.FindAllSubmatch(out, -1); len(names) > 0 {
		return string(names[len(names)-1][1]) + " (crashes)"
	}
	return "the run ends before its first test"
}

var (
	failures = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)
	started  = regexp.MustCompile(`(?m)^=== RUN +([^/\s]+)$`)
	running  = regexp.MustCompile(`running tests:\n\t+(\S+)`)
)
