package backup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sirupsen/logrus"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// maintainRate is how many bytes per second background work may copy: a small part of what a disk can do, so that reads
// and commits hardly notice.
const maintainRate = 32 << 20

// Maintain implements cold.Cold.
func (c *Cold) Maintain(ctx context.Context) error {
	if err := c.verifyLinked(ctx); err != nil {
		return fmt.Errorf("maintain cold storage: %w", err)
	}
	n, err := c.db.Consolidate(ctx, odb.ConsolidateOptions{BytesPerSecond: maintainRate})
	if err != nil {
		return fmt.Errorf("maintain cold storage: %w", err)
	}
	if n > 0 {
		packs, _, _ := c.db.Stats()
		c.log.WithField("merged", n).WithField("packs", packs).Info("packs were merged")
	}
	return nil
}

// verifyLinked verifies the packs that the first fetch linked from the remote. If one is damaged, everything is fetched
// once more: the remote may have another copy of the damaged objects.
func (c *Cold) verifyLinked(ctx context.Context) error {
	n, err := c.db.VerifyLinked(ctx, maintainRate)
	if n > 0 {
		c.log.WithField("packs", n).Info("linked packs were verified")
	}
	if !errors.Is(err, cold.ErrCorrupt) || c.remote == nil {
		return err
	}
	c.log.WithError(err).Error("a pack that was linked from the remote is damaged; fetching its objects")
	done, err := c.exclusive(ctx)
	if err != nil {
		return err
	}
	defer done()
	p, err := c.Position(ctx)
	if err != nil {
		return err
	}
	for _, ref := range []string{c.ref, p.Ref} {
		_, release, err := c.remote.Fetch(ctx, c.db, ref, nil)
		if ref == p.Ref && errors.Is(err, odb.ErrNoRef) {
			continue
		}
		if err == nil {
			err = release()
		}
		if err != nil {
			return fmt.Errorf("fetch %s: %w", ref, err)
		}
	}
	return nil
}

// GC implements cold.Cold.
func (c *Cold) GC(ctx context.Context, o cold.GCOptions) (cold.GCReport, error) {
	return c.db.GC(ctx, o)
}

// Collect is GC for the repository at dir of a volume that is not in use. The caller must hold the volume's lock. A dry
// run writes nothing there.
func Collect(ctx context.Context, dir string, log logrus.FieldLogger, o cold.GCOptions) (report cold.GCReport,
	err error) {
	open := odb.Open
	if o.DryRun {
		open = odb.OpenReadOnly
	}
	db, err := open(dir, odb.Options{Log: log, Shard: isMetadata})
	if err != nil {
		return report, err
	}
	report, err = db.GC(ctx, o)
	return report, errors.Join(err, db.Close())
}

// isMetadata reports whether a blob is metadata, judging by its first bytes: the first line is a header or, in a shard,
// an entry.
func isMetadata(head []byte) bool {
	return strings.HasPrefix(string(head), `{"tree":"`) || strings.HasPrefix(string(head), `{"name`)
}
