package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// All mutants are built into one test binary for each package, because to build one for each mutant takes longer than the
// tests. For each mutant the function that it changes is there a second time, changed, and the original begins with a call of
// it, if an environment variable names the mutant.

// variable is the environment variable with the number of the mutant.
const variable = "ELECTOR_MUTANT"

const chooser = `package %s

import (
	"os"
	"strconv"
)

var mutantChosen = func() int {
	n, err := strconv.Atoi(os.Getenv("` + variable + `"))
	if err != nil {
		return -1
	}
	return n
}()
`

// weave writes the files that the mutants change, with the mutants in them, into dir. It returns the name of a file there
// that makes the go command build with those instead (-overlay).
func weave(dir string, mutants []mutant) (overlay string, err error) {
	sources := map[string]string{}
	woven := map[string]string{}
	var wrong []error
	for i, m := range mutants {
		source, ok := sources[m.file]
		if !ok {
			content, err := os.ReadFile(m.file)
			if err != nil {
				return "", err
			}
			source = string(content)
			sources[m.file], woven[m.file] = source, source
		}
		changed, call, err := m.function(i, source)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %s: %s: %w", m.rule, m.name, m.file, err))
			continue
		}
		woven[m.file] = strings.Replace(woven[m.file], call.after, call.after+call.text, 1) + "\n" + changed + "\n"
	}
	if len(wrong) > 0 {
		return "", errors.Join(wrong...)
	}
	for file, source := range sources {
		p, err := parse(source)
		if err != nil {
			return "", err
		}
		woven[path.Join(path.Dir(file), "mutant_chosen.go")] = fmt.Sprintf(chooser, p.name)
	}

	replace := map[string]string{}
	for file, content := range woven {
		original, err := filepath.Abs(file)
		if err != nil {
			return "", err
		}
		replace[original] = filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(replace[original], []byte(content), 0o644); err != nil {
			return "", err
		}
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, data, 0o644)
}

// An insertion is a text, and after what it comes.
type insertion struct{ after, text string }

// function returns the function that mutant i changes, as changed, and what the original has to begin with.
func (m mutant) function(i int, source string) (changed string, call insertion, err error) {
	at := strings.Index(source, m.old)
	if n := strings.Count(source, m.old); n != 1 {
		return "", call, fmt.Errorf("it holds %d times, not once, what the mutant replaces: %q", n, m.old)
	}
	before, err := parse(source)
	if err != nil {
		return "", call, err
	}
	after, err := parse(source[:at] + m.new + source[at+len(m.old):])
	if err != nil {
		return "", call, fmt.Errorf("it does not compile: %w", err)
	}
	which := slices.IndexFunc(before.funcs, func(f *ast.FuncDecl) bool { return before.offset(f.Pos()) <= at && at < before.offset(f.End()) })
	if which < 0 || len(before.funcs) != len(after.funcs) {
		return "", call, fmt.Errorf("what the mutant replaces is in no function")
	}
	was, is := before.funcs[which], after.funcs[which]
	name := fmt.Sprintf("%s_mutant%d", was.Name.Name, i)
	changed = after.text(is.Pos(), is.Name.Pos()) + name + after.text(is.Name.End(), is.End())

	var args []string
	for _, field := range was.Type.Params.List {
		for _, arg := range field.Names {
			args = append(args, arg.Name)
		}
	}
	invoke := fmt.Sprintf("%s(%s)", name, strings.Join(args, ", "))
	if was.Recv != nil {
		invoke = was.Recv.List[0].Names[0].Name + "." + invoke
	}
	if was.Type.Results == nil {
		invoke += "; return"
	} else {
		invoke = "return " + invoke
	}
	call.after = before.text(was.Pos(), was.Body.Lbrace+1)
	call.text = fmt.Sprintf("\nif mutantChosen == %d { %s }\n", i, invoke)
	return changed, call, nil
}

// A parsed file, and its functions in order.
type parsed struct {
	source string
	name   string // of the package
	files  *token.FileSet
	funcs  []*ast.FuncDecl
}

func parse(source string) (p parsed, err error) {
	p.source, p.files = source, token.NewFileSet()
	file, err := parser.ParseFile(p.files, "", source, parser.SkipObjectResolution)
	if err != nil {
		return p, err
	}
	p.name = file.Name.Name
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok {
			p.funcs = append(p.funcs, f)
		}
	}
	return p, nil
}

func (p parsed) offset(pos token.Pos) int { return p.files.Position(pos).Offset }

func (p parsed) text(from, to token.Pos) string { return p.source[p.offset(from):p.offset(to)] }
