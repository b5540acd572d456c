//go:build linux

package main

import (
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector"
)

func TestTheFlagsOfTheElection(t *testing.T) {
	set := func(args ...string) (o elector.Options, err error) {
		var f electionFlags
		fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
		f.add(fs)
		require.NoError(t, fs.Parse(args))
		err = f.set(&o)
		return o, err
	}
	o, err := set()
	require.NoError(t, err)
	require.Zero(t, o.DrainLimit)
	require.Nil(t, o.Yield)
	o, err = set("--drain-limit=40s", "--yield=100ms")
	require.NoError(t, err)
	require.Equal(t, 40*time.Second, o.DrainLimit)
	require.Equal(t, 100*time.Millisecond, o.Yield())
	_, err = set("--yield=-1s")
	require.ErrorContains(t, err, "--yield: -1s: must not be negative")
}
