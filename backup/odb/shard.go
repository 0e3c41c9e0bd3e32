package odb

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/maphash"
	"io"
	"math"
	"slices"
)

// A big directory that changes often leaves a tree of some hundred KiB in every commit, and as much metadata, nearly
// all of it the same each time. When packs are merged, such versions become deltas.
const (
	shardLeast = 64 << 10 // bytes; smaller objects are not worth it
	shardMost  = 4 << 20  // bytes; making a delta takes two objects in memory, besides the cached bases
	shardCache = 24 << 20
	// The nth version of something is based on version n with its lowest non-zero digit (in base shardRadix) set to 0,
	// so that 15 deltas out of 16 span 15 versions at most.
	shardRadix = 16
	// shardVersions is the number of versions after which a new chain begins. With 4 digits, no chain has more than 4
	// links.
	shardVersions = shardRadix * shardRadix * shardRadix * shardRadix
	sketchSize    = 16
)

// shardDeltas finds bases for versions of the same tree or metadata blob. Versions must come newest first.
type shardDeltas struct {
	db       *DB
	seed     maphash.Seed
	families []*family // least recently used first
	bytes    int64
}

// family is a sequence of versions of the same thing.
type family struct {
	typ    Type
	sketch [sketchSize]uint64
	n      int // number of versions so far
	nodes  []shardNode
}

// shardNode is a version on which later ones will be based.
type shardNode struct {
	version int
	num     int // the object's number in the repacker
	data    []byte
}

func newShardDeltas(db *DB) *shardDeltas { return &shardDeltas{db: db, seed: maphash.MakeSeed()} }

// takes reports, judging by its header, whether an entry may become a delta.
func (s *shardDeltas) takes(h *entryHeader) bool {
	return (h.typ == Tree || h.typ == Blob && s.db.opt.Shard != nil) && h.size > shardLeast && h.size <= shardMost
}

// copyShard writes a version as a delta. If that does not pay it writes nothing and done is false. An entry that is
// itself the base of others stays whole, so that their chains do not grow.
func (r *repacker) copyShard(i, n int, h *entryHeader, end int64, isBase bool) (crc uint32, depth uint16, done bool,
	err error) {
	p, s := r.cur.p, r.delta
	o, err := r.db.openPlain(p, *h)
	if err != nil {
		return 0, 0, false, err
	}
	data, err := readSized(o.r, h.size, nil)
	if err = errors.Join(err, o.close()); err != nil {
		return 0, 0, false, err
	}
	if h.typ == Blob && !r.db.opt.Shard(data[:64]) {
		return 0, 0, false, nil
	}
	if id, err := HashObject(h.typ, data); err != nil || id != p.idx.id(i) {
		return 0, 0, false, errors.Join(err, corruptf("%s: content has the id %s", p.what(h.off), id))
	}
	sketch := s.sketch(h.typ, data)
	f := s.find(h.typ, sketch)
	if f == nil || isBase || f.n == shardVersions || r.slots[f.base().num].state != written {
		s.begin(h.typ, sketch, n, data)
		return 0, 0, false, nil
	}
	base := f.base()
	entry, err := s.entry(h.typ, base.data, data, r.pf.len()-r.slots[base.num].off, (end-h.off)/2)
	if err != nil {
		return 0, 0, false, err
	}
	if entry == nil {
		s.begin(h.typ, sketch, n, data)
		return 0, 0, false, nil
	}
	if err := r.pf.write(entry); err != nil {
		return 0, 0, false, err
	}
	f.sketch = sketch
	s.add(f, n, data)
	return crc32.ChecksumIEEE(entry), r.slots[base.num].depth + 1, true, nil
}

// entry returns the pack entry of a delta whose base is distance bytes before it, or nil if it would have more than
// most bytes.
func (s *shardDeltas) entry(t Type, base, data []byte, distance, most int64) ([]byte, error) {
	delta := pieceDelta(t, base, data, s.seed)
	d, err := newDeltaReader(bytes.NewReader(base), int64(len(base)), bufio.NewReader(bytes.NewReader(delta)))
	if err != nil {
		return nil, fmt.Errorf("make a delta: %w", err)
	}
	if got, err := io.ReadAll(d); err != nil || !bytes.Equal(got, data) {
		return nil, nil // the delta is wrong, but the object itself is fine
	}
	z, err := s.db.deflater()
	if err != nil {
		return nil, err
	}
	defer s.db.putDeflater(z)
	z.buf.Write(appendDeltaHeader(nil, int64(len(delta)), distance))
	z.fast.Reset(&z.buf)
	_, err = z.fast.Write(delta)
	if err = errors.Join(err, z.fast.Close()); err != nil {
		return nil, fmt.Errorf("deflate: %w", err)
	}
	if int64(z.buf.Len()) > most {
		return nil, nil
	}
	return bytes.Clone(z.buf.Bytes()), nil
}

// sketch returns numbers computed from a content's pieces (the entries of a tree, the lines of a blob), such that
// contents with many pieces in common have most of these numbers in common.
func (s *shardDeltas) sketch(t Type, data []byte) (k [sketchSize]uint64) {
	for i := range k {
		k[i] = math.MaxUint64
	}
	for p := range pieces(t, data) {
		h := maphash.Bytes(s.seed, p)
		for i := range k {
			h = h*0x9e3779b97f4a7c15 + 0x2545f4914f6cdd1d
			k[i] = min(k[i], h^h>>29)
		}
	}
	return k
}

// find returns the family that is most similar to a sketch, in at least half of the numbers, or nil.
func (s *shardDeltas) find(t Type, sketch [sketchSize]uint64) *family {
	best, like := -1, sketchSize/2
	for i, f := range s.families {
		n := 0
		for j := range sketch {
			if f.sketch[j] == sketch[j] {
				n++
			}
		}
		if f.typ == t && n >= like { // among equals the most recently used
			best, like = i, n
		}
	}
	if best < 0 {
		return nil
	}
	f := s.families[best]
	s.families = append(slices.Delete(s.families, best, best+1), f)
	return f
}

// begin begins a family with an object that is written whole.
func (s *shardDeltas) begin(t Type, sketch [sketchSize]uint64, n int, data []byte) {
	f := &family{typ: t, sketch: sketch}
	s.families = append(s.families, f)
	s.add(f, n, data)
}

// base returns the version on which the next one is to be based.
func (f *family) base() *shardNode {
	var want int
	for unit := 1; ; unit *= shardRadix {
		if digit := f.n / unit % shardRadix; digit != 0 {
			want = f.n - digit*unit
			break
		}
	}
	for i := range f.nodes {
		if f.nodes[i].version == want {
			return &f.nodes[i]
		}
	}
	return &f.nodes[0]
}

// add adds the next version of a family, and forgets versions on which no later one can be based.
func (s *shardDeltas) add(f *family, n int, data []byte) {
	v := f.n
	f.n++
	if v%shardRadix != 0 {
		return
	}
	f.nodes = slices.DeleteFunc(f.nodes, func(o shardNode) bool {
		unit := 1 // the place value of the lowest non-zero digit of v
		for v/unit%shardRadix == 0 {
			unit *= shardRadix
		}
		gone := o.version%(unit*shardRadix) != 0
		if gone {
			s.bytes -= int64(len(o.data))
		}
		return gone
	})
	f.nodes = append(f.nodes, shardNode{v, n, data})
	s.bytes += int64(len(data))
	for s.bytes > shardCache && len(s.families) > 1 {
		for _, o := range s.families[0].nodes {
			s.bytes -= int64(len(o.data))
		}
		s.families = slices.Delete(s.families, 0, 1)
	}
}

// appendDeltaHeader appends the header of a delta of size bytes whose base is distance bytes before it.
func appendDeltaHeader(b []byte, size, distance int64) []byte {
	b = appendEntryHeader(b, ofsDelta, size)
	var rev [10]byte
	n := len(rev) - 1
	rev[n] = byte(distance & 0x7f)
	for distance >>= 7; distance > 0; distance >>= 7 {
		distance--
		n--
		rev[n] = byte(distance&0x7f) | 0x80
	}
	return append(b, rev[n:]...)
}
