// Elector runs any program as the leader among its replicas, elected by a Kubernetes Lease, and shows people who leads.
//
//	elector run --lease shop/batch -- ./batch.sh     run a program only while this replica leads
//	elector status shop/batch                        who leads, since when, and what to do if nobody does
//	elector follow shop/batch                        each change of leader, as it happens
//	elector step-down shop/batch                     ask the leader to hand over
//	elector pause shop/batch --for 1h                nobody leads until then, or until "elector resume"
//	elector free shop/batch                          free the Lease of a dead leader before it expires
//
// Installed under the name kubectl-elector it is the kubectl plugin "kubectl elector".
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/elector-go/elector/internal/mistake"
)

// The exit codes of elector's own, as the commands env, nohup and timeout have them.
const (
	exitFailed      = 1   // the commands for people: it could not be done
	exitNobody      = 3   // status: nobody leads; the others: there is nobody to ask, nothing to pause, resume or free
	exitOwnFailure  = 125 // run: elector itself could not do its work
	exitNotRunnable = 126 // run: the program cannot be run
	exitNotFound    = 127 // run: there is no such program
)

// An exitError ends elector with a code. Without a message it ends silently: what there was to say has been said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func main() {
	if len(os.Args) > 1 && helpers[os.Args[1]] != nil {
		os.Exit(helpers[os.Args[1]](os.Args[2:]))
	}
	ctx, stop := context.Background(), func() {}
	root := newRoot()
	args := doubleDashes(root, os.Args[1:])
	if cmd, _, err := root.Find(args); err == nil && cmd.Name() != "run" { // run has a use for signals of its own
		ctx, stop = signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	}
	defer stop()
	root.SetArgs(args)
	os.Exit(exitCode(root.ExecuteContext(ctx), os.Stderr.WriteString))
}

// flagsOf are the flags behind the options of an election.
var flagsOf = mistake.Names{
	"Name":             "--lease",
	"Namespace":        "--namespace",
	"LeaseDuration":    "--lease-duration",
	"RenewDeadline":    "--renew-deadline",
	"RetryPeriod":      "--retry-period",
	"DrainLimit":       "--drain-limit",
	"RecoveryDeadline": "--recovery-deadline",
	"Run":              "the program",
}

// exitCode says what went wrong, where there is something to say, and returns the code to exit with.
func exitCode(err error, say func(string) (int, error)) int {
	if err == nil {
		return 0
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		exit = &exitError{code: exitFailed, err: err}
	}
	if exit.err != nil {
		_, _ = say("elector: " + strings.ReplaceAll(mistake.Reword(err, flagsOf).Error(), "\n", "\n  ") + "\n")
	}
	return exit.code
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "elector",
		Short: "Run a program as the leader among its replicas, and see who leads",
		Long: `Elector elects one replica as the leader by a Kubernetes Lease.

"elector run" runs any program only while this replica leads. The other
commands are for people: who leads, each change of leader, handing over, and
pausing.`,
		Version:       version(debug.ReadBuildInfo()),
		SilenceErrors: true, // main says them
		SilenceUsage:  true,
	}
	if strings.HasPrefix(filepath.Base(os.Args[0]), "kubectl-") {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl elector"}
	}
	root.AddCommand(newRun(), newStatus(), newFollow(), newStepDown(), newPause(), newResume(), newFree())
	return root
}

// version is that of the module, and of the commit where elector was built from one.
func version(info *debug.BuildInfo, ok bool) string {
	if !ok {
		return "unknown"
	}
	said := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			said += " " + s.Value
		}
	}
	return strings.TrimSpace(said + " " + info.GoVersion)
}

// doubleDashes turns -lease into --lease for each long flag there is, up to the program's own arguments: the Go
// programs of Kubernetes take either, and a flag that is silently read as five short ones helps nobody.
func doubleDashes(root *cobra.Command, args []string) []string {
	args = slices.Clone(args)
	cmd, _, err := root.Find(args)
	if err != nil {
		return args
	}
	for i, arg := range args {
		if arg == "--" {
			break
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "-"), "=")
		if len(name) > 1 && strings.HasPrefix(arg, "-") && !strings.HasPrefix(arg, "--") && lookup(cmd, name) != nil {
			args[i] = "-" + arg
		}
	}
	return args
}

func lookup(cmd *cobra.Command, name string) *pflag.Flag {
	if f := cmd.Flags().Lookup(name); f != nil {
		return f
	}
	return cmd.InheritedFlags().Lookup(name)
}
