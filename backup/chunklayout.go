package backup

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// layout says where in a file its chunks lie. It is immutable.
type layout struct {
	*chunkTree
	size int64
	// parts are what was measured; nil: chunk n begins at n times the chunk size, as we write it.
	parts []chunkPart
}

// chunkPart is where a chunk lies, in bytes.
type chunkPart struct{ off, length int64 }

// plain is the layout of a tree as we write it, taken at its word; false where it cannot be one.
func (c *chunkTree) plain() (*layout, bool) {
	if n := len(c.refs); n > 0 && int64(c.refs[n-1].n) >= c.count() {
		return nil, false
	}
	return &layout{chunkTree: c, size: c.size}, true
}

// measure finds out the layout from the lengths of the chunks, which a stock client may have changed: where no number is
// missing the file is what cat makes of the chunks; otherwise each stays at its place, and one that is shorter than it was
// has zeros behind it. That is worth a word, which is the problem.
func (c *chunkTree) measure(ctx context.Context, db store) (l *layout, problem, err error) {
	l = &layout{chunkTree: c, parts: make([]chunkPart, len(c.refs))}
	last := len(c.refs) - 1
	var sum int64
	short, long := -1, -1
	for i, r := range c.refs {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		kind, n, err := db.Stat(r.id)
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("chunk %0*d: %w", chunkName, r.n, err)
		case kind != odb.Blob:
			return nil, nil, fmt.Errorf("chunk %0*d: %w: object %s is a %s", chunkName, r.n, cold.ErrCorrupt, r.id, kind)
		case n > maxLong:
			return nil, nil, fmt.Errorf("chunk %0*d: %w: %d bytes, with a chunk size of %d", chunkName, r.n, cold.ErrCorrupt, n, c.chunk)
		}
		l.parts[i] = chunkPart{sum, n}
		sum += n
		if i < last && n < c.chunk {
			short = i
		}
		if i < last && n > c.chunk {
			long = i
		}
	}
	if last < 0 {
		l.size = c.size
		return l, nil, nil
	}
	end := int64(c.refs[last].n) + 1
	if end == int64(len(c.refs)) && end >= c.count() {
		l.size = sum
		return l, nil, nil
	}
	if long < 0 && end < c.count() && l.parts[last].length > c.chunk {
		long = last
	}
	if long >= 0 {
		return nil, nil, fmt.Errorf("chunk %0*d: %w: %d bytes, with a chunk size of %d and chunks missing", chunkName, c.refs[long].n,
			cold.ErrCorrupt, l.parts[long].length, c.chunk)
	}
	for i, r := range c.refs {
		l.parts[i].off = int64(r.n) * c.chunk
	}
	l.size = c.size
	if end >= c.count() {
		l.size = l.parts[last].off + l.parts[last].length
	} else if short < 0 && l.parts[last].length < c.chunk {
		short = last
	}
	if short >= 0 {
		problem = fmt.Errorf("chunk %0*d has %d bytes of %d and chunks are missing: zeros fill the place", chunkName, c.refs[short].n,
			l.parts[short].length, c.chunk)
	}
	return l, problem, nil
}

// regular says whether all chunks are there with the lengths that we gave them.
func (c *chunkTree) regular(ctx context.Context, db store) bool {
	l, ok := c.plain()
	if !ok {
		return false
	}
	for i, r := range c.refs {
		kind, n, err := db.Stat(r.id)
		if _, want := l.part(i); err != nil || kind != odb.Blob || n != want || ctx.Err() != nil {
			return false
		}
	}
	return true
}

// part is where chunk refs[i] lies.
func (l *layout) part(i int) (off, length int64) {
	if l.parts != nil {
		return l.parts[i].off, l.parts[i].length
	}
	off = int64(l.refs[i].n) * l.chunk
	return off, min(l.chunk, l.size-off)
}

// from is the first chunk that ends behind off; len(refs) if only a hole follows.
func (l *layout) from(off int64) int {
	return sort.Search(len(l.refs), func(i int) bool {
		at, n := l.part(i)
		return at+n > off
	})
}

// data is the first range of chunks without a hole between them that ends behind off; ok is false where there is none.
func (l *layout) data(off int64) (r cold.Range, ok bool) {
	at := l.from(max(off, 0))
	if at == len(l.refs) {
		return r, false
	}
	start, n := l.part(at)
	end := start + n
	for at++; at < len(l.refs); at++ {
		next, n := l.part(at)
		if next != end {
			break
		}
		end += n
	}
	return cold.Range{Off: start, End: end}, true
}

// openLayout reads a chunk tree whose file has size bytes by the metadata (negative: not known).
func openLayout(ctx context.Context, db store, id cold.ID, size int64) (*layout, error) {
	c, err := loadChunks(db, id)
	if errors.Is(err, errNotChunks) {
		return nil, fmt.Errorf("object %s: %w: is a directory, not a file", id, cold.ErrCorrupt)
	}
	if err != nil {
		return nil, err
	}
	if l, ok := c.plain(); ok && l.size == size {
		return l, nil
	}
	return measured(ctx, db, id, c, size)
}

// measured is the layout by the chunks' lengths. It has to be size bytes long unless that is negative.
func measured(ctx context.Context, db store, id cold.ID, c *chunkTree, size int64) (*layout, error) {
	l, _, err := c.measure(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("chunk tree %s: %w", id, err)
	}
	if size >= 0 && l.size != size {
		return nil, wrongSize(id, l.size, size)
	}
	return l, nil
}

func wrongSize(id cold.ID, got, want int64) error {
	return fmt.Errorf("object %s: %w: %d bytes, expected %d", id, cold.ErrCorrupt, got, want)
}
