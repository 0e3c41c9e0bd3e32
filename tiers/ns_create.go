package tiers

import (
	"context"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// newMode returns the mode for a new file in dir. It applies the caller's umask, unless dir has a default ACL, which
// takes the umask's place.
func (v *Volume) newMode(dir *Inode, dirfd int, mode uint32, c Caller) uint32 {
	if c.Umask != 0 && v.hasDefaultACL(dir, dirfd) == aclNone {
		mode &^= c.Umask
	}
	return mode & 07777
}

// giveTo makes c the owner of an inode that was just created in dir: of name in the directory behind fd, or of fd
// itself where name is "". In a setgid directory the inode keeps the directory's group. Since chown(2) clears suid and
// sgid of files, they are set again.
func (v *Volume) giveTo(dir *Inode, fd int, name string, mode uint32, kind cold.Kind, c Caller) error {
	dir.mu.Lock()
	setgid := dir.mu.mode&unix.S_ISGID != 0
	dir.mu.Unlock()
	if c.UID == v.uid && (c.GID == v.gid || setgid) {
		return nil
	}
	if !v.mayChown {
		return nil // a plain user's mount: everything belongs to that user
	}
	uid, gid := int(c.UID), int(c.GID)
	if setgid {
		gid = -1
	}
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	if err := unix.Fchownat(fd, name, uid, gid, flags); err != nil {
		return err
	}
	if mode&(unix.S_ISUID|unix.S_ISGID) != 0 && kind != cold.KindDir && kind != cold.KindSymlink {
		if name == "" {
			return unix.Fchmod(fd, mode)
		}
		return fchmodat(fd, name, mode)
	}
	return nil
}

// fchmodat is chmod that never follows a symlink.
func fchmodat(dirfd int, name string, mode uint32) error {
	fd, err := warm.OpenAt(dirfd, name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Chmod(warm.FDPath(fd), mode)
}

// Create makes and opens a file; the kernel gains one lookup. Without O_EXCL an existing one is opened.
func (v *Volume) Create(ctx context.Context, dir *Inode, name string, flags, mode uint32, c Caller) (*Inode, *Handle,
	Attr, error) {
	if err := checkName(name); err != nil {
		return nil, nil, Attr{}, err
	}
	if err := v.prepare(ctx, dir); err != nil {
		return nil, nil, Attr{}, err
	}
	create := func() (*Inode, *Handle, Attr, error) {
		v.begin()
		defer v.end()
		return v.create(dir, name, flags, mode, c)
	}
	n, h, a, err := create()
	for r := (again{}); err != nil && r.try(ctx, v, dir, &err); {
		n, h, a, err = create()
	}
	if err != unix.EEXIST || flags&unix.O_EXCL != 0 {
		return n, h, a, err
	}
	n, _, err = v.Lookup(ctx, dir, name)
	if err != nil {
		return nil, nil, Attr{}, err
	}
	if h, err = v.Open(ctx, n, flags, false); err == nil {
		a, err = v.Getattr(ctx, n, h)
	}
	if err != nil {
		n.vol.unref(n, 1)
		return nil, nil, Attr{}, err
	}
	return n, h, a, nil
}

func (v *Volume) create(dir *Inode, name string, flags, mode uint32, c Caller) (*Inode, *Handle, Attr, error) {
	if err := v.touchName(dir, name); err != nil {
		return nil, nil, Attr{}, err
	}
	dirfd, err := v.dirFD(dir)
	if err != nil {
		return nil, nil, Attr{}, err
	}
	defer v.unpin(dir)
	v.keepUnbound(dir, dirfd, name)
	mode = v.newMode(dir, dirfd, mode, c)
	open := warmFlags(flags)&^unix.O_ACCMODE | unix.O_RDWR | unix.O_NOATIME
	fd, err := warm.OpenAt(dirfd, name, open|unix.O_CREAT|unix.O_EXCL, mode)
	if err != nil {
		return nil, nil, Attr{}, err
	}
	n, h, a, err := v.created(dir, dirfd, fd, name, flags, mode, c)
	if err != nil {
		unix.Close(fd)
		_ = unix.Unlinkat(dirfd, name, 0)
	}
	return n, h, a, err
}

// created makes the inode and the handle of a file that was just made and is open as fd; name is "" if it has none.
func (v *Volume) created(dir *Inode, dirfd, fd int, name string, flags, mode uint32, c Caller) (*Inode, *Handle, Attr,
	error) {
	if err := v.giveTo(dir, fd, "", mode, cold.KindFile, c); err != nil {
		return nil, nil, Attr{}, err
	}
	moves := v.nameChanges.Load()
	var st unix.Statx_t
	if err := warm.StatAt(fd, "", &st); err != nil {
		return nil, nil, Attr{}, err
	}
	var n *Inode
	var a Attr
	if name != "" {
		var err error
		if n, a, err = v.adoptNew(dir, dirfd, name, &st, moves); err != nil {
			return nil, nil, Attr{}, err
		}
	} else {
		n, _ = v.intern(&st) // fresh: the number was free a moment ago
		v.hot.newVersion(n)
		a = n.attrLocked(&st)
		n.anon, _ = unix.Open(warm.FDPath(fd), unix.O_PATH|unix.O_CLOEXEC, 0)
		v.nameless.Add(1)
		n.mu.Unlock()
	}
	e := v.epoch.Load()
	n.born.Store(e)
	n.mu.Lock()
	n.mu.ungranted = true
	n.mu.Unlock()
	n.epoch.Store(e)
	n.contentEpoch.Store(e)
	return n, v.newHandle(n, fd, flags, true, true), a, nil
}

// Tmpfile makes and opens a file without a name (O_TMPFILE); Link may give it one.
func (v *Volume) Tmpfile(ctx context.Context, dir *Inode, flags, mode uint32, c Caller) (*Inode, *Handle, Attr, error) {
	if err := v.prepare(ctx, dir); err != nil {
		return nil, nil, Attr{}, err
	}
	v.begin()
	defer v.end()
	dirfd, err := v.dirFD(dir)
	if err != nil {
		return nil, nil, Attr{}, err
	}
	defer v.unpin(dir)
	mode = v.newMode(dir, dirfd, mode, c)
	fd, err := warm.OpenAt(dirfd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_NOATIME, mode)
	if err != nil {
		return nil, nil, Attr{}, err
	}
	n, h, a, err := v.created(dir, dirfd, fd, "", flags, mode, c)
	if err != nil {
		unix.Close(fd)
	}
	return n, h, a, err
}

// make runs call, which makes name in dir, makes c the owner of the new inode, and returns it; the kernel gains one
// lookup.
func (v *Volume) make(ctx context.Context, dir *Inode, name string, kind cold.Kind, mode uint32, c Caller,
	call func(dirfd int, mode uint32) error) (*Inode, Attr, error) {
	if err := checkName(name); err != nil {
		return nil, Attr{}, err
	}
	if err := v.prepare(ctx, dir); err != nil {
		return nil, Attr{}, err
	}
	n, a, err := v.makeOnce(dir, name, kind, mode, c, call)
	for r := (again{}); err != nil && r.try(ctx, v, dir, &err); {
		n, a, err = v.makeOnce(dir, name, kind, mode, c, call)
	}
	return n, a, err
}

func (v *Volume) makeOnce(dir *Inode, name string, kind cold.Kind, mode uint32, c Caller,
	call func(dirfd int, mode uint32) error) (*Inode, Attr, error) {
	v.begin()
	defer v.end()
	if err := v.touchName(dir, name); err != nil {
		return nil, Attr{}, err
	}
	dirfd, err := v.dirFD(dir)
	if err != nil {
		return nil, Attr{}, err
	}
	defer v.unpin(dir)
	v.keepUnbound(dir, dirfd, name)
	if kind != cold.KindSymlink {
		mode = v.newMode(dir, dirfd, mode, c)
	}
	if err := call(dirfd, mode); err != nil {
		return nil, Attr{}, err
	}
	undo := func() {
		flags := 0
		if kind == cold.KindDir {
			flags = unix.AT_REMOVEDIR
		}
		_ = unix.Unlinkat(dirfd, name, flags)
	}
	if err := v.giveTo(dir, dirfd, name, mode, kind, c); err != nil {
		undo()
		return nil, Attr{}, err
	}
	moves := v.nameChanges.Load()
	var st unix.Statx_t
	if err := warm.StatAt(dirfd, name, &st); err != nil {
		undo()
		return nil, Attr{}, err
	}
	n, a, err := v.adoptNew(dir, dirfd, name, &st, moves)
	if err != nil {
		return nil, Attr{}, err
	}
	n.born.Store(v.epoch.Load())
	n.epoch.Store(v.epoch.Load())
	return n, a, nil
}

// Mkdir makes a directory in warm and, if the rules want it to be of class memory, its graft in the area.
func (v *Volume) Mkdir(ctx context.Context, dir *Inode, name string, mode uint32, c Caller) (*Inode, Attr, error) {
	n, a, err := v.make(ctx, dir, name, cold.KindDir, mode, c, func(dirfd int, mode uint32) error {
		return unix.Mkdirat(dirfd, name, mode)
	})
	if err != nil || !v.memory.on.Load() {
		return n, a, err
	}
	return v.enterNew(ctx, dir, name, n, a)
}

// Mknod makes a file, FIFO, socket or device; rdev is new_encode_dev as in the FUSE protocol.
func (v *Volume) Mknod(ctx context.Context, dir *Inode, name string, mode, rdev uint32, c Caller) (*Inode, Attr,
	error) {
	kind := warm.KindOf(mode)
	if kind == cold.KindDir || kind == cold.KindSymlink {
		return nil, Attr{}, unix.EINVAL
	}
	dev := unix.Mkdev(rdev>>8&0xfff, rdev&0xff|rdev>>12&0xfff00)
	return v.make(ctx, dir, name, kind, mode, c, func(dirfd int, m uint32) error {
		return unix.Mknodat(dirfd, name, kind.Format()|m, int(dev))
	})
}

// Symlink makes a symbolic link.
func (v *Volume) Symlink(ctx context.Context, dir *Inode, name, linkTo string, c Caller) (*Inode, Attr, error) {
	return v.make(ctx, dir, name, cold.KindSymlink, 0777, c, func(dirfd int, _ uint32) error {
		return unix.Symlinkat(linkTo, dirfd, name)
	})
}
