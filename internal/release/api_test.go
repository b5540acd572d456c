package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A repository of one module, with the script.
func repository(t *testing.T) (write func(path, text string), git func(args ...string), api func() (string, error)) {
	dir := t.TempDir()
	apidiff, err := command(".", nil, "go", "tool", "-n", "apidiff")
	if err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("api.sh")
	if err != nil {
		t.Fatal(err)
	}
	write = func(path, text string) {
		t.Helper()
		if err := writeFile(filepath.Join(dir, path), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	git = func(args ...string) {
		t.Helper()
		if _, err := command(dir, nil, append([]string{"git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "tag.gpgSign=false"}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	api = func() (string, error) {
		cmd := exec.Command("sh", script)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "APIDIFF="+strings.TrimSpace(apidiff))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	write("go.mod", "module example.com/m\n\ngo 1.25\n")
	write("CHANGELOG.md", "# Changelog\n\n## 0.1.0\n\n- Incompatible: all of it.\n")
	write("m.go", "package m\n\nfunc Kept() {}\n\nfunc Gone() {}\n")
	write("internal/own/own.go", "package own\n\nfunc Own() {}\n")
	write("internal/shared/shared.go", "package shared\n\nfunc Shared() {}\n")
	write("operator/go.mod", "module example.com/m/operator\n\ngo 1.25\n\nrequire example.com/m v0.0.0\n\nreplace example.com/m => ..\n")
	write("operator/o.go", "package operator\n\nimport \"example.com/m/internal/shared\"\n\nfunc O() { shared.Shared() }\n")
	git("init", "-q")
	git("add", "-A")
	git("commit", "-q", "-m", "first")
	return write, git, api
}

func expect(t *testing.T, api func() (string, error), fails bool, says ...string) {
	t.Helper()
	out, err := api()
	if (err != nil) != fails {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, s := range says {
		if !strings.Contains(out, s) {
			t.Fatalf("it does not say %q:\n%s", s, out)
		}
	}
	if len(says) == 0 && out != "" {
		t.Fatalf("it says:\n%s", out)
	}
}

func TestExportedNamesAreComparedWithTheLastTag(t *testing.T) {
	write, git, api := repository(t)
	expect(t, api, false, "no tag yet")
	git("tag", "v0.1.0")
	expect(t, api, false)

	write("CHANGELOG.md", "# Changelog\n\n## 0.2.0\n\n- More.\n\n## 0.1.0\n\n- Incompatible: all of it.\n")
	write("m.go", "package m\n\nfunc Kept() {}\n\nfunc Gone() {}\n\nfunc New() {}\n")
	write("internal/own/own.go", "package own\n")
	expect(t, api, false, "example.com/m since v0.1.0", "Compatible changes:", "New: added")

	write("m.go", "package m\n\nfunc Kept() {}\n")
	expect(t, api, true, "Gone: removed", "- Incompatible:")
	write("CHANGELOG.md", "# Changelog\n\n## 0.2.0\n\n- Incompatible: Gone is gone.\n\n## 0.1.0\n")
	expect(t, api, false, "Gone: removed")
	git("add", "-A")
	git("commit", "-q", "-m", "second")
	git("tag", "v0.2.0")
	expect(t, api, false)
}

// A module may be built with a later root than it was released with.
func TestInternalNamesThatOtherModulesUseAreCompared(t *testing.T) {
	write, git, api := repository(t)
	git("tag", "v0.1.0")
	write("CHANGELOG.md", "# Changelog\n\n## 0.2.0\n\n- More.\n")
	write("internal/shared/shared.go", "package shared\n\nfunc Shared(int) {}\n")
	write("operator/o.go", "package operator\n\nimport \"example.com/m/internal/shared\"\n\nfunc O() { shared.Shared(1) }\n")
	expect(t, api, true, "example.com/m/internal/shared since v0.1.0", "Shared: changed")
}
