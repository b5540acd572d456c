package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// A user is somebody with an empty folder, who does what the documents of the tree say.
type user struct {
	*proxy
	tree, dir string
}

// try does what the documents say from the release on, in a fresh folder each.
func try(p *proxy, tree, dir string) error {
	for _, one := range []struct {
		name string
		do   func(*user) error
	}{
		{"the README's program and its test", (*user).program},
		{"the README's program for production", (*user).production},
		{"the program of metrics", (*user).metrics},
		{"the programs of MIGRATING.md", (*user).guide},
		{"go install", (*user).install},
		{"the tests of cmd/elector are compiled, without replace", (*user).withoutReplace},
	} {
		u := &user{p, tree, filepath.Join(dir, strings.ReplaceAll(one.name, " ", "-"))}
		if err := os.MkdirAll(u.dir, 0o755); err != nil {
			return err
		}
		if err := one.do(u); err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
		fmt.Println("ok  ", one.name)
	}
	return nil
}

// run runs commands of a shell.
func (u *user) run(commands ...string) error {
	for _, c := range commands {
		if _, err := command(u.dir, u.env, "sh", "-c", c); err != nil {
			return err
		}
	}
	return nil
}

func (u *user) read(path string) (string, error) {
	text, err := os.ReadFile(filepath.Join(u.tree, path))
	return string(text), err
}

func (u *user) write(path, text string) error {
	return writeFile(filepath.Join(u.dir, path), []byte(text))
}

// requires fails unless the folder's go.mod has the version of a module, and replaces nothing.
func (u *user) requires(path string) error {
	goMod, err := os.ReadFile(filepath.Join(u.dir, "go.mod"))
	if err != nil {
		return err
	}
	if !strings.Contains(string(goMod), path+" "+u.version) || strings.Contains(string(goMod), "replace") {
		return fmt.Errorf("%s %s is not what is required:\n%s", path, u.version, goMod)
	}
	return nil
}

// begin has a new module require one of the library's, as the document says.
func (u *user) begin(document, path string) error {
	get, err := theCommand(u.tree, document, "go get "+path)
	if err != nil {
		return err
	}
	return u.run("go mod init example.com/orders", get, "go mod tidy")
}

// program is the README's first block of Go; the last is its test.
func (u *user) program() error {
	readme, err := u.read("README.md")
	if err != nil {
		return err
	}
	code := blocks(readme, "go")
	if err := u.write("main.go", code[0]); err != nil {
		return err
	}
	if err := u.begin("README.md", library); err != nil {
		return err
	}
	if err := u.run("go build -o orders ."); err != nil {
		return err
	}
	if err := u.write("main_test.go", code[len(code)-1]); err != nil {
		return err
	}
	if err := u.run("go mod tidy", "go vet .", "go test ."); err != nil {
		return err
	}
	return u.requires(library)
}

var call = regexp.MustCompile(`(?s)\tel, err := elector\.NewForConfig\(.*?\n\t}\n`)

// production is the same, with the second block in place of the call.
func (u *user) production() error {
	readme, err := u.read("README.md")
	if err != nil {
		return err
	}
	code := blocks(readme, "go")
	program := call.ReplaceAllLiteralString(code[0], code[1])
	program = strings.Replace(program, "\t\"log\"\n", "\t\"log\"\n\t\"net/http\"\n\t\"os\"\n", 1)
	if err := u.write("main.go", program); err != nil {
		return err
	}
	if err := u.begin("README.md", library); err != nil {
		return err
	}
	return u.run("go vet .")
}

func (u *user) metrics() error {
	program, err := u.read("metrics/example_test.go")
	if err != nil {
		return err
	}
	if err := u.write("main_test.go", strings.Replace(program, "package metrics_test", "package main_test", 1)); err != nil {
		return err
	}
	if err := u.begin("metrics/README.md", library+"/metrics"); err != nil {
		return err
	}
	if err := u.run("go vet ."); err != nil {
		return err
	}
	return u.requires(library + "/metrics")
}

// guide compiles the operators and the programs that were moved over, in a module with the versions of the examples.
func (u *user) guide() error {
	from := filepath.Join(u.tree, "examples")
	var sources []string
	for _, pattern := range []string{"internal/migrating/*/*.go", "internal/migrating/*/*/*.go", "internal/checksum/*.go"} {
		files, err := filepath.Glob(filepath.Join(from, pattern))
		if err != nil || len(files) == 0 {
			return fmt.Errorf("%s: %v, %w", pattern, files, err)
		}
		sources = append(sources, files...)
	}
	for _, file := range append(sources, filepath.Join(from, "go.mod"), filepath.Join(from, "go.sum")) {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		to, _ := filepath.Rel(from, file)
		if err := u.write(to, strings.ReplaceAll(string(text), library+"/examples/", "my.domain/op/")); err != nil {
			return err
		}
	}
	edit := "go mod edit -module=my.domain/op"
	for _, folder := range released {
		edit += " -dropreplace=" + modulePath(folder) + " -droprequire=" + modulePath(folder)
	}
	get, err := theCommand(u.tree, "examples/MIGRATING.md", "go get "+library+"/operator")
	if err != nil {
		return err
	}
	if err := u.run(edit, get, "go mod tidy", "go vet ./..."); err != nil {
		return err
	}
	return u.requires(library + "/operator")
}

// install installs elector, and asks it for its version.
func (u *user) install() error {
	cmd, err := theCommand(u.tree, "cmd/elector/README.md", "go install "+library+"/cmd/elector@")
	if err != nil {
		return err
	}
	exact := "go install " + library + "/cmd/elector@" + u.version
	return u.run("GOBIN="+u.dir+" "+cmd, "GOBIN="+u.dir+" "+exact, "./elector --version | grep -F ' "+u.version+" '", "./elector status --help")
}

// withoutReplace looks at the one module whose tests need another go.mod in a release than before.
func (u *user) withoutReplace() error {
	return u.run("go -C " + filepath.Join(u.tree, "cmd/elector") + " vet ./...")
}
