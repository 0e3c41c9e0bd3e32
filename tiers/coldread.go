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
)

const (
	// coldReading bounds the content, in bytes, that requests under way may have cold inflate at once.
	coldReading = 16 << 20
	// coldIdle bounds what is kept of opened content between two reads.
	coldIdle = 8 << 20
	// coldChunked is about what an opened file in chunks holds.
	coldChunked = 2 << 20
	// coldWhole is the size up to which cold holds a whole file in memory while it is open.
	coldWhole = 8 << 20
)

// coldReader reads the content of stubs. Who waits for the same content waits for one fetch: opened content is shared by all who
// read it, and kept for a while. Safe for concurrent use.
type coldReader struct {
	cold Cold
	room *semaphore.Weighted

	mu struct {
		sync.Mutex
		open map[ID]*coldContent
		idle list.List // of *coldContent without users, the longest unused first
		size int64     // their cost
	}
}

// coldContent is an opened content.
type coldContent struct {
	id    ID
	cost  int64
	once  sync.Once
	blob  BlobAt
	err   error
	users int           // coldReader.mu
	elem  *list.Element // coldReader.mu: its place among the idle ones
}

func newColdReader(c Cold) *coldReader {
	r := &coldReader{cold: c, room: semaphore.NewWeighted(coldReading)}
	r.mu.open = map[ID]*coldContent{}
	return r
}

func coldCost(size int64) int64 {
	if size > coldWhole {
		return coldChunked
	}
	return max(size, 4<<10)
}

// with calls f with the content of id, opened.
func (r *coldReader) with(ctx context.Context, id ID, size int64, f func(BlobAt) error) error {
	c := r.get(id, size)
	c.once.Do(func() { c.blob, c.err = r.cold.OpenAt(ctx, id, size) })
	err := c.err
	if err == nil {
		err = f(c.blob)
	}
	r.put(c, err != nil && !errors.Is(err, io.EOF))
	return err
}

// read fills p from off on; short, without an error, at the end of the content only.
func (r *coldReader) read(ctx context.Context, id ID, size int64, p []byte, off int64) (n int, err error) {
	cost := min(coldCost(size), coldReading)
	if err := r.room.Acquire(ctx, cost); err != nil {
		return 0, err
	}
	defer r.room.Release(cost)
	err = r.with(ctx, id, size, func(b BlobAt) error {
		var err error
		n, err = b.ReadAt(p, off)
		return err
	})
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err == nil && n < len(p) && off+int64(n) < size {
		err = fmt.Errorf("object %s: %w: ends after %d bytes", id, ErrCorrupt, off+int64(n))
	}
	return n, err
}

func (r *coldReader) get(id ID, size int64) *coldContent {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.mu.open[id]
	if c == nil {
		c = &coldContent{id: id, cost: coldCost(size)}
		r.mu.open[id] = c
	}
	if c.elem != nil {
		r.mu.idle.Remove(c.elem)
		r.mu.size -= c.cost
		c.elem = nil
	}
	c.users++
	return c
}

// put gives content back; failed content is opened anew next time.
func (r *coldReader) put(c *coldContent, failed bool) {
	var closing []*coldContent
	r.mu.Lock()
	c.users--
	if failed && r.mu.open[c.id] == c {
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

// drop lets go of what nobody uses.
func (r *coldReader) drop() {
	r.mu.Lock()
	closing := r.trim(0)
	r.mu.Unlock()
	closeAll(closing)
}

func closeAll(list []*coldContent) {
	for _, c := range list {
		if c.blob != nil {
			_ = c.blob.Close() // it was only read
		}
	}
}

// coldFailed completes an error of reading a file's content from cold, and says in the log what to do; once a second at most.
func (v *Volume) coldFailed(n *Inode, id ID, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	at := v.pathOf(n)
	err = fmt.Errorf("read %q from cold: %w", at, err)
	last, t := v.coldLog.Load(), time.Now().UnixNano()
	if (errors.Is(err, ErrMissing) || errors.Is(err, ErrCorrupt)) && (t-last > int64(time.Second) && v.coldLog.CompareAndSwap(last, t)) {
		v.log.WithError(err).WithField("path", at).WithField("object", id.String()).
			Errorf("a file's content cannot be read from cold: programs get EIO for it; `emberfs check --deep %s` tells what is damaged, --repair brings back what the source still has", v.cfg.State)
	}
	return err
}
