package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"emberfs/backup/odb"
	"emberfs/backup/wire"
	"emberfs/tiers/cold"
)

// Push implements cold.Cold. If the remote's branches are behind ours, they are pushed from where they are, even if we
// thought them further: the last push may have failed. A branch that somebody deleted there is created again, since
// that loses nothing.
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
	ours, err := c.Position(ctx)
	if err != nil {
		return err
	}
	refs, err := c.remote.Refs(ctx)
	if err != nil {
		return err
	}
	c.noteSides(refs)
	if ours.Main.IsZero() {
		return nil
	}
	if refs[c.ref].IsZero() {
		if err := c.remote.Broken(ctx, c.ref); err != nil {
			return err
		}
	}
	p, err := c.planPush(ctx, ours, refs)
	if err == nil {
		err = c.send(ctx, p)
	}
	if err != nil {
		return err
	}
	if refs[c.ref].IsZero() && !hasBranch(refs) {
		if err := c.remote.SetHead(ctx, c.ref); err != nil { // the branch is there all the same
			c.log.WithError(err).Warnf("a clone of %s checks out nothing: its HEAD names another branch", c.o.Source)
		}
	}
	c.note("branch", nil)
	if err := c.setTracking(ours.Main, ours.Live, cold.ID{}, ours.Live); err != nil {
		return err
	}
	return c.deleteAbsorbed(ctx, ours.Main, refs)
}

// hasBranch reports whether the remote has a branch other than EmberFS's own.
func hasBranch(refs map[string]cold.ID) bool { return len(branches(refs)) > 0 }

// part is one branch to push.
type part struct {
	wire.Update
	commits []cold.ID
	base    cold.ID // a commit that the remote has when this part is pushed; zero: none
}

// planPush finds out what the remote lacks and returns what to push, main first. It returns ErrDiverged if the remote
// has commits that we lack.
func (c *Cold) planPush(ctx context.Context, ours Position, refs map[string]cold.ID) (parts []part, err error) {
	theirs := refs[c.ref]
	main := part{Update: wire.Update{Ref: c.ref, Old: theirs, New: ours.Main}, base: theirs}
	if theirs != ours.Main {
		if !theirs.IsZero() && !c.db.Has(theirs) {
			return nil, cold.ErrDiverged
		}
		var ahead bool
		if main.commits, ahead, err = c.NewCommits(ctx, ours.Main, theirs); err != nil {
			return nil, err
		}
		if !ahead {
			return nil, cold.ErrDiverged
		}
	}
	seen, err := c.checkLive(ctx, ours, theirs, refs)
	if err != nil {
		return nil, err
	}
	if theirs != ours.Main && !seen.IsZero() {
		main.base = seen // what main absorbed need not be sent again
	}
	at := refs[ours.Ref]
	switch {
	case ours.Live.IsZero() || ours.Live == at:
	case at != (cold.ID{}) && c.isIgnored(ours.Ref, at):
		return nil, fmt.Errorf("%s of %s is taken by something else: remove it there", ours.Ref, c.o.Source)
	default:
		live := part{Update: wire.Update{Ref: ours.Ref, Old: at, New: ours.Live}, base: at}
		if at.IsZero() {
			live.base = ours.Main
		}
		if live.commits, _, err = c.NewCommits(ctx, ours.Live, live.base); err != nil {
			return nil, err
		}
		// main is pushed too even if it is not to move, so that the remote checks that main is still there when the
		// live branch moves.
		return []part{main, live}, nil
	}
	if theirs == ours.Main {
		return nil, nil
	}
	return []part{main}, nil
}

// checkLive returns the tip of the live branch at the remote's main, and makes sure that our branches contain all of
// it: once the remote's main moves, nobody will look at that live branch any more.
func (c *Cold) checkLive(ctx context.Context, ours Position, main cold.ID, refs map[string]cold.ID) (at cold.ID,
	err error) {
	if main.IsZero() {
		return at, nil
	}
	ref, err := c.liveRefAt(main)
	if err != nil {
		return at, err
	}
	at = refs[ref]
	if at.IsZero() || at == main || c.isIgnored(ref, at) {
		return cold.ID{}, nil
	}
	known := false
	if c.db.Has(at) {
		if known, err = c.follows(ctx, ours.Newest(), at, time.Time{}); err != nil {
			return at, err
		}
	}
	if !known {
		return at, fmt.Errorf("%w: %s is at %s", cold.ErrDiverged, ref, at)
	}
	return at, nil
}

func (c *Cold) isIgnored(ref string, tip cold.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.ignored[ref] == tip
}

// send pushes all parts atomically or, if the remote cannot do that, main first and then the live branch.
func (c *Cold) send(ctx context.Context, parts []part) error {
	if len(parts) == 0 {
		return nil
	}
	err := c.sendTogether(ctx, parts)
	if !errors.Is(err, wire.ErrNotAtomic) {
		return err
	}
	for _, p := range parts {
		if p.Old == p.New {
			continue
		}
		if err := c.sendTogether(ctx, []part{p}); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cold) sendTogether(ctx context.Context, parts []part) error {
	var updates []wire.Update
	d := delta{ctx: ctx, db: c.db, seen: make(map[cold.ID]struct{})}
	for _, p := range parts {
		if err := d.commits(p.commits, p.base); err != nil {
			return err
		}
		if err := d.withoutLost(p.base); err != nil {
			return err
		}
		updates = append(updates, p.Update)
	}
	return c.remote.Push(ctx, updates, func(w io.Writer) error { return c.writePack(ctx, w, d.ids) })
}

func (c *Cold) writePack(ctx context.Context, w io.Writer, ids []cold.ID) error {
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
}

// deleteAbsorbed deletes those live branches on the remote that main, which was just pushed, has absorbed. A failed
// deletion is not an error: what stays is ignored by everybody. A live branch that has moved on since belongs to
// somebody and stays too.
func (c *Cold) deleteAbsorbed(ctx context.Context, main cold.ID, refs map[string]cold.ID) error {
	list, err := c.epochs(absorbedPrefix)
	if err != nil {
		return err
	}
	for epoch, tip := range list {
		ref := c.liveRef(epoch)
		at := refs[ref]
		pushed, err := c.Follows(ctx, main, tip)
		if err != nil {
			return err
		}
		if !pushed {
			continue // it was absorbed by a commit that is newer than this push
		}
		if !at.IsZero() {
			err = c.deleteLive(ctx, ref, at, tip)
		}
		if err != nil {
			c.log.WithError(err).Warnf("%s stays on the remote until the next push", ref)
			continue
		}
		if err := c.db.DeleteRef(c.absorbedRef(epoch), tip); err != nil && !errors.Is(err, odb.ErrNoRef) {
			return err
		}
	}
	return nil
}

// deleteLive deletes a live branch on the remote if main has absorbed all of it. It returns an error only if trying
// again may help.
func (c *Cold) deleteLive(ctx context.Context, ref string, at, absorbed cold.ID) error {
	known := at == absorbed
	if !known && c.db.Has(at) {
		var err error
		if known, err = c.follows(ctx, absorbed, at, time.Time{}); err != nil {
			return err
		}
	}
	if !known {
		c.log.Warnf("%s of the remote has moved on to %s and is left alone", ref, at)
		return nil
	}
	c.mu.Lock()
	skip := c.mu.undeleted
	c.mu.Unlock()
	if skip {
		return nil
	}
	err := c.remote.Push(ctx, []wire.Update{{Ref: ref, Old: at}}, nil)
	var refused *cold.RefusedError
	switch {
	case errors.As(err, &refused):
		c.note("delete", fmt.Errorf("%s does not let live branches be deleted, they pile up below %s: %s", c.o.Source,
			livePrefix, refused.Reason))
		c.mu.Lock()
		c.mu.undeleted = true
		c.mu.Unlock()
		return nil
	case errors.Is(err, cold.ErrDiverged):
		c.log.WithError(err).Warnf("%s of the remote has moved on and is left alone", ref)
		return nil
	}
	return err
}
