package elector_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/elector-go/elector"
)

// notLogging are the folders whose log nobody reads in production.
var notLogging = []string{"bin", "e2e", "electortest", "examples", "figures", "internal", "model", "operatortest", "testdata", "tryout"}

// A said is something that the source says to whoever operates it.
type said struct {
	where token.Position
	text  string // "" where it is not constant
}

// says returns what the source of the modules says in calls of methods of these names, by the argument that is given for
// each.
func says(t *testing.T, argument map[string]int) (all []said) {
	files := token.NewFileSet()
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || slices.Contains(notLogging, d.Name())):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(files, path, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			i, ok := argument[method.Sel.Name]
			if !ok || len(call.Args) <= i || isNoLog(method.X) {
				return true
			}
			for _, text := range texts(file, call.Args[i]) {
				all = append(all, said{files.Position(call.Pos()), text})
			}
			return true
		})
		return nil
	}))
	return all
}

// isNoLog reports whether x has a method named as one of a logger's and is none, or passes on what others log.
func isNoLog(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name == "http" || strings.Contains(strings.ToLower(x.Name), "sink")
	case *ast.SelectorExpr:
		return strings.Contains(strings.ToLower(x.Sel.Name), "sink")
	}
	return false
}

// texts are the constants that an expression may be: one, unless it is a variable that is given several. Of a
// concatenation it is what comes before what is not constant.
func texts(file *ast.File, e ast.Expr) (all []string) {
	if name, ok := e.(*ast.Ident); ok {
		ast.Inspect(file, func(n ast.Node) bool {
			if assign, ok := n.(*ast.AssignStmt); ok && len(assign.Lhs) == 1 {
				if to, ok := assign.Lhs[0].(*ast.Ident); ok && to.Name == name.Name {
					all = append(all, texts(file, assign.Rhs[0])...)
				}
			}
			return true
		})
		return all
	}
	return []string{constantOf(e)}
}

func constantOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, _ := strconv.Unquote(e.Value)
		return text
	case *ast.BinaryExpr:
		return constantOf(e.X) + constantOf(e.Y)
	}
	return ""
}

func operations(t *testing.T) string {
	text, err := os.ReadFile("OPERATIONS.md")
	require.NoError(t, err)
	return string(text)
}

func TestOperationsExplainsEachLineOfTheLog(t *testing.T) {
	page, lines := operations(t), map[string]bool{}
	for _, s := range says(t, map[string]int{"Info": 0, "Error": 1}) {
		if s.text == "" {
			t.Errorf("%v: the log's message is no constant: whoever reads it cannot look it up", s.where)
			continue
		}
		lines[s.text] = true
		if !strings.Contains(page, "| `"+s.text+"` |") {
			t.Errorf("%v: OPERATIONS.md has no row for the line of the log: %s", s.where, s.text)
		}
	}
	require.Greater(t, len(lines), 30)
	_, log, _ := strings.Cut(page, "\n## The log\n")
	log, _, _ = strings.Cut(log, "\n## ")
	rows := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]*)` \\|").FindAllStringSubmatch(log, -1) {
		assert.True(t, lines[row[1]], "OPERATIONS.md explains a line that is not logged: %s", row[1])
		assert.False(t, rows[row[1]], "OPERATIONS.md explains twice: %s", row[1])
		rows[row[1]] = true
	}
}

func TestOperationsExplainsEachEventAndReason(t *testing.T) {
	_, events, _ := strings.Cut(operations(t), "\n## Events\n")
	events, alerts, _ := strings.Cut(events, "\n## The liveness probe\n")
	found := 0
	for _, s := range says(t, map[string]int{"event": 2}) {
		found++
		assert.Contains(t, events, "| `"+s.text+"`", "%v: the Event", s.where)
	}
	require.GreaterOrEqual(t, found, 5)
	for reason := elector.ReasonTakenOver; !strings.HasPrefix(reason.String(), "Reason("); reason++ {
		assert.Contains(t, events, "`"+reason.String()+"`")
	}
	readme, err := os.ReadFile("metrics/README.md")
	require.NoError(t, err)
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(string(readme), -1) {
		if strings.HasPrefix(m[1], "Elector") {
			assert.Contains(t, alerts, "\n### "+m[1]+"\n", "the alert")
		} else {
			assert.Contains(t, alerts, "\n| `"+m[1]+"` |", "the metric")
		}
	}
}

// An alert leads to what is to be done.
func TestEachAlertLeadsToItsPartOfOperations(t *testing.T) {
	rules, err := os.ReadFile("metrics/alerts.yaml")
	require.NoError(t, err)
	page := anchors(operations(t))
	alerts := strings.Split(string(rules), "- alert: ")[1:]
	require.Greater(t, len(alerts), 5)
	for _, rule := range alerts {
		name, _, _ := strings.Cut(rule, "\n")
		anchor := strings.ToLower(name)
		assert.Contains(t, rule, "\n      runbook_url: https://github.com/elector-go/elector/blob/main/OPERATIONS.md#"+anchor+"\n")
		assert.True(t, page[anchor], "OPERATIONS.md has no part %s", name)
		for _, part := range []string{"**Meaning.**", "**Impact.**", "**Diagnosis.**", "**Mitigation.**"} {
			_, text, _ := strings.Cut(operations(t), "\n### "+name+"\n")
			text, _, _ = strings.Cut(text, "\n### ")
			assert.Contains(t, text, part, name)
		}
	}
}
