package backup

import (
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"

	"emberfs/backup/odb"
	"emberfs/tiers"
)

// cachedBytes is how much of an open file's chunks is kept, at least three or four chunks: reads are small and mostly go forward.
const cachedBytes = 1 << 20

// chunksAt reads a tree of chunks at any offset. A chunk is verified before a byte of it is given away.
type chunksAt struct {
	db *odb.DB
	id tiers.ID
	l  atomic.Pointer[layout]

	mu struct {
		sync.Mutex
		closed bool
		recent []*loadedChunk // the last one was used last
		ahead  int            // chunks that are being loaded although nobody has asked for them yet
	}
}

var _ tiers.BlobAt = (*chunksAt)(nil)

// loadedChunk is a chunk that is loaded, once, by whoever needs it first.
type loadedChunk struct {
	at   int
	once sync.Once
	data []byte
	err  error
}

func newChunksAt(db *odb.DB, id tiers.ID, l *layout) *chunksAt {
	c := &chunksAt{db: db, id: id}
	c.l.Store(l)
	return c
}

func (c *chunksAt) Size() int64 { return c.l.Load().size }

// ReadAt implements io.ReaderAt.
func (c *chunksAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read object %s: %w", c.id, errOffset)
	}
	c.mu.Lock()
	closed := c.mu.closed
	c.mu.Unlock()
	if closed {
		return 0, fmt.Errorf("read object %s: %w", c.id, fs.ErrClosed)
	}
	l := c.l.Load()
	var tail error
	if rest := max(l.size-off, 0); int64(len(p)) > rest {
		p, tail = p[:rest], io.EOF
	}
	done := 0
	for at := l.from(off); done < len(p); {
		pos, start, n := off+int64(done), l.size, int64(0)
		if at < len(l.refs) {
			start, n = l.part(at)
		}
		if pos < start {
			k := int(min(start-pos, int64(len(p)-done)))
			clear(p[done : done+k])
			done += k
			continue
		}
		data, err := c.chunk(l, at)
		if err != nil {
			return done, err
		}
		if int64(len(data)) != n {
			// A stock client changed the chunk: the others may lie elsewhere too.
			again, err := l.remeasure(c.db, c.id)
			if err != nil {
				return done, err
			}
			c.l.CompareAndSwap(l, again)
			l, done, at = again, 0, again.from(off)
			continue
		}
		done += copy(p[done:], data[pos-start:])
		if off+int64(done) == start+n {
			at++
		}
	}
	return done, tail
}

// Data implements tiers.BlobAt.
func (c *chunksAt) Data(off int64) (tiers.Range, bool, error) {
	r, ok := c.l.Load().data(off)
	return r, ok, nil
}

// chunk gives the content of chunk refs[at].
func (c *chunksAt) chunk(l *layout, at int) ([]byte, error) {
	keep, ahead := int(max(cachedBytes/l.chunk, 4)), 2
	switch {
	case l.parts != nil:
		keep, ahead = 2, 0 // they may be longer than the chunk size
	case l.chunk > cachedBytes:
		keep, ahead = 3, 1
	}
	e, forward := c.entry(at, keep)
	for k := 1; forward && k <= ahead && at+k < len(l.refs); k++ {
		c.readAhead(l, at+k, keep, ahead)
	}
	c.load(l, e)
	if e.err != nil {
		c.forget(e)
		return nil, chunkError(c.id, l.refs[at].n, e.err)
	}
	return e.data, nil
}

func (c *chunksAt) load(l *layout, e *loadedChunk) {
	e.once.Do(func() { e.data, e.err = c.db.Read(l.refs[e.at].id, odb.Blob, maxLong) })
}

// readAhead loads a chunk on another thread, one of at most so many: verifying takes longer than giving away.
func (c *chunksAt) readAhead(l *layout, at, keep, most int) {
	c.mu.Lock()
	busy := c.mu.ahead >= most || c.mu.closed
	for _, e := range c.mu.recent {
		busy = busy || e.at == at
	}
	if !busy {
		c.mu.ahead++
	}
	c.mu.Unlock()
	if busy {
		return
	}
	e, _ := c.entry(at, keep)
	go func() {
		c.load(l, e)
		c.mu.Lock()
		c.mu.ahead--
		c.mu.Unlock()
	}()
}

// entry finds the place of a chunk among the recent ones, or makes one. forward says that the one before was used last.
func (c *chunksAt) entry(at, keep int) (_ *loadedChunk, forward bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	recent := c.mu.recent
	for i := max(0, len(recent)-3); i < len(recent); i++ { // the last ones may be those that were loaded ahead
		forward = forward || recent[i].at == at-1
	}
	for i, e := range recent {
		if e.at == at {
			copy(recent[i:], recent[i+1:])
			recent[len(recent)-1] = e
			return e, forward
		}
	}
	e := &loadedChunk{at: at}
	if len(recent) >= keep {
		copy(recent, recent[1:])
		recent[len(recent)-1] = e
	} else {
		c.mu.recent = append(recent, e)
	}
	return e, forward
}

// forget lets a chunk that could not be read be tried again.
func (c *chunksAt) forget(bad *loadedChunk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, e := range c.mu.recent {
		if e == bad {
			c.mu.recent = append(c.mu.recent[:i], c.mu.recent[i+1:]...)
			return
		}
	}
}

// Close implements tiers.BlobAt.
func (c *chunksAt) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.closed, c.mu.recent = true, nil
	return nil
}
