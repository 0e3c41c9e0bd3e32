package backup

import (
	"context"
	"errors"
	"io"
	"math"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// storeContent turns a file's content into an object id; this is the only place that does so. What base has at the same
// place is not stored again if it is still in the repository.
func (t *tx) storeContent(ctx context.Context, f cold.Content, base cold.Base) (cold.ID, error) {
	threshold := t.c.o.ChunkThreshold
	var old *format.ChunkTree
	if f.Size() >= threshold/2 {
		old = t.loadBaseChunks(base.ID)
	}
	if chunk := format.ChunkSizeFor(f.Size(), threshold, old); chunk != 0 {
		return t.storeChunks(ctx, f, base, old, chunk)
	}
	drop := func(id cold.ID) bool { return id == base.ID && t.c.db.Has(id) }
	return t.w.PutStreamContext(ctx, f.Size(), io.NewSectionReader(f, 0, math.MaxInt64), drop)
}

// blob is the content of a file that is stored as a single git blob.
type blob struct{ *odb.BlobReader }

func (blob) SkipHole() int64 { return 0 }

// OpenContent opens the content with an object id as a stream; together with openContentAt it is the only place that
// knows how content is stored. size is the size from the metadata; a negative one means that it is not known.
func (c *Cold) OpenContent(ctx context.Context, id cold.ID, size int64) (cold.Blob, error) {
	b, err := c.openObject(id, size)
	if err != nil {
		return nil, err
	}
	if b != nil {
		return blob{b}, nil
	}
	l, err := format.OpenLayout(ctx, c.db, id, size)
	if err != nil {
		return nil, err
	}
	return &chunkReader{db: c.db, id: id, l: l}, nil
}

// openContentAt is like OpenContent, but for reading at any offset.
func (c *Cold) openContentAt(ctx context.Context, id cold.ID, size int64) (cold.BlobAt, error) {
	b, err := c.openObject(id, size)
	if err != nil {
		return nil, err
	}
	if b != nil {
		return newBlobAt(c, id, b), nil
	}
	l, err := format.OpenLayout(ctx, c.db, id, size)
	if err != nil {
		return nil, err
	}
	return newChunksAt(c.db, id, l), nil
}

// openObject opens content that is a single blob, and returns nil if the object is a tree. A small file is opened as a
// blob without looking at the object's type first. If that fails the type is looked at after all, since a stock client
// may have made a small file of chunks.
func (c *Cold) openObject(id cold.ID, size int64) (*odb.BlobReader, error) {
	var first error
	if size >= 0 && size < format.MinChunk {
		b, err := c.openBlob(id, size)
		if err == nil {
			return b, nil
		}
		first = err
	}
	kind, _, err := c.db.Stat(id)
	switch {
	case err == nil && kind == odb.Tree:
		return nil, nil
	case first != nil:
		return nil, first
	case err != nil:
		return nil, err
	}
	return c.openBlob(id, size)
}

// openBlob opens content that is a single blob, and checks its size unless that is negative.
func (c *Cold) openBlob(id cold.ID, size int64) (*odb.BlobReader, error) {
	b, err := c.db.Stream(id)
	if err != nil {
		return nil, err
	}
	if size >= 0 && b.Size() != size {
		return nil, errors.Join(format.WrongSize(id, b.Size(), size), b.Close())
	}
	return b, nil
}
