package tiers

import (
	"context"
	"math"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/heldback"
	"emberfs/tiers/warm"
)

// Attr is what stat shows of an inode.
type Attr struct {
	Ino      uint64
	Size     uint64
	Blocks   uint64 // of 512 bytes
	Atime    cold.Time
	Mtime    cold.Time
	Ctime    cold.Time
	Btime    cold.Time
	Mode     uint32 // with S_IFMT
	Nlink    uint32
	UID, GID uint32
	Rdev     uint32 // as the FUSE protocol wants it: new_encode_dev
	Blksize  uint32
}

// Caller is who made the request, and the umask where the request carries one.
type Caller struct {
	UID, GID, PID uint32
	Umask         uint32
}

// SetAttr lists what a setattr changes; nil or false fields stay.
type SetAttr struct {
	Mode               *uint32 // 07777
	UID, GID           *uint32
	Size               *uint64
	Atime, Mtime       *cold.Time
	AtimeNow, MtimeNow bool
	KillPriv           bool // clear suid, and sgid where the group may execute
}

// Getattr stats n; through h, which may be nil, it works for files without a name too.
func (v *Volume) Getattr(ctx context.Context, n *Inode, h *Handle) (Attr, error) {
	for {
		listed := v.moved.listed.Load()
		a, err := v.attrNow(n, h)
		if err != nil {
			return Attr{}, err
		}
		v.shownLinks(ctx, n, &a)
		if n.dir == nil || listed == v.moved.listed.Load() {
			return a, nil
		}
	}
}

// attrNow is what stat shows of n. Warm's file and the record are looked at together: one changes with the other when bytes come
// back, and the kernel keeps what it is told.
func (v *Volume) attrNow(n *Inode, h *Handle) (Attr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var st unix.Statx_t
	var err error
	if h != nil {
		err = warm.StatAt(h.fd, "", &st)
	} else {
		err = v.statNode(n, &st)
	}
	if err != nil {
		return Attr{}, err
	}
	return n.attrLocked(&st), nil
}

// Setattr changes attributes, each as its system call does, and returns them all. h may be nil.
func (v *Volume) Setattr(ctx context.Context, n *Inode, h *Handle, in *SetAttr) (Attr, error) {
	if err := v.errStandsIn(n); err != nil {
		return Attr{}, err
	}
	if err := v.maySet(n, in); err != nil {
		return Attr{}, err
	}
	if in.Size != nil {
		n.opens.Add(1) // it is not released meanwhile
		defer n.opens.Add(-1)
		v.asideAhead(n, int64(*in.Size), math.MaxInt64)
	}
	if err := v.prepareAttrs(ctx, n); err != nil {
		return Attr{}, err
	}
	set := func() error {
		v.begin()
		defer v.end()
		return v.setattr(n, h, in)
	}
	err := set()
	for r := (again{}); err != nil && r.try(ctx, v, n, &err); {
		err = set()
	}
	if err != nil {
		return Attr{}, err
	}
	if host := n.host.Load(); host != nil {
		host.vol.mirror(ctx, host, in)
	}
	return v.Getattr(ctx, n, h)
}

func (v *Volume) setattr(n *Inode, h *Handle, in *SetAttr) error {
	if in.Size != nil {
		if err := v.setSize(n, h, int64(*in.Size), in.KillPriv); err != nil {
			return err
		}
	}
	if in.Mode == nil && in.UID == nil && in.GID == nil && in.Atime == nil && in.Mtime == nil && !in.AtimeNow && !in.MtimeNow && !(in.KillPriv && in.Size == nil) {
		return nil
	}
	return v.withAttrChange(n, func() error {
		fd := -1
		if h != nil {
			fd = h.fd
		} else {
			var err error
			if fd, err = v.openNode(n, unix.O_PATH); err != nil {
				return err
			}
			defer unix.Close(fd)
		}
		return v.applyAttrs(n, fd, in)
	})
}

// applyAttrs changes owner, mode and times through fd, which may be O_PATH; n.mu is held.
func (v *Volume) applyAttrs(n *Inode, fd int, in *SetAttr) error {
	if in.UID != nil || in.GID != nil {
		uid, gid := -1, -1
		if in.UID != nil {
			uid = int(*in.UID)
		}
		if in.GID != nil {
			gid = int(*in.GID)
		}
		if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
			return err
		}
		if err := v.reloadMode(n, fd); err != nil { // chown(2) clears suid and sgid
			return err
		}
		v.unhold(n, heldback.PartOwner, "")
		if n.kind == cold.KindFile {
			v.unhold(n, heldback.PartMode, "")
			v.unhold(n, heldback.PartCaps, "")
		}
	}
	mode := in.Mode
	if in.KillPriv && mode == nil && n.kind == cold.KindFile {
		m := n.mu.mode & 07777 &^ unix.S_ISUID
		if m&unix.S_IXGRP != 0 {
			m &^= unix.S_ISGID
		}
		if m != n.mu.mode&07777 {
			mode = &m
		}
	}
	if mode != nil {
		if n.kind == cold.KindSymlink {
			return unix.EOPNOTSUPP
		}
		if err := unix.Chmod(warm.FDPath(fd), *mode&07777); err != nil {
			return err
		}
		if err := v.reloadMode(n, fd); err != nil {
			return err
		}
	}
	if in.Mode != nil || in.KillPriv {
		v.unhold(n, heldback.PartMode, "")
	}
	if in.Atime != nil || in.Mtime != nil || in.AtimeNow || in.MtimeNow {
		ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
		if in.Atime != nil {
			ts[0] = in.Atime.Timespec()
		}
		if in.AtimeNow {
			ts[0] = unix.Timespec{Nsec: unix.UTIME_NOW}
		}
		if in.Mtime != nil {
			ts[1] = in.Mtime.Timespec()
		}
		if in.MtimeNow {
			ts[1] = unix.Timespec{Nsec: unix.UTIME_NOW}
		}
		if err := utimens(fd, ts); err != nil {
			return err
		}
		if in.Mtime != nil || in.MtimeNow {
			v.unhold(n, heldback.PartMtime, "")
			return v.recordMtime(n, fd)
		}
	}
	return nil
}

// utimens sets times through fd, O_PATH included, symlinks themselves included.
func utimens(fd int, ts []unix.Timespec) error {
	err := unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.EINVAL || err == unix.ENOENT { // before Linux 5.8 utimensat had no AT_EMPTY_PATH
		return unix.UtimesNanoAt(unix.AT_FDCWD, warm.FDPath(fd), ts, 0)
	}
	return err
}

func (v *Volume) reloadMode(n *Inode, fd int) error {
	var st unix.Statx_t
	if err := warm.StatAt(fd, "", &st); err != nil {
		return err
	}
	n.mu.mode, n.mu.lent = uint32(st.Mode), 0
	return nil
}

// recordMtime keeps a clean file clean when only its mtime was set: the record is valid for one (size, mtime). Of an unlisted
// directory it says what stat shows. n.mu is held.
func (v *Volume) recordMtime(n *Inode, fd int) error {
	if n.kind == cold.KindFile && !n.mu.rec.Has(warm.FlagClean) || n.kind == cold.KindDir && !n.mu.rec.Has(warm.FlagUnlisted) || n.kind != cold.KindFile && n.kind != cold.KindDir {
		return nil
	}
	var st unix.Statx_t
	if err := warm.StatAt(fd, "", &st); err != nil {
		return err
	}
	r := n.mu.rec
	r.Mtime = warm.TimeOf(st.Mtime)
	r.Flags &^= warm.FlagCtime
	return v.storeOrRemove(n, r)
}

func (v *Volume) setSize(n *Inode, h *Handle, size int64, killPriv bool) error {
	if n.kind != cold.KindFile {
		if n.kind == cold.KindDir {
			return unix.EISDIR
		}
		return unix.EINVAL
	}
	if size < 0 {
		return unix.EINVAL
	}
	if v.host != nil && size > areaMaxSize {
		return unix.EFBIG
	}
	if h != nil && writable(h.flags) {
		return v.truncate(n, h.fd, size, killPriv)
	}
	fd, err := v.openNode(n, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := v.truncate(n, fd, size, killPriv); err != nil {
		return err
	}
	v.finished(n) // nobody closes anything
	return nil
}

// Access is access(2) with the daemon's own rights; it is asked only where the mount has no default_permissions, which means
// that the caller is the daemon's user.
func (v *Volume) Access(n *Inode, mask uint32, c Caller) error {
	fd, err := v.openNode(n, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Faccessat(unix.AT_FDCWD, warm.FDPath(fd), mask, unix.AT_EACCESS)
}

// Statfs describes the file system that runs full: warm's, and inside a directory of class memory its tmpfs.
func (v *Volume) Statfs(n *Inode) (unix.Statfs_t, error) {
	var st unix.Statfs_t
	err := unix.Fstatfs(v.warmFD, &st)
	return st, err
}

func attrOf(st *unix.Statx_t) Attr {
	return Attr{
		Ino: st.Ino, Size: st.Size, Blocks: st.Blocks,
		Atime: warm.TimeOf(st.Atime), Mtime: warm.TimeOf(st.Mtime), Ctime: warm.TimeOf(st.Ctime), Btime: warm.TimeOf(st.Btime),
		Mode: uint32(st.Mode), Nlink: st.Nlink, UID: st.Uid, GID: st.Gid,
		Rdev:    st.Rdev_minor&0xff | st.Rdev_major<<8 | st.Rdev_minor&^0xff<<12,
		Blksize: st.Blksize,
	}
}
