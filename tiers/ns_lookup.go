package tiers

import (
	"context"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// adoptNew makes the inode of a file that was just made, which st describes, known under (dir, name), with one
// reference more. moves is Volume.nameChanges from before the stat. ESTALE says that the name went away meanwhile.
func (v *Volume) adoptNew(dir *Inode, dirfd int, name string, st *unix.Statx_t, moves uint64) (*Inode, Attr, error) {
	n, fresh := v.intern(st)
	if fresh {
		n.mu.noXattrs = n.kind == cold.KindFile && v.hasDefaultACL(dir, dirfd) == aclNone
		if n.dir != nil {
			n.dir.mu.acl = aclUnknown
		}
	}
	return v.adopt(dir, dirfd, name, st, moves, n, fresh)
}

// internAt is intern for the inode that has the name (dirfd, name) now, which it also describes in st. It loads the
// record of a new inode, whose mu is held. Volume.ns keeps names from changing meanwhile: else the record of another
// file that is moved to this name would be taken for the inode's own, or even overwritten. EXDEV says that something is
// mounted there.
func (v *Volume) internAt(dirfd int, name string, st *unix.Statx_t) (n *Inode, fresh bool, err error) {
	v.ns.RLock()
	defer v.ns.RUnlock()
	if err := warm.StatAt(dirfd, name, st); err != nil {
		return nil, false, err
	}
	if st.Mnt_id != v.warmMount { // not the device: overlayfs shows several in one mount
		return nil, false, unix.EXDEV // something mounted over warm is none of ours
	}
	if n, fresh = v.intern(st); fresh {
		v.loadRecord(n, warm.ByName(dirfd, name), st)
	}
	return n, fresh, nil
}

// adopt makes an inode known under (dir, name). n is from intern, with its reference; if it is fresh, its record is
// loaded, and its mu is held, which adopt unlocks. moves and ESTALE are as for adoptNew.
func (v *Volume) adopt(dir *Inode, dirfd int, name string, st *unix.Statx_t, moves uint64, n *Inode, fresh bool) (
	*Inode, Attr, error) {
	if !fresh {
		if !v.place(n, dir, dirfd, name, moves) {
			v.unref(n, 1)
			return nil, Attr{}, unix.ESTALE
		}
		return n, v.attrAfter(n, st), nil
	}
	// When st was taken, an inode for this file, since forgotten, may have been bringing its bytes back.
	a := n.attrFitting(st, func(st *unix.Statx_t) error { return warm.StatAt(dirfd, name, st) })
	if n.kind == cold.KindFile {
		v.hot.versionFrom(n, a.Ctime, warm.Now())
	}
	n.mu.Unlock()
	if !v.place(n, dir, dirfd, name, moves) {
		v.unref(n, 1)
		return nil, Attr{}, unix.ESTALE
	}
	return n, a, nil
}

// Lookup finds name in dir; the kernel gains one lookup.
func (v *Volume) Lookup(ctx context.Context, dir *Inode, name string) (*Inode, Attr, error) {
	if err := checkName(name); err != nil {
		if err == unix.EINVAL {
			err = unix.ENOENT
		}
		return nil, Attr{}, err
	}
	if err := v.lookLazy(ctx, dir, name); err != nil {
		return nil, Attr{}, err
	}
	dirfd, err := v.dirFD(dir)
	if err != nil {
		return nil, Attr{}, err
	}
	defer v.unpin(dir)
	listed := v.moved.listed.Load()
	n, a, err := v.lookupAt(ctx, dir, dirfd, name)
	if err != nil {
		return nil, Attr{}, err
	}
	v.shownLinks(ctx, n, &a)
	if n.dir != nil && v.memory.on.Load() {
		// If this fails, the directory is shown empty, and making something in it returns the error.
		if inside, ia, err := v.enter(ctx, n); err == nil && inside != nil {
			v.unref(n, 1)
			return inside, ia, nil
		}
	}
	if n.dir != nil && listed != v.moved.listed.Load() { // n may have been listed meanwhile
		if now, err := v.Getattr(ctx, n, nil); err == nil {
			a = now
		}
	}
	return n, a, nil
}

func (v *Volume) lookupAt(ctx context.Context, dir *Inode, dirfd int, name string) (*Inode, Attr, error) {
	for {
		moves := v.nameChanges.Load()
		var st unix.Statx_t
		n, fresh, err := v.internAt(dirfd, name, &st)
		if err != nil {
			return nil, Attr{}, err
		}
		n, a, err := v.adopt(dir, dirfd, name, &st, moves, n, fresh)
		if err != unix.ESTALE { // a revalidating lookup holds no lock of the kernel's: a rename came between
			return n, a, err
		}
	}
}

// Readlink returns a symbolic link's target.
func (v *Volume) Readlink(n *Inode) ([]byte, error) {
	var out []byte
	err := v.locate(n, func(dirfd int, name string, anon bool) error {
		var err error
		switch mode := v.atimeMode(); {
		case mode.Never:
			out, err = v.readlinkQuiet(dirfd, name)
		case mode.Strict:
			out, err = v.readlinkVia(&v.atime.strict, unix.MOUNT_ATTR_STRICTATIME, dirfd, name)
		default:
			out, err = warm.ReadlinkAt(dirfd, name)
		}
		return err
	})
	return out, err
}

// Link gives n one name more; the kernel gains one lookup on n. EXDEV where only one of the two is of class memory.
func (v *Volume) Link(ctx context.Context, n, dir *Inode, name string) (Attr, error) {
	if n.vol != dir.vol {
		return Attr{}, unix.EXDEV
	}
	if err := checkName(name); err != nil {
		return Attr{}, err
	}
	if err := v.errStandsIn(n); err != nil {
		return Attr{}, err
	}
	if err := v.may(n, cold.FlagImmutable|cold.FlagAppend); err != nil {
		return Attr{}, err
	}
	if err := v.prepare(ctx, dir); err != nil {
		return Attr{}, err
	}
	if v.linkCrosses(n, dir, name) {
		return Attr{}, unix.EXDEV
	}
	v.begin()
	defer v.end()
	if err := v.touchName(dir, name); err != nil {
		return Attr{}, err
	}
	if err := v.touchOwnName(n); err != nil { // its directory now holds a name of a file with several
		return Attr{}, err
	}
	dirfd, err := v.dirFD(dir)
	if err != nil {
		return Attr{}, err
	}
	defer v.unpin(dir)
	fd, err := v.openNode(n, unix.O_PATH)
	if err != nil {
		return Attr{}, err
	}
	defer unix.Close(fd)
	v.keepUnbound(dir, dirfd, name)
	err = v.withCtimeVoid(n, func() error {
		return unix.Linkat(unix.AT_FDCWD, warm.FDPath(fd), dirfd, name, unix.AT_SYMLINK_FOLLOW)
	})
	if err != nil {
		return Attr{}, err
	}
	moves := v.nameChanges.Load()
	var st unix.Statx_t
	if err := warm.StatAt(dirfd, name, &st); err != nil {
		return Attr{}, err
	}
	dir.noteLinks()
	v.noteParentLinks(n)
	v.severalNames(n, dir, name)
	if n.alsoCritical.Load() { // its other name may go before a commit comes
		v.critical.severalChanged(v, touchChange)
	}
	v.ns.RLock()
	nameless := n.parent == nil
	v.ns.RUnlock()
	if nameless {
		v.place(n, dir, dirfd, name, moves)
	}
	v.ref(n)
	return v.attrAfter(n, &st), nil
}

// noteLinks notes that the directory n holds a name of a file with several names, so it is never marked clean.
func (n *Inode) noteLinks() {
	n.dir.mu.Lock()
	n.dir.mu.links = true
	n.dir.mu.Unlock()
}

func (v *Volume) noteParentLinks(n *Inode) {
	v.ns.RLock()
	if n.parent != nil {
		n.parent.noteLinks()
	}
	v.ns.RUnlock()
}
