package tiers

import (
	"context"
	"path"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// Unlink removes a name that is not a directory's.
func (v *Volume) Unlink(ctx context.Context, dir *Inode, name string) error {
	return v.removeName(ctx, dir, name, 0)
}

// Rmdir removes an empty directory.
func (v *Volume) Rmdir(ctx context.Context, dir *Inode, name string) error {
	if v.memory.on.Load() {
		if done, err := v.rmdirMemory(ctx, dir, name); done {
			return err
		}
	}
	return v.removeName(ctx, dir, name, unix.AT_REMOVEDIR)
}

func (v *Volume) removeName(ctx context.Context, dir *Inode, name string, flags int) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := v.beforeLoss(ctx, dir, name, flags == unix.AT_REMOVEDIR); err != nil {
		return err
	}
	v.begin()
	defer v.end()
	dirfd, err := v.dirFD(dir)
	if err != nil {
		return err
	}
	defer v.unpin(dir)
	victim, err := v.victim(dir, dirfd, name)
	if err != nil {
		return err
	}
	defer victim.done()
	if err := v.mayRemove(dir, victim.n); err != nil {
		return err
	}
	v.keepBound(dir, name, victim.n)
	if err := v.touchName(dir, name); err != nil {
		return err
	}
	return victim.change(func() error {
		v.ns.Lock()
		err := unix.Unlinkat(dirfd, name, flags)
		v.nameChanges.Add(1)
		release := victim.lostName(err, dir, name)
		v.ns.Unlock()
		if err == nil {
			v.unnamedHeld(victim.n, dir, name)
		}
		return victim.release(err, release)
	})
}

// beforeLoss prepares for the loss of a name: it lists the directory dir; if isDir, also a lazy directory of that name,
// which shows whether it is empty; else it brings back an open stub of that name. Nothing is locked.
func (v *Volume) beforeLoss(ctx context.Context, dir *Inode, name string, isDir bool) error {
	if !v.tiered() {
		return nil
	}
	if err := v.listWithRoom(ctx, dir); err != nil {
		return err
	}
	if !isDir {
		v.rescue(ctx, dir, name)
		return nil
	}
	dirfd, err := v.dirFD(dir)
	if err != nil {
		return err
	}
	defer v.unpin(dir)
	n, _, err := v.lookupAt(ctx, dir, dirfd, name)
	if err != nil {
		return nil // the removal itself reports the error
	}
	defer v.unref(n, 1)
	return v.listWithRoom(ctx, n)
}

// beforeRename is beforeLoss for the name that a rename replaces. It also lists both directories and, if a directory
// moves, all directories at or below it that share files with others, and those others.
func (v *Volume) beforeRename(ctx context.Context, dir *Inode, name string, newdir *Inode, newname string,
	exchange bool) error {
	if !v.tiered() {
		return nil
	}
	if err := v.listWithRoom(ctx, dir); err != nil {
		return err
	}
	if err := v.listWithRoom(ctx, newdir); err != nil {
		return err
	}
	if err := v.beforeMove(ctx, path.Join(v.pathOf(dir), name)); err != nil {
		return err
	}
	if exchange {
		return v.beforeMove(ctx, path.Join(v.pathOf(newdir), newname))
	}
	if err := v.beforeLoss(ctx, newdir, newname, true); err != nil {
		return err
	}
	return v.beforeLoss(ctx, newdir, newname, false)
}

// victim is an inode that is about to lose a name. It is held by a descriptor, since the kernel may use it without a
// name for a while.
type victim struct {
	v  *Volume
	n  *Inode
	fd int
}

func (v *Volume) victim(dir *Inode, dirfd int, name string) (victim, error) {
	moves := v.nameChanges.Load()
	fd, err := warm.OpenAt(dirfd, name, unix.O_PATH, 0)
	if err != nil {
		return victim{}, err
	}
	var st unix.Statx_t
	if err := warm.StatAt(fd, "", &st); err != nil {
		unix.Close(fd)
		return victim{}, err
	}
	n, fresh := v.intern(&st)
	if fresh {
		v.loadRecord(n, warm.ByName(dirfd, name), &st)
		n.attrLocked(&st)
		n.mu.Unlock()
	}
	v.ns.RLock()
	nameless := n.parent == nil // or somebody, such as a commit, is looking it up and has not set its name yet
	v.ns.RUnlock()
	if nameless {
		v.place(n, dir, dirfd, name, moves) // the name is needed to write its record
	}
	return victim{v: v, n: n, fd: fd}, nil
}

// change runs f, which alters the victim's link count and so its ctime.
func (x *victim) change(f func() error) error { return x.v.withCtimeVoid(x.n, f) }

// lostName notes, after a system call that returned err, that the victim no longer has the name (dir, name), if that is
// the name that it is known by. Volume.ns is held for writing. If lostName returns an inode, the caller drops one
// reference on it after unlocking Volume.ns.
func (x *victim) lostName(err error, dir *Inode, name string) *Inode {
	if err != nil || x.n.parent != dir || x.n.name != name {
		return nil
	}
	x.n.anon, x.fd = x.fd, -1
	x.v.lost(x.n)
	x.v.nameless.Add(1)
	release := x.n.parent
	x.n.parent = nil
	return release
}

func (x *victim) release(err error, parent *Inode) error {
	if parent != nil {
		x.v.unref(parent, 1)
	}
	return err
}

func (x *victim) done() {
	if x.fd >= 0 {
		unix.Close(x.fd)
	}
	x.v.unref(x.n, 1)
}

// Rename is renameat2(2) with RENAME_NOREPLACE and RENAME_EXCHANGE. It returns EXDEV across the border of a directory
// of class memory, and for moving such a directory itself.
func (v *Volume) Rename(ctx context.Context, dir *Inode, name string, newdir *Inode, newname string,
	flags uint32) error {
	if dir.vol != newdir.vol {
		return unix.EXDEV
	}
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE|unix.RENAME_WHITEOUT) != 0 {
		return unix.EINVAL
	}
	if err := checkName(name); err != nil {
		return err
	}
	if err := checkName(newname); err != nil {
		return err
	}
	if err := v.bar(ctx, newdir); err != nil {
		return err
	}
	if err := v.beforeRename(ctx, dir, name, newdir, newname, flags&unix.RENAME_EXCHANGE != 0); err != nil {
		return err
	}
	if err := v.crossing(ctx, dir, name, newdir, newname, flags&unix.RENAME_EXCHANGE != 0); err != nil {
		return err
	}
	v.begin()
	defer v.end()
	dirfd, err := v.dirFD(dir)
	if err != nil {
		return err
	}
	defer v.unpin(dir)
	newfd, err := v.dirFD(newdir)
	if err != nil {
		return err
	}
	defer v.unpin(newdir)
	moved, err := v.victim(dir, dirfd, name)
	if err != nil {
		return err
	}
	defer moved.done()
	replaced, err := v.victim(newdir, newfd, newname)
	switch {
	case err == nil:
		defer replaced.done()
	case err != unix.ENOENT || flags&unix.RENAME_EXCHANGE != 0:
		return err
	}
	exists := err == nil
	if err := v.mayRemove(dir, moved.n); err != nil {
		return err
	}
	if err := v.may(newdir, cold.FlagImmutable); err != nil {
		return err
	}
	if exists {
		if err := v.mayRemove(newdir, replaced.n); err != nil {
			return err
		}
	}
	if v.memory.on.Load() {
		exchange := flags&unix.RENAME_EXCHANGE != 0
		if v.crosses(moved.n, newdir, newname) || exists &&
			(v.grafted(replaced.n) || exchange && v.crosses(replaced.n, dir, name)) {
			return unix.EXDEV
		}
		if moved.n.dir != nil || exists && replaced.n.dir != nil {
			defer v.memory.seq.Add(1)
		}
	}
	v.keepBound(dir, name, moved.n)
	if exists {
		v.keepBound(newdir, newname, replaced.n)
	} else {
		v.keepUnbound(newdir, newfd, newname)
	}
	if err := v.touchName(dir, name); err != nil {
		return err
	}
	if err := v.touchName(newdir, newname); err != nil {
		return err
	}
	v.watchMove(dir, name, newdir, newname)
	var other *Inode
	if flags&unix.RENAME_EXCHANGE != 0 {
		other = replaced.n
	}
	heldMoved := v.movingHeld(moved.n, dir, name, newdir, newname, other)
	if v.Rules().HasCritical() && (moved.n.dir != nil || exists && replaced.n.dir != nil) { // with all below it
		v.critical.needWhole(v.cfg.CriticalDelay)
	}
	call := func() error {
		v.ns.Lock()
		err := unix.Renameat2(dirfd, name, newfd, newname, uint(flags))
		v.nameChanges.Add(1)
		var release [2]*Inode
		replacedHeld := false
		switch {
		// If both are names of one file, rename(2) does nothing.
		case err != nil || exists && moved.n == replaced.n && flags&unix.RENAME_EXCHANGE == 0:
		case flags&unix.RENAME_EXCHANGE != 0:
			release[0] = v.rename(moved.n, dir, name, newdir, newname)
			release[1] = v.rename(replaced.n, newdir, newname, dir, name)
		default:
			if exists {
				release[1] = replaced.lostName(nil, newdir, newname)
				replacedHeld = true
			}
			release[0] = v.rename(moved.n, dir, name, newdir, newname)
		}
		v.ns.Unlock()
		if replacedHeld {
			v.unnamedHeld(replaced.n, newdir, newname)
		}
		heldMoved(err)
		for _, p := range release {
			if p != nil {
				v.unref(p, 1)
			}
		}
		return err
	}
	if !exists || replaced.n == moved.n {
		return moved.change(call)
	}
	// The mu of both inodes is locked, in the order of ids, so that two exchanges do not block each other.
	first, second := &moved, &replaced
	if second.n.id < first.n.id {
		first, second = second, first
	}
	return first.change(func() error { return second.change(call) })
}

// rename notes that n moved from (dir, name) to (newdir, newname). If n is known by another of several names, it keeps
// that. Volume.ns is held for writing. If rename returns an inode, the caller drops one reference on it after unlocking
// Volume.ns.
func (v *Volume) rename(n, dir *Inode, name string, newdir *Inode, newname string) (release *Inode) {
	if n.parent == dir && n.name == name || n.parent == nil {
		release = v.setName(n, newdir, newname)
	}
	n.dirLinksFollow(newdir)
	return release
}

// dirLinksFollow notes in newdir, to which n was moved, that it holds a name of a file with several names, if n may
// have several. Its record alone decides, without a stat: a wrong guess costs one comparison at the next commit. n.mu
// is held.
func (n *Inode) dirLinksFollow(newdir *Inode) {
	if n.kind != cold.KindDir && n.mu.rec.Has(warm.FlagGroup) {
		newdir.noteLinks()
	}
}
