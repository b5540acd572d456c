package main

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What takes a LeaseDuration is left to the demo itself, and to the tests of the examples.
func TestStoriesArePlayedToTheEnd(t *testing.T) {
	for name, story := range stories {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute) // a first run builds the servers
			defer cancel()
			story.acts = []act{election, terminate, end}
			var screen bytes.Buffer
			if err := play(ctx, story, &screen); err != nil { // whole: testify cuts a long message off
				t.Fatalf("%s\n%v", &screen, err)
			}
			require.Contains(t, screen.String(), "after SIGTERM")
			require.Contains(t, screen.String(), "Two replicas at work at once: never")
		})
	}
}
