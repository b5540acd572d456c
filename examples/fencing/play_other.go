//go:build !unix

package main

import (
	"context"
	"fmt"
	"io"

	"github.com/elector-go/elector"
)

// play needs a system on which one process can suspend another.
func play(_ context.Context, _ *flags, _, stderr io.Writer) int {
	fmt.Fprintln(stderr, "fencing: the story needs SIGSTOP; name an API server with -kubeconfig to be one replica")
	return 1
}

func asActor(opts elector.Options, _ *ledger) elector.Options { return opts }
