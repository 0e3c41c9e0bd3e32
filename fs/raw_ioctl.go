package fs

import (
	"context"
	"encoding/binary"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"emberfs/tiers"
	"emberfs/tiers/cold"
)

// This file has ioctl(2). The kernel uses it for the flags of chattr(1), after checking who may change them. Other
// requests are refused: forwarding them to warm would give programs access to the file system below.

const (
	fsGetXattr = 0x801c581f // FS_IOC_FSGETXATTR: a struct fsxattr, which begins with a word of flags (see xflags)
	fsSetXattr = 0x401c5820 // FS_IOC_FSSETXATTR
	fsxattrLen = 28
)

// xflags maps flags of chattr(1) to those in struct fsxattr, see FS_IOC_FSGETXATTR(2const).
var xflags = map[uint32]uint32{cold.FlagImmutable: 0x8, cold.FlagAppend: 0x10, cold.FlagNoatime: 0x40, 0x40: 0x80}

func (f *filesystem) Ioctl(cancel <-chan struct{}, in *fuse.IoctlIn, arg []byte, _ *fuse.IoctlOut,
	answer []byte) fuse.Status {
	if in == nil {
		return fuse.Status(syscall.ENOTTY)
	}
	n, err := f.node(in.NodeId)
	if err != nil { // it is a node of the directory .emberfs
		return fuse.Status(syscall.ENOTTY)
	}
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	v := n.Volume()
	word := binary.NativeEndian
	switch {
	case in.Cmd == unix.FS_IOC_GETFLAGS&0xffffffff && len(answer) >= 4:
		word.PutUint32(answer, v.Flags(n))
		return fuse.OK
	case in.Cmd == unix.FS_IOC_SETFLAGS&0xffffffff && len(arg) >= 4:
		return f.setFlags(ctx, n, word.Uint32(arg))
	case in.Cmd == fsGetXattr && len(answer) >= fsxattrLen:
		clear(answer)
		var x uint32
		for flag, bit := range xflags {
			if v.Flags(n)&flag != 0 {
				x |= bit
			}
		}
		word.PutUint32(answer, x)
		return fuse.OK
	case in.Cmd == fsSetXattr && len(arg) >= fsxattrLen:
		x, flags := word.Uint32(arg), uint32(0)
		for flag, bit := range xflags {
			if x&bit != 0 {
				flags, x = flags|flag, x&^bit
			}
		}
		for _, b := range arg[4:20] { // extent sizes, number of extents and project are not supported
			x |= uint32(b)
		}
		if x != 0 {
			return fuse.Status(syscall.EOPNOTSUPP)
		}
		return f.setFlags(ctx, n, flags)
	}
	return fuse.Status(syscall.ENOTTY)
}

func (f *filesystem) setFlags(ctx context.Context, n *tiers.Inode, flags uint32) fuse.Status {
	err := n.Volume().SetFlags(ctx, n, flags)
	if err == nil {
		n.Volume().AttrChanged(n)
	}
	return f.status("ioctl", n.ID(), err)
}
