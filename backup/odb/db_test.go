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

	"emberfs/tiers"
)

func mustID(t testing.TB, s string) ID {
	t.Helper()
	id, err := tiers.ParseID(strings.TrimSpace(s))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestWriteReadAndStockGit(t *testing.T) {
	dir, db := newRepo(t, Options{})
	rnd := newSeeded(1)
	contents := [][]byte{{}, []byte("x"), rnd.bytes(100, true), rnd.bytes(70_000, true), rnd.bytes(200_000, false),
		rnd.bytes(smallBlob, true), rnd.bytes(smallBlob+1, false), rnd.bytes(3<<20, true), rnd.bytes(5<<20, false)}
	ids := make([]ID, len(contents))
	var commit ID
	w := publish(t, db, func(w *Writer) {
		for i, c := range contents {
			var err error
			if ids[i], err = w.PutStream(int64(len(c)), bytes.NewReader(c), nil); err != nil {
				t.Fatal(err)
			}
			if again := mustPut(t, w, Blob, c); again != ids[i] {
				t.Fatalf("Put gives %s, PutStream %s", again, ids[i])
			}
		}
		files := map[string][]byte{}
		for i, c := range contents {
			files[fmt.Sprintf("f%d", i)] = c
		}
		var err error
		if commit, err = putCommit(w, ID{}, 0, files); err != nil {
			t.Fatal(err)
		}
		if w.Len() != len(contents)+2 || !w.Has(commit) {
			t.Fatalf("writer has %d objects", w.Len())
		}
	})
	if err := db.UpdateRef("refs/heads/main", ID{}, commit); err != nil {
		t.Fatal(err)
	}
	if err := w.Release(); err != nil {
		t.Fatal(err)
	}
	fsck(t, dir)
	if n := checkAll(t, dir, db); n != len(contents)+2 {
		t.Fatalf("git sees %d objects", n)
	}
	for i, id := range ids {
		b, err := db.Stream(id)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(got, contents[i]) || b.Size() != int64(len(got)) {
			t.Fatalf("stream %d: %d bytes, %v", i, len(got), err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "objects/pack/*")); len(left) != 2 {
		t.Fatalf("objects/pack holds %v", left)
	}
}

func TestReadWhatGitWrites(t *testing.T) {
	work := t.TempDir()
	git(t, work, "init", "-q", "-b", "main")
	rnd := newSeeded(2)
	doc := rnd.bytes(40_000, true)
	for i := range 60 {
		copy(doc[i*500:], fmt.Sprintf("version %d", i))
		if err := os.WriteFile(filepath.Join(work, "doc"), doc, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(work, fmt.Sprintf("f%d", i)), []byte{byte(i)}, 0o755); err != nil {
			t.Fatal(err)
		}
		git(t, work, "add", ".")
		git(t, work, "commit", "-q", "-m", fmt.Sprint(i))
	}
	git(t, work, "tag", "-a", "-m", "a tag", "v1")
	bare := filepath.Join(work, ".git")
	git(t, bare, "config", "core.bare", "true")
	check := func(what string) {
		t.Helper()
		for _, mem := range []int64{0, 1000} { // the second run spills delta bases to files
			db, err := OpenReadOnly(bare, Options{DeltaMemory: mem, DeltaCache: mem})
			if err != nil {
				t.Fatal(err)
			}
			if n := checkAll(t, bare, db); n < 180 {
				t.Fatalf("%s: %d objects", what, n)
			}
			refs, err := db.Refs("")
			if err != nil || len(refs) != 2 {
				t.Fatalf("%s: refs %v, %v", what, refs, err)
			}
			for name, id := range refs {
				if want := mustID(t, git(t, bare, "rev-parse", name)); id != want {
					t.Fatalf("%s: %s is %s, git says %s", what, name, id, want)
				}
			}
			head, err := db.Ref("HEAD")
			if err != nil || head != refs["refs/heads/main"] {
				t.Fatalf("%s: HEAD %s, %v", what, head, err)
			}
			walkTrees(t, db, head)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	check("loose")
	git(t, bare, "repack", "-adfq", "--depth=50", "--window=50")
	git(t, bare, "pack-refs", "--all")
	check("packed with OFS_DELTA")
	git(t, bare, "config", "repack.useDeltaBaseOffset", "false")
	git(t, bare, "repack", "-adfq", "--depth=50", "--window=50")
	check("packed with REF_DELTA")
	git(t, bare, "config", "pack.packSizeLimit", "1m")
	git(t, bare, "repack", "-adfq", "--write-midx")
	check("with a multi-pack-index")
}

// walkTrees decodes every commit and tree of the first-parent history.
func walkTrees(t *testing.T, db *DB, id ID) {
	t.Helper()
	for !id.IsZero() {
		data, err := db.Read(id, Commit, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		c, err := DecodeCommit(data)
		if err != nil {
			t.Fatal(err)
		}
		if data, err = db.Read(c.Tree, Tree, 1<<20); err != nil {
			t.Fatal(err)
		}
		entries, err := DecodeTree(data)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := EncodeTree(entries); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("tree %s does not encode to itself: %v", c.Tree, err)
		}
		id = ID{}
		if len(c.Parents) > 0 {
			id = c.Parents[0]
		}
	}
}

func TestMissingAndDamaged(t *testing.T) {
	dir, db := newRepo(t, Options{})
	rnd := newSeeded(3)
	small, big := rnd.bytes(5000, true), rnd.bytes(smallBlob+5000, false)
	var sid, bid ID
	publish(t, db, func(w *Writer) { sid, bid = mustPut(t, w, Blob, small), mustPut(t, w, Blob, big) })

	_, err := db.Read(ID{1}, Blob, 10)
	if !errors.Is(err, tiers.ErrMissing) || !strings.Contains(err.Error(), ID{1}.String()) {
		t.Fatalf("missing object: %v", err)
	}
	if _, err := db.Read(sid, Tree, 1<<20); !errors.Is(err, tiers.ErrCorrupt) {
		t.Fatalf("wrong type: %v", err)
	}
	if _, err := db.Read(sid, Blob, 4999); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("too large: %v", err)
	}
	if db.Has(ID{1}) || !db.Has(sid) || !db.Has(EmptyTree) {
		t.Fatal("Has is wrong")
	}
	// One flipped byte anywhere in the entries is noticed; where it is not in this object, the object stays readable.
	pack := onlyFile(t, filepath.Join(dir, "objects/pack/*.pack"))
	good, err := os.ReadFile(pack)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(pack, 0o644); err != nil {
		t.Fatal(err)
	}
	for off := packHeader; off < len(good)-hashSize; off += 1 + off/5 {
		bad := bytes.Clone(good)
		bad[off] ^= 0x10
		if err := os.WriteFile(pack, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		damaged := 0
		for id, want := range map[ID][]byte{sid: small, bid: big} {
			got, err := db.Read(id, Blob, 1<<30)
			sgot, serr := readStream(db, id)
			if (err == nil) != (serr == nil) || err == nil && (!bytes.Equal(got, want) || !bytes.Equal(sgot, want)) {
				t.Fatalf("flipped byte %d: Read: %v, Stream: %v", off, err, serr)
			}
			if err != nil {
				damaged++
				if !errors.Is(err, tiers.ErrCorrupt) && !errors.Is(err, ErrTooLarge) {
					t.Fatalf("flipped byte %d: %v", off, err)
				}
			}
		}
		if damaged > 1 {
			t.Fatalf("flipped byte %d: %d objects are damaged", off, damaged)
		}
	}
	// A second, good copy helps.
	if err := os.WriteFile(pack, append(bytes.Clone(good[:20]), make([]byte, len(good)-20)...), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := gitErr(dir, small, "hash-object", "-w", "--stdin"); err != nil {
		t.Fatal(err)
	}
	if got, err := db.Read(sid, Blob, 1<<20); err != nil || !bytes.Equal(got, small) {
		t.Fatalf("good loose copy: %v", err)
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
	if err := os.Remove(wa.mu.packs[0].final + ".idx"); err != nil {
		t.Fatal(err)
	}
	packDir := filepath.Join(dir, "objects/pack")
	for name, data := range map[string]string{"pack-1.idx": "torn", "pack-1.pack": "PACK", "pack-2.idx": "no pack", "pack-3.pack": ""} {
		if err := os.WriteFile(filepath.Join(packDir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Refresh(); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Read(b, Blob, 10); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Read(a, Blob, 10); !errors.Is(err, tiers.ErrMissing) {
		t.Fatal(err)
	}
	if packs, _, _ := db.Stats(); packs != 1 {
		t.Fatalf("%d packs", packs)
	}
}
