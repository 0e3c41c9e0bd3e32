package tiers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// sample makes a tree with every kind of entry that a directory can hold.
func sample(t *testing.T, v *Volume) {
	t.Helper()
	a := mkdir(t, v, v.root, "a")
	b := mkdir(t, v, a, "b")
	mkdir(t, v, a, "empty")
	for i := range 30 {
		write(t, v, b, fmt.Sprint("file ", i), strings.Repeat(fmt.Sprint(i), 100*i))
	}
	f := write(t, v, b, "linked", "one file")
	far := mkdir(t, v, mkdir(t, v, v.root, "far"), "away")
	if _, err := v.Link(context.Background(), f, far, "other name"); err != nil {
		t.Fatal(err)
	}
	near := write(t, v, far, "near", "two names here")
	if _, err := v.Link(context.Background(), near, far, "nearer"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := v.Symlink(context.Background(), a, "link", "b/f", me); err != nil {
		t.Fatal(err)
	}
	if _, _, err := v.Mknod(context.Background(), a, "fifo", unix.S_IFIFO|0600, 0, me); err != nil {
		t.Fatal(err)
	}
	if err := v.Setxattr(context.Background(), b, "user.k", []byte("\x00\xff"), 0, false, me); err != nil {
		t.Fatal(err)
	}
	when := cold.Time{Sec: -5, Nsec: 123456789}
	for _, n := range []*Inode{f, b, a} {
		if _, err := v.Setattr(context.Background(), n, nil, &SetAttr{Mtime: &when}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLazyRestore: a restore on the next machine makes nothing but the root. Each directory is made when it is looked
// at, and in the end all is as it was.
func TestLazyRestore(t *testing.T) {
	v, c := newVolume(t)
	sample(t, v)
	v.mustSync(t)
	next := openTiered(t, t.TempDir(), c)
	warm := filepath.Join(next.cfg.State, "warm")
	if list, err := os.ReadDir(warm); err != nil || len(list) != 0 {
		t.Fatalf("warm holds %v, %v", list, err)
	}
	rootWas := mustAttr(t, next, next.root)
	if rootWas.Nlink != 4 {
		t.Fatalf("the root has %d links before it is listed", rootWas.Nlink)
	}
	if rc := next.mustSync(t); rc.New {
		t.Fatalf("the next machine commits what it restored: %+v", rc)
	}
	a := mustFind(t, next, "a")
	if now := mustAttr(t, next, next.root); now.Mtime != rootWas.Mtime || now.Ctime != rootWas.Ctime ||
		now.Nlink != rootWas.Nlink {
		t.Fatalf("listing shows: %+v, before %+v", now, rootWas)
	}
	if list, err := os.ReadDir(filepath.Join(warm, "a")); err != nil || len(list) != 0 {
		t.Fatalf("a was listed before it was looked at: %v, %v", list, err)
	}
	aWas := mustAttr(t, next, a)
	if aWas.Mtime != (cold.Time{Sec: -5, Nsec: 123456789}) || aWas.Nlink != 4 {
		t.Fatalf("a: %+v", aWas)
	}
	d, err := next.OpenDir(context.Background(), a)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	if now := mustAttr(t, next, a); now.Mtime != aWas.Mtime || now.Ctime != aWas.Ctime || now.Nlink != aWas.Nlink {
		t.Fatalf("listing shows: %+v, before %+v", now, aWas)
	}
	// The first look at one name of a file shows all of them.
	if l := mustAttr(t, next, mustFind(t, next, "far/away/other name")); l.Nlink != 2 ||
		l.Ino != mustAttr(t, next, mustFind(t, next, "a/b/linked")).Ino {
		t.Fatalf("linked: %+v", l)
	}
	if l := mustAttr(t, next, mustFind(t, next, "far/away/near")); l.Nlink != 2 {
		t.Fatalf("near: %+v", l)
	}
	if rc := next.mustSync(t); rc.New {
		t.Fatalf("a commit of nothing: %+v", rc)
	}
	next.recallAll(t.Context())
	rsyncEqual(t, filepath.Join(v.cfg.State, "warm"), warm)
	if rc := next.mustSync(t); rc.New {
		t.Fatalf("a commit of nothing: %+v", rc)
	}
}

// TestLazyOperations: operations in lazy directories do what they do in listed ones.
func TestLazyOperations(t *testing.T) {
	v, c := newVolume(t)
	sample(t, v)
	v.mustSync(t)
	next := openTiered(t, t.TempDir(), c)
	root := next.root
	if err := next.Rmdir(context.Background(), root, "a"); !errors.Is(err, unix.ENOTEMPTY) {
		t.Fatalf("rmdir of a full directory: %v", err)
	}
	mkdir(t, next, root, "new")
	if err := next.Rename(context.Background(), root, "new", root, "a", 0); !errors.Is(err, unix.ENOTEMPTY) {
		t.Fatalf("rename over a full directory: %v", err)
	}
	a := mustFind(t, next, "a")
	if err := next.Rmdir(context.Background(), a, "empty"); err != nil {
		t.Fatalf("rmdir of an empty directory: %v", err)
	}
	if err := next.Rename(context.Background(), root, "far", a, "moved", 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := next.Mkdir(context.Background(), root, "far", 0755, me); err != nil {
		t.Fatal(err)
	}
	if l := mustAttr(t, next, mustFind(t, next, "a/b/linked")); l.Nlink != 2 ||
		l.Ino != mustAttr(t, next, mustFind(t, next, "a/moved/away/other name")).Ino {
		t.Fatalf("linked: %+v", l)
	}
	next.mustSync(t)
	// The same on the first machine.
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	a = mustFind(t, v, "a")
	mkdir(t, v, v.root, "new")
	must(v.Rmdir(context.Background(), a, "empty"))
	must(v.Rename(context.Background(), v.root, "far", a, "moved", 0))
	mkdir(t, v, v.root, "far")
	third := openTiered(t, t.TempDir(), c)
	third.recallAll(t.Context())
	for _, at := range []string{"new", "far", "a", ""} {
		for _, w := range []*Volume{v, third} {
			_, err := w.Setattr(context.Background(), mustFind(t, w, at), nil, &SetAttr{Mtime: &cold.Time{Sec: 5}})
			must(err)
		}
	}
	rsyncEqual(t, filepath.Join(v.cfg.State, "warm"), filepath.Join(third.cfg.State, "warm"))
}

// TestFollowLazily: a start that finds the branch moved brings warm to it, whether directories were listed or lazy, and
// files whole or stubs.
func TestFollowLazily(t *testing.T) {
	v, c := newVolume(t)
	sample(t, v)
	v.mustSync(t)
	other := openTiered(t, t.TempDir(), c)
	mustFind(t, other, "far")
	mustFind(t, other, "a/b/file 3")
	other.mustSync(t)
	must(t, other.Close())
	write(t, v, mustFind(t, v, "a/b"), "file 4", "changed")
	write(t, v, mustFind(t, v, "far/away"), "file 5", "new")
	must(t, v.Unlink(context.Background(), mustFind(t, v, "a/b"), "file 6"))
	must(t, v.Rename(context.Background(), mustFind(t, v, "a"), "empty", v.root, "was empty", 0))
	v.mustSync(t)
	next := openTiered(t, other.cfg.State, c)
	next.recallAll(t.Context())
	rsyncEqual(t, filepath.Join(v.cfg.State, "warm"), filepath.Join(next.cfg.State, "warm"))
	if rc := next.mustSync(t); rc.New {
		t.Fatalf("a commit of nothing: %+v", rc)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestListWhereOwnersAreMapped checks that a directory can be listed on a file system that gives what the daemon makes
// another owner than the daemon's, as NFS with root_squash does.
func TestListWhereOwnersAreMapped(t *testing.T) {
	v, c := newVolume(t)
	sample(t, v)
	v.mustSync(t)
	next := openTiered(t, t.TempDir(), c)
	next.uid = 4711 // whom the daemon takes itself for: it makes files of root
	for _, at := range []string{"a/link", "a/fifo", "a/b/file 1"} {
		mustFind(t, next, at)
	}
}

// TestListKeepsWhatIsThere checks that listing a directory removes nothing of a directory in it that is there without a
// record, such as one that was listed first together with another one before a crash.
func TestListKeepsWhatIsThere(t *testing.T) {
	v, c := newVolume(t)
	sample(t, v)
	v.mustSync(t)
	next := openTiered(t, t.TempDir(), c)
	mustFind(t, next, "a") // lists the root
	b := filepath.Join(next.cfg.State, "warm", "a", "b")
	must(t, os.Mkdir(b, 0o755))
	must(t, os.WriteFile(filepath.Join(b, "mine"), []byte("kept"), 0o644))
	mustFind(t, next, "a/link")
	if text, err := os.ReadFile(filepath.Join(b, "mine")); err != nil || string(text) != "kept" {
		t.Errorf("after the listing it reads %q, %v", text, err)
	}
}
