package tiers

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/heldback"
	"emberfs/tiers/warm"
)

// This file: the flags of chattr(1). They are kept beside warm (held.Flags), since warm's own would hold up the daemon,
// and obeyed here as the VFS does for a file system that has them: see ioctl_iflags(2).

// flags are those of n.
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

// Flags are those of n, of KeptFlags.
func (v *Volume) Flags(n *Inode) uint32 { return v.flags(n) }

// flagsName is where files of class memory have their flags, which no table of a state directory needs to know.
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

// touchCtime moves the ctime, as a change of what warm's file does not have. n.mu is held.
func (v *Volume) touchCtime(n *Inode) error {
	fd, err := v.openNode(n, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Chmod(warm.FDPath(fd), n.mu.mode&07777)
}

// may is EPERM where the flags of n forbid what forbidden says.
func (v *Volume) may(n *Inode, forbidden uint32) error {
	if v.flags(n)&forbidden != 0 {
		return unix.EPERM
	}
	return nil
}

// mayOpen says whether the flags of n let it be opened so.
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

// maySet says whether the flags of n let a program set these attributes. What a write makes of suid and sgid is none of
// them.
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

// mayRemove says whether a name may go from a directory: it, and what it stands for.
func (v *Volume) mayRemove(dir, n *Inode) error {
	if err := v.may(dir, cold.FlagImmutable|cold.FlagAppend); err != nil {
		return err
	}
	return v.may(n, cold.FlagImmutable|cold.FlagAppend)
}

func writable(flags uint32) bool { return flags&unix.O_ACCMODE != unix.O_RDONLY }
