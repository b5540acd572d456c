package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// texts are the documents that say something else before a release than after it. Both texts are in them, the second in a
// comment.
var texts = []string{"README.md", "cmd/elector/README.md", "examples/MIGRATING.md", "metrics/README.md"}

var both = regexp.MustCompile(`(?s)<!-- until the release -->\n.*?\n<!-- from the release on\n(.*?\n)-->\n`)

const changelog = "CHANGELOG.md"

// rewrite has the documents of a tree say what they say from the release on, and dates the version's part of the change log.
func rewrite(tree, version string) error {
	for _, name := range texts {
		file := filepath.Join(tree, name)
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, both.ReplaceAll(text, []byte("$1")), 0o644); err != nil {
			return err
		}
	}
	file := filepath.Join(tree, changelog)
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	heading := "## " + strings.TrimPrefix(version, "v") + " – "
	if !strings.Contains(string(text), heading) {
		return fmt.Errorf("%s has no heading %q", changelog, heading)
	}
	dated := strings.Replace(string(text), heading+"unreleased\n", heading+time.Now().UTC().Format(time.DateOnly)+"\n", 1)
	return os.WriteFile(file, []byte(dated), 0o644)
}

// blocks are the blocks of a document in a language.
func blocks(document, language string) []string {
	all := strings.Split(document, "\n```"+language+"\n")[1:]
	for i := range all {
		all[i], _, _ = strings.Cut(all[i], "```")
	}
	return all
}

// theCommand is the command of a document that begins so, without the prompt. There must be one.
func theCommand(tree, document, begin string) (string, error) {
	text, err := os.ReadFile(filepath.Join(tree, document))
	if err != nil {
		return "", err
	}
	for _, block := range blocks(string(text), "console") {
		for line := range strings.Lines(block) {
			line = strings.TrimSpace(line)
			if cmd, ok := strings.CutPrefix(line, "$ "); ok && strings.HasPrefix(cmd, begin) {
				return cmd, nil
			}
		}
	}
	return "", fmt.Errorf("%s has no command %q, as it should from the release on", document, begin)
}
