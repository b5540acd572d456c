package leaderelection_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	clientgo "k8s.io/client-go/tools/leaderelection"
)

// A program changes its import path and nothing else, so each name of client-go's package is needed here. make
// compat-leaderelection runs this with each minor version of client-go.
func TestEachNameOfClientGosPackageIsThere(t *testing.T) {
	file, _ := runtime.FuncForPC(reflect.ValueOf(clientgo.RunOrDie).Pointer()).FileLine(0) // in the version that is compiled
	theirs := exported(t, filepath.Dir(file))
	require.Subset(t, theirs, []string{"RunOrDie", "LeaderElectionConfig", "JitterFactor"})
	theirs = slices.DeleteFunc(theirs, func(name string) bool { return slices.Contains(newer, name) })
	require.Subset(t, exported(t, "."), theirs)
}

// newer are names that client-go has from v0.38 on. A program imports its package, too, for these: an alias would not
// compile with older versions.
var newer = []string{"RecoveryConfig", "ErrWriteGateClosed", "CandidateConfig", "NewCandidateWithConfig"}

// exported is the names that the package in dir exports, but for methods and fields: the types are the same.
func exported(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	add := func(id *ast.Ident) {
		if id.IsExported() {
			names = append(names, id.Name)
		}
	}
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".go") || strings.HasSuffix(entry.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, entry.Name()), nil, 0)
		require.NoError(t, err)
		for _, decl := range file.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				if decl.Recv == nil {
					add(decl.Name)
				}
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						add(spec.Name)
					case *ast.ValueSpec:
						for _, name := range spec.Names {
							add(name)
						}
					}
				}
			}
		}
	}
	return names
}
