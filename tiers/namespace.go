package tiers

import (
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// checkName refuses what can not be one name in a directory.
func checkName(name string) error {
	switch {
	case len(name) > 255:
		return unix.ENAMETOOLONG
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return unix.EINVAL
	}
	return nil
}

// adopt makes the inode that st describes known under (dir, name), with one reference more. moves is Volume.moves from before
// the stat; ESTALE says that the name went away meanwhile.
func (v *Volume) adopt(dir *Inode, dirfd int, name string, st *unix.Statx_t, moves uint64, created bool) (*Inode, Attr, error) {
	n, fresh := v.intern(st)
	if !fresh {
		if !v.place(n, dir, dirfd, name, moves) {
			v.unref(n, 1)
			return nil, Attr{}, unix.ESTALE
		}
		return n, n.attr(st), nil
	}
	// n.mu is held since intern: nobody uses the inode before its record is known.
	if created {
		n.mu.noXattrs = n.kind == KindFile && v.hasDefaultACL(dir, dirfd) == aclNone
		if n.dir != nil {
			n.dir.mu.acl = aclUnknown
		}
	} else {
		v.loadRecord(n, byName(dirfd, name))
	}
	a := n.attrLocked(st)
	if n.kind == KindFile {
		v.hot.versionFrom(n, a.Ctime, now())
	}
	n.mu.Unlock()
	if !v.place(n, dir, dirfd, name, moves) {
		v.unref(n, 1)
		return nil, Attr{}, unix.ESTALE
	}
	return n, a, nil
}

// Lookup finds name in dir; the kernel gains one lookup.
func (v *Volume) Lookup(dir *Inode, name string) (*Inode, Attr, error) {
	if err := checkName(name); err != nil {
		if err == unix.EINVAL {
			err = unix.ENOENT
		}
		return nil, Attr{}, err
	}
	dirfd, err := v.dirFD(dir)
	if err != nil {
		return nil, Attr{}, err
	}
	defer v.unpin(dir)
	return v.lookupAt(dir, dirfd, name)
}

func (v *Volume) lookupAt(dir *Inode, dirfd int, name string) (*Inode, Attr, error) {
	for {
		moves := v.moves.Load()
		var st unix.Statx_t
		if err := statAt(dirfd, name, &st); err != nil {
			return nil, Attr{}, err
		}
		if unix.Mkdev(st.Dev_major, st.Dev_minor) != v.warmDev {
			return nil, Attr{}, unix.EXDEV // something mounted over warm is none of ours
		}
		n, a, err := v.adopt(dir, dirfd, name, &st, moves, false)
		if err != unix.ESTALE { // a revalidating lookup holds no lock of the kernel's: a rename came between
			return n, a, err
		}
	}
}

const (
	aclUnknown = iota
	aclNone
	aclPresent
)

// hasDefaultACL says whether children of dir inherit an ACL; then the umask does not count.
func (v *Volume) hasDefaultACL(dir *Inode, dirfd int) int8 {
	d := dir.dir
	d.mu.Lock()
	acl := d.mu.acl
	d.mu.Unlock()
	if acl != aclUnknown {
		return acl
	}
	acl = aclPresent
	if _, err := byName(dirfd, ".").get("system.posix_acl_default", nil); err != nil {
		acl = aclNone
	}
	d.mu.Lock()
	d.mu.acl = acl // the kernel holds the directory's lock over creations and over setting an ACL: nothing changed meanwhile
	d.mu.Unlock()
	return acl
}

// newMode applies the umask unless an ACL is inherited.
func (v *Volume) newMode(dir *Inode, dirfd int, mode uint32, c Caller) uint32 {
	if c.Umask != 0 && v.hasDefaultACL(dir, dirfd) == aclNone {
		mode &^= c.Umask
	}
	return mode & 07777
}

// giveTo makes an inode just created the caller's; setgid directories keep their group. chown(2) clears suid and sgid of files.
func (v *Volume) giveTo(dir *Inode, fd int, name string, mode uint32, kind Kind, c Caller) error {
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
	if mode&(unix.S_ISUID|unix.S_ISGID) != 0 && kind != KindDir && kind != KindSymlink {
		if name == "" {
			return unix.Fchmod(fd, mode)
		}
		return fchmodat(fd, name, mode)
	}
	return nil
}

// fchmodat is chmod that never follows a symlink.
func fchmodat(dirfd int, name string, mode uint32) error {
	fd, err := openAt(dirfd, name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Chmod(fdPath(fd), mode)
}

// Create makes and opens a file; the kernel gains one lookup. Without O_EXCL an existing one is opened.
func (v *Volume) Create(dir *Inode, name string, flags, mode uint32, c Caller) (*Inode, *Handle, Attr, error) {
	if err := checkName(name); err != nil {
		return nil, nil, Attr{}, err
	}
	v.begin()
	n, h, a, err := v.create(dir, name, flags, mode, c)
	v.end()
	if err != unix.EEXIST || flags&unix.O_EXCL != 0 {
		return n, h, a, err
	}
	n, _, err = v.Lookup(dir, name)
	if err != nil {
		return nil, nil, Attr{}, err
	}
	if h, err = v.Open(n, flags, false); err == nil {
		a, err = v.Getattr(n, h)
	}
	if err != nil {
		v.unref(n, 1)
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
	mode = v.newMode(dir, dirfd, mode, c)
	open := warmFlags(flags)&^(unix.O_ACCMODE|unix.O_NOATIME) | unix.O_RDWR
	fd, err := openAt(dirfd, name, open|unix.O_CREAT|unix.O_EXCL, mode)
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

// created makes the inode and handle of a file just made behind fd; name is "" for one without a name.
func (v *Volume) created(dir *Inode, dirfd, fd int, name string, flags, mode uint32, c Caller) (*Inode, *Handle, Attr, error) {
	if err := v.giveTo(dir, fd, "", mode, KindFile, c); err != nil {
		return nil, nil, Attr{}, err
	}
	moves := v.moves.Load()
	var st unix.Statx_t
	if err := statAt(fd, "", &st); err != nil {
		return nil, nil, Attr{}, err
	}
	var n *Inode
	var a Attr
	if name != "" {
		var err error
		if n, a, err = v.adopt(dir, dirfd, name, &st, moves, true); err != nil {
			return nil, nil, Attr{}, err
		}
	} else {
		n, _ = v.intern(&st) // fresh: the number was free a moment ago
		v.hot.newVersion(n)
		a = n.attrLocked(&st)
		n.anon, _ = unix.Open(fdPath(fd), unix.O_PATH|unix.O_CLOEXEC, 0)
		n.mu.Unlock()
	}
	e := v.epoch.Load()
	n.mu.Lock()
	n.mu.ungranted = true
	n.mu.Unlock()
	n.epoch.Store(e)
	n.contentEpoch.Store(e)
	return n, v.newHandle(n, fd, flags), a, nil
}

// Tmpfile makes and opens a file without a name (O_TMPFILE); Link may give it one.
func (v *Volume) Tmpfile(dir *Inode, flags, mode uint32, c Caller) (*Inode, *Handle, Attr, error) {
	v.begin()
	defer v.end()
	dirfd, err := v.dirFD(dir)
	if err != nil {
		return nil, nil, Attr{}, err
	}
	defer v.unpin(dir)
	mode = v.newMode(dir, dirfd, mode, c)
	fd, err := openAt(dirfd, ".", unix.O_TMPFILE|unix.O_RDWR, mode)
	if err != nil {
		return nil, nil, Attr{}, err
	}
	n, h, a, err := v.created(dir, dirfd, fd, "", flags, mode, c)
	if err != nil {
		unix.Close(fd)
	}
	return n, h, a, err
}

// make runs a system call that makes name in dir, gives the result to the caller and returns it; the kernel gains one lookup.
func (v *Volume) make(dir *Inode, name string, kind Kind, mode uint32, c Caller, call func(dirfd int, mode uint32) error) (*Inode, Attr, error) {
	if err := checkName(name); err != nil {
		return nil, Attr{}, err
	}
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
	if kind != KindSymlink {
		mode = v.newMode(dir, dirfd, mode, c)
	}
	if err := call(dirfd, mode); err != nil {
		return nil, Attr{}, err
	}
	undo := func() {
		flags := 0
		if kind == KindDir {
			flags = unix.AT_REMOVEDIR
		}
		_ = unix.Unlinkat(dirfd, name, flags)
	}
	if err := v.giveTo(dir, dirfd, name, mode, kind, c); err != nil {
		undo()
		return nil, Attr{}, err
	}
	moves := v.moves.Load()
	var st unix.Statx_t
	if err := statAt(dirfd, name, &st); err != nil {
		undo()
		return nil, Attr{}, err
	}
	n, a, err := v.adopt(dir, dirfd, name, &st, moves, true)
	if err != nil {
		return nil, Attr{}, err
	}
	n.epoch.Store(v.epoch.Load())
	return n, a, nil
}

// Mkdir makes a directory.
func (v *Volume) Mkdir(dir *Inode, name string, mode uint32, c Caller) (*Inode, Attr, error) {
	return v.make(dir, name, KindDir, mode, c, func(dirfd int, mode uint32) error {
		return unix.Mkdirat(dirfd, name, mode)
	})
}

// Mknod makes a file, FIFO, socket or device; rdev is new_encode_dev as in the FUSE protocol.
func (v *Volume) Mknod(dir *Inode, name string, mode, rdev uint32, c Caller) (*Inode, Attr, error) {
	kind := kindOf(mode)
	if kind == KindDir || kind == KindSymlink {
		return nil, Attr{}, unix.EINVAL
	}
	dev := unix.Mkdev(rdev>>8&0xfff, rdev&0xff|rdev>>12&0xfff00)
	return v.make(dir, name, kind, mode, c, func(dirfd int, m uint32) error {
		return unix.Mknodat(dirfd, name, kind.format()|m, int(dev))
	})
}

// Symlink makes a symbolic link.
func (v *Volume) Symlink(dir *Inode, name, linkTo string, c Caller) (*Inode, Attr, error) {
	return v.make(dir, name, KindSymlink, 0777, c, func(dirfd int, _ uint32) error {
		return unix.Symlinkat(linkTo, dirfd, name)
	})
}

// Readlink returns a symbolic link's target.
func (v *Volume) Readlink(n *Inode) ([]byte, error) {
	var out []byte
	err := v.locate(n, func(dirfd int, name string, anon bool) error {
		var err error
		out, err = readlinkAt(dirfd, name)
		return err
	})
	return out, err
}

func readlinkAt(dirfd int, name string) ([]byte, error) {
	buf := make([]byte, 256)
	for {
		n, err := unix.Readlinkat(dirfd, name, buf)
		if err != nil {
			return nil, err
		}
		if n < len(buf) {
			return buf[:n], nil
		}
		buf = make([]byte, 2*len(buf))
	}
}

// Link gives n one name more; the kernel gains one lookup on n.
func (v *Volume) Link(n, dir *Inode, name string) (Attr, error) {
	if err := checkName(name); err != nil {
		return Attr{}, err
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
	err = v.withCtimeVoid(n, func() error {
		return unix.Linkat(unix.AT_FDCWD, fdPath(fd), dirfd, name, unix.AT_SYMLINK_FOLLOW)
	})
	if err != nil {
		return Attr{}, err
	}
	moves := v.moves.Load()
	var st unix.Statx_t
	if err := statAt(dirfd, name, &st); err != nil {
		return Attr{}, err
	}
	dir.noteLinks()
	v.noteParentLinks(n)
	v.ns.RLock()
	nameless := n.parent == nil
	v.ns.RUnlock()
	if nameless {
		v.place(n, dir, dirfd, name, moves)
	}
	v.ref(n)
	return n.attr(&st), nil
}

// noteLinks says that d holds a name of a file with several names: it is never clean.
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

// Unlink removes a name that is not a directory's.
func (v *Volume) Unlink(dir *Inode, name string) error { return v.removeName(dir, name, 0) }

// Rmdir removes an empty directory.
func (v *Volume) Rmdir(dir *Inode, name string) error {
	return v.removeName(dir, name, unix.AT_REMOVEDIR)
}

func (v *Volume) removeName(dir *Inode, name string, flags int) error {
	if err := checkName(name); err != nil {
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
	if err := v.touchName(dir, name); err != nil {
		return err
	}
	return victim.change(func() error {
		v.ns.Lock()
		err := unix.Unlinkat(dirfd, name, flags)
		v.moves.Add(1)
		release := victim.lostName(err, dir, name)
		v.ns.Unlock()
		return victim.release(err, release)
	})
}

// victim is an inode that is about to lose a name, held by a descriptor: the kernel may use it without a name for a while.
type victim struct {
	v  *Volume
	n  *Inode
	fd int
}

func (v *Volume) victim(dir *Inode, dirfd int, name string) (victim, error) {
	fd, err := openAt(dirfd, name, unix.O_PATH, 0)
	if err != nil {
		return victim{}, err
	}
	var st unix.Statx_t
	if err := statAt(fd, "", &st); err != nil {
		unix.Close(fd)
		return victim{}, err
	}
	n, fresh := v.intern(&st)
	if fresh {
		v.loadRecord(n, byName(dirfd, name))
		n.attrLocked(&st)
		n.mu.Unlock()
	}
	return victim{v: v, n: n, fd: fd}, nil
}

// change runs f, which alters the victim's link count and so its ctime.
func (x *victim) change(f func() error) error { return x.v.withCtimeVoid(x.n, f) }

// lostName notes after a system call that ended with err that the victim is no longer (dir, name). Volume.ns is held for
// writing; the inode returned must lose a reference once it is not.
func (x *victim) lostName(err error, dir *Inode, name string) *Inode {
	if err != nil || x.n.parent != dir || x.n.name != name {
		return nil
	}
	x.n.anon, x.fd = x.fd, -1
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

// Rename is renameat2(2) with RENAME_NOREPLACE and RENAME_EXCHANGE.
func (v *Volume) Rename(dir *Inode, name string, newdir *Inode, newname string, flags uint32) error {
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return unix.EINVAL
	}
	if err := checkName(name); err != nil {
		return err
	}
	if err := checkName(newname); err != nil {
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
	case err != unix.ENOENT:
		return err
	}
	exists := err == nil
	if err := v.touchName(dir, name); err != nil {
		return err
	}
	if err := v.touchName(newdir, newname); err != nil {
		return err
	}
	call := func() error {
		v.ns.Lock()
		err := unix.Renameat2(dirfd, name, newfd, newname, uint(flags))
		v.moves.Add(1)
		var release [2]*Inode
		switch {
		case err != nil || exists && moved.n == replaced.n && flags&unix.RENAME_EXCHANGE == 0: // two names of one file: nothing happens
		case flags&unix.RENAME_EXCHANGE != 0:
			release[0] = v.rename(moved.n, dir, name, newdir, newname)
			release[1] = v.rename(replaced.n, newdir, newname, dir, name)
		default:
			if exists {
				release[1] = replaced.lostName(nil, newdir, newname)
			}
			release[0] = v.rename(moved.n, dir, name, newdir, newname)
		}
		v.ns.Unlock()
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
	// Two records: in the order of their ids, so that two exchanges do not block each other.
	first, second := &moved, &replaced
	if second.n.id < first.n.id {
		first, second = second, first
	}
	return first.change(func() error { return second.change(call) })
}

// rename notes that n moved. A name that the kernel did not come by stays as it is: one of several of a file.
func (v *Volume) rename(n, dir *Inode, name string, newdir *Inode, newname string) (release *Inode) {
	if n.parent == dir && n.name == name || n.parent == nil {
		release = v.setName(n, newdir, newname)
	}
	n.dirLinksFollow(newdir)
	return release
}

// dirLinksFollow: a file with several names that moves takes the "never clean" with it; which ones have several is not known
// without a stat, and a wrong guess costs one comparison at the next commit.
func (n *Inode) dirLinksFollow(newdir *Inode) {
	if n.kind != KindDir && n.mu.rec.has(recGroup) {
		newdir.noteLinks()
	}
}

var umaskOnce sync.Once

// clearUmask makes the daemon's own umask nothing: requests carry theirs.
func clearUmask() { umaskOnce.Do(func() { unix.Umask(0) }) }
