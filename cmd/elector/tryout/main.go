//go:build unix

// Tryout starts the repository's own kube-apiserver and etcd, to try elector on a machine with nothing but Go, until Ctrl-C.
//
//	go -C cmd/elector run ./tryout
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/elector-go/elector/e2e/cluster"
)

// folder, beside the module's own, is what the README names.
const folder = "../../bin/tryout"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := tryOut(ctx, folder, os.Stdout); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "tryout:", err)
		os.Exit(1)
	}
}

// tryOut serves until ctx ends. The folder holds elector and a file for a shell to read.
func tryOut(ctx context.Context, folder string, out io.Writer) (err error) {
	fmt.Fprintln(out, "Building elector, and starting etcd and kube-apiserver. (The first time they are built from source: minutes.)")
	folder, err = filepath.Abs(folder)
	if err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(folder, "elector"), "github.com/elector-go/elector/cmd/elector")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build elector: %w\n%s", err, text)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	c, err := cluster.Start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if err := c.CreateNamespace(ctx, "shop"); err != nil {
		return err
	}
	if err := writeFiles(folder, c); err != nil {
		return err
	}
	fmt.Fprint(out, `Ready. In each of two other terminals, in the repository:

  . bin/tryout/env
  elector run --lease shop/batch -- sh -c 'while :; do date; sleep 1; done'

and in a third:

  . bin/tryout/env
  elector status shop/batch
  elector step-down shop/batch --wait

Ctrl-C here ends the servers.
`)
	<-ctx.Done()
	return nil
}

func writeFiles(folder string, c *cluster.Cluster) error {
	kubeconfig := filepath.Join(folder, "kubeconfig")
	if err := cluster.WriteKubeconfig(kubeconfig, c.AdminConfig()); err != nil {
		return err
	}
	kc, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		return err
	}
	kc.Contexts[kc.CurrentContext].Namespace = "shop" // as -n shop
	if err := clientcmd.WriteToFile(*kc, kubeconfig); err != nil {
		return err
	}
	env := fmt.Sprintf("PATH='%s':$PATH\nKUBECONFIG='%s'\nexport PATH KUBECONFIG\n", folder, kubeconfig)
	return os.WriteFile(filepath.Join(folder, "env"), []byte(env), 0o600)
}
