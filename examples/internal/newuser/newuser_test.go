// Package newuser does what the README tells a new user to do.
package newuser

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheReadmesFirstCommands starts in an empty module: the commands, the program, and the program's test.
func TestTheReadmesFirstCommands(t *testing.T) {
	root, err := filepath.Abs("../../..")
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.Symlink(root, filepath.Join(dir, "elector"))) // the clone, next to the module
	module := filepath.Join(dir, "shop")
	require.NoError(t, os.Mkdir(module, 0o700))
	run := func(command string) {
		cmd := exec.Command("sh", "-c", command)
		cmd.Dir = module
		cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s\n%s", command, out)
	}
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	readme := string(text)
	first := regexp.MustCompile(`(?m)^\$ (go mod edit .*)$`).FindStringSubmatch(readme)
	require.NotNil(t, first)
	run("go mod init example.com/shop")
	run(first[1])
	require.True(t, strings.Contains(readme, first[0]+"\n$ go mod tidy\n"), "the README tidies the module next")
	for file, begins := range map[string]string{"main.go": "package main\n\nimport (\n\t\"context\"\n\t\"log\"", "main_test.go": "package main\n\nimport (\n\t\"context\"\n\t\"sync\""} {
		_, code, found := strings.Cut(readme, "```go\n"+begins)
		require.True(t, found, file)
		code, _, _ = strings.Cut(code, "```\n")
		require.NoError(t, os.WriteFile(filepath.Join(module, file), []byte(begins+code), 0o600))
	}
	run("go mod tidy")
	run("go vet . && go test .")
}
