package fsck

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"emberfs/backup"
	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// objectWalk goes through everything that references reach, and reports what is missing or damaged, each object once.
type objectWalk struct {
	c       *Checker
	ctx     context.Context
	marks   *odb.Marks
	shallow map[cold.ID]bool
	partial bool // missing blobs are promised by the remote
	commit  cold.ID
	absent  int // number of promised objects that are not here
	// told is called with lost objects instead of Options.Found; if nil, they are not reported.
	told func(lostObject, error)
}

func (c *Checker) newWalk(ctx context.Context) (*objectWalk, error) {
	w := &objectWalk{c: c, ctx: ctx, partial: c.DB().IsPartial()}
	var err error
	if w.shallow, err = c.DB().Shallow(); err != nil {
		c.found(cold.Finding{Severity: cold.Damaged, What: err.Error(), Where: "shallow", Do: "fetch the history anew"})
	}
	w.marks, err = c.DB().NewMarks()
	return w, err
}

// history walks what the references reach: with Deep all of it, otherwise only the tips of main and of the live branch
// that follows it.
func (w *objectWalk) history(states []odb.RefState) error {
	var tips []cold.ID
	if !w.c.tipID.IsZero() {
		tips = append(tips, w.c.tipID)
	}
	if id := w.c.mainID; !id.IsZero() && id != w.c.tipID {
		tips = append(tips, id)
	}
	if w.c.o.Deep {
		for _, s := range states {
			if !s.ID.IsZero() {
				tips = append(tips, s.ID)
			}
		}
		for _, id := range []cold.ID{w.c.o.Head, w.c.o.Origin} {
			if !id.IsZero() && w.c.DB().Has(id) {
				tips = append(tips, id)
			}
		}
	}
	for _, id := range tips {
		if err := w.top(id); err != nil {
			return err
		}
	}
	if w.absent > 0 {
		w.c.found(cold.Finding{Severity: cold.Note,
			What: fmt.Sprintf("%d objects are not here, the remote has promised them (a partial clone)", w.absent)})
	}
	if n := len(w.c.lost) - maxLostFindings; n > 0 {
		w.c.found(cold.Finding{Severity: cold.Damaged, What: fmt.Sprintf("%d more objects are missing or damaged", n),
			Do: doRepair})
	}
	return nil
}

// top walks what a reference points to, a commit or a tag of anything.
func (w *objectWalk) top(id cold.ID) error {
	for range 16 { // a tag may point to another tag
		t, _, err := w.c.DB().Stat(id)
		switch {
		case err != nil || t == odb.Commit:
			return w.commits(id)
		case t == odb.Tree:
			return w.tree(id, "", 0)
		case t == odb.Blob:
			return nil
		}
		if !w.marks.Add(id) {
			return nil
		}
		data, err := w.c.DB().Read(id, odb.Tag, backup.MaxCommit)
		if err == nil {
			id, err = tagged(data)
		}
		if err != nil {
			return w.lose(id, odb.Tag, "", err)
		}
	}
	return nil
}

// tagged returns the object that an annotated tag names.
func tagged(data []byte) (cold.ID, error) {
	line, _, _ := strings.Cut(string(data), "\n")
	hex, ok := strings.CutPrefix(line, "object ")
	if !ok {
		return cold.ID{}, fmt.Errorf("%w: tag without object", cold.ErrCorrupt)
	}
	return cold.ParseID(hex)
}

// commits walks a commit and, with Deep, its ancestors.
func (w *objectWalk) commits(tip cold.ID) error {
	queue := []cold.ID{tip}
	for len(queue) > 0 {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		id := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if !w.marks.Add(id) {
			continue
		}
		w.commit = id
		commit, err := backup.ReadCommit(w.c.DB(), id)
		if err != nil {
			if err := w.lose(id, odb.Commit, "", err); err != nil {
				return err
			}
			continue
		}
		if err := w.tree(commit.Tree, "", 0); err != nil {
			return err
		}
		if w.c.o.Deep && !w.shallow[id] {
			queue = append(queue, commit.Parents...)
		}
	}
	return nil
}

// moreDepth is how many more levels a repository's trees have than the directories that they store, because of the
// folders of metadata, the shards of a wide directory's metadata, and chunks.
const moreDepth = 2 + format.MaxLevels + 1

// tree walks a tree; at is its path in stored names.
func (w *objectWalk) tree(id cold.ID, at string, depth int) error {
	if id == odb.EmptyTree || !w.marks.Add(id) {
		return nil
	}
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if err := cold.TooDeepToWalk(at, depth-moreDepth); err != nil {
		return w.lose(id, odb.Tree, at, fmt.Errorf("%w: %w", cold.ErrCorrupt, err))
	}
	var p format.Problems
	entries, err := format.ReadTree(w.c.DB(), id, &p)
	if err != nil {
		return w.lose(id, odb.Tree, at, err)
	}
	for _, err := range p.List {
		w.c.found(cold.Finding{Severity: cold.Damaged, What: err.Error(), Path: truePath(at), Commit: w.commit.String(),
			Object: id.String(),
			Do:     "git refuses such a tree; commit the directory anew"})
	}
	for _, e := range entries {
		below := path.Join(at, e.Name)
		switch e.Mode {
		case odb.ModeGitlink:
		case odb.ModeTree:
			if err := w.tree(e.ID, below, depth+1); err != nil {
				return err
			}
		default:
			if !w.marks.Add(e.ID) {
				continue
			}
			err := error(nil)
			if w.c.hopeless[e.ID] {
				err = fmt.Errorf("%w: its bytes do not match", cold.ErrCorrupt)
			} else if !w.c.DB().Has(e.ID) {
				err = cold.ErrMissing
			}
			if err != nil {
				if err := w.lose(e.ID, odb.Blob, below, err); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// lose notes an object that cannot be read. If the disk fails, it returns an error, which ends the walk.
func (w *objectWalk) lose(id cold.ID, kind odb.Type, at string, err error) error {
	missing := backup.IsMissing(err)
	if !missing && !errors.Is(err, cold.ErrCorrupt) && !errors.Is(err, odb.ErrTooLarge) &&
		!errors.Is(err, odb.ErrCollision) {
		return err
	}
	if w.partial && missing && kind != odb.Commit {
		w.absent++
		return nil
	}
	if w.c.lostSeen[id] {
		return nil
	}
	w.c.lostSeen[id] = true
	if len(w.c.lost) >= maxLost {
		return nil
	}
	w.c.lost = append(w.c.lost, lostObject{id, kind, at, w.commit})
	if w.told != nil {
		w.told(w.c.lost[len(w.c.lost)-1], err)
		return nil
	}
	if len(w.c.lost) > maxLostFindings {
		return nil
	}
	what := fmt.Sprintf("a %s is missing", kind)
	if !missing {
		what = fmt.Sprintf("a %s is damaged: %v", kind, err)
	}
	do := "fetch it from another clone"
	if w.c.o.Volume {
		do = doRepair + " tries to get it from the remote"
		if kind == odb.Blob {
			do += " and from warm"
		}
	}
	f := cold.Finding{Severity: cold.Damaged, What: what, Path: truePath(at), Object: id.String(), Do: do}
	if !w.commit.IsZero() {
		f.Commit = w.commit.String()
	}
	w.c.found(f)
	return nil
}

// truePath converts stored names to the names in the volume, as far as that is possible.
func truePath(at string) string {
	if at == "" {
		return ""
	}
	parts := strings.Split(at, "/")
	for i, p := range parts {
		if name, err := format.DecodeName(p); err == nil {
			parts[i] = name
		}
	}
	return strings.Join(parts, "/")
}
