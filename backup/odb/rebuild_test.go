package odb

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"emberfs/tiers/cold"
)

// deltaRepo makes a repository whose one pack comes from git and holds deltas, with either kind of base.
func deltaRepo(t *testing.T, refDeltas bool) (dir string, objects []ID) {
	t.Helper()
	dir, db := newRepo(t, Options{})
	tip, text := ID{}, newSeeded(70).bytes(20_000, true)
	for i := range 12 {
		text = append(bytes.Clone(text), fmt.Sprintf("line %d\n", i)...)
		var err error
		tip, err = addCommit(db, tip, i, map[string][]byte{
			"f": text, fmt.Sprint("g", i): newSeeded(byte(i)).bytes(3000, false)})
		check(t, err)
	}
	check(t, db.Close())
	git(t, dir, "-c", fmt.Sprintf("repack.useDeltaBaseOffset=%v", !refDeltas), "repack", "-adfq")
	for _, line := range strings.Fields(git(t, dir, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)")) {
		objects = append(objects, mustID(t, line))
	}
	return dir, objects
}

// age gives a file an mtime of so long ago.
func age(t testing.TB, path string, by time.Duration) {
	t.Helper()
	then := time.Now().Add(-by)
	check(t, os.Chtimes(path, then, then))
}

func readAll(db *DB, ids []ID) (readable int, err error) {
	for _, id := range ids {
		if _, rerr := db.Read(id, 0, 1<<30); rerr == nil {
			readable++
		} else if err == nil {
			err = rerr
		}
	}
	return readable, err
}

func TestIndexIsRebuilt(t *testing.T) {
	t.Parallel()
	for _, refDeltas := range []bool{false, true} {
		for what, damage := range map[string]func(t *testing.T, idx string){
			"missing": func(t *testing.T, idx string) { remove(t, idx) },
			"cut off": func(t *testing.T, idx string) { change(t, idx, func(b []byte) []byte { return b[:len(b)/2] }) },
			"empty":   func(t *testing.T, idx string) { change(t, idx, func(b []byte) []byte { return nil }) },
			"of another pack": func(t *testing.T, idx string) {
				change(t, idx, func(b []byte) []byte { b[len(b)-2*hashSize]++; return b })
			},
			"one id wrong": func(t *testing.T, idx string) {
				change(t, idx, func(b []byte) []byte { b[idxHeader+idxFanout+7*hashSize+19] ^= 1; return b })
			},
		} {
			t.Run(fmt.Sprintf("%s/%v", what, refDeltas), func(t *testing.T) {
				dir, ids := deltaRepo(t, refDeltas)
				pack := onlyFile(t, filepath.Join(dir, "objects/pack/*.pack"))
				age(t, pack, time.Hour)
				damage(t, strings.TrimSuffix(pack, ".pack")+".idx")
				ro, err := OpenReadOnly(dir, Options{})
				check(t, err)
				if n, _ := readAll(ro, ids); n == len(ids) {
					t.Fatal("nothing is damaged")
				}
				check(t, ro.Close())
				db := reopen(t, dir, Options{})
				if n, err := readAll(db, ids); n != len(ids) {
					t.Fatalf("%d of %d objects: %v", n, len(ids), err)
				}
				fsck(t, dir)
				if p := db.Problems(); len(p) != 0 {
					t.Error(p)
				}
			})
		}
	}
}

func remove(t testing.TB, path string) {
	t.Helper()
	check(t, os.Remove(path))
}

func change(t testing.TB, path string, how func([]byte) []byte) {
	t.Helper()
	b := readFile(t, path)
	st, err := os.Stat(path)
	check(t, err)
	remove(t, path)
	check(t, os.WriteFile(path, how(b), 0o644))
	check(t, os.Chtimes(path, st.ModTime(), st.ModTime()))
}

// A pack that somebody is publishing right now is left alone, and found when it has its index.
func TestYoungPackIsLeftAlone(t *testing.T) {
	dir, ids := deltaRepo(t, false)
	pack := onlyFile(t, filepath.Join(dir, "objects/pack/*.pack"))
	idx := strings.TrimSuffix(pack, ".pack") + ".idx"
	check(t, errors.Join(os.Rename(idx, idx+".later"), os.Rename(pack, pack+".later")))
	db := reopen(t, dir, Options{})
	check(t, os.Rename(pack+".later", pack))
	if _, err := db.Read(ids[0], 0, 1<<20); !errors.Is(err, cold.ErrMissing) {
		t.Fatal(err)
	}
	if _, err := os.Stat(idx); !os.IsNotExist(err) {
		t.Fatal(err)
	}
	// Without any change of the directory the pack grows old.
	age(t, pack, time.Hour)
	if n, err := readAll(db, ids); n != len(ids) {
		t.Fatal(n, err)
	}
}

// salvageRepo makes a repository with a good pack and a damaged one.
func salvageRepo(t *testing.T) (dir string, good, bad []ID, badPack string) {
	t.Helper()
	dir, bad = deltaRepo(t, false)
	badPack = onlyFile(t, filepath.Join(dir, "objects/pack/*.pack"))
	db := reopen(t, dir, Options{})
	w := publish(t, db, func(w *Writer) { good = append(good, mustPut(t, w, Blob, []byte("in a good pack"))) })
	check(t, errors.Join(w.Release(), db.Close()))
	age(t, badPack, time.Hour)
	return dir, good, bad, badPack
}

func TestDamagedPackIsPutAside(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		damage func(b []byte) []byte
		noIdx  bool
		least  int // of 37 objects
	}{
		"cut off":             {func(b []byte) []byte { return b[:len(b)*3/4] }, false, 20},
		"cut off, no index":   {func(b []byte) []byte { return b[:len(b)*3/4] }, true, 20},
		"no trailer":          {func(b []byte) []byte { return b[:len(b)-hashSize] }, true, 36},
		"bad trailer":         {func(b []byte) []byte { b[len(b)-1]++; return b }, true, 36},
		"hole, no trailer":    {func(b []byte) []byte { clear(b[2000:2100]); return b[:len(b)-1] }, false, 20},
		"hole, no index":      {func(b []byte) []byte { clear(b[len(b)/2 : len(b)/2+100]); return b }, true, 5},
		"nothing to be saved": {func(b []byte) []byte { return b[:5] }, true, 0},
	} {
		t.Run(what, func(t *testing.T) {
			dir, good, bad, path := salvageRepo(t)
			change(t, path, c.damage)
			if c.noIdx {
				remove(t, strings.TrimSuffix(path, ".pack")+".idx")
			}
			ro, err := OpenReadOnly(dir, Options{})
			check(t, err)
			check(t, ro.Close())
			if _, err := os.Stat(path); err != nil {
				t.Fatal("a read-only DB moved it")
			}
			db := reopen(t, dir, Options{})
			n, _ := readAll(db, bad)
			t.Logf("%d of %d objects saved", n, len(bad))
			if n < c.least || n == len(bad) && c.least < 36 {
				t.Errorf("%d of %d objects saved", n, len(bad))
			}
			if n, err := readAll(db, good); n != len(good) {
				t.Error(err)
			}
			for _, p := range []string{filepath.Join(filepath.Dir(path), badDir, filepath.Base(path))} {
				if _, err := os.Stat(p); err != nil {
					t.Error(err)
				}
			}
			if p := db.Problems(); len(p) != 1 ||
				!strings.Contains(p[0].Error(), filepath.Join(badDir, filepath.Base(path))) {
				t.Error(p)
			}
			for _, args := range [][]string{{"count-objects", "-v"}, {"repack", "-q"},
				{"cat-file", "--batch-all-objects", "--batch-check"}, {"prune-packed"}} {
				if c.least < 36 && args[0] == "repack" {
					continue // git's business too: commits are missing
				}
				if out, err := gitErr(dir, nil, args...); err != nil || strings.Contains(out, "error:") {
					t.Errorf("git %v: %v %s", args, err, out)
				}
			}
			leftovers(t, dir, what)
		})
	}
}

// A pack that is still being copied here is no damaged pack.
func TestYoungPackIsNotPutAside(t *testing.T) {
	dir, _, bad, path := salvageRepo(t)
	whole := readFile(t, path)
	change(t, path, func(b []byte) []byte { return b[:len(b)/2] })
	age(t, path, 0)
	db := reopen(t, dir, Options{})
	if n, _ := readAll(db, bad); n > 0 {
		t.Errorf("%d objects", n)
	}
	if p := db.Problems(); len(p) != 1 {
		t.Error(p)
	}
	change(t, path, func([]byte) []byte { return whole })
	if n, err := readAll(db, bad); n != len(bad) {
		t.Error(n, err)
	}
	if p := db.Problems(); len(p) != 0 {
		t.Error(p)
	}
}

// leftovers fails the test where a crash left files that only a running process has; the DBs in open are running.
func leftovers(t *testing.T, dir, what string, open ...*DB) {
	t.Helper()
	ours := func(path string) bool {
		return slices.ContainsFunc(open, func(db *DB) bool { return db.evidence.path == path })
	}
	for _, pattern := range []string{"*", "objects/*", "objects/pack/*", "refs/heads/*"} {
		m := glob(t, filepath.Join(dir, pattern))
		for _, path := range m {
			if isTemp(filepath.Base(path)) && !ours(path) || strings.HasSuffix(path, ".keep") ||
				strings.HasSuffix(path, ".lock") {
				t.Fatalf("%s: %s is left over", what, path)
			}
		}
	}
}
