package main

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/elector-go/elector"
)

// electionFlags are the flags of "elector run" for the election, beside its durations. There is none for StateDir: its
// lock would end with elector, and the program's processes a moment later.
type electionFlags struct {
	drainLimit, yield time.Duration
}

func (f *electionFlags) add(fs *pflag.FlagSet) {
	fs.DurationVar(&f.drainLimit, "drain-limit", 0, "how long to keep the lease for a program that was asked to end and does not, with a --grace that is longer or 0; 0 for no limit")
	fs.DurationVar(&f.yield, "yield", 0, "how much longer than others to wait at a free Lease, so that another replica leads if there is one")
}

// set puts the flags into the options of the election.
func (f *electionFlags) set(o *elector.Options) error {
	if f.yield < 0 {
		return fmt.Errorf("--yield: %v: must not be negative; 0 is no wait", f.yield)
	}
	o.DrainLimit = f.drainLimit
	if f.yield > 0 {
		o.Yield = func() time.Duration { return f.yield }
	}
	return nil
}
