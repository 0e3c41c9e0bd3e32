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

// storeContent is the one place where a file's content becomes an object id. What base has at the same place is not
// stored again, provided that it is still there.
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

// blob is a file's content that is one git blob.
type blob struct{ *odb.BlobReader }

func (blob) SkipHole() int64 { return 0 }

// OpenContent is the one place where an object id becomes a file's content again, as a stream. size is what the
// metadata says; negative means not known.
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

// openContentAt is openContent for reading at any offset.
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

// openObject opens content that is one blob; nil where it is a tree. Small files are blobs without a look, unless that
// fails: a stock client can make small chunks.
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

// openBlob opens content that is one blob.
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
