package tiers

import (
	"context"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"emberfs/tiers/rules"
)

// `fsync: remote`: fsync returns when the remote has the bytes.

// fsynced notes that n was made durable here, and waits for the remote where its rule says so.
func (v *Volume) fsynced(ctx context.Context, n *Inode) error {
	set := v.Rules()
	if !set.HasCritical() && !set.HasFsyncRemote() {
		return nil
	}
	d := v.decide(n)
	if d.Rule != nil && d.Rule.FsyncRemote {
		return v.fsyncRemote(ctx, n)
	}
	v.finished(n)
	return nil
}

// fsyncedDir is fsynced for the names in a directory.
func (v *Volume) fsyncedDir(ctx context.Context, d *Inode) error {
	set := v.Rules()
	if !set.HasFsyncRemote() {
		return nil
	}
	at := v.pathOf(d)
	for _, name := range v.critical.awaitedIn(d) {
		if r := set.Decide(path.Join(at, name), false).Rule; r != nil && r.FsyncRemote {
			return v.fsyncRemote(ctx, d)
		}
	}
	if v.critical.isUnsent(d) {
		return v.fsyncRemote(ctx, d)
	}
	if r := set.Decide(at, true).Rule; r != nil && r.FsyncRemote {
		return v.fsyncRemote(ctx, d)
	}
	return nil
}

// fsyncRemote returns when the remote has what was changed, which may be in a commit that is still to be made, is being
// made, or could not be pushed. Where nothing changed the remote is asked all the same: it may have lost what it had.
func (v *Volume) fsyncRemote(ctx context.Context, n *Inode) error {
	if !v.running.Load() {
		return nil
	}
	done := make(chan error, 1)
	v.critical.waitFor(done)
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("inode %d is durable here, not remotely: %w: %w", n.ino, unix.EIO, err)
		}
	case <-v.idleTiers:
		return fmt.Errorf("inode %d is durable here, not remotely: the volume is being closed: %w", n.ino, unix.EIO)
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// keepUnsent notes a directory until the remote has the commit that took these names of it, if fsync of one promises
// that.
func (v *Volume) keepUnsent(set *rules.Set, d *Inode, names map[string]struct{}) bool {
	at := v.pathOf(d)
	for name := range names {
		if r := set.Decide(path.Join(at, name), false).Rule; r != nil && r.FsyncRemote {
			c := &v.critical
			c.mu.Lock()
			defer c.mu.Unlock()
			if _, ok := c.unsent[d]; ok {
				return false
			}
			if c.unsent == nil {
				c.unsent = map[*Inode]struct{}{}
			}
			c.unsent[d] = struct{}{}
			return true
		}
	}
	return false
}

func (c *critical) isUnsent(d *Inode) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.unsent[d]
	return ok
}

// sent notes that the remote has all that was committed.
func (c *critical) sent(v *Volume) {
	c.mu.Lock()
	dirs := c.unsent
	c.unsent = nil
	c.mu.Unlock()
	for d := range dirs {
		v.unref(d, 1)
	}
}
