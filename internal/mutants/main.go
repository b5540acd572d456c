// Mutants breaks each rule of the protocol on purpose, one at a time, and shows which test notices. A mutant that no test
// notices shows a missing test, and the command fails. It fails, too, if a test fails without a mutant: that proves nothing.
//
//	go run ./internal/mutants [-only REGEXP] [-at-once N] [-hours N] [-write FILE]
//
// It is run in the root of the repository, and changes nothing there.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path"
	"regexp"
	"strings"
	"sync"
	"time"
)

func main() {
	only := flag.String("only", "", "run the mutants that match this regular expression, as \"^S3: \"")
	atOnce := flag.Int("at-once", 2, "run this many mutants at once")
	hours := flag.Int("hours", 200, "simulate this many hours of each safety mutant of the protocol")
	write := flag.String("write", "", "write the table to this file, as Markdown")
	flag.Parse()
	log.SetFlags(0)
	chosen, err := regexp.Compile(*only)
	if err != nil {
		log.Fatalf("-only: %v", err)
	}
	r := &runner{hours: *hours}
	for _, m := range mutants {
		if chosen.MatchString(m.rule + ": " + m.name) {
			r.mutants = append(r.mutants, m)
		}
	}
	rows, err := r.run(max(*atOnce, 1), *only == "")
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
		log.Fatalf("%d of %d mutants survived: write the tests that they show to be missing", n, len(rows))
	}
}

const survived = "**survived**"

const heading = `# Mutants

Each rule of [PROTOCOL.md](../../PROTOCOL.md) broken on purpose, one at a time, and the first test that notices; others may
notice too. Safety mutants of the protocol are tried against the [simulation](../sim/) alone as well: the table has the seed of
a run that breaks a promise, or how many hours were clean. Written by ` + "`go run ./internal/mutants -write internal/mutants/TABLE.md`" + `.

| rule | broken by | noticed by | simulation |
|---|---|---|---|
`

// A runner runs mutants.
type runner struct {
	mutants []mutant
	hours   int
	suites  map[string]*suite // by the directory of the package
	healthy sync.Map          // of suite and test: func() error, which runs it once without a mutant
}

// What is run of a suite. Tests of figures, of example code and of documents guard no rule.
const (
	everything = "."
	guardless  = "TestFigures|TestBenchmarks|TestCost|TestTheReadme|TestLinks|TestOperations|TestEachAlert"
	simulation = "internal/sim"
)

// run runs the mutants, n at once, and returns their rows of the table. If all is set, all tests are run without a mutant
// first. Otherwise only those that have noticed one are, afterwards.
func (r *runner) run(n int, all bool) (rows []string, err error) {
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	overlay, err := weave(dir, r.mutants)
	if err != nil {
		return nil, err
	}
	r.suites = map[string]*suite{".": newSuite(dir, overlay, "."), simulation: newSuite(dir, overlay, simulation)}
	for _, m := range r.mutants {
		if pkg := path.Dir(m.file); r.suites[pkg] == nil {
			r.suites[pkg] = newSuite(dir, overlay, pkg)
		}
	}
	for _, s := range r.suites {
		if all && s.pkg != simulation {
			if err := r.passes(s, everything); err != nil {
				return nil, err
			}
		}
	}

	rows, errs := make([]string, len(r.mutants)), make([]error, n)
	queue := make(chan int, len(r.mutants))
	for i := range r.mutants {
		queue <- i
	}
	close(queue)
	var workers sync.WaitGroup
	for w := range n {
		workers.Go(func() {
			for i := range queue {
				if rows[i], errs[w] = r.row(i); errs[w] != nil {
					return
				}
			}
		})
	}
	workers.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// row runs mutant i, and returns its row of the table.
func (r *runner) row(i int) (string, error) {
	m, begin := r.mutants[i], time.Now()
	noticed, err := r.noticed(i, m)
	if err != nil {
		return "", err
	}
	simulated := ""
	if m.rule[0] == 'S' && path.Dir(m.file) == "internal/protocol" {
		if simulated, err = r.simulated(i); err != nil {
			return "", err
		}
	}
	fmt.Printf("%-7s %-72s %-60s %s (%v)\n", m.rule, m.name, noticed, simulated, time.Since(begin).Round(time.Second))
	return fmt.Sprintf("| %s | %s | %s | %s |\n", m.rule, m.name, noticed, simulated), nil
}

// noticed is the first test that fails with mutant i: of its own package, or else of the root, which uses that.
func (r *runner) noticed(i int, m mutant) (string, error) {
	pkgs := []string{path.Dir(m.file)}
	if pkgs[0] != "." {
		pkgs = append(pkgs, ".")
	}
	for _, pkg := range pkgs {
		s := r.suites[pkg]
		out, err := s.run(i, "-test.v", "-test.failfast", "-test.run", everything, "-test.skip", guardless)
		if err != nil {
			return "", err
		}
		if out == nil {
			continue
		}
		test, how := firstFailure(out)
		if test == "" {
			return "", fmt.Errorf("%s: %s: the run of %s ends before its first test:\n%s", m.rule, m.name, pkg, out)
		}
		return s.name() + "." + test + how, r.passes(s, "^"+test+"$")
	}
	return survived, nil
}

// simulated is what the simulation finds with mutant i. It begins with a few seeds, because most need no more.
func (r *runner) simulated(i int) (string, error) {
	s := r.suites[simulation]
	for first, n := 1, 8; first <= r.hours; first, n = first+n, 2*n {
		n = min(n, r.hours-first+1)
		seeds := []string{"-test.run", "^TestSimulation$", "-test.v", fmt.Sprintf("-sim.first=%d", first), fmt.Sprintf("-sim.seeds=%d", n), "-sim.hours=1"}
		out, err := s.run(i, seeds...)
		if err != nil {
			return "", err
		}
		if out == nil {
			continue
		}
		if out, err := s.run(none, seeds...); err != nil || out != nil {
			return "", fmt.Errorf("the simulation fails without a mutant: %v\n%s", err, out)
		}
		if seed := failedSeed.FindSubmatch(out); seed != nil {
			return "seed " + string(seed[1]), nil
		}
		_, how := firstFailure(out)
		return "yes" + how, nil
	}
	return fmt.Sprintf("not in %d h", r.hours), nil
}

// passes returns an error if tests fail without a mutant.
func (r *runner) passes(s *suite, tests string) error {
	once, _ := r.healthy.LoadOrStore(s.pkg+" "+tests, sync.OnceValue(func() error {
		out, err := s.run(none, "-test.v", "-test.run", tests, "-test.skip", guardless)
		if err == nil && out != nil {
			test, how := firstFailure(out)
			err = fmt.Errorf("%s.%s%s fails without a mutant, and proves nothing:\n%s", s.name(), test, how, out)
		}
		return err
	}))
	return once.(func() error)()
}
