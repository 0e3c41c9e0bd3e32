package odb

import (
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"

	"github.com/klauspost/compress/zlib"
)

// PackStream writes a pack to a connection. It must be used by one goroutine at a time, and not any more after an
// error.
type PackStream struct {
	w     io.Writer
	sum   hash.Hash
	count int
	done  int
	bytes int64
}

// NewPackStream begins a pack of exactly count objects. The caller must make sure that they are all different.
func NewPackStream(w io.Writer, count int) (*PackStream, error) {
	if count < 0 || int64(count) > math.MaxUint32 {
		return nil, fmt.Errorf("write pack: %d objects", count)
	}
	s := &PackStream{w: w, sum: sha1.New(), count: count}
	var head [packHeader]byte
	copy(head[:], "PACK")
	binary.BigEndian.PutUint32(head[4:], 2)
	binary.BigEndian.PutUint32(head[8:], uint32(count))
	_, err := s.Write(head[:])
	return s, err
}

// Write sends raw bytes of the pack. Objects are sent by DB.CopyTo and Add.
func (s *PackStream) Write(p []byte) (int, error) {
	_, _ = s.sum.Write(p)
	n, err := s.w.Write(p)
	s.bytes += int64(n)
	if err != nil {
		return n, fmt.Errorf("send pack: %w", err)
	}
	return n, nil
}

// Bytes returns the number of bytes sent so far.
func (s *PackStream) Bytes() int64 { return s.bytes }

// begin counts an object.
func (s *PackStream) begin() error {
	if s.done == s.count {
		return fmt.Errorf("write pack: more than the %d objects announced", s.count)
	}
	s.done++
	return nil
}

// Add sends an object that is in memory.
func (s *PackStream) Add(t Type, data []byte) error {
	if err := s.begin(); err != nil {
		return err
	}
	var head [16]byte
	if _, err := s.Write(appendEntryHeader(head[:0], t, int64(len(data)))); err != nil {
		return err
	}
	z, err := zlib.NewWriterLevel(s, zlibLevel)
	if err == nil {
		_, err = z.Write(data)
	}
	if err == nil {
		err = z.Close()
	}
	return err
}

// Close sends the trailer. It is an error if there were fewer objects than announced.
func (s *PackStream) Close() error {
	if s.done != s.count {
		return fmt.Errorf("write pack: %d objects of the %d announced", s.done, s.count)
	}
	_, err := s.Write(s.sum.Sum(nil))
	return err
}

// StoredSize estimates in bytes what an object takes in a pack that CopyTo writes: what it takes here or, if it is a
// delta or loose here, its size, which is too much. The error is cold.ErrMissing or cold.ErrCorrupt as for CopyTo.
func (db *DB) StoredSize(id ID) (n int64, err error) {
	if id == EmptyTree {
		return 0, nil
	}
	err = db.each(id, func(s source) error {
		if s.p != nil {
			if h, err := s.p.header(s.off); err != nil {
				return err
			} else if !h.isDelta() {
				end, err := s.p.entryEnd(s.i)
				n = end - s.off
				return err
			}
		}
		o, err := s.open()
		if err != nil {
			return err
		}
		n = o.size
		return o.close()
	})
	return n, err
}

// CopyTo sends one object. If the object is not stored as a delta, it is copied as it is and checked against the
// index's CRC; otherwise it is deflated anew and checked against its id. If damage shows only at the end of a long
// entry, part of it has been sent, but the receiver refuses such a pack anyway. The error is cold.ErrMissing or
// cold.ErrCorrupt if the object is not there or damaged.
func (db *DB) CopyTo(s *PackStream, id ID) error {
	if id == EmptyTree {
		return s.Add(Tree, nil)
	}
	before := s.bytes
	return db.each(id, func(src source) error {
		if s.bytes != before {
			return corruptf("a copy that turned out to be damaged was sent in part")
		}
		if src.p != nil {
			h, err := src.p.header(src.off)
			if err != nil {
				return err
			}
			if !h.isDelta() {
				return db.copyRaw(s, src)
			}
		}
		return db.copyAnew(s, src, id)
	})
}

// copyRaw sends an entry's bytes. If it is not bigger than smallBlob, its CRC is checked first, so that another copy
// can be used.
func (db *DB) copyRaw(s *PackStream, src source) error {
	end, err := src.p.entryEnd(src.i)
	if err != nil {
		return err
	}
	n := end - src.off
	want := src.p.idx.crc(src.i)
	damaged := corruptf("%s: checksum does not match the index", src.p.what(src.off))
	if n <= smallBlob {
		buf := make([]byte, n)
		if _, err := src.p.f.ReadAt(buf, src.off); err != nil {
			return fmt.Errorf("read pack %s: %w", src.p.name(), err)
		}
		if crc32.ChecksumIEEE(buf) != want {
			return damaged
		}
		if err := s.begin(); err != nil {
			return err
		}
		_, err := s.Write(buf)
		return err
	}
	if err := s.begin(); err != nil {
		return err
	}
	h := crc32.NewIEEE()
	buf := make([]byte, packBuffer)
	if _, err := io.CopyBuffer(io.MultiWriter(s, h), io.NewSectionReader(src.p.f, src.off, n), buf); err != nil {
		return fmt.Errorf("copy from pack %s: %w", src.p.name(), err)
	}
	if h.Sum32() != want {
		return damaged
	}
	return nil
}

// copyAnew deflates an object that is loose or stored as a delta.
func (db *DB) copyAnew(s *PackStream, src source, id ID) (err error) {
	o, err := src.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	if o.size <= smallBlob {
		data, err := readObject(o, newHasher(o.typ, o.size), id, 0, smallBlob, nil)
		if err != nil {
			return err
		}
		return s.Add(o.typ, data)
	}
	if err := s.begin(); err != nil {
		return err
	}
	return writeEntry(s, o, id)
}

// writeEntry deflates an object into a pack entry and checks its id. If the id is wrong, the whole entry has been
// written to w.
func writeEntry(w io.Writer, o *rawObject, id ID) error {
	var head [16]byte
	if _, err := w.Write(appendEntryHeader(head[:0], o.typ, o.size)); err != nil {
		return err
	}
	z, err := zlib.NewWriterLevel(w, zlibLevel)
	if err != nil {
		return err
	}
	h := newHasher(o.typ, o.size)
	n, err := io.CopyBuffer(io.MultiWriter(z, h), o.r, make([]byte, packBuffer))
	if err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	got, err := h.sum()
	if err == nil && (got != id || n != o.size) {
		err = corruptf("content has the id %s", got)
	}
	return err
}
