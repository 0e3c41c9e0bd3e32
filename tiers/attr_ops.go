package tiers

import (
	"context"
	"emberfs/tiers/cold"
	"emberfs/tiers/heldback"
	"emberfs/tiers/warm"
	"encoding/json"
	"errors"
	"math"

	"golang.org/x/sys/unix"
)

// Getattr returns what stat shows of n. With a handle h, which may be nil, it also works for a file without a name.
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

// Setattr changes attributes, each as its system call does, and returns all attributes. h may be nil.
func (v *Volume) Setattr(ctx context.Context, n *Inode, h *Handle, in *SetAttr) (Attr, error) {
	if err := v.errStandsIn(n); err != nil {
		return Attr{}, err
	}
	if err := v.maySet(n, in); err != nil {
		return Attr{}, err
	}
	if in.Size != nil {
		n.opens.Add(1) // so that it is not released meanwhile
		defer n.opens.Add(-1)
		v.keepAhead(n, int64(*in.Size), math.MaxInt64)
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
	if in.Mode == nil && in.UID == nil && in.GID == nil && in.Atime == nil && in.Mtime == nil && !in.AtimeNow &&
		!in.MtimeNow && !(in.KillPriv && in.Size == nil) {
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

// applyAttrs changes owner, mode and times through fd, which may be O_PATH. n.mu is held.
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
		if err := warm.Utimens(fd, ts); err != nil {
			return err
		}
		if in.Mtime != nil || in.MtimeNow {
			v.unhold(n, heldback.PartMtime, "")
			return v.recordMtime(n, fd)
		}
	}
	return nil
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
	if v.areaOf != nil && size > areaMaxSize {
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
	v.finished(n) // no handle will be closed
	return nil
}

// Access is access(2) with the daemon's own rights. It is called only where the mount has no default_permissions: there
// the caller is the daemon's user.
func (v *Volume) Access(n *Inode, mask uint32, c Caller) error {
	fd, err := v.openNode(n, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Faccessat(unix.AT_FDCWD, warm.FDPath(fd), mask, unix.AT_EACCESS)
}

// Statfs describes the file system whose room counts for n: warm's, or, in a memory directory, the area's tmpfs.
func (v *Volume) Statfs(n *Inode) (unix.Statfs_t, error) {
	var st unix.Statfs_t
	err := unix.Fstatfs(v.warmFD, &st)
	return st, err
}

// SetFlags sets n's flags of chattr(1), all at once. It returns EOPNOTSUPP for flags outside cold.KeptFlags, and for
// what is neither file nor directory. The kernel checks who may do it.
func (v *Volume) SetFlags(ctx context.Context, n *Inode, flags uint32) error {
	if flags&^cold.KeptFlags != 0 || n.kind != cold.KindFile && n.kind != cold.KindDir {
		return unix.EOPNOTSUPP
	}
	if v.areaOf != nil {
		return v.setAreaFlags(n, flags)
	}
	if err := v.errStandsIn(n); err != nil {
		return err
	}
	if flags == v.flags(n) {
		return nil
	}
	if err := v.prepareAttrs(ctx, n); err != nil {
		return err
	}
	at := v.pathOf(n)
	v.begin()
	defer v.end()
	return v.withAttrChange(n, func() error {
		h, err := heldback.Holding(v.held, n.heldKey())
		if err != nil {
			return err
		}
		if h == nil {
			h = &heldback.Held{}
		}
		if it, ok, err := v.held.Get(n.heldKey()); ok && err == nil {
			at = it.Path
		}
		h.Flags = flags
		if h.Empty() {
			err = v.held.Drop(n.heldKey())
		} else {
			var raw []byte
			if raw, err = json.Marshal(h); err == nil {
				err = v.held.Put(heldback.Item{Key: n.heldKey(), Path: at, What: h.What, Mark: h.Mark(), Value: raw})
			}
		}
		return errors.Join(err, v.touchCtime(n))
	})
}
