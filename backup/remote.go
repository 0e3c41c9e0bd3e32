package backup

import (
	"context"
	"time"

	"emberfs/backup/odb"
	"emberfs/backup/wire"
	"emberfs/tiers/cold"
)

// remote is the repository on the other side. Package wire implements it; tests have an implementation that fails on
// demand.
type remote interface {
	Refs(ctx context.Context) (map[string]cold.ID, error)
	// Broken returns an error if a reference that Refs did not list exists all the same (and cannot be read), and nil
	// if it does not exist.
	Broken(ctx context.Context, ref string) error
	// SetHead makes ref the branch that a clone checks out.
	SetHead(ctx context.Context, ref string) error
	// Link makes available everything that the remote has, by hard links; tip must be part of it. What came is
	// protected until release is called. odb.ErrCannotLink says that Fetch has to be used instead.
	Link(ctx context.Context, db *odb.DB, tip cold.ID) (release func() error, err error)
	// Fetch downloads what ref reaches and the commits in have do not. What came is protected from GC until release is
	// called.
	Fetch(ctx context.Context, db *odb.DB, ref string, have []cold.ID) (tip cold.ID, release func() error, err error)
	// Send asks the remote for its references, and plan for what to do with them, and moves them atomically, in one
	// conversation. wire.ErrNotAtomic says that the remote can only move one reference at a time.
	Send(ctx context.Context, plan wire.Plan) error
}

// TrackingRef is the reference that notes where the remote's main is known to be; it also keeps git gc from removing
// those objects. For live branches there are two: sharedRef notes the last live commit that both sides have had,
// fetchedRef one that so far only the remote has. Either counts as the remote's live branch only while it descends from
// the noted main.
func (c *Cold) TrackingRef() string { return "refs/emberfs/remote/" + c.o.Branch }
func (c *Cold) sharedRef() string   { return "refs/emberfs/remote-live/" + c.o.Branch }
func (c *Cold) fetchedRef() string  { return "refs/emberfs/fetched-live/" + c.o.Branch }

// exclusive waits until no other Fetch or Push runs. The caller must call the function that it returns when it is done.
func (c *Cold) exclusive(ctx context.Context) (func(), error) {
	select {
	case c.sync <- struct{}{}:
		return func() { <-c.sync }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// track notes what bring found on the remote.
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

// setTracking writes the notes of what the remote has.
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

// setRef sets a reference that only this code moves. A zero id deletes it.
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

// Tracked returns the newest commit that the remote is known to have had, by the notes of this or an earlier run.
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

// heard notes that the remote has just listed its references.
func (c *Cold) heard() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.contact = time.Now()
}

// Contact implements cold.Cold.
func (c *Cold) Contact() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.contact
}
