package tiers

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/heldback"
	"emberfs/tiers/warm"
)

// This file has the flags of chattr(1). They are kept beside warm (Held.Flags), because flags on warm's own files would
// hinder the daemon. The daemon enforces them as the VFS does for a file system that has them: see ioctl_iflags(2).

// flags returns n's flags of chattr(1).
func (v *Volume) flags(n *Inode) uint32 {
	if v.areaOf != nil {
		return v.areaFlags(n)
	}
	if v.held.Empty() {
		return 0
	}
	if m := v.held.Mark(n.heldKey()); m != heldback.MarkStandIn {
		return m
	}
	return 0
}

// Flags returns those of cold.KeptFlags that n has.
func (v *Volume) Flags(n *Inode) uint32 { return v.flags(n) }

// flagsName is the extended attribute that holds the flags of files of class memory. No table needs them: they are in
// no commit.
const flagsName = warm.RecordAttr + ".flags"

func (v *Volume) areaFlags(n *Inode) uint32 {
	if !v.flagged.Load() {
		return 0
	}
	var b [4]byte
	_ = v.locate(n, func(dirfd int, name string, anon bool) error {
		_, err := target(dirfd, name, anon).Get(flagsName, b[:])
		return err
	})
	return binary.NativeEndian.Uint32(b[:])
}

func (v *Volume) setAreaFlags(n *Inode, flags uint32) error {
	v.flagged.Store(true)
	return v.locate(n, func(dirfd int, name string, anon bool) error {
		return target(dirfd, name, anon).Set(flagsName, binary.NativeEndian.AppendUint32(nil, flags), 0)
	})
}

// touchCtime moves n's ctime for a change that warm's file does not see, by setting the mode that it has. n.mu is held.
func (v *Volume) touchCtime(n *Inode) error {
	fd, err := v.openNode(n, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Chmod(warm.FDPath(fd), n.mu.mode&07777)
}

// may returns EPERM where n has one of the flags in forbidden.
func (v *Volume) may(n *Inode, forbidden uint32) error {
	if v.flags(n)&forbidden != 0 {
		return unix.EPERM
	}
	return nil
}

// mayOpen returns EPERM where n's flags of chattr(1) forbid opening it with these open flags.
func (v *Volume) mayOpen(n *Inode, flags uint32) error {
	write, trunc := writable(flags), flags&unix.O_TRUNC != 0
	if !write && !trunc {
		return nil
	}
	if flags&unix.O_APPEND == 0 || trunc {
		return v.may(n, cold.FlagImmutable|cold.FlagAppend)
	}
	return v.may(n, cold.FlagImmutable)
}

// maySet returns EPERM where n's flags of chattr(1) forbid a program to set these attributes. Clearing suid and sgid
// after a write is always allowed.
func (v *Volume) maySet(n *Inode, in *SetAttr) error {
	switch {
	case in.Mode != nil, in.UID != nil, in.GID != nil, in.Size != nil, in.Atime != nil && !in.AtimeNow,
		in.Mtime != nil && !in.MtimeNow:
		return v.may(n, cold.FlagImmutable|cold.FlagAppend)
	case in.AtimeNow, in.MtimeNow:
		return v.may(n, cold.FlagImmutable)
	}
	return nil
}

// mayRemove returns EPERM where the flags of chattr(1), of the directory or of n, forbid removing n's name.
func (v *Volume) mayRemove(dir, n *Inode) error {
	if err := v.may(dir, cold.FlagImmutable|cold.FlagAppend); err != nil {
		return err
	}
	return v.may(n, cold.FlagImmutable|cold.FlagAppend)
}

func writable(flags uint32) bool { return flags&unix.O_ACCMODE != unix.O_RDONLY }
