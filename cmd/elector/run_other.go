//go:build !unix

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

var helpers map[string]func([]string) int

func newRun() *cobra.Command {
	return &cobra.Command{
		Use:                "run",
		Short:              "Run a program only while this replica leads (on Linux and other Unix systems)",
		DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return &exitError{code: exitOwnFailure, err: errors.New("run needs process groups, which this system does not have; the other commands work")}
		},
	}
}
