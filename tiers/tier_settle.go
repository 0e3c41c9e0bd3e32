package tiers

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// This file settles what the rules ignore. It stays in warm: no commit takes it, nothing releases it. Once settled,
// such a file has its bytes in warm and nothing in its record that speaks of cold, and such a directory has no clean
// mark, since cold need not keep the objects that these would name. What was committed before the rule came is brought
// back first, in the background; then commits leave it out.

// settleLoop settles what settleSoon asked for.
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
		r := &recaller{v: v, ctx: ctx, settle: true}
		if err := r.below(n); err != nil {
			return err
		}
		v.settling.note(n, changes)
	}
	v.begin()
	defer v.end()
	return v.touchOwn(n, touchQuiet)
}

// voidDir removes a directory's clean mark, and forgets what the last commit has of it.
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
