package backup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"sync"
	"sync/atomic"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// directBytes is the length in bytes from which a request is worth being spread over all processors.
const directBytes = 512 << 10

// chunksAt reads a file in chunks at any offset. A chunk is verified before any byte of it is returned. Chunks that a
// big request covers completely are read straight into its buffer. Other chunks are cached, and loaded ahead while
// reads go forward.
type chunksAt struct {
	id   cold.ID
	l    atomic.Pointer[format.Layout]
	kept keptChunks
}

var _ cold.BlobAt = (*chunksAt)(nil)

func newChunksAt(db *odb.DB, id cold.ID, l *format.Layout) *chunksAt {
	c := &chunksAt{id: id, kept: keptChunks{db: db}}
	c.l.Store(l)
	return c
}

func (c *chunksAt) Size() int64 { return c.l.Load().Size }

// ReadAt implements io.ReaderAt.
func (c *chunksAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read object %s: %w", c.id, errOffset)
	}
	if c.kept.isClosed() {
		return 0, fmt.Errorf("read object %s: %w", c.id, fs.ErrClosed)
	}
	for l := c.l.Load(); ; {
		want, tail := p, error(nil)
		if rest := max(l.Size-off, 0); int64(len(p)) > rest {
			want, tail = p[:rest], io.EOF
		}
		n, err := c.read(l, want, off)
		if err == nil {
			return n, tail
		}
		if !errors.Is(err, errLength) {
			return n, err
		}
		// A stock client changed the length of a chunk, so all chunks have to be located anew.
		again, err := remeasure(l, c.kept.db, c.id)
		if err != nil {
			return n, err
		}
		c.l.CompareAndSwap(l, again)
		l = again
	}
}

// Data implements cold.BlobAt.
func (c *chunksAt) Data(off int64) (cold.Range, bool, error) {
	r, ok := c.l.Load().Data(off)
	return r, ok, nil
}

// piece is the part of a chunk that a request wants.
type piece struct {
	at   int
	skip int64  // where it begins in the chunk
	dst  []byte // its place in the request's buffer; its capacity ends there, so that no read can write beyond
	end  int    // where it ends in the request
	err  error
}

var errLength = errors.New("the chunk has another length")

// read fills p with the bytes at off. If it fails, the first n bytes are valid.
func (c *chunksAt) read(l *format.Layout, p []byte, off int64) (n int, err error) {
	pieces := cut(l, p, off)
	if len(pieces) > 1 && len(p) >= directBytes {
		c.readDirect(l, pieces)
	} else {
		for i := range pieces {
			if pieces[i].err = c.readKept(l, &pieces[i]); pieces[i].err != nil {
				break
			}
		}
	}
	for _, q := range pieces {
		if q.err != nil {
			return n, q.err
		}
		n = q.end
	}
	return len(p), nil
}

// cut returns which parts of which chunks a request for p at off wants, and fills the holes in p with zeros.
func cut(l *format.Layout, p []byte, off int64) []piece {
	var pieces []piece
	pos, end := off, off+int64(len(p))
	for at := l.From(off); at < len(l.Refs) && pos < end; at++ {
		start, n := l.Part(at)
		if hole := min(start, end); pos < hole {
			clear(p[pos-off : hole-off])
			pos = hole
		}
		if next := min(start+n, end); pos < next {
			pieces = append(pieces, piece{at: at, skip: pos - start, dst: p[pos-off : next-off : next-off],
				end: int(next - off)})
			pos = next
		}
	}
	clear(p[pos-off:])
	return pieces
}

// readDirect reads pieces on all processors. The calling goroutine only waits: if it worked too, the goroutine that it
// started last would not be run by another thread until the caller blocks, or for some 100 us.
func (c *chunksAt) readDirect(l *format.Layout, pieces []piece) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(len(pieces), runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(pieces)); i = next.Add(1) - 1 {
				pieces[i].err = c.readPiece(l, &pieces[i])
			}
		})
	}
	wg.Wait()
}

// readPiece reads a piece; if that is a whole chunk which is not in the cache, straight into the request's buffer.
func (c *chunksAt) readPiece(l *format.Layout, q *piece) error {
	if _, n := l.Part(q.at); int64(len(q.dst)) < n || c.kept.has(q.at) {
		return c.readKept(l, q)
	}
	data, err := c.kept.db.ReadInto(l.Refs[q.at].ID, odb.Blob, format.MaxLong, q.dst)
	if err != nil {
		return chunkError(c.id, l.Refs[q.at].N, err)
	}
	if len(data) != len(q.dst) {
		return errLength
	}
	return nil
}

// readKept reads a piece by way of the cache.
func (c *chunksAt) readKept(l *format.Layout, q *piece) error {
	e := c.kept.get(l, q.at)
	defer c.kept.put(e)
	if e.err != nil {
		return chunkError(c.id, l.Refs[q.at].N, e.err)
	}
	if _, n := l.Part(q.at); int64(len(e.data)) != n {
		return errLength
	}
	copy(q.dst, e.data[q.skip:])
	return nil
}

// Close implements cold.BlobAt.
func (c *chunksAt) Close() error {
	c.kept.close()
	return nil
}
