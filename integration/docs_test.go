package integration

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
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
		for _, m := range named.FindAllString(strings.Join(strings.Fields(strings.ReplaceAll(text, "//", " ")), " "), -1) {
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

// TestCommentWidth: a comment has at most 120 columns, of which a tab takes 4.
func TestCommentWidth(t *testing.T) {
	eachFile(t, func(path, text string) {
		if !strings.HasSuffix(path, ".go") {
			return
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, path, text, parser.ParseComments)
		if err != nil {
			t.Error(err)
			return
		}
		lines := strings.Split(text, "\n")
		for _, group := range f.Comments {
			for _, c := range group.List {
				at := set.Position(c.Pos())
				line := strings.ReplaceAll(lines[at.Line-1], "\t", "    ")
				if utf8.RuneCountInString(line) > 120 && strings.HasPrefix(c.Text, "//") && !strings.HasPrefix(c.Text, "//go:") {
					t.Errorf("%s:%d: a comment is wider than 120 columns", path, at.Line)
				}
			}
		}
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
