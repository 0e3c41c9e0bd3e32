package odb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pjbgf/sha1cd"

	"emberfs/tiers/cold"
)

// newLinkable returns a repository of stock git with two packs and loose objects, and its tip.
func newLinkable(t testing.TB) (dir string, tip ID) {
	t.Helper()
	work := t.TempDir()
	dir = filepath.Join(t.TempDir(), "remote.git")
	git(t, work, "init", "-q", "-b", "main", work)
	for i := range 3 {
		for k := range 40 {
			text := bytes.Repeat(fmt.Appendf(nil, "%d line of file %d\n", i, k), 1+i*k)
			check(t, os.WriteFile(filepath.Join(work, fmt.Sprint("f", k)), text, 0o644))
		}
		git(t, work, "add", ".")
		git(t, work, "commit", "-q", "-m", fmt.Sprint(i))
		if i < 2 {
			git(t, work, "repack", "-q", "-d")
		}
	}
	check(t, os.Rename(filepath.Join(work, ".git"), dir))
	git(t, dir, "config", "core.bare", "true")
	return dir, mustID(t, strings.TrimSpace(git(t, dir, "rev-parse", "main")))
}

func mustLink(t testing.TB, db *DB, src string, tip ID) {
	t.Helper()
	release, err := db.Link(t.Context(), src, tip)
	check(t, err)
	check(t, db.UpdateRef("refs/heads/main", ID{}, tip))
	check(t, release())
}

func glob(t testing.TB, pattern string) []string {
	t.Helper()
	list, err := filepath.Glob(pattern)
	check(t, err)
	return list
}

// snapshotOf describes the files of a repository: whatever happens to a link of ours, the other's files stay.
func snapshotOf(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(&b, "%s %v %v %x\n", path, st.Mode(), st.ModTime(), data)
		return err
	})
	check(t, err)
	return b.String()
}

func TestLink(t *testing.T) {
	src, tip := newLinkable(t)
	before := snapshotOf(t, src)
	dir, db := newRepo(t, Options{})
	mustLink(t, db, src, tip)
	want := checkAll(t, src, reopenReadOnly(t, src))
	if n := checkAll(t, dir, db); n != want {
		t.Errorf("%d objects, the remote has %d", n, want)
	}
	fsck(t, dir)
	shared := 0
	for _, p := range glob(t, filepath.Join(src, "objects/pack/pack-*.pack")) {
		theirs, err1 := os.Stat(p)
		ours, err2 := os.Stat(filepath.Join(dir, "objects/pack", filepath.Base(p)))
		if err1 != nil || err2 != nil || !os.SameFile(theirs, ours) {
			t.Errorf("%s is not linked: %v, %v", p, err1, err2)
		}
		shared++
	}
	keeps := glob(t, filepath.Join(dir, "objects/pack/*.keep"))
	if shared != 2 || len(keeps) != 2 {
		t.Errorf("%d packs are shared, kept are %q", shared, keeps)
	}
	if left := glob(t, filepath.Join(dir, "objects/pack/emberfs_*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if loose := glob(t, filepath.Join(dir, "objects/??")); len(loose) > 0 {
		t.Errorf("loose: %q", loose)
	}

	// It is not verified yet: what is read from it is hashed with the collision-detecting hasher, and nobody merges or
	// empties it.
	db = reopen(t, dir, Options{})
	hashers := func() (plain, detecting int) {
		l, err := db.acquire()
		check(t, err)
		defer db.release(l)
		for _, p := range l.packs {
			if _, ok := db.hasherFor(source{p: p}, Blob, 0).h.(sha1cd.CollisionResistantHash); ok {
				detecting++
			} else {
				plain++
			}
		}
		return plain, detecting
	}
	if p, d := hashers(); p != 1 || d != 2 {
		t.Errorf("%d packs are trusted, %d not", p, d)
	}
	first := tip
	for i := range 3 {
		tip = mustAdd(t, db, tip, i, crashFiles(fmt.Sprint(i)))
	}
	if n, err := db.Consolidate(t.Context(), ConsolidateOptions{Limit: 1}); n == 0 || err != nil {
		t.Errorf("merged %d, %v", n, err)
	}
	own, linked := hashers()
	if linked != 2 {
		t.Errorf("%d linked packs are left", linked)
	}
	if good, err := db.VerifyLinked(t.Context(), 0); good != 2 || err != nil {
		t.Errorf("VerifyLinked = %d, %v", good, err)
	}
	if good, err := db.VerifyLinked(t.Context(), 0); good != 0 || err != nil {
		t.Errorf("VerifyLinked again = %d, %v", good, err)
	}
	if p, d := hashers(); p != own+linked || d != 0 {
		t.Errorf("afterwards %d packs are trusted, %d not", p, d)
	}
	if keeps = glob(t, filepath.Join(dir, "objects/pack/*.keep")); len(keeps) > 0 {
		t.Errorf("kept: %q", keeps)
	}
	if after := snapshotOf(t, src); after != before {
		t.Error("the remote's files changed")
	}

	// What either of them removes stays in the other.
	git(t, src, "gc", "-q", "--prune=now")
	git(t, src, "fsck", "--strict")
	checkAll(t, dir, db)
	before = snapshotOf(t, src)
	if n, err := db.Consolidate(t.Context(), ConsolidateOptions{Limit: 1}); n < 2 || err != nil {
		t.Errorf("merged %d, %v", n, err)
	}
	check(t, db.UpdateRef("refs/heads/main", tip, first))
	if r, err := db.GC(t.Context(), cold.GCOptions{Grace: -1}); r.Objects == 0 || err != nil {
		t.Errorf("GC: %+v, %v", r, err)
	}
	if after := snapshotOf(t, src); after != before {
		t.Error("the remote's files changed")
	}
	fsck(t, dir)
}

func reopenReadOnly(t testing.TB, dir string) *DB {
	t.Helper()
	db, err := OpenReadOnly(dir, Options{Log: discardLog()})
	check(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// Whatever is not a plain repository of ours or root's is not linked, and nothing of it stays.
func TestCannotLink(t *testing.T) {
	t.Parallel()
	write := func(name, text string) func(*testing.T, string, []string) {
		return func(t *testing.T, dir string, _ []string) {
			check(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
		}
	}
	whole, tip := newLinkable(t)
	for name, spoil := range map[string]func(t *testing.T, dir string, packs []string){
		"alternates":  write("objects/info/alternates", "/nowhere\n"),
		"shallow":     write("shallow", ""),
		"grafts":      write("info/grafts", ""),
		"odd index":   write("objects/pack/mine.idx", "x"),
		"odd pack":    write("objects/pack/mine.pack", "x"),
		"no pack":     write("objects/pack/pack-"+strings.Repeat("0", 40)+".idx", "x"),
		"empty loose": write("objects/info/../4b/"+strings.Repeat("0", 38), ""),
		"promisor": func(t *testing.T, _ string, packs []string) {
			check(t, os.WriteFile(strings.TrimSuffix(packs[1], "pack")+"promisor", nil, 0o644))
		},
		"partial": func(t *testing.T, dir string, _ []string) {
			git(t, dir, "config", "core.repositoryformatversion", "1")
			git(t, dir, "config", "extensions.partialClone", "origin")
		},
		"no index": func(t *testing.T, _ string, packs []string) {
			check(t, os.Remove(strings.TrimSuffix(packs[0], "pack")+"idx"))
		},
		"short index": func(t *testing.T, _ string, packs []string) {
			idx := strings.TrimSuffix(packs[0], "pack") + "idx"
			check(t, os.Chmod(idx, 0o644))
			check(t, os.Truncate(idx, 1100))
		},
		"short pack": func(t *testing.T, _ string, packs []string) {
			check(t, os.Chmod(packs[1], 0o644))
			check(t, os.Truncate(packs[1], 100))
		},
		"other index": func(t *testing.T, _ string, packs []string) {
			check(t, os.Rename(strings.TrimSuffix(packs[0], "pack")+"idx", strings.TrimSuffix(packs[1], "pack")+"idx"))
		},
		"symlink": func(t *testing.T, dir string, packs []string) {
			check(t, os.Rename(packs[0], filepath.Join(dir, "elsewhere")))
			check(t, os.Symlink(filepath.Join(dir, "elsewhere"), packs[0]))
		},
		"FIFO": func(t *testing.T, _ string, packs []string) {
			check(t, os.Remove(packs[0]))
			check(t, syscall.Mkfifo(packs[0], 0o644))
		},
		"directory": func(t *testing.T, _ string, packs []string) {
			check(t, os.Remove(packs[0]))
			check(t, os.Mkdir(packs[0], 0o755))
		},
		"FIFO of loose objects": func(t *testing.T, dir string, _ []string) {
			check(t, os.RemoveAll(filepath.Join(dir, "objects/4b")))
			check(t, syscall.Mkfifo(filepath.Join(dir, "objects/4b"), 0o644))
		},
		"directory elsewhere": func(t *testing.T, dir string, _ []string) {
			check(t, os.Rename(filepath.Join(dir, "objects/pack"), filepath.Join(dir, "elsewhere")))
			check(t, os.Symlink("../elsewhere", filepath.Join(dir, "objects/pack")))
		},
		"writable": func(t *testing.T, _ string, packs []string) { check(t, os.Chmod(packs[1], 0o664)) },
		"foreign": func(t *testing.T, _ string, packs []string) {
			if os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			check(t, os.Chown(packs[1], 12345, 12345))
		},
		"no tip": func(t *testing.T, dir string, _ []string) {
			for _, d := range glob(t, filepath.Join(dir, "objects/??")) {
				check(t, os.RemoveAll(d))
			}
		},
		"another file system": func(t *testing.T, dir string, _ []string) {
			tmp, err := os.MkdirTemp("/dev/shm", "emberfs-link")
			if err != nil {
				t.Skip(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(tmp) })
			check(t, os.CopyFS(tmp, os.DirFS(dir)))
			check(t, os.RemoveAll(dir))
			check(t, os.CopyFS(dir, os.DirFS(tmp)))
			src := filepath.Join(tmp)
			db2dir, db := newRepo(t, Options{})
			if _, err := db.Link(t.Context(), src, ID{1}); !errors.Is(err, ErrCannotLink) ||
				!errors.Is(err, syscall.EXDEV) {
				t.Errorf("from another file system: %v", err)
			}
			nothingLeft(t, db2dir)
			check(t, os.Remove(filepath.Join(dir, "HEAD")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			src := filepath.Join(t.TempDir(), "remote.git")
			if out, err := exec.Command("cp", "-a", whole, src).CombinedOutput(); err != nil {
				t.Fatal(err, string(out))
			}
			check(t, os.MkdirAll(filepath.Join(src, "objects/4b"), 0o755))
			spoil(t, src, glob(t, filepath.Join(src, "objects/pack/pack-*.pack")))
			dir, db := newRepo(t, Options{})
			if _, err := db.Link(t.Context(), src, tip); !errors.Is(err, ErrCannotLink) {
				t.Errorf("Link: %v", err)
			}
			nothingLeft(t, dir)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := db.Link(ctx, src, tip); err == nil {
				t.Error("linked with a context that has ended")
			}
			nothingLeft(t, dir)
		})
	}
}

func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	if left := glob(t, filepath.Join(dir, "objects/pack/*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
