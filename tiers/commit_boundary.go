package tiers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"emberfs/tiers/cold"
)

// beginCapture fills in c and sets the boundary that it captures to this moment. The caller calls c.finish in any case.
func (v *Volume) beginCapture(ctx context.Context, tx cold.Tx, c *capture) *capture {
	c.v, c.ctx, c.tx, c.base = v, ctx, tx, tx.Base()
	c.before = v.mainEpoch.Load()
	v.drawBoundary(c)
	c.begun, c.expected = time.Now(), v.risk.taking()
	v.underWay.Store(c)
	return c
}

// finish ends the boundary. After an error all that was dirty is dirty and at risk again.
func (c *capture) finish(err error) {
	v := c.v
	v.underWay.Store(nil)
	c.boundary.close()
	c.release(err)
	v.capturing.Store(0)
	v.late.clear()
	if err != nil {
		v.mainEpoch.Store(c.before)
		v.backupDue.CompareAndSwap(0, c.due)
		v.risk.put()
		v.critical.put(v, c.crit, err)
		return
	}
	taken, found := v.risk.committed()
	if v.justTaken, v.justFound = taken.plus(c.regained), found; found {
		v.justTaken.files, v.justTaken.bytes = max(taken.files, c.files), max(taken.bytes, c.bytes)
	}
	if c.short { // the rest is counted as left out
		v.justTaken.files, v.justTaken.bytes = min(v.justTaken.files, c.files), min(v.justTaken.bytes, c.bytes)
	}
	v.critical.committed(v, c.crit)
	v.answers = append(v.answers, c.crit.waiting...)
}

// all captures what is dirty, from the root on; with rewalk it goes into clean directories too, except lazy ones. It
// returns the root's id.
func (c *capture) all() (cold.DirID, error) {
	v := c.v
	var base cold.DirID
	if c.base != nil {
		base = cold.RootDir(c.base)
	}
	if err := v.step("commit.boundary"); err != nil {
		return cold.DirID{}, err
	}
	v.root.mu.Lock()
	pre := c.boundary.keep(v.root)
	v.root.mu.Unlock()
	if pre == nil || pre.err != nil {
		return cold.DirID{}, fmt.Errorf("stat the root: %w", errors.Join(c.checkBoundary(), pre.failure()))
	}
	root := pre.entry("")
	c.root = &root
	id, err := c.dir(v.root, "", base, nil)
	if err = errors.Join(err, c.checkBoundary()); err != nil {
		return cold.DirID{}, err
	}
	c.boundary.close() // all is taken, so no more pre-images are needed
	return id, nil
}

// drawBoundary sets the boundary of c, between two changes: what is touched from now on stays dirty.
func (v *Volume) drawBoundary(c *capture) {
	v.barrier.Lock()
	c.epoch = v.epoch.Add(1)
	v.capturing.Store(c.epoch)
	c.boundary = newBoundary(v, c.epoch)
	c.boundary.rewalk, c.boundary.live = c.rewalk, c.live
	v.boundary.Store(c.boundary)
	v.risk.take(c.live)
	c.crit = v.critical.take()
	if c.live {
		c.tree, c.treeErr = v.liveTree(c.crit)
	} else {
		v.mainEpoch.Store(c.epoch)
		c.due = v.backupDue.Swap(0)
	}
	v.barrier.Unlock()
	if c.live {
		return
	}
	// Nothing above a file that is open for writing may be marked clean.
	v.writers.Range(func(key, _ any) bool {
		n := key.(*Inode)
		kind := touchQuiet
		if n.untracked.Load() {
			if v.ignoredInode(n) {
				return true
			}
			kind = touchBytes // nobody reports its changes
		}
		v.begin()
		if err := v.touchOwn(n, kind); err != nil {
			v.log.WithError(err).WithField("inode", n.ino).Warn("cannot mark the directories of an open file")
		}
		v.end()
		return true
	})
}

// nothingDirty notes that the last commit has everything, unless something changed a moment ago.
func (v *Volume) nothingDirty() {
	v.barrier.Lock()
	defer v.barrier.Unlock()
	if v.rootClean() {
		v.risk.leave(nil)
		v.nothingWaits()
	}
}

// nothingWaits notes, for all that waits for a commit, that the last one has everything. Volume.barrier is held for
// writing.
func (v *Volume) nothingWaits() {
	v.backupDue.Store(0)
	s := v.critical.take()
	v.critical.committed(v, s)
	v.answers = append(v.answers, s.waiting...)
}
