package backup

import (
	"context"
	"fmt"
	"math"
	"slices"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// maxCounted is how many trees have their counts remembered. That is enough against hostile repositories, which get
// their huge counts from few trees that are named often.
const maxCounted = 100_000

// Files implements cold.Snapshot. It reads trees, no metadata and no content.
func (s *Snapshot) Files(ctx context.Context, most int64) (files, names int64, err error) {
	c := counter{ctx: ctx, s: s, most: most, known: make(map[cold.ID]counts)}
	n, err := c.entries(s.entries, 0)
	return n.files, n.names, err
}

// counts is what one tree amounts to.
type counts struct {
	file         bool  // the tree is a file in chunks, not a directory: the chunks do not count
	files, names int64 // including everything below
}

// counter adds up the entries of trees. A tree counts each time that it is named, so a megabyte of trees can stand for
// 10^12 files.
type counter struct {
	ctx   context.Context
	s     *Snapshot
	most  int64
	known map[cold.ID]counts
}

// entries counts what a directory contains, at all levels. If there are more than c.most names it stops early and
// returns some number over c.most.
func (c *counter) entries(list []odb.TreeEntry, depth int) (sum counts, err error) {
	if cold.TooDeepToWalk("", depth) != nil {
		return counts{}, nil // left out, like what tree cannot read
	}
	sum.names = int64(len(list))
	for i := range list {
		if sum.names > c.most {
			return sum, nil
		}
		if list[i].Mode != odb.ModeTree {
			sum.files++
			continue
		}
		n, err := c.tree(list[i].ID, depth+1)
		if err != nil {
			return counts{}, fmt.Errorf("%s: %w", list[i].Name, err)
		}
		if n.file {
			sum.files++
			continue
		}
		sum.files += n.files
		if sum.names += n.names; sum.names < 0 || sum.files < 0 {
			return counts{files: math.MaxInt64, names: math.MaxInt64}, nil
		}
	}
	return sum, nil
}

func (c *counter) tree(id cold.ID, depth int) (counts, error) {
	if n, ok := c.known[id]; ok {
		return n, nil
	}
	if err := c.ctx.Err(); err != nil {
		return counts{}, err
	}
	list, err := format.ReadTree(c.s.db, id, format.Ignored())
	if err != nil {
		return counts{}, nil // the restore itself says what is wrong with it
	}
	n := counts{file: slices.ContainsFunc(list, func(e odb.TreeEntry) bool { return e.Name == format.ChunksName })}
	if !n.file {
		n, err = c.entries(list, depth)
	}
	if err == nil && len(c.known) < maxCounted {
		c.known[id] = n
	}
	return n, err
}
