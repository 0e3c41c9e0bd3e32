package odb

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/klauspost/compress/zlib"

	"emberfs/tiers/cold"
)

// rawPack builds packs by hand, wrong ones too.
type rawPack struct {
	b bytes.Buffer
	n uint32
	z *zlib.Writer
}

func newRawPack() *rawPack {
	p := &rawPack{z: zlib.NewWriter(nil)}
	p.b.Write(make([]byte, packHeader))
	return p
}

// add appends an entry with a declared size and returns its offset.
func (p *rawPack) add(t Type, size int64, between, data []byte) int64 {
	off := int64(p.b.Len())
	p.b.Write(appendEntryHeader(nil, t, size))
	p.b.Write(between)
	p.z.Reset(&p.b)
	_, _ = p.z.Write(data)
	_ = p.z.Close()
	p.n++
	return off
}

func (p *rawPack) blob(data string) int64 { return p.add(Blob, int64(len(data)), nil, []byte(data)) }

func (p *rawPack) ofs(base int64, delta []byte) int64 {
	dist := int64(p.b.Len()) - base
	enc := []byte{byte(dist & 0x7f)}
	for dist >>= 7; dist > 0; dist >>= 7 {
		dist--
		enc = append([]byte{byte(dist&0x7f) | 0x80}, enc...)
	}
	return p.add(ofsDelta, int64(len(delta)), enc, delta)
}

func (p *rawPack) ref(base ID, delta []byte) int64 {
	return p.add(refDelta, int64(len(delta)), base[:], delta)
}

// bytes seals the pack.
func (p *rawPack) bytes() []byte {
	b := bytes.Clone(p.b.Bytes())
	copy(b, "PACK")
	binary.BigEndian.PutUint32(b[4:], 2)
	binary.BigEndian.PutUint32(b[8:], p.n)
	sum := sha1.Sum(b)
	return append(b, sum[:]...)
}

func hashOf(s string) ID {
	id, _ := HashObject(Blob, []byte(s))
	return id
}

func delta(from, to string) []byte { return packfile.DiffDelta([]byte(from), []byte(to)) }

func TestIndexPackRefuses(t *testing.T) {
	t.Parallel()
	const text = "some text that is long enough for a delta to copy from it"
	id := hashOf(text)
	long := append(append([]byte{}, 57, 0xff, 0xff, 0xff, 0x7f), bytes.Repeat([]byte{0x80 | 0x10, 57}, 4)...)
	packed := func(fill func(p *rawPack)) []byte {
		p := newRawPack()
		fill(p)
		return p.bytes()
	}
	sound := packed(func(p *rawPack) { p.blob(text) })
	wrong := bytes.Clone(sound)
	wrong[len(wrong)-1]++
	for name, c := range map[string]struct {
		want error
		opt  Options
		pack []byte
	}{
		"empty input":     {io.ErrUnexpectedEOF, Options{}, nil},
		"no pack":         {cold.ErrCorrupt, Options{}, []byte("HTTP/1.1 404 Not Found\r\n")},
		"cut off":         {io.ErrUnexpectedEOF, Options{}, sound[:40]},
		"trailer missing": {io.ErrUnexpectedEOF, Options{}, sound[:len(sound)-20]},
		"wrong checksum":  {cold.ErrCorrupt, Options{}, wrong},
		"count too high":  {cold.ErrCorrupt, Options{}, packed(func(p *rawPack) { p.blob(text); p.n++ })},
		"count too low":   {cold.ErrCorrupt, Options{}, packed(func(p *rawPack) { p.blob(text); p.blob("b"); p.n-- })},
		"size too low":    {cold.ErrCorrupt, Options{}, packed(func(p *rawPack) { p.add(Blob, 3, nil, []byte(text)) })},
		"size too high": {cold.ErrCorrupt, Options{}, packed(func(p *rawPack) {
			p.add(Blob, 300, nil, []byte(text))
		})},
		"unknown type": {cold.ErrCorrupt, Options{}, packed(func(p *rawPack) { p.add(5, 1, nil, []byte("x")) })},
		"twice":        {cold.ErrCorrupt, Options{}, packed(func(p *rawPack) { p.blob(text); p.blob(text) })},
		"base outside": {cold.ErrCorrupt, Options{}, packed(func(p *rawPack) {
			p.blob(text)
			p.ofs(5, delta(text, "x"))
		})},
		"base no entry": {cold.ErrCorrupt, Options{}, packed(func(p *rawPack) {
			o := p.blob(text)
			p.ofs(o+1, delta(text, "x"))
		})},
		"base itself": {cold.ErrMissing, Options{}, packed(func(p *rawPack) { p.ref(hashOf("x"), delta("x", "x")) })},
		"wrong base size": {cold.ErrCorrupt, Options{}, packed(func(p *rawPack) {
			p.blob(text)
			p.ref(id, delta("other", "x"))
		})},
		"empty delta": {cold.ErrCorrupt, Options{}, packed(func(p *rawPack) { p.blob(text); p.ref(id, nil) })},
		"huge delta": {ErrTooLarge, Options{MaxDelta: 1 << 20}, packed(func(p *rawPack) {
			p.blob(text)
			p.ref(id, long)
		})},
		"lying delta": {cold.ErrCorrupt, Options{}, packed(func(p *rawPack) { p.blob(text); p.ref(id, long) })},
		"too many objects": {ErrTooLarge, Options{MaxPackObjects: 1}, packed(func(p *rawPack) {
			p.blob(text)
			p.blob("b")
		})},
		"too long chain": {cold.ErrCorrupt, Options{MaxDepth: 3999}, packed(func(p *rawPack) {
			o := p.blob(text)
			for i := range 4000 {
				o = p.ofs(o, []byte{57, 57, 0x80 | 0x10, 52, 5, byte(i), byte(i >> 8), 1, 1, 1})
			}
		})},
		"too much made of deltas": {ErrTooLarge, Options{MaxInflate: 1 << 20}, packed(func(p *rawPack) {
			o := p.add(Blob, 100_000, nil, make([]byte, 100_000))
			for i := range 100 {
				o = p.ofs(o, append([]byte{0xa0, 0x8d, 6, 0xa0, 0x8d, 6}, 0x80|0x10|0x20|0x40, 0x9f, 0x86, 1, 1,
					byte(i)))
			}
		})},
		"too many bytes": {ErrTooLarge, Options{}, packed(func(p *rawPack) {
			p.add(Blob, 2<<20, nil, newSeeded(1).bytes(2<<20, false))
		})},
	} {
		t.Run(name, func(t *testing.T) {
			dir, db := newRepo(t, c.opt)
			if _, _, err := db.IndexPack(bytes.NewReader(c.pack), 1<<20); !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if m, _ := filepath.Glob(filepath.Join(dir, "objects/pack/*")); len(m) != 0 {
				t.Fatalf("left over: %v", m)
			}
		})
	}
	dir, db := newRepo(t, Options{})
	n, keep, err := db.IndexPack(bytes.NewReader(newRawPack().bytes()), 1<<20)
	if err != nil || n != 0 || keep() != nil {
		t.Fatalf("empty pack: %d, %v", n, err)
	}
	if _, _, err := db.IndexPack(io.MultiReader(strings.NewReader("PA"), &failing{}), 0); !errors.Is(err, errBroken) {
		t.Fatalf("broken wire: %v", err)
	}
	if m, _ := filepath.Glob(filepath.Join(dir, "objects/pack/*")); len(m) != 0 {
		t.Fatalf("left over: %v", m)
	}
}

// plant puts a pack into the repository as it is, with an index that says what the test wants.
func plant(t *testing.T, dir string, pack []byte, objs []packedObject) {
	t.Helper()
	var sum ID
	copy(sum[:], pack[len(pack)-hashSize:])
	base := filepath.Join(dir, "objects/pack/pack-"+sum.String())
	f, err := os.Create(base + ".idx")
	check(t, err)
	check(t, errors.Join(writeIndex(f, objs, sum), f.Close(), os.WriteFile(base+".pack", pack, 0o644)))
}

func TestHostilePacks(t *testing.T) {
	dir, db := newRepo(t, Options{MaxDelta: 1 << 20, MaxDepth: 100})
	p := newRawPack()
	a, b, c, d, e := ID{0xa}, ID{0xb}, ID{0xc}, ID{0xd}, ID{0xe}
	var objs []packedObject
	at := func(id ID, off int64) { objs = append(objs, packedObject{id: id, off: off}) }
	at(a, p.ref(b, delta("x", "y"))) // a and b are based on each other
	at(b, p.ref(a, delta("x", "y")))
	at(c, p.add(Blob, 1<<40, nil, []byte("not that much")))
	o := p.blob("x")
	at(hashOf("x"), o)
	at(d, p.ofs(o, append([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x7f}, 1, 'y'))) // 32 GB of 'x', says the delta
	for range 200 {
		o = p.ofs(o, delta("x", "x"))
	}
	at(e, o)
	at(ID{0xf}, 1<<35) // far behind the end
	at(ID{0x10}, int64(p.b.Len())+5)
	plant(t, dir, p.bytes(), objs)
	check(t, db.Refresh())
	if packs, _, _ := db.Stats(); packs != 0 {
		t.Fatal("a pack whose index has another count was taken")
	}
	// Now with counts that agree.
	q := newRawPack()
	q.b = p.b
	q.n = uint32(len(objs))
	plant(t, dir, q.bytes(), objs)
	check(t, db.Refresh())
	if packs, _, _ := db.Stats(); packs != 1 {
		t.Fatalf("%d packs", packs)
	}
	for _, o := range objs {
		good := o.id == hashOf("x")
		_, err := db.Read(o.id, Blob, 1<<30)
		_, serr := readStream(db, o.id)
		for _, err := range []error{err, serr} {
			if good != (err == nil) || !good && !errors.Is(err, cold.ErrCorrupt) && !errors.Is(err, ErrTooLarge) {
				t.Errorf("%s: %v", o.id, err)
			}
		}
		s, err := NewPackStream(io.Discard, 1)
		check(t, err)
		_ = db.CopyTo(s, o.id) // must not hang or crash; the receiver checks
	}
}

func TestPackStream(t *testing.T) {
	t.Parallel()
	dir, db := newRepo(t, Options{})
	rnd := newSeeded(50)
	var ids []ID
	publish(t, db, func(w *Writer) {
		for _, n := range []int{0, 1, 5000, smallBlob + 10} {
			ids = append(ids, mustPut(t, w, Blob, rnd.bytes(n, n < 10_000)))
		}
	})
	for _, n := range []int{10, smallBlob + 20} { // loose
		out, err := gitErr(dir, rnd.bytes(n, true), "hash-object", "-w", "--stdin")
		check(t, err)
		ids = append(ids, mustID(t, out))
	}
	base, next := rnd.bytes(smallBlob+100, true), []byte(nil)
	next = append(bytes.Clone(base), "and more"...)
	p := newRawPack()
	p.add(Blob, int64(len(base)), nil, base)
	bid, _ := HashObject(Blob, base)
	nid, _ := HashObject(Blob, next)
	p.ref(bid, packfile.DiffDelta(base, next))
	small := "a small text that is used as a base of a delta"
	p.blob(small)
	p.ref(hashOf(small), delta(small, small+"!"))
	if _, _, err := db.IndexPack(bytes.NewReader(p.bytes()), 0); err != nil {
		t.Fatal(err)
	}
	ids = append(ids, bid, nid, hashOf(small), hashOf(small+"!"))

	var wire bytes.Buffer
	s, err := NewPackStream(&wire, len(ids)+2)
	check(t, err)
	for _, id := range append(ids, EmptyTree) {
		check(t, db.CopyTo(s, id))
	}
	if err := s.Close(); err == nil {
		t.Fatal("an unfinished pack was closed")
	}
	check(t, s.Add(Blob, []byte("direct")))
	if err := s.Add(Blob, []byte("too many")); err == nil {
		t.Fatal("too many objects")
	}
	if err := db.CopyTo(s, ID{1}); !errors.Is(err, cold.ErrMissing) {
		t.Fatal(err)
	}
	check(t, s.Close())
	if s.Bytes() != int64(wire.Len()) {
		t.Fatalf("%d bytes, sent %d", s.Bytes(), wire.Len())
	}
	to := t.TempDir()
	git(t, to, "init", "-q", "--bare")
	if out, err := gitErr(to, wire.Bytes(), "index-pack", "--stdin", "--strict"); err != nil {
		t.Fatal(out, err)
	}
	for _, id := range ids {
		if got := git(t, to, "cat-file", "-t", id.String()); got != "blob\n" {
			t.Fatal(got)
		}
	}
}
