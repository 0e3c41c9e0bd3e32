package backup

import (
	"fmt"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// dirBase is the directory of the base commit that a new version is made from.
type dirBase struct {
	dirData
	rest  []byte
	nodes []odb.TreeEntry
	// chunks are the chunk sizes of those files to be put that are stored in chunks, by object id.
	chunks map[cold.ID]int64
	// known are the objects that the base commit reaches at this place.
	known map[cold.ID]struct{}
	// hidden and moved are filled in by findHidden, which explains them.
	hidden, moved map[string]bool
	// sound says that tree and metadata are as this package writes them, so that they can be extended. If it is false
	// because they could not be read, err says why.
	sound bool
	err   error
}

// loadBase reads a directory of the base commit without its shards. If it cannot be read, the result is not sound.
func (t *tx) loadBase(dir cold.DirID) *dirBase {
	b := &dirBase{known: make(map[cold.ID]struct{})}
	if t.base == nil || dir == (cold.DirID{}) {
		return b
	}
	b.err = b.load(t, dir)
	b.sound = b.err == nil && !dir.Meta.IsZero()
	b.valid = b.sound && b.head.Tree == dir.Tree
	return b
}

func (b *dirBase) load(t *tx, dir cold.DirID) error {
	var p format.Problems
	var err error
	if b.tree, err = t.base.tree(dir.Tree, &p); err != nil {
		return fmt.Errorf("tree %s: %w", dir.Tree, err)
	}
	b.known[dir.Tree] = struct{}{}
	if dir.Meta.IsZero() {
		return nil
	}
	if b.meta, err = format.LoadMetaDir(t.c.db, dir.Meta, &p); err != nil {
		return err
	}
	b.known[dir.Meta] = struct{}{}
	b.known[b.meta.Entries.ID] = struct{}{}
	b.known[b.meta.Links.ID] = struct{}{}
	if b.head, b.rest, b.nodes, err = b.meta.ReadHeader(t.c.db); err != nil {
		return fmt.Errorf("metadata directory %s: %w", dir.Meta, err)
	}
	b.known[b.meta.Header] = struct{}{}
	for _, n := range b.nodes {
		b.known[n.ID] = struct{}{}
	}
	if len(p.List) > 0 {
		return fmt.Errorf("%w: %w", cold.ErrCorrupt, p.List[0])
	}
	return nil
}
