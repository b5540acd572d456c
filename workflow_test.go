package elector_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What CONTRIBUTING.md says can be run is a target, and runs somewhere: by the workflow, or by a target that does.
func TestEachTargetThatContributingNamesRunsSomewhere(t *testing.T) {
	read := func(path string) string {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return string(text)
	}
	workflow, makefile := read(".github/workflows/ci.yml"), read("Makefile")
	runs := map[string]bool{}
	var run func(targets string)
	run = func(targets string) {
		for _, target := range strings.Fields(targets) {
			target = strings.Trim(target, ",[]")
			rule := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(target) + `:(.*)\n((?:\t.*\n)*)`).FindStringSubmatch(makefile)
			if rule == nil || runs[target] {
				continue
			}
			runs[target] = true
			run(rule[1])
			for _, inner := range regexp.MustCompile(`\$\(MAKE\) (.*)`).FindAllStringSubmatch(rule[2], -1) {
				run(inner[1])
			}
		}
	}
	for _, m := range regexp.MustCompile(`(?m)- run: make (.*)|target: (\[.*\])`).FindAllStringSubmatch(workflow, -1) {
		run(m[1] + m[2])
	}
	require.Greater(t, len(runs), 10)
	named := regexp.MustCompile("(?m)^\\| `make ([a-z-]+)").FindAllStringSubmatch(read("CONTRIBUTING.md"), -1)
	require.Greater(t, len(named), 10)
	for _, m := range named {
		assert.True(t, runs[m[1]], "no workflow runs make %s", m[1])
	}
}

// A tag can be moved by whoever has taken over the action.
func TestActionsArePinnedByTheirCommit(t *testing.T) {
	text, err := os.ReadFile(".github/workflows/ci.yml")
	require.NoError(t, err)
	uses := regexp.MustCompile(`uses: (.*)`).FindAllStringSubmatch(string(text), -1)
	require.NotEmpty(t, uses)
	for _, m := range uses {
		assert.Regexp(t, `^[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`, m[1])
	}
}
