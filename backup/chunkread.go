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

// chunkReader streams a file in chunks. It must be used by one goroutine at a time.
type chunkReader struct {
	db     *odb.DB
	id     cold.ID
	l      *format.Layout
	pos    int64
	at     int             // index of the chunk that pos is in or before
	b      *odb.BlobReader // that chunk, open; nil while pos is before it
	closed bool
}

var _ cold.Blob = (*chunkReader)(nil)

func (r *chunkReader) Size() int64 { return r.l.Size }

// data returns where the next data at or after pos begins: in a chunk, or at the end of the file.
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
	if err != nil { // not io.EOF: chunks are not empty, and the chunk is closed after its last byte
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

// open opens the chunk that begins at pos. If the chunk has another length than expected, it updates the layout
// instead.
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
	// A stock client changed the chunk. What was read so far is right all the same: the chunks before this one have not
	// moved.
	l, err := remeasure(r.l, r.db, r.id)
	if err == nil {
		r.l = l
	}
	return err
}

// remeasure returns the layout after a chunk was found to have another length than l says.
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
