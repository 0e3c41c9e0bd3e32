package odb

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/go-git/go-git/v5/plumbing/format/packfile"

	"emberfs/tiers/cold"
)

func FuzzDecodeTree(f *testing.F) {
	data, err := EncodeTree([]TreeEntry{{ModeFile, "a", ID{1}}, {ModeTree, "b", ID{2}}, {ModeSymlink, "\xff", ID{3}}})
	check(f, err)
	f.Add(data)
	f.Add([]byte("100644 a\x00short"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := DecodeTree(data)
		if err != nil {
			if !errors.Is(err, cold.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		again, err := EncodeTree(entries)
		check(t, err)
		if !bytes.Equal(again, data) && !bytes.Contains(data, []byte("100664 ")) {
			t.Fatalf("%q became %q", data, again)
		}
	})
}

func FuzzDecodeCommit(f *testing.F) {
	data, err := EncodeCommit(CommitData{Tree: EmptyTree, Parents: []ID{{1}}, Author: Signature{Name: "a"},
		Message: "m"})
	check(f, err)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := DecodeCommit(data)
		if err != nil {
			if !errors.Is(err, cold.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if bytes.IndexByte([]byte(c.Message), 0) >= 0 {
			return
		}
		// What was written again reads the same.
		one, err := EncodeCommit(c)
		check(t, err)
		d, err := DecodeCommit(one)
		if err != nil {
			t.Fatalf("%q became %q: %v", data, one, err)
		}
		if two, err := EncodeCommit(d); err != nil || !bytes.Equal(one, two) {
			t.Fatalf("%q became %q, then %q: %v", data, one, two, err)
		}
	})
}

func FuzzIndex(f *testing.F) {
	var b bytes.Buffer
	check(f, writeIndex(&b, []packedObject{{ID{1}, 2, 12}, {ID{1, 2}, 3, 1 << 33}, {ID{0xff}, 4, 99}}, ID{9}))
	f.Add(b.Bytes(), []byte{1})
	f.Fuzz(func(t *testing.T, data, id []byte) {
		x, err := parseIndex(data)
		if err != nil {
			if !errors.Is(err, cold.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		var want ID
		copy(want[:], id)
		if i := x.find(want); i >= 0 && x.id(i) != want {
			t.Fatal("found something else")
		}
		for i := range x.count {
			x.offset(i)
			x.crc(i)
			x.find(x.id(i))
		}
	})
}

func FuzzEntryHeader(f *testing.F) {
	for _, size := range []int64{0, 15, 16, 1 << 40} {
		f.Add(appendEntryHeader(nil, Blob, size), int64(100))
	}
	f.Add([]byte{0x65, 0x10}, int64(40))
	f.Fuzz(func(t *testing.T, data []byte, off int64) {
		if off < packHeader || off > 1<<60 {
			return
		}
		h, err := readEntryHeader(bytes.NewReader(data), off)
		if err != nil {
			return
		}
		n := h.data - off
		if n < 1 || n > int64(len(data)) || h.size < 0 {
			t.Fatalf("%+v", h)
		}
		if h.typ == ofsDelta && (h.base < packHeader || h.base >= off) {
			t.Fatalf("base %d of %d", h.base, off)
		}
		if !h.isDelta() {
			back, err := readEntryHeader(bytes.NewReader(appendEntryHeader(nil, h.typ, h.size)), off)
			if err != nil || back.size != h.size || back.typ != h.typ {
				t.Fatalf("%+v, %+v, %v", h, back, err)
			}
		}
	})
}

// FuzzDelta compares with go-git's decoder.
func FuzzDelta(f *testing.F) {
	const base = "the quick brown fox jumps over the lazy dog, again and again and again"
	f.Add([]byte(base), packfile.DiffDelta([]byte(base),
		[]byte("the lazy dog jumps over the quick brown fox, again and again")))
	f.Add([]byte("x"), []byte{1, 2, 0x90, 1, 1, 'y'})
	f.Fuzz(func(t *testing.T, base, delta []byte) {
		c := &content{mem: base, size: int64(len(base))}
		d, err := newDeltaReader(c, c.size, bufio.NewReader(bytes.NewReader(delta)))
		if err != nil {
			if !errors.Is(err, cold.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if d.left > 1<<20 {
			return
		}
		size := d.left
		got, err := io.ReadAll(d)
		if err != nil {
			if !errors.Is(err, cold.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if int64(len(got)) != size {
			t.Fatalf("%d bytes, declared %d", len(got), size)
		}
		if want, err := packfile.PatchDelta(base, delta); err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%q, go-git says %q", got, want)
		}
	})
}

// FuzzIndexPack feeds packs as they come from a remote; what is accepted must read back.
func FuzzIndexPack(f *testing.F) {
	p := newRawPack()
	o := p.blob("some text to copy from, long enough for a copy")
	p.ofs(o, delta("some text to copy from, long enough for a copy", "some text to copy from, long enough for a copy!"))
	p.ref(hashOf("some text to copy from, long enough for a copy"),
		delta("some text to copy from, long enough for a copy", "some text to copy from"))
	f.Add(p.bytes()[packHeader:], uint8(3))
	dir, db := newRepo(f, Options{MaxDelta: 1 << 20, MaxInflate: 1 << 22})
	_ = dir
	f.Fuzz(func(t *testing.T, body []byte, count uint8) {
		if len(body) < hashSize {
			return
		}
		// The fuzzer cannot guess a checksum.
		raw := &rawPack{n: uint32(count)}
		raw.b.Write(make([]byte, packHeader))
		raw.b.Write(body[:len(body)-hashSize])
		pf, err := db.newPackFile()
		check(t, err)
		in := newFetched(db, pf)
		err = in.run(bytes.NewReader(raw.bytes()), 1<<20)
		if err = errors.Join(err, in.last.close()); err == nil {
			for _, o := range pf.objs {
				if o.id.IsZero() || o.off < packHeader {
					t.Errorf("%+v", o)
				}
			}
		} else if !errors.Is(err, cold.ErrCorrupt) && !errors.Is(err, ErrTooLarge) &&
			!errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
		check(t, pf.discard())
	})
}

func FuzzParseRefs(f *testing.F) {
	f.Add([]byte("# pack-refs with: peeled fully-peeled sorted \n4b825dc642cb6eb9a060e54bf8d69288fbee4904 "+
		"refs/heads/a\n^4b825dc642cb6eb9a060e54bf8d69288fbee4904\n"), "refs/heads/a")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		kept, dropped, err := withoutPacked(data, name)
		if err != nil {
			if !errors.Is(err, cold.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if !dropped && !bytes.Equal(kept, data) {
			t.Fatalf("%q became %q", data, kept)
		}
		if checkRefName(name) == nil && bytes.ContainsAny([]byte(name), "\x00\n") {
			t.Fatalf("%q is accepted", name)
		}
	})
}

// FuzzLinks reads what a received tree, commit or tag names; only the empty tree is here.
func FuzzLinks(f *testing.F) {
	here := EmptyTree.String()
	f.Add([]byte("tree " + here + "\nparent " + here + "\nauthor a\n"))
	f.Add([]byte("object " + here + "\ntype tree\n"))
	f.Add(append([]byte("40000 d\x00"), EmptyTree[:]...))
	f.Add(append([]byte("100644 f\x00"), make([]byte, hashSize)...))
	f.Add(append([]byte("160000 m\x00"), make([]byte, hashSize)...))
	_, db := newRepo(f, Options{})
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &links{db: db}
		for _, read := range []func(ID, *bufio.Reader) error{c.tree, c.commit, c.tag} {
			if err := read(ID{1}, bufio.NewReaderSize(bytes.NewReader(data), 64)); err != nil &&
				!errors.Is(err, cold.ErrCorrupt) {
				t.Error(err)
			}
		}
		entries, err := DecodeTree(data)
		missing := slices.ContainsFunc(entries, func(e TreeEntry) bool {
			return e.Mode != ModeGitlink && e.ID != EmptyTree
		})
		if err == nil && missing == (c.tree(ID{1}, bufio.NewReader(bytes.NewReader(data))) == nil) {
			t.Errorf("something is missing: %v", missing)
		}
		if commit, err := DecodeCommit(data); err == nil {
			named := append(commit.Parents, commit.Tree)
			missing := slices.ContainsFunc(named, func(id ID) bool { return id != EmptyTree })
			if missing == (c.commit(ID{1}, bufio.NewReader(bytes.NewReader(data))) == nil) {
				t.Errorf("something is missing: %v", missing)
			}
		}
	})
}
