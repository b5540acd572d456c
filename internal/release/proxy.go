package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

// A proxy is a folder that the go command takes for a module proxy, with one version of the library.
type proxy struct {
	dir, version string
	env          []string // for go commands that ask it
	cache        string   // the module cache
	lock         *os.File // held while the version may be in the module cache
}

// newProxy makes an empty one. The module cache is the usual one, so that only the library is compiled anew; close removes
// the library from it.
func newProxy(tmp, version string) (*proxy, error) {
	out, err := command(".", nil, "go", "env", "GOMODCACHE", "GOPROXY")
	if err != nil {
		return nil, err
	}
	cache, proxies, _ := strings.Cut(strings.TrimSpace(out), "\n")
	lock, err := os.Create(filepath.Join(os.TempDir(), "elector-release.lock"))
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, err
	}
	p := &proxy{dir: filepath.Join(tmp, "proxy"), version: version, cache: cache, lock: lock}
	p.env = []string{
		"GOWORK=off",
		"GOPROXY=file://" + p.dir + "," + proxies,
		"GOSUMDB=off", // it does not know the version
		"GOFLAGS=-modcacherw -buildvcs=false",
		"GODEBUG=goindex=0", // the build cache would keep an index of this version, as if it could never be another
	}
	return p, p.forget()
}

func (p *proxy) close() error {
	return errors.Join(p.forget(), p.lock.Close())
}

// forget removes the library from the module cache: a real release of the version will be another one.
func (p *proxy) forget() error {
	owner := path.Dir(library)
	return errors.Join(os.RemoveAll(filepath.Join(p.cache, owner)), os.RemoveAll(filepath.Join(p.cache, "cache/download", owner)))
}

// modulePath is a module's path by its folder.
func modulePath(folder string) string { return path.Join(library, folder) }

// prepare makes of a tree what is tagged, and serves its modules.
func (p *proxy) prepare(tree string) error {
	if err := rewrite(tree, p.version); err != nil {
		return err
	}
	license, err := os.ReadFile(filepath.Join(tree, "LICENSE"))
	if err != nil {
		return err
	}
	for _, folder := range released {
		dir := filepath.Join(tree, folder)
		edit := []string{"go", "mod", "edit"}
		for _, r := range released {
			edit = append(edit, "-dropreplace="+modulePath(r))
		}
		if _, err := command(dir, nil, append(edit, p.requirements(dir)...)...); err != nil {
			return err
		}
		if _, err := command(dir, p.env, "go", "mod", "tidy"); err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, "LICENSE"), license); err != nil { // so does the go command, and it counts for go.sum
			return err
		}
		if err := p.serve(dir, modulePath(folder)); err != nil {
			return err
		}
	}
	for _, folder := range others {
		dir := filepath.Join(tree, folder)
		if _, err := command(dir, nil, append([]string{"go", "mod", "edit"}, p.requirements(dir)...)...); err != nil {
			return err
		}
	}
	return nil
}

// requirements are the flags of go mod edit that raise what a module requires of the library to the version.
func (p *proxy) requirements(dir string) (flags []string) {
	text, _ := os.ReadFile(filepath.Join(dir, "go.mod"))
	for _, r := range released {
		if bytes.Contains(text, []byte("\t"+modulePath(r)+" v")) || bytes.Contains(text, []byte("require "+modulePath(r)+" v")) {
			flags = append(flags, "-require="+modulePath(r)+"@"+p.version)
		}
	}
	return append(flags, "-fmt")
}

// serve puts a module into the proxy.
func (p *proxy) serve(dir, path string) error {
	escaped, err := module.EscapePath(path)
	if err != nil {
		return err
	}
	at := filepath.Join(p.dir, escaped, "@v")
	var archive bytes.Buffer
	if err := zip.CreateFromDir(&archive, module.Version{Path: path, Version: p.version}, dir); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	goMod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return err
	}
	info := fmt.Sprintf(`{"Version": %q, "Time": %q}`, p.version, time.Now().UTC().Format(time.RFC3339))
	return errors.Join(
		writeFile(filepath.Join(at, "list"), []byte(p.version+"\n")),
		writeFile(filepath.Join(at, p.version+".info"), []byte(info)),
		writeFile(filepath.Join(at, p.version+".mod"), goMod),
		writeFile(filepath.Join(at, p.version+".zip"), archive.Bytes()),
	)
}

// command runs a command in a folder and returns what it prints.
func command(dir string, env []string, args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("in %s: %s: %w\n%s%s", dir, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}
