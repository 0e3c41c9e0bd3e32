package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// Fetch implements cold.Cold.
func (c *Cold) Fetch(ctx context.Context) error {
	if c.remote == nil {
		return nil
	}
	done, err := c.exclusive(ctx)
	if err == nil {
		defer done()
		defer c.fetched.end()
		err = c.fetch(ctx)
	}
	if err != nil {
		return fmt.Errorf("fetch branch %s: %w", c.o.Branch, err)
	}
	return nil
}

// Peek implements cold.Cold.
func (c *Cold) Peek(ctx context.Context) (moved bool, err error) {
	if c.remote == nil {
		return false, nil
	}
	done, err := c.exclusive(ctx)
	if err == nil {
		defer done()
		defer c.fetched.end()
		var b brought
		b, err = c.bring(ctx)
		moved = b.moved
	}
	if err != nil {
		return false, fmt.Errorf("fetch branch %s: %w", c.o.Branch, err)
	}
	return moved, nil
}

func (c *Cold) fetch(ctx context.Context) error {
	b, err := c.bring(ctx)
	if err == nil && b.moved {
		err = c.forward(ctx, &b)
	}
	if err != nil {
		return err
	}
	if b.main.IsZero() && b.ours.Main.IsZero() && !c.o.Init && !isEmpty(b.refs) {
		return &cold.NoBranchError{Branch: c.o.Branch, Others: someBranches(b.refs)}
	}
	return c.adopt(ctx, &b)
}

// brought is what bring found.
type brought struct {
	ours  Position
	main  cold.ID // tip of the remote's main; zero: it has no such branch
	ref   string  // name of the live branch that begins at main, whether it exists or not
	live  cold.ID // the live branch's tip on the remote; zero: there is none that descends from main
	known bool    // our branches contain live, as an ancestor or absorbed
	moved bool    // the remote has commits that our branches lack
	refs  map[string]cold.ID
}

// bring fetches the remote's branches and notes where they are.
func (c *Cold) bring(ctx context.Context) (b brought, err error) {
	const tries = 5
	for range tries {
		if b, err = c.bringOnce(ctx); !errors.Is(err, errRemoteMoves) {
			return b, err
		}
	}
	return b, err
}

// errRemoteMoves says that the remote's branches moved while they were looked at.
var errRemoteMoves = errors.New("the remote's branches move all the time; try again")

func (c *Cold) bringOnce(ctx context.Context) (b brought, err error) {
	refs, err := c.remote.Refs(ctx)
	if err != nil {
		return b, err
	}
	c.heard()
	b.main, b.refs = refs[c.ref], refs
	if b.ours, err = c.Position(ctx); err != nil {
		return b, err
	}
	if b.main.IsZero() {
		if err := c.remote.Broken(ctx, c.ref); err != nil {
			return b, err
		}
		if err := c.noteMissing(refs, b.ours.Main); err != nil {
			return b, err
		}
		return b, c.track(&b)
	}
	c.note("branch", nil)
	tracked, err := c.ReadRef(c.TrackingRef())
	if err != nil {
		return b, err
	}
	behind := b.main == b.ours.Main
	if !behind && !b.ours.Main.IsZero() && c.db.Has(b.main) {
		// That the tip is here does not mean that all of it is; only what our branch reaches is surely complete.
		if _, behind, err = c.NewCommits(ctx, b.ours.Main, b.main); err != nil {
			return b, err
		}
	}
	linked := false
	if !behind && b.main != tracked {
		have, err := c.recent(b.ours.Newest(), tracked)
		if err != nil {
			return b, err
		}
		got, link, release, err := c.obtain(ctx, b.main, have)
		if err != nil {
			return b, err
		}
		defer c.releaseFetched(release)
		if got != b.main {
			b.main = got
			return b, errors.Join(errRemoteMoves, c.track(&b))
		}
		linked = link
	}
	// The commits must be readable before any branch moves, so that a remote of a newer format, or a damaged one,
	// changes nothing here.
	if !behind {
		if _, err := c.At(b.main); err != nil {
			return b, err
		}
	}
	b.moved = !behind
	release, err := c.bringLive(ctx, &b, refs, linked)
	if err != nil {
		return b, err
	}
	defer c.releaseFetched(release)
	return b, c.track(&b)
}

func (c *Cold) releaseFetched(release func() error) {
	if release == nil {
		return
	}
	if err := release(); err != nil {
		c.log.WithError(err).Warn("a fetched pack stays marked as kept until the next start")
	}
}

// bringLive fetches the live branch of the remote's main, which has been fetched already. If the branch does not
// descend from that main it is noted as a problem, which is no error.
func (c *Cold) bringLive(ctx context.Context, b *brought, refs map[string]cold.ID, linked bool) (release func() error,
	err error) {
	if b.ref, err = c.liveRefAt(b.main); err != nil {
		return nil, err
	}
	tip := refs[b.ref]
	if tip.IsZero() {
		if err := c.remote.Broken(ctx, b.ref); err != nil {
			return nil, err
		}
	}
	if tip.IsZero() || tip == b.main {
		c.note("remote live", nil)
		return nil, nil
	}
	// What our branches contain, also by absorbing it, is known and complete here.
	known := tip == b.ours.Live
	if !known && !b.ours.Main.IsZero() && c.db.Has(tip) {
		if known, err = c.follows(ctx, b.ours.Newest(), tip, time.Time{}); err != nil {
			return nil, err
		}
	}
	if known {
		c.note("remote live", nil)
		b.live, b.known = tip, true
		return nil, nil
	}
	tracked, err := c.ReadRef(c.fetchedRef())
	if err != nil {
		return nil, err
	}
	if tip != tracked && !(linked && c.db.Has(tip)) {
		have, err := c.recent(b.ours.Newest(), b.main, tracked)
		if err != nil {
			return nil, err
		}
		got, done, err := c.remote.Fetch(ctx, c.db, b.ref, have)
		switch {
		case errors.Is(err, odb.ErrNoRef): // main has absorbed it a moment ago
			return nil, errRemoteMoves
		case errors.Is(err, cold.ErrCorrupt): // it is no commit, or what came is damaged
			c.ignore(b.ref, tip, err)
			return nil, nil
		case err != nil:
			return nil, err
		}
		tip, release = got, done
	}
	_, why, err := c.liveChain(ctx, b.main, tip)
	if err == nil && why == nil {
		_, err = c.At(tip)
		if IsLost(err) {
			why, err = err, nil
		}
	}
	if err != nil {
		c.releaseFetched(release)
		return nil, err
	}
	if why != nil {
		c.ignore(b.ref, tip, why)
		return release, nil
	}
	c.note("remote live", nil)
	b.live, b.moved = tip, true
	return release, nil
}

// ignore notes that a reference of the remote has the name of a live branch but is not a valid one.
func (c *Cold) ignore(ref string, tip cold.ID, why error) {
	c.note("remote live", fmt.Errorf("%s of %s is ignored: %w; remove it there", ref, c.o.Source, why))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.ignored = map[string]cold.ID{ref: tip}
}

// obtain downloads main, whose tip was theirs just now. If this repository has nothing yet, everything is hard-linked
// where that is possible; a mount then takes no longer for a million files than for one.
func (c *Cold) obtain(ctx context.Context, theirs cold.ID, have []cold.ID) (tip cold.ID, linked bool,
	release func() error, err error) {
	if len(have) > 0 {
		tip, release, err = c.remote.Fetch(ctx, c.db, c.ref, have)
		return tip, false, release, err
	}
	release, err = c.remote.Link(ctx, c.db, theirs)
	if err == nil {
		_, err = c.At(theirs)
		if !IsMissing(err) && !errors.Is(err, cold.ErrCorrupt) {
			return theirs, true, release, nil // any other error would be the same after a fetch
		}
		err = errors.Join(err, release())
	} else if !errors.Is(err, odb.ErrCannotLink) {
		return theirs, false, nil, err
	}
	c.log.WithError(err).Info("the remote is fetched, not linked")
	tip, release, err = c.remote.Fetch(ctx, c.db, c.ref, nil)
	return tip, false, release, err
}

// maxRecent is how many commits at most are offered to the remote as known here.
const maxRecent = 64

// recent returns the commits to offer to the remote as known here: the given tips of the remote, our tip, and its
// ancestors, because the remote may lack our last commits.
func (c *Cold) recent(ours cold.ID, theirs ...cold.ID) ([]cold.ID, error) {
	var have []cold.ID
	for _, id := range theirs {
		if !id.IsZero() && id != ours {
			have = append(have, id)
		}
	}
	for id := ours; !id.IsZero() && len(have) < maxRecent; {
		have = append(have, id)
		commit, err := ReadCommit(c.db, id)
		if err != nil {
			return nil, err
		}
		if id = (cold.ID{}); len(commit.Parents) > 0 && c.db.Has(commit.Parents[0]) {
			id = commit.Parents[0]
		}
	}
	return have, nil
}

// forward moves our branches to the remote's, which have commits that ours lack. If that would lose commits of ours, it
// returns cold.ErrDiverged.
func (c *Cold) forward(ctx context.Context, b *brought) error {
	theirs := b.live
	if theirs.IsZero() {
		theirs = b.main
	}
	if ours := b.ours.Newest(); !ours.IsZero() {
		ahead, err := c.Follows(ctx, theirs, ours)
		if err != nil {
			return err
		}
		if !ahead {
			return cold.ErrDiverged
		}
	}
	if err := c.moveForward(ctx, b); err != nil {
		return err
	}
	_, err := c.head()
	return err
}

// moveForward moves the branches. It sets the live branch before main: the live branch counts only once main has moved
// to where it begins.
func (c *Cold) moveForward(ctx context.Context, b *brought) (err error) {
	c.refs.Lock()
	defer c.refs.Unlock()
	now, err := c.Position(ctx)
	if err == nil && !now.same(&b.ours) {
		err = cold.ErrRefMoved
	}
	if err != nil {
		return err
	}
	if !b.live.IsZero() {
		old, err := c.ReadRef(b.ref)
		if err != nil {
			return err
		}
		if !old.IsZero() && old != b.ours.Live && old != b.live {
			return fmt.Errorf("%s is at %s, which does not follow %s: move or remove it", b.ref, old, b.main)
		}
		if old != b.live {
			if err := c.db.UpdateRef(b.ref, old, b.live); err != nil {
				return err
			}
		}
		defer func() {
			if err == nil { // now both sides have it
				err = errors.Join(c.setRef(c.sharedRef(), b.live), c.setRef(c.fetchedRef(), cold.ID{}))
			}
		}()
	}
	if b.main == now.Main {
		return nil
	}
	if err := c.db.UpdateRef(c.ref, now.Main, b.main); err != nil {
		return err
	}
	if !now.Live.IsZero() {
		c.retire(now.Ref, now.Live)
	}
	return nil
}
