package tiers

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// components are the parts of this package, by the first word of their files' names, the lowest first: a component uses
// those before it and knows nothing of those behind it.
var components = strings.Fields("base inode budget rules critical direct io lazy memory attr ns commit tier volume")

// upward is what goes against that order all the same: which function uses what of a higher component. The list gets no
// longer.
var upward = []string{
	// A change of a name or of bytes is noted for the commits of critical files where it happens.
	"inode.addChanged critical.watch", "inode.touchOwn critical.critical", "inode.touchOwn critical.severalChanged",
	"inode.place critical.severalNames",
	"inode.keepContent critical.laneOf",
	// A boundary keeps the rules that it was set by.
	"inode.newBoundary rules.book", "inode.newBoundary rules.changes",
	// What was written untracked is forgotten by hot.
	"direct.endUntracked io.hot", "direct.endUntracked io.newVersion",
	// Names of one file in several directories are found by walking.
	"lazy.walkTo ns.lookupAt",
	// A directory of class memory is one of warm and one of the area, which look at, and remove, each other.
	"memory.copyAttrs attr.Getattr", "memory.copyAttrs attr.isACL", "memory.mirror attr.Setattr",
	"memory.enter ns.lookupAt",
	"memory.enterNew ns.removeName", "memory.review ns.Rmdir", "memory.rmdirMemory ns.Rmdir",
	"memory.rmdirMemory ns.removeName",
}

// upwardMost is how many exceptions there may be.
const upwardMost = 20

// TestOrderOfComponents holds the order of components by what the type checker knows of each identifier, and the size
// of Volume.
func TestOrderOfComponents(t *testing.T) {
	set := token.NewFileSet()
	list, err := packages.Load(&packages.Config{
		Fset: set, Mode: packages.NeedName | packages.NeedFiles | packages.NeedSyntax | packages.NeedTypes |
			packages.NeedTypesInfo | packages.NeedImports | packages.NeedDeps}, ".")
	if err != nil || len(list) != 1 || len(list[0].Errors) > 0 {
		t.Fatal(err, list)
	}
	p := list[0]
	componentOf := func(pos token.Pos) string {
		name := strings.TrimSuffix(filepath.Base(set.Position(pos).Filename), ".go")
		name, _, _ = strings.Cut(name, "_")
		return name
	}
	volume := p.Types.Scope().Lookup("Volume").Type().Underlying().(*types.Struct)
	ofVolume := map[types.Object]string{} // its fields are their types' components
	for i := range volume.NumFields() {
		f := volume.Field(i)
		if typ, ok := f.Type().(*types.Named); ok {
			ofVolume[f] = componentOf(typ.Obj().Pos())
		}
	}
	found := map[string]string{} // exceptions, and where the first one is
	for _, f := range p.Syntax {
		from := componentOf(f.Pos())
		if from != "doc" && !slices.Contains(components, from) {
			t.Errorf("%s: no component %q", set.Position(f.Pos()).Filename, from)
		}
		for _, d := range f.Decls {
			name := "?"
			if fn, ok := d.(*ast.FuncDecl); ok {
				name = fn.Name.Name
			}
			ast.Inspect(d, func(n ast.Node) bool {
				id, ok := n.(*ast.Ident)
				if !ok {
					return true
				}
				o := p.TypesInfo.Uses[id]
				if o == nil || o.Pkg() != p.Types || o.Name() == "Volume" || !named(o, p.Types) {
					return true
				}
				to, ok := ofVolume[o]
				if !ok {
					to = componentOf(o.Pos())
				}
				if slices.Index(components, from) < slices.Index(components, to) {
					what := fmt.Sprintf("%s.%s %s.%s", from, name, to, o.Name())
					if found[what] == "" {
						found[what] = set.Position(id.Pos()).String()
					}
				}
				return true
			})
		}
	}
	for what, where := range found {
		if !slices.Contains(upward, what) {
			t.Errorf("%s: %s: a lower component uses a higher one", where, what)
		}
	}
	for _, what := range upward {
		if found[what] == "" {
			t.Errorf("%s: this exception is none any more", what)
		}
	}
	if len(upward) > upwardMost {
		t.Errorf("%d exceptions, at most %d", len(upward), upwardMost)
	}
	if n := volume.NumFields(); n > 20 {
		t.Errorf("Volume has %d fields, at most 20: they belong to its components", n)
	}
}

// named says that an object is one that files share: of the package, a method, or a field that is no component of
// Volume.
func named(o types.Object, pkg *types.Package) bool {
	switch o := o.(type) {
	case *types.Var:
		return o.IsField() && !o.Embedded() || o.Parent() == pkg.Scope()
	case *types.Func, *types.TypeName, *types.Const:
		return o.Parent() == pkg.Scope() || o.Parent() == nil
	}
	return false
}
