// Release makes what a module proxy would serve of a version, and tries it as a user would: in fresh folders, against that
// proxy, with the commands and the programs of the READMEs.
//
//	go -C internal/release run . v0.1.0           check: nothing in the repository is changed
//	go -C internal/release run . -write v0.1.0    write what the commit of the version needs into the working tree
//
// It needs the network only for modules that the module cache does not have.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/semver"
)

const library = "github.com/elector-go/elector"

// released are the folders of the modules that users can require, each after those that it requires itself. e2e is among
// them only because the tests of cmd/elector require it: go install accepts no replace in the module that it installs.
var released = []string{".", "operator", "metrics", "e2e", "cmd/elector"}

// others are modules that require released ones, and replace them by their folders.
var others = []string{"examples", "figures", "metrics/alerts"}

func main() {
	log.SetFlags(0)
	write := flag.Bool("write", false, "change the working tree")
	flag.Parse()
	if flag.NArg() != 1 || !semver.IsValid(flag.Arg(0)) || semver.Canonical(flag.Arg(0)) != flag.Arg(0) {
		log.Fatal("give one version, such as v0.1.0")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		log.Fatal(err)
	}
	began := time.Now()
	if err := run(root, flag.Arg(0), *write); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("release of %s: ok, %.0f s\n", flag.Arg(0), time.Since(began).Seconds())
}

// run makes the version in a copy of the working tree and tries it, or has the working tree be that of the version.
func run(root, version string, write bool) (err error) {
	tmp, err := os.MkdirTemp("", "elector-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	p, err := newProxy(tmp, version)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	tree := filepath.Join(tmp, "tree") // what is not in the repository is in no release
	if err := copyTree(root, tree); err != nil {
		return err
	}
	if err := p.prepare(tree); err != nil {
		return err
	}
	if write {
		return copyBack(tree, root)
	}
	return try(p, tree, filepath.Join(tmp, "try"))
}

// copyBack copies what prepare has changed.
func copyBack(from, to string) error {
	changed := append([]string{changelog}, texts...)
	for _, folder := range append(released, others...) {
		changed = append(changed, filepath.Join(folder, "go.mod"), filepath.Join(folder, "go.sum"))
	}
	for _, path := range changed {
		text, err := os.ReadFile(filepath.Join(from, path))
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(to, path), text); err != nil {
			return err
		}
	}
	return nil
}

// copyTree copies the files that git knows or would add.
func copyTree(from, to string) error {
	list, err := command(from, nil, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return err
	}
	for _, path := range strings.Split(strings.TrimSuffix(list, "\x00"), "\x00") {
		text, err := os.ReadFile(filepath.Join(from, path))
		if os.IsNotExist(err) {
			continue // deleted, and not committed yet
		}
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(to, path), text); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}
