package odb

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"emberfs/tiers/cold"
)

// otherPlace reports whether an error is about one copy of an object only, so that another copy may be readable.
func otherPlace(err error) bool {
	return errors.Is(err, cold.ErrCorrupt) || errors.Is(err, fs.ErrNotExist)
}

// Has reports whether the object is somewhere in the repository. It may not stay there: git gc prunes what no reference
// reaches (FORMAT.md section 5). After Close, Has returns false.
func (db *DB) Has(id ID) bool {
	if id == EmptyTree {
		return true
	}
	return db.each(id, func(s source) error {
		if s.p == nil && !db.hasLoose(id) {
			return fs.ErrNotExist
		}
		return nil
	}) == nil
}

// Stat returns the type and the size in bytes without verifying the content. The error is cold.ErrMissing or
// cold.ErrCorrupt if the object is not there or damaged.
func (db *DB) Stat(id ID) (t Type, size int64, err error) {
	if id == EmptyTree {
		return Tree, 0, nil
	}
	err = db.each(id, func(s source) error {
		if s.p != nil {
			// Unless the object is a delta, its header is enough; that matters because a listing asks for each of its
			// files.
			if h, err := s.p.header(s.off); err != nil || !h.isDelta() {
				t, size = h.typ, h.size
				return err
			}
		}
		o, err := s.open()
		if err != nil {
			return err
		}
		t, size = o.typ, o.size
		return o.close()
	})
	return t, size, err
}

// Read returns the verified content of an object, which must be of type want (0: any type) and have at most limit
// bytes. The error is cold.ErrMissing, cold.ErrCorrupt (also if the type is another), or ErrTooLarge before anything is
// inflated.
func (db *DB) Read(id ID, want Type, limit int64) ([]byte, error) {
	_, data, err := db.ReadAny(id, want, limit)
	return data, err
}

// ReadInto is like Read, but puts the content into buf if its capacity suffices. If it does not, or after an error, the
// content of buf is undefined.
func (db *DB) ReadInto(id ID, want Type, limit int64, buf []byte) ([]byte, error) {
	_, data, err := db.readAny(id, want, limit, buf)
	return data, err
}

// ReadAny is like Read for any type, and returns the type too. If want is not 0, another type is an error.
func (db *DB) ReadAny(id ID, want Type, limit int64) (Type, []byte, error) {
	return db.readAny(id, want, limit, nil)
}

func (db *DB) readAny(id ID, want Type, limit int64, buf []byte) (t Type, data []byte, err error) {
	if id == EmptyTree && (want == Tree || want == 0) {
		return Tree, nil, nil
	}
	err = db.each(id, func(s source) error {
		if t, data = db.readQuick(s, id, want, limit, buf); t != 0 {
			return nil
		}
		o, err := s.open()
		if err != nil {
			return err
		}
		t = o.typ
		data, err = readObject(o, db.hasherFor(s, o.typ, o.size), id, want, limit, buf)
		return errors.Join(err, o.close())
	})
	if err != nil {
		return 0, nil, err
	}
	return t, data, nil
}

// hasherFor returns the hasher that verifies an object when it is read. Packs in a repository of our own were written
// by our Writer, our IndexPack or git, all of which look for collisions, so plain SHA-1 suffices. Other places, and
// packs that were linked and not verified, may hold anything.
func (db *DB) hasherFor(s source, t Type, size int64) hasher {
	if s.p != nil && !db.readOnly && !s.p.linked.Load() {
		return newPlainHasher(t, size)
	}
	return newHasher(t, size)
}

func readObject(o *rawObject, h hasher, id ID, want Type, limit int64, buf []byte) ([]byte, error) {
	if o.size > limit {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, o.size, limit)
	}
	data, err := readSized(o.r, o.size, buf)
	if err != nil {
		return nil, err
	}
	if err := h.verify(data, id); err != nil {
		return nil, err
	}
	if want != 0 && o.typ != want {
		return nil, wrongType(id, o.typ, want)
	}
	return data, nil
}

// BlobReader streams a blob. It must be used by one goroutine at a time.
type BlobReader struct {
	id     ID
	o      *rawObject
	p      *pack // held while the stream is open; nil for a loose object
	h      hasher
	left   int64
	failed error
}

// Stream opens a blob of any size. It takes constant memory, unless the blob is stored as a delta: then the delta's
// base is held, in memory up to Options.DeltaMemory, else in a temporary file. Bytes are returned before they are
// verified; the Read that would return the last ones verifies the id, and fails with cold.ErrCorrupt instead if it does
// not match.
func (db *DB) Stream(id ID) (*BlobReader, error) {
	var b *BlobReader
	err := db.each(id, func(s source) error {
		o, err := s.open()
		if err != nil {
			return err
		}
		if o.typ != Blob {
			return errors.Join(wrongType(id, o.typ, Blob), o.close())
		}
		b = &BlobReader{id: id, o: o, p: s.p, h: db.hasherFor(s, o.typ, o.size), left: o.size}
		if b.left == 0 {
			if err := b.verify(); err != nil {
				return errors.Join(err, o.close())
			}
		}
		if s.p != nil {
			s.p.retain()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Size returns the blob's size in bytes.
func (b *BlobReader) Size() int64 { return b.o.size }

func (b *BlobReader) Read(p []byte) (int, error) {
	if b.failed != nil {
		return 0, b.failed
	}
	if b.o.r == nil {
		return 0, fmt.Errorf("read object %s: %w", b.id, fs.ErrClosed)
	}
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.o.r.Read(p)
	_, _ = b.h.Write(p[:n])
	b.left -= int64(n)
	if err == nil && b.left == 0 {
		err = b.verify()
	}
	if err != nil && (b.left > 0 || !errors.Is(err, io.EOF)) {
		if errors.Is(err, io.EOF) {
			err = corruptf("%d bytes are missing", b.left)
		}
		b.failed = wrapObject(b.id, err)
		return 0, b.failed
	}
	return n, nil
}

func (b *BlobReader) verify() error {
	return b.h.verify(nil, b.id)
}

// Close ends the stream and releases its pack.
func (b *BlobReader) Close() error {
	if b.o.r == nil {
		return nil
	}
	b.o.r = nil
	err := b.o.close()
	if b.p != nil {
		err = errors.Join(err, b.p.release())
	}
	return err
}
