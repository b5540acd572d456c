package main

import (
	"testing"

	"github.com/elector-go/elector/electortest"
)

func TestTheServerStarts(t *testing.T) { electortest.NewServer().Close() }
