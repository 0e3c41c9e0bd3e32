package backup

import (
	"context"
	"fmt"
	"io"
	"math"

	"emberfs/backup/odb"
	"emberfs/tiers"
)

// storeContent is the one place where a file's content becomes an object id. base is the id that the same path has in the
// commit being extended: the same content is not stored again, provided that it is still there.
func (c *Cold) storeContent(ctx context.Context, w *odb.Writer, f tiers.Content, base tiers.Base) (tiers.ID, error) {
	drop := func(id tiers.ID) bool { return id == base.ID && c.db.Has(id) }
	return w.PutStreamContext(ctx, f.Size(), io.NewSectionReader(f, 0, math.MaxInt64), drop)
}

// blob is a file's content that is one git blob.
type blob struct{ *odb.BlobReader }

func (blob) SkipHole() int64 { return 0 }

// openContent is the one place where an object id becomes a file's content again. size is what the metadata says; negative
// means not known.
func (c *Cold) openContent(id tiers.ID, size int64) (tiers.Blob, error) {
	b, err := c.db.Stream(id)
	if err != nil {
		return nil, err
	}
	if size >= 0 && b.Size() != size {
		err := fmt.Errorf("object %s: %w: %d bytes, expected %d", id, tiers.ErrCorrupt, b.Size(), size)
		if cerr := b.Close(); cerr != nil {
			err = fmt.Errorf("%w; close: %w", err, cerr)
		}
		return nil, err
	}
	return blob{b}, nil
}
