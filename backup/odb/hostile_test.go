package odb

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing/format/packfile"

	"emberfs/tiers/cold"
)

// within fails the test when fn does not return: a FIFO that is opened the plain way blocks for ever.
func within(t *testing.T, what string, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s hangs", what)
	}
}

func TestSpecialFilesDoNotBlock(t *testing.T) {
	for _, name := range []string{"config", "packed-refs", "refs/heads/main", "objects/info/alternates",
		"objects/pack/pack-1.idx", "objects/01/" + strings.Repeat("0", 38)} {
		dir, db := newRepo(t, Options{})
		check(t, db.Close())
		path := filepath.Join(dir, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, removeExisting(path))
		check(t, syscall.Mkfifo(path, 0o644))
		within(t, name, func() {
			db, err := OpenReadOnly(dir, Options{Log: discardLog()})
			if err != nil {
				return
			}
			defer db.Close()
			if _, err := db.Ref("refs/heads/main"); err == nil {
				t.Errorf("%s: a reference was read", name)
			}
			if _, err := db.Read(ID{1}, Blob, 10); err == nil {
				t.Errorf("%s: an object was read", name)
			}
		})
	}
}

func TestUnreadablePackIsNotMissing(t *testing.T) {
	dir, db := newRepo(t, Options{})
	var a, b ID
	publish(t, db, func(w *Writer) { a = mustPut(t, w, Blob, []byte("a")) })
	publish(t, db, func(w *Writer) { b = mustPut(t, w, Blob, []byte("b")) })
	// A symbolic link to itself fails the way a lack of rights does, for root too.
	loop := filepath.Join(dir, "objects/pack/pack-0")
	for _, ext := range []string{".idx", ".pack"} {
		check(t, os.Symlink(loop+ext, loop+ext))
	}
	db = reopen(t, dir, Options{})
	for _, id := range []ID{a, b} {
		if _, err := db.Read(id, Blob, 10); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Read(ID{1}, Blob, 10); errors.Is(err, cold.ErrMissing) || !errors.Is(err, syscall.ELOOP) {
		t.Fatal(err)
	}
	check(t, errors.Join(os.Remove(loop+".idx"), os.Remove(loop+".pack")))
	if _, err := db.Read(ID{1}, Blob, 10); !errors.Is(err, cold.ErrMissing) {
		t.Fatal(err)
	}
}

func TestNestedRefsAreRefused(t *testing.T) {
	dir, db := newRepo(t, Options{})
	tip := mustAdd(t, db, ID{}, 0, crashFiles("a"))
	check(t, db.UpdateRef("refs/heads/a/b", ID{}, tip))
	git(t, dir, "pack-refs", "--all", "--prune")
	for _, name := range []string{"refs/heads/a", "refs/heads/a/b/c", "refs/heads/main/x"} {
		if err := db.UpdateRef(name, ID{}, tip); !errors.Is(err, os.ErrExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	fsck(t, dir)
}

func TestThinPackWithABigBase(t *testing.T) {
	dir, db := newRepo(t, Options{DeltaMemory: 1000, DeltaCache: 1000})
	base := newSeeded(70).bytes(200_000, true)
	id := ID{}
	publish(t, db, func(w *Writer) { id = mustPut(t, w, Blob, base) })
	next := append(bytes.Clone(base), "more"...)
	p := newRawPack()
	p.ref(id, packfile.DiffDelta(base, next))
	n, keep, err := db.IndexPack(bytes.NewReader(p.bytes()), 0)
	if err != nil || n != 2 {
		t.Fatal(n, err)
	}
	check(t, keep())
	nid, _ := HashObject(Blob, next)
	if got, err := db.Read(nid, Blob, 1<<20); err != nil || !bytes.Equal(got, next) {
		t.Fatal(err)
	}
	fsck(t, dir)
	if m, _ := filepath.Glob(filepath.Join(dir, "objects", tempPrefix+"*")); len(m) != 0 {
		t.Fatal(m)
	}
	// A base that is damaged here must not come in under the wrong id.
	packs := glob(t, filepath.Join(dir, "objects/pack/*.pack"))
	for _, path := range packs {
		data := readFile(t, path)
		for i := 1000; i < 1100; i++ {
			data[i] ^= 0xff
		}
		check(t, errors.Join(os.Chmod(path, 0o644), os.WriteFile(path, data, 0o644)))
	}
	if _, _, err := db.IndexPack(bytes.NewReader(p.bytes()), 0); !errors.Is(err, cold.ErrCorrupt) {
		t.Fatal(err)
	}
}

// TestBigDeltaChain stores versions of a content that is over DeltaMemory, as git gc would.
func TestBigDeltaChain(t *testing.T) {
	dir, db := newRepo(t, Options{DeltaMemory: 50_000, DeltaCache: 20_000})
	last := newSeeded(71).bytes(100_000, true)
	p := newRawPack()
	off := p.add(Blob, int64(len(last)), nil, last)
	want := map[ID][]byte{}
	for i := range 12 {
		next := append(bytes.Clone(last), fmt.Sprint(i)...)
		off = p.ofs(off, packfile.DiffDelta(last, next))
		id, err := HashObject(Blob, next)
		check(t, err)
		want[id], last = next, next
	}
	if _, _, err := db.IndexPack(bytes.NewReader(p.bytes()), 0); err != nil {
		t.Fatal(err)
	}
	for id, data := range want {
		got, err := readStream(db, id)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%s: %v", id, err)
		}
	}
	if n := openFiles(t, dir, "deleted"); n != 0 {
		t.Errorf("%d temporary files are still open", n)
	}
	small := reopen(t, dir, Options{MaxDelta: 1000})
	for id := range want {
		if _, err := small.Stream(id); !errors.Is(err, ErrTooLarge) {
			t.Fatalf("delta base over the limit: %v", err)
		}
	}
}

// git refuses an object whose stream ends with a wrong checksum, right as its bytes may be.
func TestWrongChecksumOfAStream(t *testing.T) {
	for _, text := range []bool{false, true} {
		dir, db := newRepo(t, Options{})
		data := newSeeded(72).bytes(150_000, text)
		var id ID
		publish(t, db, func(w *Writer) { id = mustPut(t, w, Blob, data) })
		harmPack(t, dir, func(p []byte, end int) { p[end-1] ^= 1 })
		db = reopen(t, dir, Options{})
		if _, err := db.Read(id, Blob, 1<<30); !errors.Is(err, cold.ErrCorrupt) {
			t.Errorf("text %v: %v", text, err)
		}
	}
}
