package odb

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"iter"
)

// maxCopy is how many bytes one instruction of a delta copies at most; some readers support no more.
const maxCopy = 0x10000

// pieces yields the entries of a tree or the lines of a blob. Whatever data is, the pieces together are all of data.
func pieces(t Type, data []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(data) > 0 {
			end := -1
			if t != Tree {
				end = bytes.IndexByte(data, '\n')
			} else if end = bytes.IndexByte(data, 0); end >= 0 {
				end += hashSize
			}
			if end < 0 || end >= len(data) {
				end = len(data) - 1
			}
			if !yield(data[:end+1]) {
				return
			}
			data = data[end+1:]
		}
	}
}

// pieceDelta returns a delta that makes target of base by copying those pieces that base has. Unlike a bytewise delta
// it works well even if the pieces are very similar, and it looks at each piece only once.
func pieceDelta(t Type, base, target []byte, seed maphash.Seed) []byte {
	at := make(map[uint64]int32, len(base)/64)
	off := int32(0)
	for p := range pieces(t, base) {
		at[maphash.Bytes(seed, p)] = off
		off += int32(len(p))
	}
	d := deltaBuilder{out: appendSize(appendSize(nil, int64(len(base))), int64(len(target)))}
	next := 0 // where the last copied piece ends in base
	for p := range pieces(t, target) {
		if !bytes.HasPrefix(base[next:], p) {
			from, ok := at[maphash.Bytes(seed, p)]
			if !ok || !bytes.HasPrefix(base[from:], p) {
				d.insert(p)
				continue
			}
			next = int(from)
		}
		d.copy(next, len(p))
		next += len(p)
	}
	return d.done()
}

// deltaBuilder builds a delta's instructions, and merges adjacent ones.
type deltaBuilder struct {
	out    []byte
	fresh  []byte // bytes to insert
	off, n int    // range of the base to copy
}

func (d *deltaBuilder) insert(p []byte) {
	d.flushCopy()
	d.fresh = append(d.fresh, p...)
}

func (d *deltaBuilder) copy(off, n int) {
	d.flushInsert()
	if d.n > 0 && d.off+d.n == off {
		d.n += n
		return
	}
	d.flushCopy()
	d.off, d.n = off, n
}

func (d *deltaBuilder) flushInsert() {
	for p := d.fresh; len(p) > 0; {
		n := min(len(p), 0x7f)
		d.out = append(append(d.out, byte(n)), p[:n]...)
		p = p[n:]
	}
	d.fresh = d.fresh[:0]
}

func (d *deltaBuilder) flushCopy() {
	for d.n > 0 {
		n := min(d.n, maxCopy)
		var args [7]byte
		binary.LittleEndian.PutUint32(args[:], uint32(d.off))
		if n < maxCopy { // maxCopy is encoded as 0
			binary.LittleEndian.PutUint16(args[4:], uint16(n))
		}
		op := len(d.out)
		d.out = append(d.out, 0x80)
		for i, b := range args {
			if b != 0 {
				d.out[op] |= 1 << i
				d.out = append(d.out, b)
			}
		}
		d.off, d.n = d.off+n, d.n-n
	}
}

func (d *deltaBuilder) done() []byte {
	d.flushInsert()
	d.flushCopy()
	return d.out
}

// appendSize appends one of the two sizes with which a delta begins.
func appendSize(b []byte, n int64) []byte {
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n&0x7f)|0x80)
	}
	return append(b, byte(n))
}
