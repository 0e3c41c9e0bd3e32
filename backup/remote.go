package backup

import (
	"context"
	"errors"
	"fmt"
	"io"

	"emberfs/backup/odb"
	"emberfs/tiers"
)

// remote is the repository on the other side; package wire has it, tests have one that fails when told to.
type remote interface {
	Refs(ctx context.Context) (map[string]tiers.ID, error)
	// Link brings all that the remote has, which tip is part of, as Fetch does; odb.ErrCannotLink: only Fetch can.
	Link(ctx context.Context, db *odb.DB, tip tiers.ID) (release func() error, err error)
	// Fetch brings what ref reaches and have does not; what came is protected until release is called.
	Fetch(ctx context.Context, db *odb.DB, ref string, have []tiers.ID) (tip tiers.ID, release func() error, err error)
	// Push moves ref from old to now, sending the pack that writePack writes.
	Push(ctx context.Context, ref string, old, now tiers.ID, writePack func(io.Writer) error) error
}

// trackingRef keeps what the remote is known to have, so that a git gc does not take it away.
func (c *Cold) trackingRef() string { return "refs/emberfs/remote/" + c.o.Branch }

// exclusive lets one Fetch or Push run at a time.
func (c *Cold) exclusive(ctx context.Context) (func(), error) {
	select {
	case c.sync <- struct{}{}:
		return func() { <-c.sync }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Fetch implements tiers.Cold.
func (c *Cold) Fetch(ctx context.Context) error {
	if c.remote == nil {
		return nil
	}
	done, err := c.exclusive(ctx)
	if err == nil {
		defer done()
		err = c.fetch(ctx)
	}
	if err != nil {
		return fmt.Errorf("fetch branch %s: %w", c.o.Branch, err)
	}
	return nil
}

// Peek implements tiers.Cold.
func (c *Cold) Peek(ctx context.Context) (moved bool, err error) {
	if c.remote == nil {
		return false, nil
	}
	done, err := c.exclusive(ctx)
	if err == nil {
		defer done()
		_, _, moved, err = c.bring(ctx)
	}
	if err != nil {
		return false, fmt.Errorf("fetch branch %s: %w", c.o.Branch, err)
	}
	return moved, nil
}

func (c *Cold) fetch(ctx context.Context) error {
	ours, theirs, moved, err := c.bring(ctx)
	if err != nil || !moved {
		return err
	}
	return c.forward(ctx, ours, theirs)
}

// bring fetches the remote's branch and notes where it is; moved says that it has commits which ours has not.
func (c *Cold) bring(ctx context.Context) (ours, theirs tiers.ID, moved bool, err error) {
	refs, err := c.remote.Refs(ctx)
	if err != nil {
		return ours, theirs, false, err
	}
	theirs = refs[c.ref]
	if ours, err = c.tip(); err != nil {
		return ours, theirs, false, err
	}
	tracked, err := c.readRef(c.trackingRef())
	if err != nil {
		return ours, theirs, false, err
	}
	if theirs.IsZero() {
		return ours, theirs, false, c.track(tracked, theirs)
	}
	behind := theirs == ours
	if !behind && !ours.IsZero() && c.db.Has(theirs) {
		// Only what our branch reaches is surely whole here.
		if _, behind, err = c.newCommits(ctx, ours, theirs); err != nil {
			return ours, theirs, false, err
		}
	}
	if behind {
		return ours, theirs, false, c.track(tracked, theirs)
	}
	if theirs != tracked {
		have, err := c.recent(ours, tracked)
		if err != nil {
			return ours, theirs, false, err
		}
		got, release, err := c.obtain(ctx, theirs, have)
		if err != nil {
			return ours, theirs, false, err
		}
		defer func() {
			if err := release(); err != nil {
				c.log.WithError(err).Warn("a fetched pack stays marked as kept until the next start")
			}
		}()
		theirs = got
	}
	// Nothing moves before the commit can be read: a remote of a newer format, or a damaged one, changes nothing here.
	if _, err := c.snapshot(theirs); err != nil {
		return ours, theirs, false, err
	}
	return ours, theirs, true, c.track(tracked, theirs)
}

// obtain brings the branch, whose tip was theirs just now. A repository that has nothing yet gets all by hard link, where that can
// be done: a mount then takes as long for a million files as for one.
func (c *Cold) obtain(ctx context.Context, theirs tiers.ID, have []tiers.ID) (tip tiers.ID, release func() error, err error) {
	if len(have) > 0 {
		return c.remote.Fetch(ctx, c.db, c.ref, have)
	}
	release, err = c.remote.Link(ctx, c.db, theirs)
	if err == nil {
		_, err = c.snapshot(theirs)
		if !isMissing(err) && !errors.Is(err, tiers.ErrCorrupt) {
			return theirs, release, nil // what else may be wrong with it is so fetched or linked
		}
		err = errors.Join(err, release())
	} else if !errors.Is(err, odb.ErrCannotLink) {
		return theirs, nil, err
	}
	c.log.WithError(err).Info("the remote is fetched, not linked")
	return c.remote.Fetch(ctx, c.db, c.ref, nil)
}

// maxRecent bounds the commits that are offered to the remote as known.
const maxRecent = 64

// recent gives the branches' tips and what went before ours: the remote may lack our last commits.
func (c *Cold) recent(ours, tracked tiers.ID) ([]tiers.ID, error) {
	var have []tiers.ID
	if !tracked.IsZero() && tracked != ours {
		have = append(have, tracked)
	}
	for id := ours; !id.IsZero() && len(have) < maxRecent; {
		have = append(have, id)
		commit, err := readCommit(c.db, id)
		if err != nil {
			return nil, err
		}
		if id = (tiers.ID{}); len(commit.Parents) > 0 && c.db.Has(commit.Parents[0]) {
			id = commit.Parents[0]
		}
	}
	return have, nil
}

// forward moves our branch to theirs, which it does not reach itself, where nothing of ours is lost by it.
func (c *Cold) forward(ctx context.Context, ours, theirs tiers.ID) error {
	ahead := ours.IsZero()
	if !ahead {
		var err error
		if _, ahead, err = c.newCommits(ctx, theirs, ours); err != nil {
			return err
		}
	}
	if !ahead {
		return tiers.ErrDiverged
	}
	if err := c.db.UpdateRef(c.ref, ours, theirs); err != nil {
		return err
	}
	_, err := c.head()
	return err
}

// track records what the remote has.
func (c *Cold) track(old, now tiers.ID) error {
	var err error
	switch {
	case old == now:
	case now.IsZero():
		err = c.db.DeleteRef(c.trackingRef(), old)
	default:
		err = c.db.UpdateRef(c.trackingRef(), old, now)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.pushed = now
	return nil
}

// Push implements tiers.Cold. A branch that is behind ours is pushed from where it is: the last push may have failed. A
// branch that somebody deleted is made again; that throws nothing away.
func (c *Cold) Push(ctx context.Context) error {
	if c.remote == nil {
		return nil
	}
	done, err := c.exclusive(ctx)
	if err == nil {
		defer done()
		err = c.push(ctx)
	}
	if err != nil {
		return fmt.Errorf("push branch %s: %w", c.o.Branch, err)
	}
	return nil
}

func (c *Cold) push(ctx context.Context) error {
	ours, err := c.tip()
	if err != nil || ours.IsZero() {
		return err
	}
	refs, err := c.remote.Refs(ctx)
	if err != nil {
		return err
	}
	tracked, err := c.readRef(c.trackingRef())
	if err != nil {
		return err
	}
	theirs := refs[c.ref]
	if theirs == ours {
		return c.track(tracked, ours)
	}
	if !theirs.IsZero() && !c.db.Has(theirs) {
		return tiers.ErrDiverged
	}
	commits, ahead, err := c.newCommits(ctx, ours, theirs)
	if err != nil {
		return err
	}
	if !ahead {
		return tiers.ErrDiverged
	}
	if err := c.send(ctx, theirs, ours, commits, theirs); err != nil {
		return err
	}
	return c.track(tracked, ours)
}

// send pushes the commits, leaving out what base reaches.
func (c *Cold) send(ctx context.Context, old, now tiers.ID, commits []tiers.ID, base tiers.ID) error {
	ids, err := c.collect(ctx, commits, base)
	if err != nil {
		return err
	}
	return c.remote.Push(ctx, c.ref, old, now, func(w io.Writer) error {
		p, err := odb.NewPackStream(w, len(ids))
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := c.db.CopyTo(p, id); err != nil {
				return fmt.Errorf("object %s: %w", id, err)
			}
		}
		return p.Close()
	})
}
