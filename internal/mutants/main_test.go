package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Whoever moves or changes a line moves or changes its mutants.
func TestWhatEachMutantReplacesIsThere(t *testing.T) {
	t.Chdir("../..")
	_, err := weave(t.TempDir(), mutants)
	require.NoError(t, err)
}
