package odb

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	packHeader = 12
	minPack    = packHeader + hashSize
)

// pack is an open pack with its index. It is reference-counted: lists of packs and open streams hold references, and it
// is closed when the last one is released.
type pack struct {
	base string // path without extension
	seq  int64  // unique in the DB; part of cache keys
	f    *os.File
	size int64
	idx  *index
	refs atomic.Int64

	damaged atomic.Bool // an entry could not be copied, so the pack is not merged
	linked  atomic.Bool // it came by Link, and VerifyLinked has not verified it yet

	// Guarded by scanState.mu.
	checked bool // the index was compared with its own checksum
	stale   bool // the index is damaged, or its file was replaced

	// order holds the objects' positions in the index, sorted by their offsets in the pack. It is built when an entry
	// is first copied without inflating it.
	order struct {
		sync.Once
		byOffset []uint32
	}
}

// openPack opens base.pack and base.idx and checks that they belong together.
func openPack(base string) (*pack, error) {
	p, err := openPackFiles(base, base+".pack", base+".idx")
	if err == nil {
		p.linked.Store(isLinked(base))
	}
	return p, err
}

// openPackFiles is openPack for files that may still have temporary names.
func openPackFiles(base, packPath, idxPath string) (_ *pack, err error) {
	p := &pack{base: base}
	if p.idx, err = openIndex(idxPath); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	f, st, err := openRegular(packPath)
	if err != nil {
		return nil, err
	}
	p.f = f
	p.size = st.Size()
	if p.size < minPack {
		return nil, corruptf("pack %s.pack: %d bytes are too few", base, p.size)
	}
	var head [packHeader]byte
	if _, err := p.f.ReadAt(head[:], 0); err != nil {
		return nil, fmt.Errorf("read %s.pack: %w", base, err)
	}
	n, err := parsePackHeader(head[:])
	if err != nil {
		return nil, fmt.Errorf("pack %s.pack: %w", base, err)
	}
	var sum [hashSize]byte
	if _, err := p.f.ReadAt(sum[:], p.size-hashSize); err != nil {
		return nil, fmt.Errorf("read %s.pack: %w", base, err)
	}
	if int64(n) != int64(p.idx.count) || sum != p.idx.packSum() {
		return nil, corruptf("pack %s.pack and its index do not belong together", base)
	}
	return p, nil
}

// parsePackHeader returns the number of objects.
func parsePackHeader(h []byte) (uint32, error) {
	if !bytes.Equal(h[:4], []byte("PACK")) {
		return 0, corruptf("no pack signature")
	}
	if v := binary.BigEndian.Uint32(h[4:]); v != 2 && v != 3 {
		return 0, corruptf("pack version %d", v)
	}
	return binary.BigEndian.Uint32(h[8:]), nil
}

func (p *pack) close() error {
	err := p.idx.close()
	if p.f != nil {
		err = errors.Join(err, p.f.Close())
	}
	return err
}

func (p *pack) retain() { p.refs.Add(1) }

func (p *pack) release() error {
	if p.refs.Add(-1) == 0 {
		return p.close()
	}
	return nil
}

// name returns the pack's name for use in errors.
func (p *pack) name() string { return p.base[strings.LastIndexByte(p.base, '/')+1:] }

// entryHeader is the header before an entry's compressed bytes.
type entryHeader struct {
	typ     Type
	size    int64 // inflated size, of the object or of the delta
	off     int64 // where the entry begins
	data    int64 // where its compressed bytes begin
	base    int64 // ofsDelta: offset of the base
	baseRef ID    // refDelta: id of the base
}

func (h *entryHeader) isDelta() bool { return h.typ == ofsDelta || h.typ == refDelta }

// readEntryHeader parses the header of the entry at off, where r must be. The header says how many bytes were read from
// r: data minus off.
func readEntryHeader(r io.ByteReader, off int64) (entryHeader, error) {
	h := entryHeader{off: off, data: off}
	next := func() (byte, error) {
		b, err := r.ReadByte()
		if err == nil {
			h.data++
		} else if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return b, err
	}
	b, err := next()
	if err != nil {
		return h, err
	}
	h.typ = Type(b >> 4 & 7)
	size, shift := uint64(b&15), 4
	for b&0x80 != 0 {
		if b, err = next(); err != nil {
			return h, err
		}
		if shift > 56 {
			return h, corruptf("size of more than 63 bits")
		}
		size |= uint64(b&0x7f) << shift
		shift += 7
	}
	if size >= 1<<62 {
		return h, corruptf("size %d", size)
	}
	h.size = int64(size)
	switch h.typ {
	case Commit, Tree, Blob, Tag:
	case ofsDelta:
		if b, err = next(); err != nil {
			return h, err
		}
		dist := uint64(b & 0x7f)
		for b&0x80 != 0 {
			if b, err = next(); err != nil {
				return h, err
			}
			if dist >= 1<<54 {
				return h, corruptf("delta base is out of reach")
			}
			dist = (dist+1)<<7 | uint64(b&0x7f)
		}
		h.base = off - int64(dist)
		if dist == 0 || h.base < packHeader {
			return h, corruptf("delta base is out of reach")
		}
	case refDelta:
		for i := range h.baseRef {
			if h.baseRef[i], err = next(); err != nil {
				return h, err
			}
		}
	default:
		return h, corruptf("entry of type %d", h.typ)
	}
	return h, nil
}

// appendEntryHeader writes the header of an entry that is not a delta.
func appendEntryHeader(b []byte, t Type, size int64) []byte {
	c := byte(t)<<4 | byte(size&15)
	size >>= 4
	for size != 0 {
		b = append(b, c|0x80)
		c = byte(size & 0x7f)
		size >>= 7
	}
	return append(b, c)
}

// section returns a reader of the pack from off to its trailer.
func (p *pack) section(off int64) *io.SectionReader {
	return io.NewSectionReader(p.f, off, p.size-hashSize-off)
}

// header reads the entry header at off.
func (p *pack) header(off int64) (entryHeader, error) {
	if off < packHeader || off >= p.size-hashSize {
		return entryHeader{}, corruptf("pack %s: offset %d is outside", p.name(), off)
	}
	var buf [64]byte // the longest header has 10 + 20 bytes
	n, err := p.f.ReadAt(buf[:min(int64(len(buf)), p.size-hashSize-off)], off)
	if err != nil && !errors.Is(err, io.EOF) {
		return entryHeader{}, fmt.Errorf("read pack %s: %w", p.name(), err)
	}
	h, err := readEntryHeader(bytes.NewReader(buf[:n]), off)
	if err != nil {
		return h, corruptf("pack %s, offset %d: %v", p.name(), off, err)
	}
	return h, nil
}

// entryEnd returns where the entry at index position i ends: at the next entry's offset, or at the trailer.
func (p *pack) entryEnd(i int) (int64, error) {
	p.order.Do(func() {
		p.order.byOffset = p.offsets()
	})
	off, ok := p.idx.offset(i)
	if !ok {
		return 0, corruptf("index %s: offset of object %s", p.name(), p.idx.id(i))
	}
	by := p.order.byOffset
	at, _ := slices.BinarySearchFunc(by, off+1, func(j uint32, want int64) int {
		o, _ := p.idx.offset(int(j))
		if o < want {
			return -1
		}
		return 1
	})
	end := p.size - hashSize
	if at < len(by) {
		end, _ = p.idx.offset(int(by[at]))
	}
	if end <= off || end > p.size-hashSize {
		return 0, corruptf("index %s: entries overlap at %d", p.name(), off)
	}
	return end, nil
}

// bufioFor returns a pooled reader over r.
func (db *DB) bufioFor(r io.Reader) *bufio.Reader {
	br, ok := db.pools.buf.Get().(*bufio.Reader)
	if !ok {
		return bufio.NewReaderSize(r, 16<<10)
	}
	br.Reset(r)
	return br
}
