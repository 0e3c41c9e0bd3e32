package tiers

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// What the rules ignore stays in warm: no commit takes it, nothing releases it. Such a file has its bytes here and
// nothing in its record that speaks of cold, and a directory no clean mark, since the objects that they name are kept
// for nobody. What was committed before a rule came is brought back first, in the background, and leaves the commits
// after that.

// settleLoop brings back what settleSoon asked for.
func (v *Volume) settleLoop(ctx context.Context) {
	s := &v.settling
	for {
		select {
		case <-ctx.Done():
			for n := s.next(); n != nil; n = s.next() {
				v.unref(n, 1)
			}
			return
		case <-s.wake:
		}
		for n := s.next(); n != nil; n = s.next() {
			if ctx.Err() == nil && !v.settledNow(n) {
				err := v.settleIgnored(ctx, n)
				if err != nil && ctx.Err() == nil {
					err = fmt.Errorf("%q is ignored and cannot be brought back from cold, so commits keep it: %w",
						v.pathOf(n), err)
					v.log.Warn(err)
				}
				if ctx.Err() == nil {
					v.points.setError("ignore", err)
				}
			}
			v.unref(n, 1)
		}
	}
}

// settleIgnored makes warm the only place that n, and all below it, needs, and has the next commit look at it.
func (v *Volume) settleIgnored(ctx context.Context, n *Inode) error {
	changes := v.book.changes.Load()
	if n.dir == nil {
		if err := v.leaveCold(ctx, n); err != nil {
			return err
		}
	} else {
		if err := v.settleDir(ctx, n, 0); err != nil {
			return err
		}
		v.settling.note(n, changes)
	}
	v.begin()
	defer v.end()
	return v.touchOwn(n, touchQuiet)
}

func (v *Volume) settleDir(ctx context.Context, n *Inode, depth int) error {
	if err := cold.TooDeepToWalk("", depth); err != nil {
		return err
	}
	if err := v.list(ctx, n); err != nil {
		return err
	}
	fd, err := v.dirFD(n)
	if err != nil {
		return gone2nil(err)
	}
	defer v.unpin(n)
	list, err := warm.ListNames(fd)
	if err != nil {
		return err
	}
	var stubs []*Inode
	defer func() {
		for _, s := range stubs {
			v.unref(s, 1)
		}
	}()
	flush := func() error {
		v.recallBatch(ctx, stubs)
		for _, s := range stubs {
			if err := v.leaveCold(ctx, s); err != nil {
				return fmt.Errorf("%q: %w", v.pathOf(s), err)
			}
			v.unref(s, 1)
		}
		stubs = stubs[:0]
		return ctx.Err()
	}
	for _, d := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		if d.Mode != unix.S_IFDIR && d.Mode != unix.S_IFREG {
			continue
		}
		if d.Mode == unix.S_IFREG && v.records {
			if _, ok := warm.ReadRecord(warm.ByName(fd, d.Name)); !ok {
				continue // nothing speaks of cold
			}
		}
		c, _, err := v.lookupAt(ctx, n, fd, d.Name)
		if err != nil {
			if gone2nil(err) == nil {
				continue
			}
			return err
		}
		if c.dir == nil {
			if stubs = append(stubs, c); len(stubs) >= recallMost {
				if err := flush(); err != nil {
					return err
				}
			}
			continue
		}
		err = v.settleDir(ctx, c, depth+1)
		v.unref(c, 1)
		if err != nil {
			return err
		}
	}
	if err := flush(); err != nil {
		return err
	}
	return v.voidDir(n)
}

// voidDir takes a directory's clean mark away, and what is known of its commit.
func (v *Volume) voidDir(n *Inode) error {
	v.marks.Lock()
	defer v.marks.Unlock()
	n.dir.mu.Lock()
	n.dir.mu.tracking, n.dir.mu.changed, n.dir.mu.base = false, nil, cold.DirID{}
	n.dir.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.mu.rec
	if !r.Has(warm.FlagClean) {
		return nil
	}
	var st unix.Statx_t
	if err := v.statNode(n, &st); err != nil {
		return gone2nil(err)
	}
	a := n.attrLocked(&st)
	return v.storeOrRemove(n, warm.Record{Flags: warm.FlagCtime, Mtime: a.Mtime, Ctime: a.Ctime})
}
