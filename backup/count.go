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

// maxCounted bounds the trees whose totals are remembered; a bomb is made of few trees that come often.
const maxCounted = 100_000

// Files implements cold.Snapshot. It reads trees, no metadata and no content.
func (s *Snapshot) Files(ctx context.Context, most int64) (files, names int64, err error) {
	c := counter{ctx: ctx, s: s, most: most, known: make(map[cold.ID]counts)}
	n, err := c.entries(s.entries, 0)
	return n.files, n.names, err
}

// counts are what a tree stands for.
type counts struct {
	file         bool  // a big file's chunks: they are no names
	files, names int64 // with all below
}

// counter adds up the entries of trees, each as often as it is named: a tree of a megabyte can stand for 10^12 files.
type counter struct {
	ctx   context.Context
	s     *Snapshot
	most  int64
	known map[cold.ID]counts
}

// entries counts what a directory holds with all below; over most names it stops and gives some number over most.
func (c *counter) entries(list []odb.TreeEntry, depth int) (sum counts, err error) {
	if cold.TooDeepToWalk("", depth) != nil {
		return counts{}, nil // as in tree
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
