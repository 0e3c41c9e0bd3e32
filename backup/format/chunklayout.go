package format

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// Layout says where a file's chunks are in the file. It is immutable.
type Layout struct {
	*ChunkTree
	Size int64
	// Parts is the measured layout. If nil, chunk n begins at n times the chunk size, as EmberFS writes it.
	Parts []chunkPart
}

// chunkPart is the place of a chunk in the file, in bytes.
type chunkPart struct{ off, length int64 }

// Plain returns the layout of a tree as EmberFS writes it, without checking the chunks. It returns false if the tree
// was certainly not written so.
func (c *ChunkTree) Plain() (*Layout, bool) {
	if n := len(c.Refs); n > 0 && int64(c.Refs[n-1].N) >= c.Count() {
		return nil, false
	}
	return &Layout{ChunkTree: c, Size: c.Size}, true
}

// Measure determines the layout from the lengths of the chunks, which a stock client may have changed. If no chunk
// number is missing, the file is the concatenation of the chunks. Otherwise each chunk stays at its place, and one that
// became shorter is followed by zeros; problem then says so.
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

// Regular reports whether all chunks exist and have the lengths that EmberFS gave them.
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

// Part returns where chunk Refs[i] is.
func (l *Layout) Part(i int) (off, length int64) {
	if l.Parts != nil {
		return l.Parts[i].off, l.Parts[i].length
	}
	off = int64(l.Refs[i].N) * l.Chunk
	return off, min(l.Chunk, l.Size-off)
}

// From returns the index of the first chunk that ends after off, or len(Refs) if only a hole follows.
func (l *Layout) From(off int64) int {
	return sort.Search(len(l.Refs), func(i int) bool {
		at, n := l.Part(i)
		return at+n > off
	})
}

// Data returns the first range of adjacent chunks that ends after off. ok is false if there is none.
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

// OpenLayout reads the chunk tree of a file that has size bytes by its metadata; a negative size means that it is not
// known.
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

// Measured returns the layout by the chunks' lengths. The file must have size bytes, unless size is negative.
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

// WrongSize returns the error for content that has another length, in bytes, than the metadata says.
func WrongSize(id cold.ID, got, want int64) error {
	return fmt.Errorf("object %s: %w: %d bytes, expected %d", id, cold.ErrCorrupt, got, want)
}
