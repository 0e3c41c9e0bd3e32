//go:build slow

package odb

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"emberfs/tiers/cold"
)

func TestPutStream(t *testing.T) {
	t.Parallel()
	dir, db := newRepo(t, Options{})
	w := newWriter(t, db)
	rnd := newSeeded(4)
	want := map[ID][]byte{}
	for _, size := range []int{0, 10, smallBlob - 1, smallBlob, smallBlob + 1, 2 * smallBlob} {
		data := rnd.bytes(size, true)
		for _, wrong := range []int64{int64(size) - 1, int64(size) + 1, int64(size) + packBuffer} {
			if wrong >= 0 {
				if _, err := w.PutStream(wrong, bytes.NewReader(data), nil); !errors.Is(err, cold.ErrSizeChanged) {
					t.Fatalf("%d bytes as %d: %v", size, wrong, err)
				}
			}
		}
		asked := ID{}
		dropped, err := w.PutStream(int64(size), bytes.NewReader(data), func(id ID) bool { asked = id; return true })
		if err != nil || asked != dropped || w.Has(dropped) {
			t.Fatalf("dropped %d bytes: %v", size, err)
		}
		broken := io.MultiReader(bytes.NewReader(data[:size/2]), &failing{})
		if _, err := w.PutStream(int64(size), broken, nil); !errors.Is(err, errBroken) {
			t.Fatalf("broken reader: %v", err)
		}
		id, err := w.PutStream(int64(size), bytes.NewReader(data), func(ID) bool { return false })
		if err != nil || id != dropped {
			t.Fatal(id, err)
		}
		want[id] = data
	}
	check(t, w.Publish())
	for id, data := range want {
		if got, err := db.Read(id, Blob, 1<<30); err != nil || !bytes.Equal(got, data) {
			t.Fatal(err)
		}
	}
	fsck(t, dir)
	if n := checkAll(t, dir, db); n != len(want) {
		t.Fatalf("%d objects, want %d", n, len(want))
	}
}

func TestMissingAndDamaged(t *testing.T) {
	t.Parallel()
	dir, db := newRepo(t, Options{})
	rnd := newSeeded(3)
	small, big := rnd.bytes(5000, true), rnd.bytes(smallBlob+5000, false)
	var sid, bid ID
	publish(t, db, func(w *Writer) { sid, bid = mustPut(t, w, Blob, small), mustPut(t, w, Blob, big) })

	_, err := db.Read(ID{1}, Blob, 10)
	if !errors.Is(err, cold.ErrMissing) || !strings.Contains(err.Error(), ID{1}.String()) {
		t.Fatalf("missing object: %v", err)
	}
	if _, err := db.Read(sid, Tree, 1<<20); !errors.Is(err, cold.ErrCorrupt) {
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
	good := readFile(t, pack)
	check(t, os.Chmod(pack, 0o644))
	for off := packHeader; off < len(good)-hashSize; off += 1 + off/5 {
		bad := bytes.Clone(good)
		bad[off] ^= 0x10
		check(t, os.WriteFile(pack, bad, 0o644))
		damaged := 0
		for id, want := range map[ID][]byte{sid: small, bid: big} {
			got, err := db.Read(id, Blob, 1<<30)
			sgot, serr := readStream(db, id)
			if (err == nil) != (serr == nil) || err == nil && (!bytes.Equal(got, want) || !bytes.Equal(sgot, want)) {
				t.Fatalf("flipped byte %d: Read: %v, Stream: %v", off, err, serr)
			}
			if err != nil {
				damaged++
				if !errors.Is(err, cold.ErrCorrupt) && !errors.Is(err, ErrTooLarge) {
					t.Fatalf("flipped byte %d: %v", off, err)
				}
			}
		}
		if damaged > 1 {
			t.Fatalf("flipped byte %d: %d objects are damaged", off, damaged)
		}
	}
	// A second, good copy helps.
	check(t, os.WriteFile(pack, append(bytes.Clone(good[:20]), make([]byte, len(good)-20)...), 0o644))
	if _, err := gitErr(dir, small, "hash-object", "-w", "--stdin"); err != nil {
		t.Fatal(err)
	}
	if got, err := db.Read(sid, Blob, 1<<20); err != nil || !bytes.Equal(got, small) {
		t.Fatalf("good loose copy: %v", err)
	}
}
