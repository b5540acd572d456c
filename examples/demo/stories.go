package main

import (
	"context"

	"github.com/elector-go/elector/examples/internal/checksum"
	"github.com/elector-go/elector/examples/internal/fleet"
)

// stories are the examples that the demo plays.
var stories = map[string]story{
	"manager": {
		pkg:     "./manager",
		args:    []string{"-metrics-bind-address=0"},
		lease:   "checksum",
		prepare: configMaps,
		acts:    []act{election, terminate, lossEnds, crash, end},
	},
	"warmstandby": {
		pkg:     "./warmstandby",
		args:    []string{"-metrics-bind-address=0"},
		lease:   "checksum",
		prepare: configMaps,
		acts:    []act{election, terminate, lossStops, crash, end},
	},
}

// configMaps makes work for the operators.
func configMaps(ctx context.Context, f *fleet.Fleet) error {
	return f.CreateConfigMaps(ctx, 20, checksum.Mark)
}
