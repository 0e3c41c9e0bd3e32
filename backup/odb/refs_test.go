package odb

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"emberfs/tiers/cold"
)

func TestRefs(t *testing.T) {
	dir, db := newRepo(t, Options{})
	tip := mustAdd(t, db, ID{}, 0, crashFiles("a"))
	next := mustAdd(t, db, tip, 1, crashFiles("b"))
	const ref = "refs/heads/x/y"
	if _, err := db.Ref(ref); !errors.Is(err, ErrNoRef) {
		t.Fatal(err)
	}
	if err := db.UpdateRef(ref, next, tip); !errors.Is(err, cold.ErrRefMoved) {
		t.Fatalf("update of a missing reference: %v", err)
	}
	expect := func(name string, want ID) {
		t.Helper()
		if got, err := db.Ref(name); err != nil || got != want {
			t.Fatalf("%s: %s, %v; want %s", name, got, err, want)
		}
		if got := mustID(t, git(t, dir, "rev-parse", name)); got != want {
			t.Fatalf("%s: git says %s; want %s", name, got, want)
		}
	}
	for _, packed := range []bool{false, true} {
		pack := func() {
			if packed {
				git(t, dir, "pack-refs", "--all", "--prune")
			}
		}
		check(t, db.UpdateRef(ref, ID{}, tip))
		pack()
		expect(ref, tip)
		for _, old := range []ID{{}, next} {
			if err := db.UpdateRef(ref, old, next); !errors.Is(err, cold.ErrRefMoved) {
				t.Fatalf("packed %v, old %s: %v", packed, old, err)
			}
		}
		check(t, db.UpdateRef(ref, tip, next))
		expect(ref, next)
		pack()
		refs, err := db.Refs("refs/heads/")
		if err != nil || len(refs) != 2 || refs[ref] != next || refs["refs/heads/main"] != next {
			t.Fatalf("%v, %v", refs, err)
		}
		if refs, err = db.Refs("refs/heads/x"); err != nil || len(refs) != 1 {
			t.Fatalf("%v, %v", refs, err)
		}
		if err := db.DeleteRef(ref, tip); !errors.Is(err, cold.ErrRefMoved) {
			t.Fatal(err)
		}
		check(t, db.DeleteRef(ref, next))
		if _, err := db.Ref(ref); !errors.Is(err, ErrNoRef) {
			t.Fatal(err)
		}
		if err := db.DeleteRef(ref, next); !errors.Is(err, ErrNoRef) {
			t.Fatal(err)
		}
		expect("refs/heads/main", next)
	}
	// Empty directories are in the way of refs/heads/x; git removes them, and so do we.
	check(t, os.MkdirAll(filepath.Join(dir, "refs/heads/x/y/z"), 0o755))
	check(t, db.UpdateRef("refs/heads/x", ID{}, tip))
	expect("refs/heads/x", tip)
	expect("HEAD", next)
	if err := db.UpdateRef("refs/heads/x/y", ID{}, tip); err == nil {
		t.Fatal("a reference below another was made")
	}
	fsck(t, dir)
}

func TestBadRefs(t *testing.T) {
	dir, db := newRepo(t, Options{})
	for _, name := range []string{"", "main", "HEAD.lock", "refs/../x", "refs//x", "refs/heads/", "refs/heads/.x",
		"refs/heads/x.lock", "refs/heads/a b",
		"refs/heads/a\nb", "refs/heads/a..b", "refs/heads/a@{b", "refs/heads/x.", "/refs/heads/x", "refs/heads/a:b",
		"refs/heads/" + strings.Repeat("a", 1000)} {
		if err := db.UpdateRef(name, ID{}, ID{1}); err == nil || errors.Is(err, cold.ErrRefMoved) {
			t.Errorf("UpdateRef(%q): %v", name, err)
		}
		if _, err := db.Ref(name); err == nil || errors.Is(err, ErrNoRef) {
			t.Errorf("Ref(%q): %v", name, err)
		}
	}
	if err := db.UpdateRef("HEAD", ID{}, ID{1}); err == nil {
		t.Error("HEAD was updated")
	}
	good := strings.Repeat("1", 40)
	for content, ok := range map[string]bool{good + "\n": true, good: true, good + "0\n": false, "": false,
		strings.Repeat("0", 40): false,
		"ref: refs/heads/bad":   false, "ref: ../x": false, strings.Repeat("x", 5000): false, good[:39] + "g": false} {
		check(t, os.WriteFile(filepath.Join(dir, "refs/heads/bad"), []byte(content), 0o644))
		if _, err := db.Ref("refs/heads/bad"); (err == nil) != ok || errors.Is(err, ErrNoRef) {
			t.Errorf("content %.50q: %v", content, err)
		}
		refs, err := db.Refs("")
		if _, listed := refs["refs/heads/bad"]; err != nil || listed != ok {
			t.Errorf("content %.50q: %v, %v", content, refs, err)
		}
	}
	check(t, os.Remove(filepath.Join(dir, "refs/heads/bad")))
	check(t, os.Symlink("/etc/hostname", filepath.Join(dir, "refs/heads/bad")))
	if _, err := db.Ref("refs/heads/bad"); err == nil || errors.Is(err, ErrNoRef) {
		t.Errorf("symbolic link: %v", err)
	}
	check(t, os.WriteFile(filepath.Join(dir, "packed-refs"),
		[]byte("# pack-refs\n"+good+" refs/heads/a\n^"+good+"\nnonsense\n"), 0o644))
	if _, err := db.Ref("refs/heads/missing"); !errors.Is(err, cold.ErrCorrupt) {
		t.Errorf("damaged packed-refs: %v", err)
	}
}

func TestLocks(t *testing.T) {
	t.Parallel()
	dir, db := newRepo(t, Options{})
	tip := mustAdd(t, db, ID{}, 0, crashFiles("a"))
	self, err := thisProcess()
	check(t, err)
	dead := self
	for dead.pid = 1 << 21; !dead.dead(self); dead.pid++ { // over any pid_max but a free one at that
	}
	otherBoot := owner{"00000000-0000-0000-0000-000000000000", 1}
	// Each on a reference of its own and all at once, as a lock of somebody else's is waited for.
	var wg sync.WaitGroup
	for content, free := range map[string]bool{"": false, tip.String() + "\n": false, self.String(): false,
		"emberfs x y\n": false,
		dead.String():   true, otherBoot.String(): true} {
		ref := "refs/heads/" + hashOf(content).String()
		check(t, db.UpdateRef(ref, ID{}, tip))
		path := filepath.Join(dir, ref+".lock")
		check(t, os.WriteFile(path, []byte(content), 0o644))
		wg.Go(func() {
			err := db.UpdateRef(ref, tip, ID{byte(len(content)), 1})
			if free && err != nil || !free && (!errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path)) {
				t.Errorf("lock %q: %v", content, err)
			}
			if got, rerr := os.ReadFile(path); !free && (rerr != nil || string(got) != content) {
				t.Errorf("lock %q is %q now, %v", content, got, rerr)
			}
			if _, rerr := os.Lstat(path); free && !os.IsNotExist(rerr) {
				t.Errorf("lock %q was broken and is there: %v", content, rerr)
			}
		})
	}
	wg.Wait()
	path := filepath.Join(dir, "refs/heads/main.lock")
	// Open breaks what this process left in an earlier life, also beside packed-refs, and leaves git's own alone.
	foreign := filepath.Join(dir, "refs/heads/other.lock")
	for p, content := range map[string]string{
		path: self.String(), filepath.Join(dir, "packed-refs.lock"): dead.String(), foreign: tip.String()} {
		check(t, os.WriteFile(p, []byte(content), 0o644))
	}
	db = reopen(t, dir, Options{})
	check(t, db.UpdateRef("refs/heads/main", tip, ID{9}))
	if _, err := os.Stat(foreign); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "packed-refs.lock")); !os.IsNotExist(err) {
		t.Fatal(err)
	}
}

func TestConcurrentUpdatesLoseNothing(t *testing.T) {
	dir, db := newRepo(t, Options{})
	tip := mustAdd(t, db, ID{}, 0, crashFiles("a"))
	const ref = "refs/heads/counter"
	var won atomic.Int64
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 20 {
				old, err := db.Ref(ref)
				if err != nil && !errors.Is(err, ErrNoRef) {
					t.Error(err)
					return
				}
				fresh := ID{byte(g + 1), byte(i + 1), byte(won.Load() + 1)}
				if g == 3 {
					fresh = tip
				}
				switch err := db.UpdateRef(ref, old, fresh); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, cold.ErrRefMoved) && !errors.Is(err, ErrLocked):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if won.Load() == 0 {
		t.Fatal("nobody won")
	}
	if m, _ := filepath.Glob(filepath.Join(dir, "refs/heads/*.lock")); len(m) > 0 {
		t.Fatal(m)
	}
}
