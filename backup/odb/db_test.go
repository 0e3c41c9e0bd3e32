package odb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"emberfs/tiers/cold"
)

func mustID(t testing.TB, s string) ID {
	t.Helper()
	id, err := cold.ParseID(strings.TrimSpace(s))
	check(t, err)
	return id
}

func TestWriteReadAndStockGit(t *testing.T) {
	t.Parallel()
	dir, db := newRepo(t, Options{})
	rnd := newSeeded(1)
	contents := [][]byte{{}, []byte("x"), rnd.bytes(100, true), rnd.bytes(70_000, true), rnd.bytes(200_000, false),
		rnd.bytes(smallBlob, true), rnd.bytes(smallBlob+1, false), rnd.bytes(3<<20, true), rnd.bytes(5<<20, false)}
	ids := make([]ID, len(contents))
	var commit ID
	w := publish(t, db, func(w *Writer) {
		for i, c := range contents {
			var err error
			ids[i], err = w.PutStream(int64(len(c)), bytes.NewReader(c), nil)
			check(t, err)
			if again := mustPut(t, w, Blob, c); again != ids[i] {
				t.Fatalf("Put gives %s, PutStream %s", again, ids[i])
			}
		}
		files := map[string][]byte{}
		for i, c := range contents {
			files[fmt.Sprintf("f%d", i)] = c
		}
		commit = mustPutCommit(t, w, ID{}, 0, files)
		if w.Len() != len(contents)+2 || !w.Has(commit) {
			t.Fatalf("writer has %d objects", w.Len())
		}
	})
	check(t, db.UpdateRef("refs/heads/main", ID{}, commit))
	check(t, w.Release())
	fsck(t, dir)
	if n := checkAll(t, dir, db); n != len(contents)+2 {
		t.Fatalf("git sees %d objects", n)
	}
	for i, id := range ids {
		b, err := db.Stream(id)
		check(t, err)
		got, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(got, contents[i]) || b.Size() != int64(len(got)) {
			t.Fatalf("stream %d: %d bytes, %v", i, len(got), err)
		}
		check(t, b.Close())
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "objects/pack/*")); len(left) != 2 {
		t.Fatalf("objects/pack holds %v", left)
	}
}

func readStream(db *DB, id ID) ([]byte, error) {
	b, err := db.Stream(id)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(b)
	return got, errors.Join(err, b.Close())
}

func onlyFile(t *testing.T, pattern string) string {
	t.Helper()
	m, err := filepath.Glob(pattern)
	if err != nil || len(m) != 1 {
		t.Fatalf("%s: %v, %v", pattern, m, err)
	}
	return m[0]
}

func TestBadPackHidesNoOther(t *testing.T) {
	dir, db := newRepo(t, Options{})
	var a, b ID
	wa := publish(t, db, func(w *Writer) { a = mustPut(t, w, Blob, []byte("a")) })
	publish(t, db, func(w *Writer) { b = mustPut(t, w, Blob, []byte("b")) })
	check(t, os.Remove(wa.mu.packs[0].final+".idx"))
	packDir := filepath.Join(dir, "objects/pack")
	for name, data := range map[string]string{"pack-1.idx": "torn", "pack-1.pack": "PACK", "pack-2.idx": "no pack",
		"pack-3.pack": ""} {
		check(t, os.WriteFile(filepath.Join(packDir, name), []byte(data), 0o644))
	}
	check(t, db.Refresh())
	if _, err := db.Read(b, Blob, 10); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Read(a, Blob, 10); !errors.Is(err, cold.ErrMissing) {
		t.Fatal(err)
	}
	if packs, _, _ := db.Stats(); packs != 1 {
		t.Fatalf("%d packs", packs)
	}
}
