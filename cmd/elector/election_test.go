//go:build linux

package main

import (
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/kubelet"
)

func TestTheFlagsOfTheElection(t *testing.T) {
	set := func(args ...string) (o elector.Options, err error) {
		var f electionFlags
		fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
		f.add(fs)
		require.NoError(t, fs.Parse(args))
		err = f.set(&o, target{namespace: "shop", config: &rest.Config{Host: "https://127.0.0.1:1"}})
		return o, err
	}
	o, err := set()
	require.NoError(t, err)
	require.Zero(t, o.DrainLimit)
	require.Nil(t, o.Yield)
	require.Zero(t, o.RecoveryDeadline)
	require.Nil(t, o.Deaths)
	o, err = set("--drain-limit=40s", "--yield=100ms", "--recovery-deadline=10m", "--deaths")
	require.NoError(t, err)
	require.Equal(t, 40*time.Second, o.DrainLimit)
	require.Equal(t, 100*time.Millisecond, o.Yield())
	require.Equal(t, 10*time.Minute, o.RecoveryDeadline)
	require.IsType(t, &kubelet.Deaths{}, o.Deaths)
	_, err = set("--yield=-1s")
	require.ErrorContains(t, err, "--yield: -1s: must not be negative")
}
