package tiers

import (
	"context"

	"golang.org/x/sys/unix"
)

// crossing prepares for a rename over the border between what the rules ignore and the rest. A file that becomes
// ignored comes back from cold first. For a directory that would become ignored, crossing returns EXDEV, which makes mv
// copy it. Nothing is locked.
func (v *Volume) crossing(ctx context.Context, dir *Inode, name string, newdir *Inode, newname string,
	exchange bool) error {
	if !v.Rules().HasIgnore() {
		return nil
	}
	if err := v.enters(ctx, dir, name, newdir, newname); err != nil || !exchange {
		return err
	}
	return v.enters(ctx, newdir, newname, dir, name)
}

func (v *Volume) enters(ctx context.Context, dir *Inode, name string, newdir *Inode, newname string) error {
	dirfd, err := v.dirFD(dir)
	if err != nil {
		return err
	}
	defer v.unpin(dir)
	n, _, err := v.lookupAt(ctx, dir, dirfd, name)
	if err != nil {
		return nil // the rename itself reports the error
	}
	defer v.unref(n, 1)
	isDir := n.dir != nil
	from, to := v.ignoredName(dir, name, isDir), v.ignoredName(newdir, newname, isDir)
	switch {
	case from == to && (!isDir || from || !v.Rules().Anchored()):
		return nil
	case isDir && to:
		return unix.EXDEV
	case isDir: // after the move other paths below it may be ignored
		v.book.rewalk.Store(true)
		return nil
	case to:
		return v.errand(ctx, n, func(ctx context.Context) error { return v.leaveCold(ctx, n) })
	}
	return nil
}

// linkCrosses says whether the new name (dir, name) of n would be ignored and the name that it has is not, or the other
// way round.
func (v *Volume) linkCrosses(n, dir *Inode, name string) bool {
	if !v.Rules().HasIgnore() {
		return false
	}
	v.ns.RLock()
	named := n.parent != nil
	v.ns.RUnlock()
	return named && v.ignoredInode(n) != v.ignoredName(dir, name, false)
}
