package tiers

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestLockTable holds the table of locks in doc.go to the mutexes that there are.
func TestLockTable(t *testing.T) {
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "# Lock order")
	if !ok {
		t.Fatal("doc.go has no lock order")
	}
	set := token.NewFileSet()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]string{} // Type.field -> rank
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") ||
			strings.HasPrefix(e.Name(), "base_locks") {
			continue
		}
		f, err := parser.ParseFile(set, e.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range g.Specs {
				if typ, ok := s.(*ast.TypeSpec); ok {
					mutexes(typ.Name.Name, typ.Type, there)
				}
			}
		}
	}
	if len(there) < 20 {
		t.Fatalf("only %d mutexes found", len(there))
	}
	for name := range there {
		if !regexp.MustCompile(`\b` + regexp.QuoteMeta(name) + `\b`).MatchString(table) {
			t.Errorf("the lock table lacks %s", name)
		}
	}
	for _, name := range regexp.MustCompile(`\b[A-Za-z]+\.[a-zA-Z]+\b`).FindAllString(
		table[:strings.Index(table, "package tiers")], -1) {
		if _, ok := there[name]; !ok {
			t.Errorf("the lock table has %s, which is no mutex of this package", name)
		}
	}
}

// mutexes finds the mutexes in a type, as Type.field. Those of Volume's components are Volume's.
func mutexes(name string, typ ast.Expr, into map[string]string) {
	s, ok := typ.(*ast.StructType)
	if !ok {
		return
	}
	switch name {
	case "basis", "nodes", "ruling", "contents", "commits", "ageing", "housekeeping":
		name = "Volume"
	}
	for _, f := range s.Fields.List {
		if x, ok := f.Type.(*ast.IndexExpr); ok {
			if kind, ok := x.X.(*ast.Ident); ok && (kind.Name == "mutex" || kind.Name == "rwMutex") {
				rank := x.Index.(*ast.Ident).Name
				if len(f.Names) == 0 {
					into[name] = rank
				}
				for _, n := range f.Names {
					into[name+"."+n.Name] = rank
				}
			}
			continue
		}
		if sel, ok := f.Type.(*ast.SelectorExpr); ok && (sel.Sel.Name == "Mutex" || sel.Sel.Name == "RWMutex") {
			into[name+" (a sync."+sel.Sel.Name+" without a rank)"] = ""
		}
		if inner, ok := f.Type.(*ast.StructType); ok {
			for _, n := range f.Names {
				mutexes(name+"."+n.Name, inner, into)
			}
		}
	}
}
