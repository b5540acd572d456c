package electortest_test

import (
	"testing"

	"github.com/elector-go/elector/electortest"
	"github.com/elector-go/elector/electortest/conformance"
)

func TestAnswersAsARealServer(t *testing.T) {
	s := electortest.NewServer()
	defer s.Close()
	conformance.Run(t, s.Client("a").CoordinationV1(), "default")
}

func BenchmarkNewServer(b *testing.B) {
	for b.Loop() {
		electortest.NewServer().Close()
	}
}
