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

// directBytes is the length of a request that is worth being spread over all processors.
const directBytes = 512 << 10

// chunksAt reads a tree of chunks at any offset. A chunk is verified before a byte of it is given away. What a big
// request wants whole is read straight into it; other chunks are kept, and loaded ahead while reads go forward.
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
		// A stock client changed a chunk: the others may lie elsewhere too.
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

// piece is what a request wants of a chunk.
type piece struct {
	at   int
	skip int64  // from the chunk's beginning
	dst  []byte // ends before the rest of the request: what is written behind it would be seen
	end  int    // in the request
	err  error
}

var errLength = errors.New("the chunk has another length")

// read fills p with what lies at off. With an error, the first n bytes are right.
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

// cut finds what a request for p at off wants of which chunks, and fills the holes.
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

// readDirect reads pieces on all processors. The caller only waits: a goroutine that it had started last would not run
// elsewhere before it waits or some 100 us are over.
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

// readPiece reads a piece that is a whole chunk straight into the request.
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

// readKept reads a piece by way of the chunks that are kept.
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
