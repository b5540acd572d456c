package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/kubelet"
)

// electionFlags are the flags of "elector run" for the election, beside its durations. There is none for StateDir: its
// lock would end with elector, and the program's processes a moment later.
type electionFlags struct {
	drainLimit, yield, recoveryDeadline time.Duration
	deaths                              bool
}

func (f *electionFlags) add(fs *pflag.FlagSet) {
	fs.DurationVar(&f.drainLimit, "drain-limit", 0, "how long to keep the lease for a program that was asked to end and does not, with a --grace that is longer or 0; 0 for no limit")
	fs.DurationVar(&f.yield, "yield", 0, "how much longer than others to wait at a free Lease, so that another replica leads if there is one")
	fs.DurationVar(&f.recoveryDeadline, "recovery-deadline", 0, "how long the program goes on, suspended, after --renew-deadline in an outage of the API. ONLY for a program whose writes carry $ELECTOR_TOKEN to something that refuses smaller ones: another replica's may run meanwhile; 0 for not at all")
	fs.BoolVar(&f.deaths, "deaths", false, "do not wait for the lease of a leader whose container has ended, as its kubelet says; needs the verbs get and watch on pods")
}

// set puts the flags into the options of the election.
func (f *electionFlags) set(o *elector.Options, t target) error {
	if f.yield < 0 {
		return fmt.Errorf("--yield: %v: must not be negative; 0 is no wait", f.yield)
	}
	o.DrainLimit, o.RecoveryDeadline = f.drainLimit, f.recoveryDeadline
	if f.yield > 0 {
		o.Yield = func() time.Duration { return f.yield }
	}
	if f.deaths {
		core, err := corev1client.NewForConfig(t.config)
		if err != nil {
			return fmt.Errorf("--deaths: %w", err)
		}
		o.Deaths = kubelet.New(core.Pods(podNamespace(t.namespace)))
	}
	return nil
}

// namespaceFile is where a pod finds the name of its namespace.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// podNamespace is where the candidates' pods are: where this one is, and otherwise where the Lease is.
func podNamespace(lease string) string {
	if own, err := os.ReadFile(namespaceFile); err == nil {
		return strings.TrimSpace(string(own))
	}
	return lease
}
