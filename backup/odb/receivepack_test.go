package odb

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"emberfs/tiers/cold"
)

// object is a commit or tree of a hand-made pack.
type object struct {
	typ  Type
	data []byte
	id   ID
}

func newObject(t *testing.T, typ Type, data []byte, err error) object {
	t.Helper()
	check(t, err)
	id, err := HashObject(typ, data)
	check(t, err)
	return object{typ, data, id}
}

func treeOf(t *testing.T, entries ...TreeEntry) object {
	t.Helper()
	data, err := EncodeTree(entries)
	return newObject(t, Tree, data, err)
}

func commitOf(t *testing.T, tree ID, parents ...ID) object {
	t.Helper()
	who := Signature{Name: "a", Email: "a@b", When: time.Unix(1_700_000_000, 0)}
	data, err := EncodeCommit(CommitData{Tree: tree, Parents: parents, Author: who, Committer: who, Message: "m\n"})
	return newObject(t, Commit, data, err)
}

func packOf(objects ...object) []byte {
	p := newRawPack()
	for _, o := range objects {
		p.add(o.typ, int64(len(o.data)), nil, o.data)
	}
	return p.bytes()
}

// TestReceivePackRefuses: a sound pack that is not what was asked for leaves nothing behind.
func TestReceivePackRefuses(t *testing.T) {
	t.Parallel()
	blob := object{Blob, []byte("text"), hashOf("text")}
	sub := treeOf(t, TreeEntry{Mode: ModeFile, Name: "f", ID: blob.id})
	root := treeOf(t, TreeEntry{Mode: ModeTree, Name: "d", ID: sub.id},
		TreeEntry{Mode: ModeGitlink, Name: "module", ID: ID{7}})
	first := commitOf(t, root.id)
	second := commitOf(t, root.id, first.id)
	tag := newObject(t, Tag, []byte("object "+ID{9}.String()+"\ntype commit\ntag v\n\nm\n"), nil)
	longName := newObject(t, Tree, append([]byte("100644 "+strings.Repeat("n", 1<<20)+"\x00"), blob.id[:]...), nil)
	for name, c := range map[string]struct {
		pack []byte
		says string
		cut  bool
	}{
		"no tip":        {packOf(blob, sub, root), second.id.String(), false},
		"empty":         {newRawPack().bytes(), second.id.String(), false},
		"no tree":       {packOf(second, first, sub, blob), "tree " + root.id.String(), false},
		"no subtree":    {packOf(second, first, root, blob), sub.id.String(), false},
		"no blob":       {packOf(second, first, root, sub), blob.id.String(), false},
		"no parent":     {packOf(second, root, sub, blob), "parent " + first.id.String(), false},
		"no tag target": {packOf(second, first, root, sub, blob, tag), ID{9}.String(), false},
		"tip is a tree": {packOf(object{Tree, sub.data, sub.id}, blob), "not a commit", false},
		"cut tree": {packOf(second, first, root, sub, blob,
			newObject(t, Tree, []byte("100644 f\x00short"), nil)), "cut off", false},
		"no mode": {packOf(second, first, root, sub, blob,
			newObject(t, Tree, []byte("nothing"), nil)), "malformed", false},
		"long name": {packOf(second, first, root, sub, blob, longName), "malformed", false},
		"no header": {packOf(second, first, root, sub, blob, newObject(t, Commit, []byte("x\n"), nil)), "tree", false},
		"endless line": {packOf(second, first, root, sub, blob,
			newObject(t, Commit, bytes.Repeat([]byte("tree "), 1<<20), nil)), "missing", false},
		"cut elsewhere": {packOf(second, root, sub), blob.id.String(), true},
	} {
		t.Run(name, func(t *testing.T) {
			dir, db := newRepo(t, Options{})
			want := second.id
			if strings.HasPrefix(name, "tip is") {
				want = sub.id
			}
			_, _, err := db.ReceivePack(bytes.NewReader(c.pack), 0, Wanted{Tip: want,
				Cut: func(ID) bool { return c.cut }})
			if !errors.Is(err, cold.ErrCorrupt) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want it to say %s", err, c.says)
			}
			if m, _ := filepath.Glob(filepath.Join(dir, "objects/pack/*")); len(m) != 0 {
				t.Errorf("left over: %v", m)
			}
		})
	}
}

// TestReceivePack: what is here already need not come, nor what the other side does not have.
func TestReceivePack(t *testing.T) {
	t.Parallel()
	dir, db := newRepo(t, Options{})
	const long = "a text that is long enough so that a delta of it can copy from it"
	blob := object{Blob, []byte(long), hashOf(long)}
	root := treeOf(t, TreeEntry{Mode: ModeFile, Name: "f", ID: blob.id})
	first := commitOf(t, root.id, ID{5}) // its parent is nowhere
	receive := func(pack []byte, tip ID, want int) {
		t.Helper()
		n, keep, err := db.ReceivePack(bytes.NewReader(pack), 0, Wanted{Tip: tip,
			Cut: func(id ID) bool { return id == first.id }})
		check(t, err)
		check(t, keep())
		if n != want || !db.Has(tip) {
			t.Errorf("%d objects, want %d", n, want)
		}
	}
	receive(packOf(first, root, blob), first.id, 3)
	receive(newRawPack().bytes(), first.id, 0)
	thin := newRawPack()
	thin.ref(blob.id, delta(long, long+"!"))
	next := treeOf(t, TreeEntry{Mode: ModeFile, Name: "f", ID: blob.id},
		TreeEntry{Mode: ModeFile, Name: "g", ID: hashOf(long + "!")})
	second := commitOf(t, next.id, first.id)
	for _, o := range []object{next, second} {
		thin.add(o.typ, int64(len(o.data)), nil, o.data)
	}
	receive(thin.bytes(), second.id, 4)

	// A file may be lost, a directory may not.
	lostFile := treeOf(t, TreeEntry{Mode: ModeFile, Name: "f", ID: ID{8}})
	lostDir := treeOf(t, TreeEntry{Mode: ModeTree, Name: "d", ID: ID{9}})
	for tree, says := range map[*object]string{&lostFile: "", &lostDir: "0900"} {
		var lost []ID
		c := commitOf(t, tree.id, second.id)
		_, keep, err := db.ReceivePack(bytes.NewReader(packOf(c, *tree)), 0, Wanted{Tip: c.id,
			Lost: func(id ID) { lost = append(lost, id) }})
		if says != "" {
			if err == nil || !strings.Contains(err.Error(), says) || lost != nil {
				t.Errorf("a lost directory: %v, %v", err, lost)
			}
			continue
		}
		check(t, err)
		check(t, keep())
		if len(lost) != 1 || lost[0] != (ID{8}) {
			t.Errorf("lost: %v", lost)
		}
	}
	if m, _ := filepath.Glob(filepath.Join(dir, "objects/pack/*.keep")); len(m) != 0 {
		t.Errorf("left over: %v", m)
	}
}
