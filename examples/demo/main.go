// Demo plays a short story with an example: three replicas of it, as processes, against a real kube-apiserver, on a
// machine with nothing but Go.
//
//	go -C examples run ./demo manager
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/elector-go/elector/e2e/cluster"
	"github.com/elector-go/elector/examples/internal/fleet"
)

func main() {
	flag.Usage = func() {
		fmt.Fprintf(os.Stderr, "usage: go -C examples run ./demo EXAMPLE\nwith EXAMPLE one of: %s\n", strings.Join(slices.Sorted(maps.Keys(stories)), ", "))
	}
	flag.Parse()
	story, ok := stories[flag.Arg(0)]
	if !ok || flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := play(ctx, story, os.Stdout)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case interrupted:
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// play starts an API server and plays the story on it, and leaves nothing behind.
func play(ctx context.Context, st story, out io.Writer) (err error) {
	fmt.Fprintf(out, "Building %s, and starting etcd and kube-apiserver. (The first time they are built from source: minutes.)\n", st.pkg)
	root, err := fleet.Root(ctx)
	if err != nil {
		return err
	}
	roles, err := fleet.Roles(filepath.Join(root, st.pkg, "README.md"))
	if err != nil {
		return err
	}
	programs, err := fleet.Build(ctx, st.pkg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(programs)) }()
	c, err := cluster.Start(ctx, fleet.User)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	f, err := fleet.New(ctx, c, "demo", roles...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if st.prepare != nil {
		if err := st.prepare(ctx, f); err != nil {
			return err
		}
	}
	s := &scene{Fleet: f, story: st, program: filepath.Join(programs, filepath.Base(st.pkg)), out: out, start: time.Now()}
	return s.play(ctx)
}
