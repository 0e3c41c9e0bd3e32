package format

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// Layout says where in a file its chunks lie. It is immutable.
type Layout struct {
	*ChunkTree
	Size int64
	// Parts are what was measured; nil: chunk n begins at n times the chunk size, as we write it.
	Parts []chunkPart
}

// chunkPart is where a chunk lies, in bytes.
type chunkPart struct{ off, length int64 }

// Plain is the layout of a tree as we write it, taken at its word; false where it cannot be one.
func (c *ChunkTree) Plain() (*Layout, bool) {
	if n := len(c.Refs); n > 0 && int64(c.Refs[n-1].N) >= c.Count() {
		return nil, false
	}
	return &Layout{ChunkTree: c, Size: c.Size}, true
}

// Measure finds out the layout from the lengths of the chunks, which a stock client may have changed: where no number
// is missing the file is what cat makes of the chunks; otherwise each stays at its place, and one that is shorter than
// it was has zeros behind it. That is worth a word, which is the problem.
func (c *ChunkTree) Measure(ctx context.Context, db Store) (l *Layout, problem, err error) {
	l = &Layout{ChunkTree: c, Parts: make([]chunkPart, len(c.Refs))}
	last := len(c.Refs) - 1
	var sum int64
	short, long := -1, -1
	for i, r := range c.Refs {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		kind, n, err := db.Stat(r.ID)
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("chunk %0*d: %w", ChunkName, r.N, err)
		case kind != odb.Blob:
			return nil, nil, fmt.Errorf("chunk %0*d: %w: object %s is a %s", ChunkName, r.N, cold.ErrCorrupt, r.ID,
				kind)
		case n > MaxLong:
			return nil, nil, fmt.Errorf("chunk %0*d: %w: %d bytes, with a chunk size of %d", ChunkName, r.N,
				cold.ErrCorrupt, n, c.Chunk)
		}
		l.Parts[i] = chunkPart{sum, n}
		sum += n
		if i < last && n < c.Chunk {
			short = i
		}
		if i < last && n > c.Chunk {
			long = i
		}
	}
	if last < 0 {
		l.Size = c.Size
		return l, nil, nil
	}
	end := int64(c.Refs[last].N) + 1
	if end == int64(len(c.Refs)) && end >= c.Count() {
		l.Size = sum
		return l, nil, nil
	}
	if long < 0 && end < c.Count() && l.Parts[last].length > c.Chunk {
		long = last
	}
	if long >= 0 {
		return nil, nil, fmt.Errorf("chunk %0*d: %w: %d bytes, with a chunk size of %d and chunks missing", ChunkName,
			c.Refs[long].N,
			cold.ErrCorrupt, l.Parts[long].length, c.Chunk)
	}
	for i, r := range c.Refs {
		l.Parts[i].off = int64(r.N) * c.Chunk
	}
	l.Size = c.Size
	if end >= c.Count() {
		l.Size = l.Parts[last].off + l.Parts[last].length
	} else if short < 0 && l.Parts[last].length < c.Chunk {
		short = last
	}
	if short >= 0 {
		problem = fmt.Errorf("chunk %0*d has %d bytes of %d and chunks are missing: zeros fill the place", ChunkName,
			c.Refs[short].N,
			l.Parts[short].length, c.Chunk)
	}
	return l, problem, nil
}

// Regular says whether all chunks are there with the lengths that we gave them.
func (c *ChunkTree) Regular(ctx context.Context, db Store) bool {
	l, ok := c.Plain()
	if !ok {
		return false
	}
	for i, r := range c.Refs {
		kind, n, err := db.Stat(r.ID)
		if _, want := l.Part(i); err != nil || kind != odb.Blob || n != want || ctx.Err() != nil {
			return false
		}
	}
	return true
}

// Part is where chunk refs[i] lies.
func (l *Layout) Part(i int) (off, length int64) {
	if l.Parts != nil {
		return l.Parts[i].off, l.Parts[i].length
	}
	off = int64(l.Refs[i].N) * l.Chunk
	return off, min(l.Chunk, l.Size-off)
}

// From is the first chunk that ends behind off; len(refs) if only a hole follows.
func (l *Layout) From(off int64) int {
	return sort.Search(len(l.Refs), func(i int) bool {
		at, n := l.Part(i)
		return at+n > off
	})
}

// Data is the first range of chunks without a hole between them that ends behind off; ok is false where there is none.
func (l *Layout) Data(off int64) (r cold.Range, ok bool) {
	at := l.From(max(off, 0))
	if at == len(l.Refs) {
		return r, false
	}
	start, n := l.Part(at)
	end := start + n
	for at++; at < len(l.Refs); at++ {
		next, n := l.Part(at)
		if next != end {
			break
		}
		end += n
	}
	return cold.Range{Off: start, End: end}, true
}

// OpenLayout reads a chunk tree whose file has size bytes by the metadata (negative: not known).
func OpenLayout(ctx context.Context, db Store, id cold.ID, size int64) (*Layout, error) {
	c, err := LoadChunks(db, id)
	if errors.Is(err, ErrNotChunks) {
		return nil, fmt.Errorf("object %s: %w: is a directory, not a file", id, cold.ErrCorrupt)
	}
	if err != nil {
		return nil, err
	}
	if l, ok := c.Plain(); ok && l.Size == size {
		return l, nil
	}
	return Measured(ctx, db, id, c, size)
}

// Measured is the layout by the chunks' lengths. It has to be size bytes long unless that is negative.
func Measured(ctx context.Context, db Store, id cold.ID, c *ChunkTree, size int64) (*Layout, error) {
	l, _, err := c.Measure(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("chunk tree %s: %w", id, err)
	}
	if size >= 0 && l.Size != size {
		return nil, WrongSize(id, l.Size, size)
	}
	return l, nil
}

// WrongSize is the error of content that has another length, in bytes, than the metadata says.
func WrongSize(id cold.ID, got, want int64) error {
	return fmt.Errorf("object %s: %w: %d bytes, expected %d", id, cold.ErrCorrupt, got, want)
}
