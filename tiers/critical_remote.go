package tiers

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/rules"
)

// This file has the rules' `fsync: remote`: fsync returns when the remote has the bytes.

// remoteWait is somebody who waits until the remote has what was committed.
type remoteWait struct {
	done chan error  // capacity 1: gets one answer
	left atomic.Bool // nobody waits any more
}

func newRemoteWait() *remoteWait { return &remoteWait{done: make(chan error, 1)} }

func answer(waiting []*remoteWait, err error) {
	for _, w := range waiting {
		w.done <- err
	}
}

// fsynced is called after n was made durable here. It waits for the remote where n's rule wants that.
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

// fsyncedDir is fsynced for the directory d and the names in it.
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

// fsyncRemote returns when the remote has all changes of n. They may be in a commit that is still to be made, is being
// made, or could not be pushed. Without changes the remote is asked all the same: it may have lost what it had. The
// error is EIO where the remote may not have them: where it refuses them, and where it has not acknowledged them within
// FsyncTimeout. Nothing keeps that error: the next call finds out anew. No lock of ours is held meanwhile.
func (v *Volume) fsyncRemote(ctx context.Context, n *Inode) error {
	if !v.running.Load() {
		return nil
	}
	w := newRemoteWait()
	defer w.left.Store(true)
	v.critical.waitFor(w)
	var late <-chan time.Time // never, without a limit
	if v.cfg.FsyncTimeout > 0 {
		t := time.NewTimer(v.cfg.FsyncTimeout)
		defer t.Stop()
		late = t.C
	}
	var err error
	select {
	case err = <-w.done:
	case <-late:
		err = fmt.Errorf("the remote has not acknowledged it for %v%s", v.cfg.FsyncTimeout, v.points.because("push"))
	case <-v.idleTiers:
		err = errors.New("the volume is being closed")
	case <-ctx.Done():
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("inode %d is durable here, not remotely: %w: %w", n.ino, unix.EIO, err)
	}
	return nil
}

// keepUnsent adds d to unsent, with the caller's reference, if fsync of one of these names promises that the remote has
// it. It says whether it took the reference. Until sent, fsync of d waits for the remote.
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
	if !ok {
		_, ok = c.sending[d]
	}
	return ok
}

// send moves unsent to sending, before a push looks at what there is to push. If the push fails unsend brings it back;
// else sent drops it.
func (c *critical) send() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sending, c.unsent = c.unsent, nil
}

func (c *critical) sent(v *Volume) {
	c.mu.Lock()
	dirs := c.sending
	c.sending = nil
	c.mu.Unlock()
	for d := range dirs {
		v.unref(d, 1)
	}
}

func (c *critical) unsend(v *Volume) {
	var twice []*Inode
	c.mu.Lock()
	for d := range c.sending {
		if _, ok := c.unsent[d]; ok {
			twice = append(twice, d)
			continue
		}
		if c.unsent == nil {
			c.unsent = map[*Inode]struct{}{}
		}
		c.unsent[d] = struct{}{}
	}
	c.sending = nil
	c.mu.Unlock()
	for _, d := range twice {
		v.unref(d, 1)
	}
}
