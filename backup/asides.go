package backup

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Beside lists, as texts for people, the branches in this repository with work that the volume's branch does not
// contain: versions of files that conflicted, and live branches that no commit has absorbed. It does not ask the
// remote.
func (c *Cold) Beside(ctx context.Context) ([]string, error) {
	sides, err := c.db.Refs(sidePrefix + c.o.Branch + "/")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, ref := range slices.Sorted(maps.Keys(sides)) {
		out = append(out, fmt.Sprintf("%s has versions of files that %s has not: take what is wanted of it, then "+
			"remove it", strings.TrimPrefix(ref, "refs/heads/"), c.o.Branch))
	}
	p, err := c.Position(ctx)
	if err != nil || p.Main.IsZero() {
		return out, err
	}
	live, err := c.epochs(livePrefix)
	if err != nil {
		return out, err
	}
	for _, epoch := range slices.Sorted(maps.Keys(live)) {
		ref := c.liveRef(epoch)
		if ref == p.Ref && p.Taken == nil {
			continue
		}
		in, err := c.Follows(ctx, p.Main, live[epoch])
		if err != nil && !IsLost(err) {
			return out, err
		}
		if !in {
			out = append(out, fmt.Sprintf("%s has critical files of a machine that was lost, which %s has not: the "+
				"next mount takes them", strings.TrimPrefix(ref, "refs/heads/"), c.o.Branch))
		}
	}
	return out, nil
}
