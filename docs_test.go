package elector_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// documents are the texts of the repository's Markdown files, by their paths.
func documents(t *testing.T) map[string]string {
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin" || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		text, err := os.ReadFile(path)
		all[path] = string(text)
		return err
	}))
	return all
}

// anchors are those that a browser of the repository gives to the headings of a document.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		plain := regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		all[strings.ReplaceAll(plain, " ", "-")] = true
	}
	return all
}

// A folder is shown as a list of files, unless it has a README.
func TestLinksLeadToSomethingThatCanBeRead(t *testing.T) {
	docs := documents(t)
	for path, text := range docs {
		for _, m := range regexp.MustCompile(`\]\(([^)#\s]*)(?:#([^)]*))?\)`).FindAllStringSubmatch(text, -1) {
			link, anchor := m[1], m[2]
			if strings.Contains(link, "://") {
				continue
			}
			to := path
			if link != "" {
				to = filepath.Join(filepath.Dir(path), link)
			}
			info, err := os.Stat(to)
			if !assert.NoError(t, err, "%s links to %s", path, link) {
				continue
			}
			if info.IsDir() {
				to = filepath.Join(to, "README.md")
				assert.FileExists(t, to, "%s links to the folder %s", path, link)
			}
			if anchor != "" && filepath.Ext(to) == ".md" {
				assert.True(t, anchors(docs[to])[anchor], "%s links to %s#%s", path, link, anchor)
			}
		}
	}
}
