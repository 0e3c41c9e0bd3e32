package log

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"emberfs/backup"
	"emberfs/tiers/cold"
)

// Point is a commit that can be restored.
type Point struct {
	Commit
	Refs []string // branches, "tag: NAME" and "remote: BRANCH" (as last seen) that are at it, sorted
	// Remote says that the remote is known to have it. It may be false although the remote has it, if the clocks of its
	// branches differ by more than backup.ClockSkew.
	Remote bool
}

// HasTracking reports whether it is known what the volume's remote has.
func (c *Reader) HasTracking() (bool, error) {
	id, err := c.ReadRef(c.TrackingRef())
	return !id.IsZero(), err
}

// Points yields all commits that branches, tags and the remote's branch reach, newest first, like Log.
func (c *Reader) Points(ctx context.Context) iter.Seq2[Point, error] {
	return func(yield func(Point, error) bool) {
		labels, err := c.labels()
		if err != nil {
			yield(Point{}, err)
			return
		}
		remote, err := c.newWalk()
		if err != nil {
			yield(Point{}, err)
			return
		}
		seen, err := c.ReadRef(c.TrackingRef())
		if err != nil {
			yield(Point{}, err)
			return
		}
		if !seen.IsZero() {
			labels[seen] = append(labels[seen], "remote: "+c.Branch())
			remote.push(seen, cold.ID{})
		}
		if live, err := c.Tracked(ctx); err == nil && live != seen {
			labels[live] = append(labels[live], "remote: "+c.Branch()+", live")
			remote.push(live, cold.ID{})
		}
		var tips []cold.ID
		for id, names := range labels {
			slices.Sort(names)
			tips = append(tips, id)
		}
		slices.SortFunc(tips, func(a, b cold.ID) int { return slices.Compare(a[:], b[:]) })
		for commit, err := range c.Log(ctx, tips, nil) {
			p := Point{Commit: commit, Refs: labels[commit.ID]}
			if err == nil {
				p.Remote, err = remote.reaches(ctx, commit.ID, commit.Time.Add(-backup.ClockSkew))
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}

// reaches reports whether the walk leads to a commit. It goes back no further than to since.
func (w *walk) reaches(ctx context.Context, id cold.ID, since time.Time) (bool, error) {
	for {
		if _, ok := w.seen[id]; ok {
			return true, nil
		}
		s, err := w.next(ctx)
		if err != nil {
			return false, err
		}
		if s == nil || s.at().Before(since) {
			_, ok := w.seen[id]
			return ok, nil
		}
	}
}

// labels returns the names of the branches and tags at each commit. The carriers of a push under way are no commits
// that can be restored.
func (c *Reader) labels() (map[cold.ID][]string, error) {
	labels := make(map[cold.ID][]string)
	for prefix, mark := range map[string]string{"refs/heads/": "", "refs/tags/": "tag: "} {
		refs, err := c.DB().Refs(prefix)
		if err != nil {
			return nil, err
		}
		for name, id := range refs {
			if backup.IsCarrier(name) {
				continue
			}
			short := mark + strings.TrimPrefix(name, prefix)
			if mark != "" {
				if id, err = c.peel(id); err != nil {
					// A tag may be of a file, and a broken one must not hide branches.
					c.Logger().WithError(fmt.Errorf("%s: %w", name, err)).Debug("a tag is left out")
					continue
				}
			}
			labels[id] = append(labels[id], short)
		}
	}
	return labels, nil
}
