package backup

import (
	"context"
	"io"

	"emberfs/backup/odb"
	"emberfs/backup/wire"
	"emberfs/tiers/cold"
)

// remote is the repository on the other side; package wire has it, tests have one that fails when told to.
type remote interface {
	Refs(ctx context.Context) (map[string]cold.ID, error)
	// Broken says why a reference that Refs did not list is there all the same; nil: it is not there.
	Broken(ctx context.Context, ref string) error
	// SetHead makes a branch the one that a clone checks out.
	SetHead(ctx context.Context, ref string) error
	// Link brings all that the remote has, which tip is part of, as Fetch does; odb.ErrCannotLink: only Fetch can.
	Link(ctx context.Context, db *odb.DB, tip cold.ID) (release func() error, err error)
	// Fetch brings what ref reaches and have does not; what came is protected until release is called.
	Fetch(ctx context.Context, db *odb.DB, ref string, have []cold.ID) (tip cold.ID, release func() error, err error)
	// Push moves references in one step, sending the pack that writePack writes; wire.ErrNotAtomic: only one by one.
	Push(ctx context.Context, updates []wire.Update, writePack func(io.Writer) error) error
}

// TrackingRef keeps what the remote is known to have, so that a git gc does not take it away. Of live branches
// sharedRef keeps the last commit that both sides have had, and fetchedRef what only the remote has; the remote has
// either where it follows main's.
func (c *Cold) TrackingRef() string { return "refs/emberfs/remote/" + c.o.Branch }
func (c *Cold) sharedRef() string   { return "refs/emberfs/remote-live/" + c.o.Branch }
func (c *Cold) fetchedRef() string  { return "refs/emberfs/fetched-live/" + c.o.Branch }

// exclusive lets one Fetch or Push run at a time.
func (c *Cold) exclusive(ctx context.Context) (func(), error) {
	select {
	case c.sync <- struct{}{}:
		return func() { <-c.sync }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// track records what bring found.
func (c *Cold) track(b *brought) error {
	shared, err := c.ReadRef(c.sharedRef())
	if err != nil {
		return err
	}
	fetched := b.live
	switch {
	case b.known:
		shared, fetched = b.live, cold.ID{}
	case b.live.IsZero() && b.main == b.ours.Main:
		shared = cold.ID{} // somebody deleted it
	}
	return c.setTracking(b.main, shared, fetched, b.live)
}

// setTracking moves the notes of what the remote has.
func (c *Cold) setTracking(main, shared, fetched, live cold.ID) error {
	err := c.setRef(c.fetchedRef(), fetched)
	if err == nil {
		err = c.setRef(c.sharedRef(), shared)
	}
	if err == nil {
		err = c.setRef(c.TrackingRef(), main)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.pushed = main; !live.IsZero() {
		c.mu.pushed = live
	}
	return nil
}

// setRef moves a reference that nobody else moves; zero: it goes.
func (c *Cold) setRef(name string, now cold.ID) error {
	old, err := c.ReadRef(name)
	switch {
	case err != nil || old == now:
		return err
	case now.IsZero():
		return c.db.DeleteRef(name, old)
	}
	return c.db.UpdateRef(name, old, now)
}

// Tracked is the newest commit that the remote had when an earlier run saw it last.
func (c *Cold) Tracked(ctx context.Context) (cold.ID, error) {
	main, err := c.ReadRef(c.TrackingRef())
	if err != nil || main.IsZero() {
		return main, err
	}
	for _, ref := range []string{c.fetchedRef(), c.sharedRef()} {
		live, err := c.ReadRef(ref)
		if err != nil {
			return main, err
		}
		if live.IsZero() || live == main {
			continue
		}
		if _, why, err := c.liveChain(ctx, main, live); err != nil || why == nil {
			return live, err
		}
	}
	return main, nil
}
