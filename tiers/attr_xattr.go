package tiers

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/heldback"
	"emberfs/tiers/warm"
)

// isACL says whether attr is a POSIX ACL, which warm's file system keeps in step with the mode.
func isACL(attr string) bool {
	return attr == "system.posix_acl_access" || attr == "system.posix_acl_default"
}

// Getxattr fills buf and returns the value's length. It returns ERANGE where buf is too short; with an empty buf it
// returns only the length.
func (v *Volume) Getxattr(n *Inode, attr string, buf []byte) (size int, err error) {
	if warm.ReservedXattr(attr) {
		return 0, unix.ENODATA
	}
	n.mu.Lock()
	none := n.mu.noXattrs
	n.mu.Unlock()
	if none {
		return 0, unix.ENODATA
	}
	err = v.locate(n, func(dirfd int, name string, anon bool) error {
		size, err = target(dirfd, name, anon).Get(attr, buf)
		return err
	})
	return size, err
}

// Listxattr is listxattr(2) without the attributes that belong to EmberFS.
func (v *Volume) Listxattr(n *Inode, buf []byte) (int, error) {
	var list []byte
	err := v.locate(n, func(dirfd int, name string, anon bool) error {
		t := target(dirfd, name, anon)
		list = make([]byte, max(4096, len(buf)+64))
		size, err := t.List(list)
		if err == unix.ERANGE {
			list = make([]byte, 1<<16)
			size, err = t.List(list)
		}
		list = list[:max(size, 0)]
		return err
	})
	if err != nil {
		return 0, err
	}
	out := list[:0]
	for _, name := range warm.SplitNames(list) {
		if !warm.ReservedXattr(name) {
			out = append(append(out, name...), 0)
		}
	}
	if len(buf) == 0 {
		return len(out), nil
	}
	if len(out) > len(buf) {
		return 0, unix.ERANGE
	}
	return copy(buf, out), nil
}

// Setxattr is setxattr(2). killSGID says that sgid is to be cleared: someone outside the file's group sets an access
// ACL.
func (v *Volume) Setxattr(ctx context.Context, n *Inode, attr string, value []byte, flags uint32, killSGID bool,
	c Caller) error {
	if warm.ReservedXattr(attr) {
		return unix.EPERM
	}
	if err := v.errStandsIn(n); err != nil {
		return err
	}
	if err := v.may(n, cold.FlagImmutable|cold.FlagAppend); err != nil {
		return err
	}
	if err := v.prepareAttrs(ctx, n); err != nil {
		return err
	}
	n.opens.Add(1) // so that it is not released meanwhile
	defer n.opens.Add(-1)
	err := v.setxattr(n, attr, value, flags, killSGID)
	// ENOSPC also says that one file has as many attributes as its file system takes. Where the disk has room it means
	// that, and making room would not help.
	r := again{room: errors.Is(err, unix.ENOSPC) && v.hasRoom()}
	for err != nil && r.try(ctx, v, n, &err) {
		err = v.setxattr(n, attr, value, flags, killSGID)
	}
	if host := n.host.Load(); host != nil && err == nil && isACL(attr) {
		host.vol.mirrored(host, host.vol.Setxattr(ctx, host, attr, value, 0, killSGID, c))
	}
	return err
}

func (v *Volume) setxattr(n *Inode, attr string, value []byte, flags uint32, killSGID bool) error {
	v.begin()
	defer v.end()
	return v.withAttrChange(n, func() error {
		if attr == warm.CapsAttr && n.mu.rec.IsStub() {
			return errStub // the capabilities would be gone when the bytes come back
		}
		n.mu.noXattrs = false
		err := v.locate(n, func(dirfd int, name string, anon bool) error {
			return target(dirfd, name, anon).Set(attr, value, int(flags))
		})
		if err == unix.ENOSPC && n.mu.rec.Has(warm.FlagClean) && !n.mu.rec.Has(warm.FlagLazy) {
			// Our record may fill the space that the user's attribute needs. It is removed, so the file counts as
			// dirty.
			if n.mu.rec.IsStub() {
				return errStub
			}
			if err = v.removeRecord(n); err == nil {
				err = v.locate(n, func(dirfd int, name string, anon bool) error {
					return target(dirfd, name, anon).Set(attr, value, int(flags))
				})
			}
		}
		if err != nil {
			return err
		}
		v.unhold(n, heldback.PartXattrs, attr)
		return v.aclChanged(n, attr, killSGID)
	})
}

// aclChanged brings n up to date after the attribute attr was changed: an ACL changes the mode, and what new children
// inherit. n.mu is held.
func (v *Volume) aclChanged(n *Inode, attr string, killSGID bool) error {
	if !isACL(attr) {
		return nil
	}
	if n.dir != nil {
		n.dir.mu.Lock()
		n.dir.mu.acl = 0
		n.dir.mu.Unlock()
	}
	fd, err := v.openNode(n, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := v.reloadMode(n, fd); err != nil {
		return err
	}
	if killSGID {
		v.unhold(n, heldback.PartSGID, "")
	}
	if killSGID && n.mu.mode&unix.S_ISGID != 0 {
		if err := unix.Chmod(warm.FDPath(fd), n.mu.mode&07777&^unix.S_ISGID); err != nil {
			return err
		}
		n.mu.mode &^= unix.S_ISGID
	}
	return nil
}

// Removexattr is removexattr(2).
func (v *Volume) Removexattr(ctx context.Context, n *Inode, attr string) error {
	if warm.ReservedXattr(attr) {
		return unix.ENODATA
	}
	if err := v.may(n, cold.FlagImmutable|cold.FlagAppend); err != nil {
		return err
	}
	if err := v.prepareAttrs(ctx, n); err != nil {
		return err
	}
	err := v.removexattr(n, attr)
	if host := n.host.Load(); host != nil && err == nil && isACL(attr) {
		if err := host.vol.Removexattr(ctx, host, attr); err != unix.ENODATA {
			host.vol.mirrored(host, err)
		}
	}
	return err
}

func (v *Volume) removexattr(n *Inode, attr string) error {
	v.begin()
	defer v.end()
	return v.withAttrChange(n, func() error {
		err := v.locate(n, func(dirfd int, name string, anon bool) error {
			return target(dirfd, name, anon).Remove(attr)
		})
		if err == nil || errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
			if v.unhold(n, heldback.PartXattrs, attr) {
				err = nil // it was held back: now it is gone
			}
		}
		if err != nil {
			return err
		}
		return v.aclChanged(n, attr, false)
	})
}
