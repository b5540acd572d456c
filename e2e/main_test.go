// Package e2e runs replicas as processes of their own against a real API server. What is measured is printed as a
// table at the end, with the figures of client-go's elector from the same run:
//
//	go -C e2e test -count=1 -v ./...
//
// What disturbs the servers and takes long is left for a run of its own, which prints a table too:
//
//	go -C e2e test -count=1 -v -timeout 15m -run Chaos . -chaos
//
// The servers are built from their Go modules, which takes some minutes the first time; package cluster says more.
package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/elector-go/elector/e2e/cluster"
)

// Users of the shared cluster. What they may do is granted by each test in its own namespace.
const (
	operator  = "operator"  // what the README asks for
	pollOnly  = "poll-only" // no watch
	readOnly  = "read-only" // get
	powerless = "powerless" // nothing
)

// shared is what all tests use.
var shared struct {
	cluster *cluster.Cluster
	replica string // path of the replica program
}

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	// The tests wait much and compute little, so more of them can run at once than there are processors.
	if err := flag.Set("test.parallel", "32"); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute) // a first run builds the servers
	defer cancel()
	dir, err := os.MkdirTemp("", "elector-e2e-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	shared.replica = filepath.Join(dir, "replica")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", shared.replica, "./replica").CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("e2e: build the replica program: %w\n%s", err, out)
	}
	shared.cluster, err = cluster.Start(ctx, operator, pollOnly, readOnly, powerless)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, shared.cluster.Stop()) }()

	code = m.Run()
	fmt.Print(figures.table(), chaosFigures.table(), scaleFigures.table())
	return code, nil
}
