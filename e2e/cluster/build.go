package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	// assetsEnv is the variable that controller-runtime's envtest uses too: a folder with ready binaries.
	assetsEnv = "KUBEBUILDER_ASSETS"
	module    = "github.com/elector-go/elector/e2e"
)

// binaries are the paths of the two servers.
type binaries struct{ etcd, apiServer string }

// findBinaries takes the servers from KUBEBUILDER_ASSETS, or builds them from their Go modules.
func findBinaries(ctx context.Context) (binaries, error) {
	if dir := os.Getenv(assetsEnv); dir != "" {
		return readyBinaries(dir)
	}
	dir, err := moduleDir(ctx)
	if err != nil {
		return binaries{}, err
	}
	var b binaries
	tools := filepath.Join(dir, "tools")
	if b.etcd, err = buildTool(ctx, tools, "server"); err != nil {
		return binaries{}, err
	}
	if b.apiServer, err = buildTool(ctx, tools, "kube-apiserver"); err != nil {
		return binaries{}, err
	}
	return b, nil
}

func readyBinaries(dir string) (binaries, error) {
	b := binaries{etcd: filepath.Join(dir, "etcd"), apiServer: filepath.Join(dir, "kube-apiserver")}
	for _, path := range []string{b.etcd, b.apiServer} {
		if _, err := exec.LookPath(path); err != nil {
			return binaries{}, fmt.Errorf("cluster: %s is set, but %w: put etcd and kube-apiserver there, or unset it to have them built from source", assetsEnv, err)
		}
	}
	return b, nil
}

// moduleDir finds the checkout: the servers' modules are next to this package on disk, but in no release of it.
func moduleDir(ctx context.Context) (string, error) {
	out, err := goCommand(ctx, "list", "-m", "-f", "{{.Dir}}", module)
	if err != nil {
		return "", fmt.Errorf("cluster: find the source of the servers' modules: %w\nrun the test from a checkout with the go command in PATH, or set %s to a folder with etcd and kube-apiserver", err, assetsEnv)
	}
	return out, nil
}

// buildTool has the go command build the tool of the module in dir and returns the path of the executable.
// The go command keeps it in the build cache, so that only a first run compiles: minutes then, seconds later.
func buildTool(ctx context.Context, dir, name string) (string, error) {
	path, err := goCommand(ctx, "-C", dir, "tool", "-n", name)
	if err != nil {
		return "", fmt.Errorf("cluster: build %s in %s: %w\nthe first build needs the module proxy, some minutes and 3 GB of memory; alternatively set %s to a folder with etcd and kube-apiserver", name, dir, err, assetsEnv)
	}
	return path, nil
}

func goCommand(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	// A workspace that lists this module would not list the servers' ones.
	cmd.Env = append(os.Environ(), "GOWORK=off")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), errors.Join(context.Cause(ctx), err), strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}
