package odb

import (
	"bytes"
	"errors"
	"testing"

	"emberfs/tiers/cold"
)

// quick reports whether the quick way reads an object.
func quick(t *testing.T, db *DB, id ID, buf []byte) bool {
	t.Helper()
	var typ Type
	check(t, db.each(id, func(s source) error {
		typ, _ = db.readQuick(s, id, Blob, 1<<30, buf)
		return nil
	}))
	return typ == Blob
}

func TestReadInto(t *testing.T) {
	_, db := newRepo(t, Options{})
	for _, text := range []bool{false, true} {
		for _, size := range []int{0, 1, 100, 65534, 65535, 65536, 131070, 200_000, 1 << 20} {
			data := newSeeded(byte(size)).bytes(size, text)
			var id ID
			publish(t, db, func(w *Writer) { id = mustPut(t, w, Blob, data) })
			room := make([]byte, 0, size+1)
			if !quick(t, db, id, room) {
				t.Errorf("%d bytes, text %v: not the quick way", size, text)
			}
			clear(room[:cap(room)])
			got, err := db.ReadInto(id, Blob, 1<<30, room)
			if err != nil || !bytes.Equal(got, data) || size > 0 && &got[0] != &room[:1][0] ||
				room[:cap(room)][size] != 0 {
				t.Errorf("%d bytes, text %v: %v", size, text, err)
			}
			if got, err := db.ReadInto(id, Blob, 1<<30, make([]byte, size/2)); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, text %v, into less: %v", size, text, err)
			}
			if _, err := db.ReadInto(id, Blob, int64(size)-1, room); !errors.Is(err, ErrTooLarge) {
				t.Errorf("%d bytes, limited to one less: %v", size, err)
			}
			if _, err := db.ReadInto(id, Tree, 1<<30, room); !errors.Is(err, cold.ErrCorrupt) {
				t.Errorf("%d bytes as a tree: %v", size, err)
			}
		}
	}
	if _, err := db.ReadInto(ID{1}, Blob, 10, make([]byte, 10)); !errors.Is(err, cold.ErrMissing) {
		t.Error(err)
	}
}

// What git stores at level 0 has blocks of other lengths.
func TestReadIntoWhatGitStored(t *testing.T) {
	dir, db := newRepo(t, Options{})
	data := newSeeded(90).bytes(300_000, false)
	id, err := gitErr(dir, data, "hash-object", "-w", "--stdin")
	check(t, err)
	tip := mustAdd(t, db, ID{}, 0, map[string][]byte{"a": data})
	for _, level := range []string{"0", "1", "9"} {
		git(t, dir, "-c", "pack.compression="+level, "repack", "-adfq")
		check(t, db.Refresh())
		buf := make([]byte, len(data))
		if !quick(t, db, mustID(t, id), buf) || !bytes.Equal(buf, data) {
			t.Errorf("level %s, commit %s", level, tip)
		}
	}
}

// Damage and lies in a pack: an error, never other bytes. The entry is the first, so its header is at 12.
func TestReadIntoDamage(t *testing.T) {
	const size = 150_000 // three bytes of entry header
	const z = packHeader + 3
	for _, text := range []bool{false, true} {
		data := newSeeded(91).bytes(size, text)
		for name, harm := range map[string]func(pack []byte, end int){
			"a byte":                func(p []byte, _ int) { p[z+1000] ^= 1 },
			"one more declared":     func(p []byte, _ int) { p[packHeader]++ },
			"one less declared":     func(p []byte, _ int) { p[packHeader]-- },
			"more declared":         func(p []byte, _ int) { p[packHeader+2]++ },
			"no zlib":               func(p []byte, _ int) { p[z] = 0x79 },
			"a dictionary":          func(p []byte, _ int) { p[z], p[z+1] = 0x78, 0x20+0x1f-0x7820%0x1f },
			"ends early":            func(p []byte, _ int) { p[z+2] |= 1 },
			"another kind of block": func(p []byte, _ int) { p[z+2] ^= 6 },
			"a length":              func(p []byte, _ int) { p[z+3] ^= 1 },
			"a length's complement": func(p []byte, _ int) { p[z+5] ^= 1 },
			"data behind the end":   func(p []byte, end int) { copy(p[end-6:], "\x00\x01\x00\xfe\xff") },
		} {
			dir, db := newRepo(t, Options{})
			var id ID
			publish(t, db, func(w *Writer) { id = mustPut(t, w, Blob, data) })
			harmPack(t, dir, harm)
			db = reopen(t, dir, Options{})
			buf := make([]byte, size+1000)
			if quick(t, db, id, buf) {
				t.Errorf("%s, text %v: quickly read", name, text)
			}
			if got, err := db.ReadInto(id, Blob, 1<<30, buf); !errors.Is(err, cold.ErrCorrupt) || got != nil {
				t.Errorf("%s, text %v: %d bytes, %v", name, text, len(got), err)
			}
		}
	}
}

// The id is a better check than the stream's checksum, so the checksum is ignored where the id is compared at once.
func TestReadIntoSkipsAdler(t *testing.T) {
	dir, db := newRepo(t, Options{})
	data := newSeeded(92).bytes(150_000, false)
	var id ID
	publish(t, db, func(w *Writer) { id = mustPut(t, w, Blob, data) })
	harmPack(t, dir, func(p []byte, end int) { p[end-1] ^= 1 })
	db = reopen(t, dir, Options{})
	if got, err := db.ReadInto(id, Blob, 1<<30, make([]byte, len(data))); err != nil || !bytes.Equal(got, data) {
		t.Error(err)
	}
}

// A damaged copy does not hide a good one.
func TestReadIntoTakesTheGoodCopy(t *testing.T) {
	dir, db := newRepo(t, Options{})
	data := newSeeded(93).bytes(150_000, false)
	// Loose; not if there were a pack with it.
	if _, err := gitErr(dir, data, "hash-object", "-w", "--stdin"); err != nil {
		t.Fatal(err)
	}
	var id ID
	publish(t, db, func(w *Writer) { id = mustPut(t, w, Blob, data) })
	harmPack(t, dir, func(p []byte, _ int) { p[packHeader+2000] ^= 1 })
	db = reopen(t, dir, Options{})
	buf := make([]byte, len(data))
	if got, err := db.ReadInto(id, Blob, 1<<30, buf); err != nil || !bytes.Equal(got, data) {
		t.Error(err)
	}
}
