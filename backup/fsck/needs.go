package fsck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"emberfs/backup"
	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// Lacks returns what the repository lacks of something of which warm has only a record. It must be called after Check.
// Of a directory that Check went through it only checks the directory's own tree, because Check has reported what is
// missing below. With Deep, it reads content that Check did not go through.
func (c *Checker) Lacks(ctx context.Context, n cold.Need) ([]cold.Lost, error) {
	if !n.Dir {
		return c.lacksContent(ctx, n)
	}
	if lost, ok := c.lacking[n]; ok { // another walk would skip the objects seen
		return lost, nil
	}
	lost, err := c.lacksDir(ctx, n)
	if err == nil && len(lost) > 0 {
		c.lacking[n] = lost
	}
	return lost, err
}

func (c *Checker) lacksContent(ctx context.Context, n cold.Need) ([]cold.Lost, error) {
	err := c.Holds(ctx, n.ID, n.Size)
	if err == nil {
		err = c.hopelessPart(ctx, n)
	}
	if err == nil && c.o.Deep && !c.walked.Has(n.ID) {
		err = c.readThrough(ctx, n)
	}
	switch {
	case err == nil:
		return nil, nil
	case !backup.IsLost(err):
		return nil, err
	}
	return []cold.Lost{{Object: n.ID, Err: err}}, nil
}

// hopelessPart returns an error if an object of a file's content is known to be damaged.
func (c *Checker) hopelessPart(ctx context.Context, n cold.Need) error {
	if len(c.hopeless) == 0 {
		return nil
	}
	bad := func(id cold.ID) error {
		if c.hopeless[id] {
			return fmt.Errorf("object %s: %w: its bytes do not match", id, cold.ErrCorrupt)
		}
		return nil
	}
	if kind, _, err := c.DB().Kind(n.ID); err != nil || kind != odb.Tree {
		return errors.Join(err, bad(n.ID))
	}
	l, err := format.OpenLayout(ctx, c.DB(), n.ID, n.Size)
	if err != nil {
		return err
	}
	for _, r := range l.Refs {
		if err := bad(r.ID); err != nil {
			return err
		}
	}
	return bad(n.ID)
}

func (c *Checker) readThrough(ctx context.Context, n cold.Need) error {
	b, err := c.OpenContent(ctx, n.ID, n.Size)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(io.Discard, struct{ io.Reader }{b}, make([]byte, 256<<10))
	return errors.Join(err, b.Close())
}

func (c *Checker) lacksDir(ctx context.Context, n cold.Need) ([]cold.Lost, error) {
	var lost []cold.Lost
	for _, id := range []cold.ID{n.ID, n.Meta} {
		if c.lostSeen[id] {
			lost = append(lost, cold.Lost{Object: id, Err: fmt.Errorf("object %s: missing or damaged", id)})
		}
	}
	w := &objectWalk{c: c, ctx: ctx, marks: c.walked, partial: c.DB().IsPartial()}
	w.told = func(l lostObject, err error) {
		lost = append(lost, cold.Lost{Path: truePath(ofDir(l.path)), Object: l.id, Err: err})
	}
	return lost, w.dir(n, "")
}

// need walks, for a repair, what warm has only a record of.
func (w *objectWalk) need(n cold.Need) error {
	w.commit = cold.ID{}
	at := ""
	if n.Path != "" {
		for name := range strings.SplitSeq(n.Path, "/") {
			at = path.Join(at, format.EncodeName(name))
		}
	}
	if n.Dir {
		return w.dir(n, at)
	}
	kind, _, err := w.c.DB().Kind(n.ID)
	switch {
	case err != nil:
		return w.lose(n.ID, odb.Blob, at, err)
	case kind == odb.Tree:
		return w.tree(n.ID, at, 0)
	case w.c.hopeless[n.ID]:
		return w.lose(n.ID, odb.Blob, at, fmt.Errorf("%w: its bytes do not match", cold.ErrCorrupt))
	}
	return nil
}

// dir walks a lazy directory, with its metadata.
func (w *objectWalk) dir(n cold.Need, at string) error {
	id, err := w.stored(n.ID)
	if err == nil {
		err = w.tree(id, at, 0)
	}
	if err == nil && !n.Meta.IsZero() {
		err = w.tree(n.Meta, path.Join(format.OwnName, format.MetaName, at), 0)
	}
	return err
}

// stored returns the tree in which a commit stores a directory. The tree of the user's root directory is not stored
// itself; it is part of the commit's tree.
func (w *objectWalk) stored(id cold.ID) (cold.ID, error) {
	if w.c.DB().Has(id) {
		return id, nil
	}
	for _, commit := range []cold.ID{w.c.tipID, w.c.o.Head, w.c.o.Origin} {
		if commit.IsZero() {
			continue
		}
		s, err := w.c.At(commit)
		if err == nil && s.RootTree() == id {
			data, err := backup.ReadCommit(w.c.DB(), commit)
			return data.Tree, err
		}
		if err != nil && !backup.IsLost(err) {
			return id, err
		}
	}
	return id, nil
}

// ofDir returns the directory, in stored names, to which a path of metadata belongs. A path outside of the metadata is
// returned as it is.
func ofDir(p string) string {
	rest, ok := strings.CutPrefix(p, format.OwnName+"/"+format.MetaName)
	if !ok {
		return p
	}
	var out []string
	for name := range strings.SplitSeq(strings.TrimPrefix(rest, "/"), "/") {
		if name == format.EntriesName || name == format.LinksName {
			break
		}
		out = append(out, name)
	}
	return strings.Join(out, "/")
}
