package backup

import (
	"context"
	"fmt"
	"math"
	"slices"

	"emberfs/backup/odb"
	"emberfs/tiers"
)

const (
	// maxCounted bounds the trees whose totals are remembered; a bomb is made of few trees that come often.
	maxCounted = 100_000
	// maxTreeDepth is as deep as any path of Linux; a hostile repository's trees are deeper.
	maxTreeDepth = 2048
)

// Files implements tiers.Snapshot. It reads trees, no metadata and no content.
func (s *snapshot) Files(ctx context.Context, most int64) (int64, error) {
	c := counter{ctx: ctx, s: s, most: most, known: make(map[tiers.ID]int64)}
	return c.entries(s.entries, 0)
}

// counter adds up the entries of trees, each as often as it is named: a tree of a megabyte can stand for 10^12 files.
type counter struct {
	ctx   context.Context
	s     *snapshot
	most  int64
	known map[tiers.ID]int64
}

// entries counts what a directory holds with all below; over most it stops and gives some number over most.
func (c *counter) entries(list []odb.TreeEntry, depth int) (int64, error) {
	if depth > maxTreeDepth {
		return 0, fmt.Errorf("%w: more than %d levels of directories", tiers.ErrCorrupt, maxTreeDepth)
	}
	sum := int64(len(list))
	for i := range list {
		if sum > c.most {
			return sum, nil
		}
		if list[i].Mode != odb.ModeTree {
			continue
		}
		n, err := c.tree(list[i].ID, depth+1)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", list[i].Name, err)
		}
		if sum += n; sum < 0 {
			return math.MaxInt64, nil
		}
	}
	return sum, nil
}

func (c *counter) tree(id tiers.ID, depth int) (int64, error) {
	if n, ok := c.known[id]; ok {
		return n, nil
	}
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	list, err := readTree(c.s.db, id, ignored())
	if err != nil {
		return 0, nil // the restore itself says what is wrong with it
	}
	n := int64(0) // a big file's chunks are not files
	if !slices.ContainsFunc(list, func(e odb.TreeEntry) bool { return e.Name == chunksName }) {
		n, err = c.entries(list, depth)
	}
	if err == nil && len(c.known) < maxCounted {
		c.known[id] = n
	}
	return n, err
}
