package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// chunkReader streams a file that is a tree of chunks. It is for one goroutine.
type chunkReader struct {
	db     *odb.DB
	id     cold.ID
	l      *format.Layout
	pos    int64
	at     int             // the chunk that pos is in or before
	b      *odb.BlobReader // of that chunk, open; nil before it
	closed bool
}

var _ cold.Blob = (*chunkReader)(nil)

func (r *chunkReader) Size() int64 { return r.l.Size }

// data is where the data behind pos begins: a chunk or the end.
func (r *chunkReader) data() int64 {
	for ; r.at < len(r.l.Refs); r.at++ {
		if off, n := r.l.Part(r.at); off+n > r.pos {
			return max(off, r.pos)
		}
	}
	return r.l.Size
}

// SkipHole implements cold.Blob.
func (r *chunkReader) SkipHole() int64 {
	if r.b != nil || r.closed {
		return 0
	}
	n := r.data() - r.pos
	r.pos += n
	return n
}

func (r *chunkReader) Read(p []byte) (int, error) {
	switch {
	case r.closed:
		return 0, fmt.Errorf("read object %s: %w", r.id, fs.ErrClosed)
	case len(p) == 0:
		return 0, nil
	}
	for r.b == nil {
		if r.pos == r.l.Size {
			return 0, io.EOF
		}
		if hole := r.data() - r.pos; hole > 0 {
			n := int(min(hole, int64(len(p))))
			clear(p[:n])
			r.pos += int64(n)
			return n, nil
		}
		if err := r.open(); err != nil {
			return 0, err
		}
	}
	n, err := r.b.Read(p)
	if err != nil { // not io.EOF: the chunk is not empty and its last bytes come without
		return 0, chunkError(r.id, r.l.Refs[r.at].N, err)
	}
	r.pos += int64(n)
	if off, length := r.l.Part(r.at); r.pos == off+length {
		r.at++
		err = r.b.Close()
		r.b = nil
	}
	return n, err
}

// open opens the chunk that pos is at the beginning of, or finds out that it has another length.
func (r *chunkReader) open() error {
	ref := r.l.Refs[r.at]
	b, err := r.db.Stream(ref.ID)
	if err != nil {
		return chunkError(r.id, ref.N, err)
	}
	if _, n := r.l.Part(r.at); b.Size() == n {
		r.b = b
		return nil
	}
	if err := b.Close(); err != nil {
		return err
	}
	// A stock client changed the chunk. What was read before it lay at its place in any case.
	l, err := remeasure(r.l, r.db, r.id)
	if err == nil {
		r.l = l
	}
	return err
}

// remeasure is the layout after a chunk was found to have another length than l says.
func remeasure(l *format.Layout, db format.Store, id cold.ID) (*format.Layout, error) {
	if l.Parts != nil {
		return nil, fmt.Errorf("chunk tree %s: %w: the length of a chunk changes", id, cold.ErrCorrupt)
	}
	return format.Measured(context.Background(), db, id, l.ChunkTree, l.Size)
}

func chunkError(id cold.ID, n uint32, err error) error {
	return fmt.Errorf("object %s, chunk %0*d: %w", id, format.ChunkName, n, err)
}

// Close implements cold.Blob.
func (r *chunkReader) Close() error {
	r.closed = true
	if r.b == nil {
		return nil
	}
	err := r.b.Close()
	r.b = nil
	return err
}

var errOffset = errors.New("negative offset")
