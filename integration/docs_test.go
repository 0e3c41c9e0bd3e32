package integration

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestSectionsResolve: where a comment or a page names a section of a specification, there is one.
func TestSectionsResolve(t *testing.T) {
	pages := map[string]map[string]bool{}
	for name, path := range map[string]string{"FORMAT.md": "backup/FORMAT.md", "DESIGN.md": "tiers/DESIGN.md"} {
		text, err := os.ReadFile(filepath.Join(env.module, path))
		check(t, err)
		pages[name] = map[string]bool{}
		for _, m := range regexp.MustCompile(`(?m)^## (\d+)\. `).FindAllStringSubmatch(string(text), -1) {
			pages[name][m[1]] = true
		}
		if len(pages[name]) < 5 {
			t.Fatalf("%s has the sections %v", path, pages[name])
		}
	}
	named := regexp.MustCompile(`(FORMAT|DESIGN)\.md sections? (\d+)(?:(?:, | and )(\d+))*`)
	found := 0
	eachFile(t, func(path, text string) {
		for _, m := range named.FindAllString(strings.Join(strings.Fields(strings.ReplaceAll(text, "//", " ")), " "),
			-1) {
			for _, n := range regexp.MustCompile(`\d+`).FindAllString(m, -1) {
				if found++; !pages[m[:len("FORMAT.md")]][n] {
					t.Errorf("%s names %s, which has no section %s", path, m[:len("FORMAT.md")], n)
				}
			}
		}
	})
	if found < 10 {
		t.Errorf("only %d sections are named", found)
	}
}

// TestFilesResolve: a file that a comment names is there, beside it or at that path.
func TestFilesResolve(t *testing.T) {
	named := regexp.MustCompile(`\b[a-z][a-z_0-9/]*\.go\b`)
	found := 0
	eachFile(t, func(path, text string) {
		if !strings.HasSuffix(path, ".go") {
			return
		}
		for line := range strings.Lines(text) {
			_, comment, ok := strings.Cut(line, "//")
			if !ok || strings.HasPrefix(comment, "go:") {
				continue
			}
			for _, name := range named.FindAllString(comment, -1) {
				found++
				beside := filepath.Join(env.module, filepath.Dir(path), name)
				if _, err := os.Stat(beside); err == nil {
					continue
				}
				if _, err := os.Stat(filepath.Join(env.module, name)); err != nil {
					t.Errorf("%s: a comment names %s, which is not there", path, name)
				}
			}
		}
	})
	if found < 20 {
		t.Errorf("only %d files are named", found)
	}
}

// TestWidth: a line has at most 120 columns, of which a tab takes 4. Only a string may go beyond, as scripts and
// expected output do.
func TestWidth(t *testing.T) {
	eachGoFile(t, func(path, text string, set *token.FileSet, f *ast.File) {
		lines := strings.Split(text, "\n")
		long := map[int]bool{}
		for i, line := range lines {
			wide := utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    "))
			if wide > 120 && !strings.HasPrefix(line, "//go:") {
				long[i+1] = true
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				for line := set.Position(lit.Pos()).Line; line <= set.Position(lit.End()).Line; line++ {
					if utf8.RuneCountInString(lit.Value) > 60 {
						delete(long, line)
					}
				}
			}
			return true
		})
		for line := range long {
			t.Errorf("%s:%d: the line is wider than 120 columns", path, line)
		}
	})
}

// TestBuiltinsKept: no declaration takes the name of a builtin function, type or constant, which would be another
// thing below it.
func TestBuiltinsKept(t *testing.T) {
	eachGoFile(t, func(path, _ string, set *token.FileSet, f *ast.File) {
		taken := func(id *ast.Ident) {
			if id != nil && types.Universe.Lookup(id.Name) != nil {
				t.Errorf("%s: %s is the name of a builtin", set.Position(id.Pos()), id.Name)
			}
		}
		fields := func(list *ast.FieldList) {
			if list != nil {
				for _, field := range list.List {
					for _, id := range field.Names {
						taken(id)
					}
				}
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				fields(n.Recv)
				if n.Recv == nil {
					taken(n.Name)
				}
			case *ast.FuncType:
				fields(n.Params)
				fields(n.Results)
			case *ast.AssignStmt:
				for _, l := range n.Lhs {
					if id, ok := l.(*ast.Ident); ok && n.Tok == token.DEFINE {
						taken(id)
					}
				}
			case *ast.RangeStmt:
				for _, l := range []ast.Expr{n.Key, n.Value} {
					if id, ok := l.(*ast.Ident); ok && n.Tok == token.DEFINE {
						taken(id)
					}
				}
			case *ast.ValueSpec:
				for _, id := range n.Names {
					taken(id)
				}
			case *ast.TypeSpec:
				taken(n.Name)
			case *ast.ImportSpec:
				taken(n.Name)
			}
			return true
		})
	})
}

// TestProgramsAreWritten: an executable is written by package testprog, so that it can be started at once.
func TestProgramsAreWritten(t *testing.T) {
	eachGoFile(t, func(path, _ string, set *token.FileSet, f *ast.File) {
		if strings.HasPrefix(path, "integration/testprog/") {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 3 {
				return true
			}
			fn, ok := call.Fun.(*ast.SelectorExpr)
			mode, ok2 := call.Args[2].(*ast.BasicLit)
			if !ok || !ok2 || fn.Sel.Name != "WriteFile" {
				return true
			}
			if m, err := strconv.ParseInt(mode.Value, 0, 32); err == nil && m&0o111 != 0 {
				t.Errorf("%s: write executables by testprog.Write", set.Position(call.Pos()))
			}
			return true
		})
	})
}

// TestWalks: each stop of the walks in CONTRIBUTING.md is a function in that file.
func TestWalks(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(env.module, "CONTRIBUTING.md"))
	check(t, err)
	stops := regexp.MustCompile("`([a-z_/]+\\.go):(\\w+)`").FindAllStringSubmatch(string(text), -1)
	if len(stops) < 20 {
		t.Fatalf("only %d stops", len(stops))
	}
	for _, m := range stops {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(env.module, m[1]), nil, 0)
		if err != nil {
			t.Error(err)
			continue
		}
		there := false
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			there = there || ok && fn.Name.Name == m[2]
		}
		if !there {
			t.Errorf("%s has no function %s", m[1], m[2])
		}
	}
}

// eachGoFile gives the project's Go files, parsed.
func eachGoFile(t *testing.T, f func(path, text string, set *token.FileSet, file *ast.File)) {
	t.Helper()
	eachFile(t, func(path, text string) {
		if !strings.HasSuffix(path, ".go") {
			return
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, text, parser.ParseComments)
		if err != nil {
			t.Error(err)
			return
		}
		f(path, text, set, file)
	})
}

// eachFile gives the project's Go files and pages.
func eachFile(t *testing.T, f func(path, text string)) {
	t.Helper()
	check(t, filepath.WalkDir(env.module, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != env.module:
			return filepath.SkipDir
		case d.Type().IsRegular() && (strings.HasSuffix(path, ".go") || strings.HasSuffix(path, ".md")):
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			f(strings.TrimPrefix(path, env.module+"/"), string(text))
		}
		return nil
	}))
}
