package tiers

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// This file is about lazy directories that a stock client made or changed, and nobody has looked into here. A commit
// needs metadata of them, and of all below, as a listing would make it. Nothing has to be made in warm for that.

// errLinked says that a directory has to be listed because it holds names of files with several.
var errLinked = errors.New("files with several names")

// describe stores the lazy directory n, at the path at, as cold has it. done is false where n is not lazy, or has to be
// listed instead.
func (c *capture) describe(n *Inode, at string, parent *dirMark) (id cold.DirID, done bool, err error) {
	v := c.v
	if n == v.root || !n.dir.lazy.Load() {
		return cold.DirID{}, false, nil
	}
	n.mu.Lock()
	rec := n.mu.rec
	n.mu.Unlock()
	if !rec.Has(warm.FlagLazy) || v.links.any.Load() || v.Rules().HasIgnore() {
		return cold.DirID{}, false, nil
	}
	// Changed names are noted from now on, as in beginFull: the directory may be listed and changed meanwhile.
	m := &dirMark{n: n, parent: parent, name: path.Base(at), full: true}
	c.beginFull(m)
	m.id, err = c.describeTree(c.ctx, m, at, cold.DirID{Tree: rec.ID, Meta: rec.Meta})
	if errors.Is(err, errLinked) {
		return cold.DirID{}, false, nil
	}
	if err != nil {
		return cold.DirID{}, true, err
	}
	v.ref(n)
	c.marks = append(c.marks, m)
	c.keepMarks(m)
	c.boundary.done(n)
	return m.id, true, nil
}

// describeTree stores, with all below it, the directory id of the commit from which lazy directories are listed
// (Volume.origin). m is the mark of the lazy directory above.
func (c *capture) describeTree(ctx context.Context, m *dirMark, at string, id cold.DirID) (cold.DirID, error) {
	if err := ctx.Err(); err != nil {
		return cold.DirID{}, err
	}
	if err := cold.TooDeepToTake(at); err != nil {
		return cold.DirID{}, err
	}
	l, err := c.v.readDir(ctx, id)
	if err != nil {
		return cold.DirID{}, fmt.Errorf("%w: %w", errNotListed, err)
	}
	if !l.Reconciled && len(l.Problems) == 0 {
		s, err := c.v.origin(ctx)
		if err == nil {
			var valid bool
			if valid, err = s.Valid(ctx, id); valid {
				return id, nil
			}
		}
		if err != nil {
			return cold.DirID{}, fmt.Errorf("%w: %w", errNotListed, err)
		}
	}
	for _, p := range l.Problems {
		c.v.log.WithField("path", at).WithError(p).Warn("the repository describes this directory wrongly")
	}
	put := slices.Clone(l.Entries)
	for i := range put {
		e := &put[i]
		switch {
		case e.Link != "":
			return cold.DirID{}, errLinked
		case e.Kind == cold.KindFile:
			e.Lost = true // PutDir does not look for the content
		case e.Kind == cold.KindDir:
			sub, err := c.describeTree(ctx, m, path.Join(at, e.Name), e.Dir())
			if errors.Is(err, cold.ErrTooDeep) {
				continue // it stays as the stock client has it, without our metadata
			}
			if staysOut(err) {
				c.fail(path.Join(at, e.Name), 0, err)
				m.keep = true
				continue
			}
			if err != nil {
				return cold.DirID{}, err
			}
			e.ID, e.Meta = sub.Tree, sub.Meta
		}
	}
	out, err := c.tx.PutDir(ctx, id, true, nil, put, nil)
	if err != nil {
		return cold.DirID{}, fmt.Errorf("store directory %q: %w", at, err)
	}
	return out, nil
}
