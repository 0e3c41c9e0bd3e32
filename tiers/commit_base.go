package tiers

import (
	"context"
	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
	"errors"
	"fmt"
	"slices"
)

// checkBase refuses to commit over somebody else's work: the newest commit must be where this volume's uncommitted
// changes began, or ahead of that by commits of our own whose note in volume.json was lost with the daemon.
func (v *Volume) checkBase(ctx context.Context, base cold.Snapshot) error {
	if base == nil || v.state.Head == "" {
		return nil // cold is new, or was lost and made anew: all is stored
	}
	const most = 1000
	ok, err := v.reaches(ctx, base, most, func(info *cold.CommitInfo) bool { return info.Machine == v.state.Machine })
	if ok || err != nil {
		return err
	}
	return fmt.Errorf("branch %s: %w: it is at %s, this volume's changes began at %s; merge or move the branch back "+
		"in cold.git, then sync",
		v.cfg.Branch, cold.ErrRefMoved, base.Info().ID, v.state.Head)
}

// reaches says whether the commit that warm was last in step with is s or an ancestor of s, or was absorbed by one of
// these. It looks at no more than most commits, and beyond a commit only where past returns true for it.
func (v *Volume) reaches(ctx context.Context, s cold.Snapshot, most int, past func(*cold.CommitInfo) bool) (bool,
	error) {
	seen := map[cold.ID]bool{}
	var parents, absorbed []cold.ID
	add := func(list *[]cold.ID, id cold.ID) {
		if !id.IsZero() && !seen[id] {
			seen[id] = true
			*list = append(*list, id)
		}
	}
	for n := 0; n < most; n++ {
		info := s.Info()
		is := func(id cold.ID) bool { return id.String() == v.state.Head }
		if is(info.ID) || slices.ContainsFunc(info.Absorbed, is) {
			return true, nil
		}
		if past(&info) {
			add(&parents, info.Parent)
			for _, id := range info.Absorbed {
				add(&absorbed, id)
			}
		}
		for s = nil; s == nil; {
			var err error
			switch {
			case len(parents) > 0:
				if s, err = v.cold.Snapshot(ctx, parents[0]); err != nil {
					return false, err
				}
				parents = parents[1:]
			case len(absorbed) > 0: // an absorbed live branch may be gone
				if s, err = v.cold.Snapshot(ctx, absorbed[0]); err != nil {
					s = nil
				}
				absorbed = absorbed[1:]
			default:
				return false, nil
			}
		}
	}
	return false, nil
}

// noteHead writes to volume.json that warm is in step with this commit.
func (v *Volume) noteHead(commit string) {
	if v.state.Head == commit {
		return
	}
	err := v.step("state.write")
	if err == nil {
		err = v.state.Update(func(s *warm.StateFile) { s.Head = commit })
	}
	if err != nil {
		v.log.WithError(err).Warn("cannot write volume.json")
	}
}

// inStep says whether warm is the same as the given commit, though marks may say that it is dirty. If so it records
// that as clean.
func (v *Volume) inStep(ctx context.Context, with cold.ID) (same bool, err error) {
	tx, err := v.cold.BeginAt(ctx, with)
	if err != nil {
		return false, fmt.Errorf("compare with commit %s: %w", with, err)
	}
	defer tx.Abort()
	c := v.beginCapture(ctx, tx, &capture{})
	root, err := c.all()
	switch {
	case err != nil:
	case len(c.missing) > 0 || cold.RootDir(tx.Base()) != root:
		err = errDiffers
	default:
		c.recordClean()
		v.setVerified()
	}
	c.finish(err)
	if errors.Is(err, errDiffers) {
		return false, nil
	}
	return err == nil, err
}
