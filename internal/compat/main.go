// Compat shows what an operator gets with the library: it makes one as kubebuilder would for each controller-runtime
// from v0.19 to v0.25, adds the library, and compares the versions in go.mod. The library may raise no module, and the go
// line only to its own; otherwise the command fails.
//
//	go run ./internal/compat [-build]
//
// Without -build nothing is compiled, which takes seconds.
package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/version"
	"io/fs"
	"log"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const library = "github.com/elector-go/elector"

// operators are the versions that kubebuilder's operators had when each controller-runtime was current.
var operators = []struct{ controllerRuntime, k8s, goLine string }{
	{"v0.19.4", "v0.31.0", "1.22.0"},
	{"v0.20.4", "v0.32.1", "1.23.0"},
	{"v0.21.0", "v0.33.0", "1.24.0"},
	{"v0.22.5", "v0.34.3", "1.24.0"},
	{"v0.23.3", "v0.35.0", "1.25.0"},
	{"v0.24.1", "v0.36.0", "1.26.0"},
	{"v0.25.2", "v0.37.0", "1.26.0"},
}

// sources are the operator itself, in testdata/operator, and how it starts before and after the library is added.
//
//go:embed testdata
var sources embed.FS

func main() {
	build := flag.Bool("build", false, "compile each operator with the library, too")
	flag.Parse()
	log.SetFlags(0)
	root, err := goCommand(".", "list", "-m", "-f", "{{.Dir}}", library)
	if err != nil {
		log.Fatal(err)
	}
	own, err := readModule(root)
	if err != nil {
		log.Fatal(err)
	}
	const row = "%-19s %-8s %-17s %s\n"
	fmt.Printf(row, "controller-runtime", "k8s.io", "go", "modules raised")
	failed := false
	for _, o := range operators {
		c, err := add(root, o.controllerRuntime, o.k8s, o.goLine, *build)
		if err != nil {
			log.Fatalf("controller-runtime %s: %v", o.controllerRuntime, err)
		}
		fmt.Printf(row, o.controllerRuntime, o.k8s, c.goLine(), c.list())
		failed = failed || c.breaks(own.Go)
	}
	if failed {
		log.Fatalf("The library raises what it must not: a module, or the go line to more than its own %s.\n"+
			"Lower the version in go.mod that does it.", own.Go)
	}
}

// A change is what adding the library did to an operator's go.mod.
type change struct {
	goBefore, goAfter string
	raised            []string // modules that were required before, in a lower version
}

// add makes an operator in a folder of its own, adds the library in root and compares.
func add(root, controllerRuntime, k8s, goLine string, build bool) (change, error) {
	dir, err := os.MkdirTemp("", "elector-compat-")
	if err != nil {
		return change{}, err
	}
	defer os.RemoveAll(dir)
	goMod := fmt.Sprintf("module example.com/operator\n\ngo %s\n\nrequire (\n\tk8s.io/api %[2]s\n\tk8s.io/apimachinery %[2]s\n"+
		"\tk8s.io/client-go %[2]s\n\tsigs.k8s.io/controller-runtime %[3]s\n)\n", goLine, k8s, controllerRuntime)
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(goMod), 0o644); err != nil {
		return change{}, err
	}
	before, err := tidy(dir, "operator", "before")
	if err != nil {
		return change{}, fmt.Errorf("without the library: %w", err)
	}
	if _, err := goCommand(dir, "mod", "edit", "-require="+library+"@v0.0.0", "-replace="+library+"="+root); err != nil {
		return change{}, err
	}
	after, err := tidy(dir, "after")
	if err != nil {
		return change{}, fmt.Errorf("with the library: %w", err)
	}
	if build {
		if _, err := goCommand(dir, "vet", "./..."); err != nil { // it compiles the tests, too
			return change{}, fmt.Errorf("with the library: %w", err)
		}
	}
	return compare(before, after), nil
}

// tidy copies the folders of testdata to dir, over what is there, and returns the go.mod that they need.
func tidy(dir string, folders ...string) (module, error) {
	for _, folder := range folders {
		sub, err := fs.Sub(sources, "testdata/"+folder)
		if err != nil {
			return module{}, err
		}
		if err := overwrite(dir, sub); err != nil {
			return module{}, err
		}
	}
	if _, err := goCommand(dir, "mod", "tidy"); err != nil {
		return module{}, err
	}
	return readModule(dir)
}

// overwrite is os.CopyFS for files that may be there already.
func overwrite(dir string, from fs.FS) error {
	return fs.WalkDir(from, ".", func(path string, d fs.DirEntry, err error) error {
		to := filepath.Join(dir, filepath.FromSlash(path))
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.MkdirAll(to, 0o755)
		}
		data, err := fs.ReadFile(from, path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, data, 0o644)
	})
}

func compare(before, after module) change {
	c := change{goBefore: before.Go, goAfter: after.Go}
	was := before.versions()
	now := after.versions()
	for _, path := range slices.Sorted(maps.Keys(was)) {
		version, required := now[path]
		if !required || version == was[path] {
			continue
		}
		c.raised = append(c.raised, path+" "+version)
	}
	return c
}

// breaks reports whether the operator gets more than a go line as high as the library's.
func (c change) breaks(goLine string) bool {
	return len(c.raised) > 0 || c.goBefore != c.goAfter && version.Compare("go"+c.goAfter, "go"+goLine) > 0
}

func (c change) goLine() string {
	if c.goBefore == c.goAfter {
		return c.goBefore
	}
	return c.goBefore + " → " + c.goAfter
}

func (c change) list() string {
	if len(c.raised) == 0 {
		return "nothing"
	}
	return strings.Join(c.raised, ", ")
}

// A module is what go mod edit -json prints of a go.mod.
type module struct {
	Go      string
	Require []struct{ Path, Version string }
}

func readModule(dir string) (module, error) {
	var m module
	out, err := goCommand(dir, "mod", "edit", "-json")
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		return m, fmt.Errorf("the go.mod in %s: %w", dir, err)
	}
	return m, nil
}

func (m module) versions() map[string]string {
	versions := map[string]string{}
	for _, r := range m.Require {
		versions[r.Path] = r.Version
	}
	return versions
}

func goCommand(dir string, args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go %s: %w", strings.Join(args, " "), errors.Join(err, errors.New(strings.TrimSpace(stderr.String()))))
	}
	return strings.TrimSpace(stdout.String()), nil
}
