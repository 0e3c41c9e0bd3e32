package backup

import (
	"context"
	"fmt"
	"io"

	"emberfs/backup/odb"
	"emberfs/tiers"
)

// storeContent is the one place where a file's content becomes an object id. base is the id that the same path has in the
// commit being extended: the same content is not stored again, provided that it is still there.
func (c *Cold) storeContent(ctx context.Context, w *odb.Writer, size int64, r io.Reader, base tiers.ID) (tiers.ID, error) {
	drop := func(id tiers.ID) bool { return id == base && c.db.Has(id) }
	return w.PutStreamContext(ctx, size, r, drop)
}

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
	return b, nil
}
