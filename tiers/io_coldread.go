package tiers

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"emberfs/tiers/cold"
)

const (
	// coldReading bounds the content, in bytes, that requests under way may have cold inflate at once.
	coldReading = 16 << 20
	// coldIdle bounds what is kept of opened content between two reads.
	coldIdle = 8 << 20
	// coldChunked is about how many bytes of memory an opened file takes that cold has in chunks.
	coldChunked = 2 << 20
	// coldWhole is the size up to which cold holds a whole file in memory while it is open.
	coldWhole = 8 << 20
)

// coldReader reads the content of stubs. Opened content is shared by all who read it, so that they wait for one fetch,
// and it is kept for a while. Safe for concurrent use.
type coldReader struct {
	cold    cold.Cold
	room    *semaphore.Weighted
	buffers sync.Pool // *[]byte
	under   sync.WaitGroup

	mu struct {
		mutex[leaf]
		open map[cold.ID]*coldContent
		idle list.List // of *coldContent without users, the longest unused first
		size int64     // their cost
	}
}

// coldContent is an opened content.
type coldContent struct {
	id      cold.ID
	cost    int64
	ctx     context.Context // blob can be read while it lives; it ends when the last caller that waited left
	cancel  context.CancelFunc
	once    sync.Once
	blob    cold.BlobAt
	err     error
	users   int           // coldReader.mu: reads under way
	waiting int           // coldReader.mu: those of them whose caller still waits
	elem    *list.Element // coldReader.mu: its place among the idle ones
}

func newColdReader(c cold.Cold) *coldReader {
	r := &coldReader{cold: c, room: semaphore.NewWeighted(coldReading)}
	r.mu.open = map[cold.ID]*coldContent{}
	return r
}

func coldCost(size int64) int64 {
	if size > coldWhole {
		return coldChunked
	}
	return max(size, 4<<10)
}

// with calls f with the content of id, opened, on another goroutine. When ctx ends first, it returns ctx's error at
// once, and f goes on without its caller: f must not use what the caller owns, and done is called when f has ended in
// any case.
func (r *coldReader) with(ctx context.Context, id cold.ID, size int64, f func(cold.BlobAt) error, done func()) error {
	c := r.get(id, size)
	ended := make(chan error, 1)
	r.under.Go(func() {
		defer done()
		c.once.Do(func() { c.blob, c.err = r.cold.OpenAt(c.ctx, id, size) })
		err := c.err
		if err == nil {
			err = f(c.blob)
		}
		r.put(c, err != nil && !errors.Is(err, io.EOF))
		ended <- err
	})
	select {
	case err := <-ended:
		r.waited(c, false)
		return err
	case <-ctx.Done():
		r.waited(c, true)
		return ctx.Err()
	}
}

// read reads into p from off on. Without an error it reads less than p only at the end of the content.
func (r *coldReader) read(ctx context.Context, id cold.ID, size int64, p []byte, off int64) (int, error) {
	cost := min(coldCost(size), coldReading)
	if err := r.room.Acquire(ctx, cost); err != nil {
		return 0, err
	}
	b := r.buffer(len(p)) // p is not ours any more once the caller leaves
	n := 0
	err := r.with(ctx, id, size, func(c cold.BlobAt) (err error) {
		n, err = c.ReadAt(*b, off)
		return err
	}, func() { r.room.Release(cost) })
	if ctx.Err() != nil {
		return 0, ctx.Err() // b may still be written
	}
	copy(p, (*b)[:n])
	r.buffers.Put(b)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err == nil && n < len(p) && off+int64(n) < size {
		err = fmt.Errorf("object %s: %w: ends after %d bytes", id, cold.ErrCorrupt, off+int64(n))
	}
	return n, err
}

// buffer gives n bytes, which go back to buffers once nobody writes them any more.
func (r *coldReader) buffer(n int) *[]byte {
	if b, ok := r.buffers.Get().(*[]byte); ok && cap(*b) >= n {
		*b = (*b)[:n]
		return b
	}
	b := make([]byte, n)
	return &b
}

func (r *coldReader) get(id cold.ID, size int64) *coldContent {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.mu.open[id]
	if c == nil || c.ctx.Err() != nil {
		c = &coldContent{id: id, cost: coldCost(size)}
		c.ctx, c.cancel = context.WithCancel(context.Background())
		r.mu.open[id] = c
	}
	if c.elem != nil {
		r.mu.idle.Remove(c.elem)
		r.mu.size -= c.cost
		c.elem = nil
	}
	c.users++
	c.waiting++
	return c
}

// waited notes that a caller of with does not wait any more; left says that it left without an answer. If nobody else
// waits, reading the content is cancelled.
func (r *coldReader) waited(c *coldContent, left bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.waiting--
	if left && c.waiting == 0 && c.users > 0 {
		c.cancel()
	}
}

// put gives content back; failed content is opened anew next time.
func (r *coldReader) put(c *coldContent, failed bool) {
	var closing []*coldContent
	r.mu.Lock()
	c.users--
	if (failed || c.ctx.Err() != nil) && r.mu.open[c.id] == c {
		delete(r.mu.open, c.id)
	}
	switch {
	case c.users > 0:
	case r.mu.open[c.id] != c:
		closing = append(closing, c)
	default:
		c.elem = r.mu.idle.PushBack(c)
		r.mu.size += c.cost
		closing = r.trim(coldIdle)
	}
	r.mu.Unlock()
	closeAll(closing)
}

// trim takes the longest unused content out until at most limit is held; mu is held.
func (r *coldReader) trim(limit int64) (out []*coldContent) {
	for r.mu.size > limit {
		c := r.mu.idle.Remove(r.mu.idle.Front()).(*coldContent)
		r.mu.size -= c.cost
		c.elem = nil
		delete(r.mu.open, c.id)
		out = append(out, c)
	}
	return out
}

// end cancels all reading, which callers that left may have under way. Nobody calls with any more.
func (r *coldReader) end() {
	r.mu.Lock()
	for _, c := range r.mu.open {
		c.cancel()
	}
	r.mu.Unlock()
}

// drop closes all content that nobody uses.
func (r *coldReader) drop() {
	r.mu.Lock()
	closing := r.trim(0)
	r.mu.Unlock()
	closeAll(closing)
}

func closeAll(list []*coldContent) {
	for _, c := range list {
		c.cancel()
		if c.blob != nil {
			_ = c.blob.Close() // it was only read
		}
	}
}

// coldFailed adds n's path to an error of reading its content from cold. If the content is missing or damaged, it also
// says in the log what to do, once a second at most.
func (v *Volume) coldFailed(n *Inode, id cold.ID, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	at := v.pathOf(n)
	err = fmt.Errorf("read %q from cold: %w", at, err)
	last, t := v.coldLog.Load(), time.Now().UnixNano()
	if (errors.Is(err, cold.ErrMissing) || errors.Is(err, cold.ErrCorrupt)) &&
		(t-last > int64(time.Second) && v.coldLog.CompareAndSwap(last, t)) {
		v.log.WithError(err).WithField("path", at).WithField("object", id.String()).
			Errorf("a file's content cannot be read from cold: programs get EIO for it; `emberfs check --deep %s` "+
				"tells what is damaged, --repair brings back what the source still has", v.cfg.State)
	}
	return err
}
