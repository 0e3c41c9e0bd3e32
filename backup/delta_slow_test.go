//go:build slow

package backup

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// A directory grows and shrinks by deltas over the borders where shards split and merge, and always reads as it should.
func TestDeltas(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{})
	f := coldtest.NewDir(0o755)
	v.CommitTree(f, nil)
	rnd := rand.New(rand.NewPCG(1, 2))
	n := 0
	shapes := map[uint32]int{}
	for _, target := range []int{100, 512, 513, 600, 200, 129, 128, 127, 500, 1500, 1499, 130, 90, 3000, 2, 0, 700} {
		for step := 0; len(f.Kids) != target; step++ {
			var put, del []string
			size := 1 + rnd.IntN(400)
			for range min(size, max(target-len(f.Kids), 0)) {
				name := fmt.Sprintf("f%05d", n)
				f.Text(name, fmt.Sprint("c", n%7))
				put = append(put, name)
				n++
			}
			for name := range f.Kids {
				if len(f.Kids)-len(del) <= target || len(del) >= size {
					break
				}
				del = append(del, name)
			}
			for _, name := range del {
				delete(f.Kids, name)
			}
			// Some others change, and some that are not there are removed.
			for name, k := range f.Kids {
				if rnd.IntN(2) == 0 {
					break
				}
				k.Mtime.Sec++
				if !strings.Contains(strings.Join(put, " "), name) {
					put = append(put, name)
				}
			}
			v.commitDelta(f, put, append(del, "never was"))
		}
		got := v.ReadTree(v.HeadSnapshot())
		coldtest.CompareTrees(t, got, f)
		m, err := format.LoadMetaDir(v.db, got.Meta, format.Ignored())
		coldtest.Check(t, err)
		shapes[m.Entries.Mode]++
		switch {
		case target > format.SplitOver && m.Entries.Mode != odb.ModeTree:
			t.Errorf("%d entries are not a trie", target)
		case target < format.MergeUnder && m.Entries.Mode != odb.ModeFile:
			t.Errorf("%d entries are not a blob", target)
		}
		if t.Failed() {
			t.Fatalf("at %d entries", target)
		}
	}
	if shapes[odb.ModeTree] < 3 || shapes[odb.ModeFile] < 3 {
		t.Errorf("shapes: %v", shapes)
	}
	v.CheckGit()
}

// One change in a big directory reads and writes only the shards concerned.
func TestDeltaCost(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{})
	f := coldtest.NewDir(0o755)
	d := f.Mkdir("big")
	for i := range 10_000 {
		d.Text(fmt.Sprintf("file-%06d.txt", i), "x")
	}
	v.CommitTree(f, nil)
	before := v.Stats()
	ctx := t.Context()
	tx, err := v.Begin(ctx)
	coldtest.Check(t, err)
	defer tx.Abort()
	k := d.Kids["file-000077.txt"]
	k.Mtime.Nsec++ // metadata alone: git's own tree stays
	id, err := tx.PutDir(ctx, d.Dir(), false, nil, []cold.Entry{k.Entry}, nil)
	coldtest.Check(t, err)
	if id.Tree != d.ID || id.Meta == d.Meta {
		t.Errorf("touching a file made %v of %v", id, d.Dir())
	}
	d.Meta = id.Meta
	id, err = tx.PutDir(ctx, coldtest.RootOf(tx.Base()), false, &cold.Root{Entry: f.Entry}, []cold.Entry{d.Entry}, nil)
	coldtest.Check(t, err)
	f.ID, f.Meta = id.Tree, id.Meta
	if _, err := tx.Commit(ctx, cold.CommitOptions{Root: id}); err != nil {
		t.Fatal(err)
	}
	coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), f)
	after := v.Stats()
	// Shard, trie root, metadata directories of big and of the root, root's entries, .emberfs, root, commit.
	if n := after.Objects - before.Objects; n > 9 {
		t.Errorf("%d objects for one touched file", n)
	}
	if n := after.Bytes - before.Bytes; n > 20_000 {
		t.Errorf("%d bytes for one touched file", n)
	}
	if left, err := filepath.Glob(filepath.Join(v.Dir, "objects/pack/*.keep")); err != nil || len(left) > 0 {
		t.Errorf(".keep files left: %v, %v", left, err)
	}
}

// A delta on metadata that are damaged is refused rather than guessed at; put whole they are sound again.
func TestDamagedShard(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{})
	f := coldtest.NewDir(0o755)
	for i := range 1000 {
		f.Text(fmt.Sprintf("f%d", i), "x").Mode = 0o600
	}
	v.CommitTree(f, nil)
	v.StockEdit("for f in .emberfs/meta/.emberfs%entries/??; do echo junk >>$f; done")
	k := f.Text("f1", "new")
	tx := v.MustBegin()
	defer tx.Abort()
	var err error
	k.ID, err = tx.PutFile(t.Context(), coldtest.Content(k.Data), cold.Base{})
	coldtest.Check(t, err)
	base, root := coldtest.RootOf(tx.Base()), &cold.Root{Entry: f.Entry}
	if _, err := tx.PutDir(t.Context(), base, false, root, []cold.Entry{k.Entry}, nil); !errors.Is(err,
		cold.ErrCorrupt) {
		t.Errorf("PutDir = %v", err)
	}
	id, err := tx.PutDir(t.Context(), base, true, root, f.Entries(), nil)
	coldtest.Check(t, err)
	if _, err := tx.Commit(t.Context(), cold.CommitOptions{Root: id}); err != nil {
		t.Fatal(err)
	}
	coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), f)
}
