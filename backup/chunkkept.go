package backup

import (
	"runtime"
	"slices"
	"sync"

	"emberfs/backup/format"
	"emberfs/backup/odb"
)

// cachedBytes is how many bytes of an open file's chunks are cached, though never fewer than two to four chunks (see
// limits). Little is enough, since small reads mostly go forward.
const cachedBytes = 2 << 20

// keptChunks is a cache of some chunks of one file. The zero value with db set is ready to use. It is safe for
// concurrent use.
type keptChunks struct {
	db      *odb.DB
	loaders sync.WaitGroup

	mu struct {
		sync.Mutex
		closed  bool
		recent  []*keptChunk // the cached chunks, least recently used first
		free    [][]byte     // buffers of chunks that are not cached any more
		last    int          // the chunk that was asked for last
		run     int          // how many chunks in a row were asked for in ascending order, up to last
		loaders int          // how many goroutines load ahead
	}
}

// keptChunk is a cached chunk. It is loaded once, by whoever needs it first.
type keptChunk struct {
	at   int
	done chan struct{} // closed when it is loaded
	buf  []byte        // buffer to load data into; nil: loading allocates one
	data []byte
	err  error

	// Guarded by the cache's mu.
	users int
	gone  bool // not cached any more; the last user gives back the buffer
}

// limits returns how many chunks are cached, and how many at most are loaded ahead.
func limits(l *format.Layout) (keep, ahead int) {
	switch {
	case l.Parts != nil:
		return 2, 0 // they may be longer than the chunk size
	case l.Chunk > 1<<20:
		return 3, 1
	}
	keep = int(max(cachedBytes/l.Chunk, 4))
	return keep, keep / 2
}

// get returns chunk l.Refs[at], loaded or with err set. The caller must call put when it is done with it. While reads
// go forward, the chunks that follow are loaded by other threads, the more the longer that lasts, because verifying a
// chunk takes longer than returning it.
func (c *keptChunks) get(l *format.Layout, at int) *keptChunk {
	c.mu.Lock()
	switch at {
	case c.mu.last, c.mu.last - 1: // a request may overtake another
	case c.mu.last + 1:
		c.mu.run++
		c.mu.last = at
	default:
		c.mu.run = 0
		c.mu.last = at
	}
	e, mine := c.use(l, at)
	if c.mu.loaders < runtime.GOMAXPROCS(0)-1 && c.ahead(l) >= 0 {
		c.mu.loaders++
		c.loaders.Go(func() { c.loadAhead(l) })
	}
	c.mu.Unlock()
	if mine {
		c.load(l, e)
		return e
	}
	for {
		select {
		case <-e.done:
			return e
		default:
		}
		// Another thread is loading the chunk. Being woken up takes about as long as loading a chunk, so load another
		// one in the meantime.
		if !c.loadNext(l) {
			<-e.done
			return e
		}
	}
}

// put ends a use of a chunk that began with get.
func (c *keptChunks) put(e *keptChunk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.users--
	c.reclaim(e)
}

// has reports whether a chunk is cached.
func (c *keptChunks) has(at int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.find(at) >= 0
}

// loadAhead loads chunks until enough are there.
func (c *keptChunks) loadAhead(l *format.Layout) {
	for c.loadNext(l) {
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.loaders--
}

// loadNext loads one of the chunks that will be wanted next. It returns false if all of them are there or loading
// failed; the error will be met by the read that wants the chunk.
func (c *keptChunks) loadNext(l *format.Layout) bool {
	c.mu.Lock()
	at := c.ahead(l)
	if at < 0 {
		c.mu.Unlock()
		return false
	}
	e, _ := c.use(l, at)
	c.mu.Unlock()
	c.load(l, e)
	c.put(e)
	return e.err == nil
}

func (c *keptChunks) load(l *format.Layout, e *keptChunk) {
	defer close(e.done)
	if _, n := l.Part(e.at); int64(cap(e.buf)) < n && l.Parts == nil {
		e.buf = make([]byte, n)
	}
	e.data, e.err = c.db.ReadInto(l.Refs[e.at].ID, odb.Blob, format.MaxLong, e.buf)
	if e.err != nil {
		c.forget(e)
	}
}

// forget removes a chunk that could not be read from the cache, so that the next read tries again.
func (c *keptChunks) forget(e *keptChunk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.mu.recent, e); i >= 0 {
		c.mu.recent = slices.Delete(c.mu.recent, i, i+1)
		e.gone = true
	}
}

func (c *keptChunks) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.closed
}

// close empties the cache and waits for the goroutines that load ahead.
func (c *keptChunks) close() {
	c.mu.Lock()
	c.mu.closed, c.mu.recent, c.mu.free = true, nil, nil
	c.mu.Unlock()
	c.loaders.Wait()
}

// The functions below need c.mu to be held.

func (c *keptChunks) find(at int) int {
	return slices.IndexFunc(c.mu.recent, func(e *keptChunk) bool { return e.at == at })
}

// ahead returns the next chunk to load ahead, or -1 if there is none.
func (c *keptChunks) ahead(l *format.Layout) int {
	_, most := limits(l)
	for at := c.mu.last + 1; !c.mu.closed && at <= c.mu.last+min(c.mu.run, most) && at < len(l.Refs); at++ {
		if c.find(at) < 0 {
			return at
		}
	}
	return -1
}

// use returns a chunk and counts the caller as a user. If mine is true the chunk was not cached, room was made for it,
// and the caller has to load it.
func (c *keptChunks) use(l *format.Layout, at int) (_ *keptChunk, mine bool) {
	var e *keptChunk
	if i := c.find(at); i >= 0 {
		e = c.mu.recent[i]
		c.mu.recent = slices.Delete(c.mu.recent, i, i+1)
	} else {
		if keep, _ := limits(l); len(c.mu.recent) >= keep {
			old := c.mu.recent[0]
			c.mu.recent = slices.Delete(c.mu.recent, 0, 1)
			old.gone = true
			c.reclaim(old)
		}
		e, mine = &keptChunk{at: at, done: make(chan struct{})}, true
		if n := len(c.mu.free); n > 0 && l.Parts == nil {
			e.buf, c.mu.free = c.mu.free[n-1], c.mu.free[:n-1]
		}
	}
	e.users++
	if !c.mu.closed {
		c.mu.recent = append(c.mu.recent, e)
	}
	return e, mine
}

// reclaim keeps the buffer of a chunk that is not cached or used any more for the next chunk.
func (c *keptChunks) reclaim(e *keptChunk) {
	if e.gone && e.users == 0 && e.buf != nil && len(c.mu.free) == 0 && !c.mu.closed {
		c.mu.free = append(c.mu.free, e.buf)
		e.buf, e.data = nil, nil
	}
}
