package backup

import (
	"context"
	"fmt"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// Holds implements cold.Cold. It mostly looks into indexes and at object headers, which takes microseconds; damaged
// bytes are found by check --deep and by every read. Only objects that nothing vouches for are read: loose ones, and
// those in linked packs that were not verified yet (see odb.DB.Kind).
func (c *Cold) Holds(ctx context.Context, id cold.ID, size int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	kind, n, err := c.db.Kind(id)
	switch {
	case err != nil:
		return err
	case kind == odb.Blob && n >= 0 && size >= 0 && n != size:
		return format.WrongSize(id, n, size)
	case kind == odb.Blob:
		return nil
	case kind != odb.Tree:
		return fmt.Errorf("object %s: %w: is a %s, not a file", id, cold.ErrCorrupt, kind)
	}
	l, err := format.OpenLayout(ctx, c.db, id, size)
	if err != nil {
		return err
	}
	for i, r := range l.Refs {
		if i%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if _, _, err := c.db.Kind(r.ID); err != nil {
			return chunkError(id, r.N, err)
		}
	}
	return nil
}
