package backup

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"emberfs/backup/coldtest"
	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// hostileBase has entries that are easy to lie about.
func hostileBase() *coldtest.File {
	f := coldtest.NewDir(0o755)
	f.Text("a", "aaa").Mode = 0o4755
	f.Text("b", "bbbb").Mode = 0o640
	f.Symlink("l", "a")
	f.Text("d/in", "in")
	f.Special("fifo", cold.KindFIFO, 0)
	f.Text("h1", "hard").Link = "g"
	f.Text("h2", "hard").Link = "g"
	return f
}

// forge makes a commit of a tree that no stock client would make, with git's plumbing, and moves the branch to it.
func (v *testVolume) forge(rootEntries []byte) {
	v.T.Helper()
	tree := v.object("tree", rootEntries)
	c := strings.TrimSpace(coldtest.Git(v.T, v.Dir, "commit-tree", "-m", "forged", tree.String()))
	coldtest.Git(v.T, v.Dir, "update-ref", "refs/heads/main", c)
}

// object writes any object, checked or not.
func (v *testVolume) object(kind string, data []byte) cold.ID {
	v.T.Helper()
	out, err := coldtest.GitTry(v.T, v.Dir, data, "hash-object", "--literally", "-w", "--stdin", "-t", kind)
	if err != nil {
		v.T.Fatal(out)
	}
	id, err := cold.ParseID(strings.TrimSpace(out))
	coldtest.Check(v.T, err)
	return id
}

func rawTree(entries ...any) []byte {
	var b bytes.Buffer
	for i := 0; i < len(entries); i += 3 {
		id, _ := entries[i+2].(cold.ID)
		fmt.Fprintf(&b, "%v %v\x00%s", entries[i], entries[i+1], id[:])
	}
	return b.Bytes()
}

// A tree that git itself would refuse is read as far as it makes sense.
func TestHostileTree(t *testing.T) {
	v := newVolume(t, Options{})
	blob := v.object("blob", []byte("x"))
	v.forge(rawTree(
		"100644", "good", blob, "100644", "..", blob, "100644", "a/b", blob, "100644", "", blob, "160000", "sub", blob,
		"100644", "good", blob,
		"40000", "good", blob, "777", "mode", blob, "100644", strings.Repeat("n", 256), blob, "100644", ".git", blob,
		"40000", ".emberfs", blob,
		"40000", "dir", odb.EmptyTree, "100644", "zero", cold.ID{}, "100644", "tree", odb.EmptyTree, "100644", "last",
		blob,
	))
	s := v.HeadSnapshot()
	got := &coldtest.File{Entry: s.Root()}
	problems := v.ReadAny(s, got)
	var names []string
	for name := range got.Kids {
		names = append(names, name)
	}
	slices.Sort(names)
	if want := []string{".git", "dir", "good", "last"}; !slices.Equal(names, want) {
		t.Errorf("names %q, want %q", names, want)
	}
	if len(problems) < 9 {
		t.Errorf("%d problems: %v", len(problems), problems)
	}
}

// Directories without end below a renamed one do not keep a listing from coming.
func TestMoveBomb(t *testing.T) {
	v := newVolume(t, Options{})
	f := coldtest.NewDir(0o755)
	f.Text("d/in", "in")
	v.CommitTree(f, nil)
	blob := v.object("blob", []byte("x"))
	node := v.object("tree", rawTree("100644", "f", blob))
	for range 40 {
		node = v.object("tree", rawTree("40000", "a", node, "40000", "b", node, "40000", "c", node))
	}
	ls := coldtest.Git(t, v.Dir, "ls-tree", "main", ".emberfs")
	own, err := cold.ParseID(strings.Fields(ls)[2])
	coldtest.Check(t, err)
	v.forge(rawTree("40000", format.OwnName, own, "40000", "bomb", node))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := v.HeadSnapshot()
	l, err := s.ReadDir(ctx, coldtest.RootOf(s))
	if err != nil || len(l.Entries) != 1 || l.Entries[0].Name != "bomb" {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestNewerFormat(t *testing.T) {
	t.Parallel()
	for _, volume := range []string{`{"format":2,"volume":"v"}`, `{"format":1,"volume":"v","requires":["chunks"]}`} {
		dir := filepath.Join(t.TempDir(), "cold.git")
		v := openVolume(t, dir, Options{})
		v.CommitTree(hostileBase(), nil)
		v.StockEdit("echo '" + volume + "' >.emberfs/volume.json")
		if _, err := v.Head(t.Context()); !errors.Is(err, format.ErrNewerFormat) {
			t.Errorf("%s: Head = %v", volume, err)
		}
		if _, err := v.Begin(t.Context()); !errors.Is(err, format.ErrNewerFormat) {
			t.Errorf("%s: Begin = %v", volume, err)
		}
		if c, err := Open(dir, Options{}); !errors.Is(err, format.ErrNewerFormat) {
			t.Errorf("%s: Open = %v, %v", volume, c, err)
		}
	}
}

// rules.yaml comes along untouched; what else lies in .emberfs does not.
func TestRulesStay(t *testing.T) {
	v := newVolume(t, Options{VolumeID: "vol"})
	f := hostileBase()
	v.CommitTree(f, nil)
	v.StockEdit("printf 'rules:\\n  - memory: /tmp\\r\\n' >.emberfs/rules.yaml; echo x >.emberfs/other")
	want := coldtest.Git(t, v.Dir, "rev-parse", "main:.emberfs/rules.yaml")
	f.Text("new", "n")
	v.CommitTree(f, nil)
	v.CommitTree(f, nil)
	coldtest.Equal(t, coldtest.Git(t, v.Dir, "rev-parse", "main:.emberfs/rules.yaml"), want, "rules.yaml is")
	if ls := coldtest.Git(t, v.Dir, "ls-tree", "--name-only",
		"main:.emberfs"); ls != ".gitattributes\nmeta\nrules.yaml\nvolume.json" {
		t.Errorf(".emberfs holds %q", ls)
	}
	coldtest.Equal(t, coldtest.Git(t, v.Dir, "cat-file", "-p", "main:.emberfs/volume.json"),
		`{"format":1,"volume":"vol"}`, "volume.json is")
	if s := coldtest.Git(t, v.Dir, "cat-file", "-p", "main:.emberfs/.gitattributes"); s != "* -text -diff" {
		t.Errorf(".gitattributes is %q", hex.EncodeToString([]byte(s)))
	}
}

// Missing objects: a listing keeps the file, opening it says what is wrong.
func TestMissingObjects(t *testing.T) {
	v := newVolume(t, Options{})
	f := hostileBase()
	f.Text("big", strings.Repeat("incompressible", 1000))
	v.CommitTree(f, nil)
	id := f.Kids["big"].ID
	coldtest.Explode(t, v.Dir)
	coldtest.RemoveLoose(t, v.Dir, id)
	coldtest.RemoveLoose(t, v.Dir, f.Kids["d"].Meta)
	coldtest.Check(t, v.db.Refresh())
	again := openVolumeReadOnly(t, v.Dir)
	s := again.HeadSnapshot()
	l, err := s.ReadDir(t.Context(), coldtest.RootOf(s))
	coldtest.Check(t, err)
	at := slices.IndexFunc(l.Entries, func(e cold.Entry) bool { return e.Name == "big" })
	if at < 0 || l.Entries[at].Size != int64(len(f.Kids["big"].Data)) {
		t.Fatalf("%+v", l.Entries)
	}
	if _, err := again.Open(t.Context(), id, -1); !errors.Is(err, cold.ErrMissing) ||
		!strings.Contains(err.Error(), id.String()) {
		t.Errorf("Open = %v", err)
	}
	d := f.Kids["d"]
	if l, err = s.ReadDir(t.Context(), d.Dir()); err != nil || len(l.Entries) != 1 || len(l.Problems) == 0 ||
		!l.Reconciled {
		t.Errorf("d: %+v, %v", l, err)
	}
	if _, err := again.Open(t.Context(), f.Kids["a"].ID, 99); !errors.Is(err, cold.ErrCorrupt) {
		t.Errorf("Open with a wrong size = %v", err)
	}
}
