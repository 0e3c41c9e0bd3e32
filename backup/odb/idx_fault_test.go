package odb

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"emberfs/tiers/cold"
)

// An index that is cut under its mapping does not end the process: it is made anew from the pack, and what cannot be
// told without it is an error.
func TestIndexIsCutWhileMapped(t *testing.T) {
	dir, ids := deltaRepo(t, false)
	idx := onlyFile(t, filepath.Join(dir, "objects/pack/*.idx"))
	check(t, os.Chmod(idx, 0o644))
	db := reopen(t, dir, Options{})
	if n, err := readAll(db, ids); n != len(ids) {
		t.Fatal(n, err)
	}
	check(t, os.Truncate(idx, 0))
	if n, err := readAll(db, ids); n != len(ids) {
		t.Fatal(n, err)
	}
	fsck(t, dir)
}

// Nothing is removed on the word of an index that cannot be read.
func TestIndexIsCutDuringGC(t *testing.T) {
	for _, step := range []string{"gc.mark", "gc.check", "consolidate.merge"} {
		var db *DB
		var dir string
		cut := false
		dir, db = newRepo(t, Options{Fail: func(s string) error {
			if s != step || !cut {
				return nil
			}
			cut = false
			m, err := filepath.Glob(filepath.Join(dir, "objects/pack/*.idx"))
			if err != nil {
				return err
			}
			for _, f := range m {
				if err := errors.Join(os.Chmod(f, 0o644), os.Truncate(f, 0)); err != nil {
					return err
				}
			}
			return nil
		}})
		tip := commits(t, db, ID{}, 3)
		garbage(t, db, "dead")
		ageAll(t, dir, time.Hour)
		want := len(allObjects(t, dir))
		cut = true
		_, err := db.GC(t.Context(), cold.GCOptions{Grace: time.Minute})
		if cut || err != nil && !errors.Is(err, cold.ErrCorrupt) && !errors.Is(err, cold.ErrMissing) {
			t.Errorf("%s: %v", step, err)
		}
		if err != nil {
			leftovers(t, dir, step, db)
		}
		ageAll(t, dir, time.Hour)
		check(t, db.Close())
		db = reopen(t, dir, Options{})
		if _, err := db.Read(tip, 0, 1<<20); err != nil {
			t.Errorf("%s: %v", step, err)
		}
		if got := len(allObjects(t, dir)); got < want-1 {
			t.Errorf("%s: %d objects, there were %d", step, got, want)
		}
		fsck(t, dir)
	}
}
