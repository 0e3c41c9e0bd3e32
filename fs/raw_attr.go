package fs

import (
	"context"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"emberfs/tiers"
	"emberfs/tiers/cold"
)

// This file has the operations on attributes of nodes and of the file system.

// modeBits are the mode bits that chmod can set.
const modeBits = 0o7777

func (f *filesystem) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	n, a, err := f.getattr(ctx, in.NodeId, in.Flags()&fuse.FUSE_GETATTR_FH != 0, in.Fh())
	if err != nil {
		return f.status("getattr", in.NodeId, err)
	}
	f.fillAttrOut(out, n, &a)
	return fuse.OK
}

func (f *filesystem) getattr(ctx context.Context, node uint64, hasFh bool, fh uint64) (*tiers.Inode, tiers.Attr,
	error) {
	n, err := f.node(node)
	if err != nil {
		return nil, tiers.Attr{}, err
	}
	var h *tiers.Handle
	if hasFh {
		// The handle may be a directory's, whose number belongs to another table, so f.files may have another file
		// under it.
		if h = f.files.get(fh); h != nil && h.Inode() != n {
			h = nil
		}
	}
	a, err := n.Volume().Getattr(ctx, n, h)
	return n, a, err
}

// Statx is requested if a program wants the birth time.
func (f *filesystem) Statx(cancel <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	n, a, err := f.getattr(ctx, in.NodeId, in.GetattrFlags&fuse.FUSE_GETATTR_FH != 0, in.Fh)
	if err != nil {
		return f.status("statx", in.NodeId, err)
	}
	out.AttrValid, out.AttrValidNsec = f.policy.attrSeconds(n), 0
	fillStatx(&out.Statx, &a)
	return fuse.OK
}

// fillStatx does for statx(2) what fillAttr does for stat(2).
func fillStatx(s *fuse.Statx, a *tiers.Attr) {
	s.Mask = unix.STATX_BASIC_STATS
	if a.Btime != (cold.Time{}) {
		s.Mask |= unix.STATX_BTIME
	}
	s.Blksize = a.Blksize
	s.Nlink = a.Nlink
	s.Uid, s.Gid = a.UID, a.GID
	s.Mode = uint16(a.Mode)
	s.Ino = a.Ino
	s.Size = a.Size
	s.Blocks = a.Blocks
	fillTime(&s.Atime, a.Atime)
	fillTime(&s.Btime, a.Btime)
	fillTime(&s.Ctime, a.Ctime)
	fillTime(&s.Mtime, a.Mtime)
	// This is the reverse of the kernel's new_encode_dev.
	s.RdevMajor = a.Rdev & 0xfff00 >> 8
	s.RdevMinor = a.Rdev&0xff | a.Rdev>>12&0xfff00
}

func fillTime(out *fuse.SxTime, t cold.Time) { out.Sec, out.Nsec = uint64(t.Sec), t.Nsec }

func (f *filesystem) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	n, err := f.node(in.NodeId)
	if err != nil {
		return f.status("setattr", in.NodeId, err)
	}
	var h *tiers.Handle
	if in.Valid&fuse.FATTR_FH != 0 {
		if h, err = f.file(in.Fh); err != nil {
			return f.status("setattr", in.NodeId, err)
		}
	}
	set := setAttr(in)
	if set.KillPriv {
		err = f.killForeignSGID(ctx, n, &in.InHeader)
	}
	var a tiers.Attr
	if err == nil {
		a, err = n.Volume().Setattr(ctx, n, h, &set)
	}
	if err != nil {
		return f.status("setattr", in.NodeId, err)
	}
	f.fillAttrOut(out, n, &a)
	return fuse.OK
}

// setAttr translates a request. The result points into in.
func setAttr(in *fuse.SetAttrIn) tiers.SetAttr {
	const fields = fuse.FATTR_MODE | fuse.FATTR_UID | fuse.FATTR_GID | fuse.FATTR_SIZE |
		fuse.FATTR_ATIME | fuse.FATTR_MTIME
	var s tiers.SetAttr
	if in.Valid&fuse.FATTR_MODE != 0 {
		in.Mode &= modeBits
		s.Mode = &in.Mode
	}
	if in.Valid&fuse.FATTR_UID != 0 {
		s.UID = &in.Uid
	}
	if in.Valid&fuse.FATTR_GID != 0 {
		s.GID = &in.Gid
	}
	if in.Valid&fuse.FATTR_SIZE != 0 {
		s.Size = &in.Size
	}
	s.Atime, s.AtimeNow = setTime(in.Valid, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec)
	s.Mtime, s.MtimeNow = setTime(in.Valid, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec)
	// When a file's bytes change, the kernel sends a SETATTR without any field if suid, sgid or capabilities must go.
	// It has removed the capabilities itself by then; for a program with CAP_FSETID, suid and sgid stay.
	s.KillPriv = in.Valid&fuse.FATTR_KILL_SUIDGID != 0 || in.Valid&fields == 0 && !keepsPrivs(&in.InHeader)
	return s
}

func setTime(valid, set, now uint32, sec uint64, nsec uint32) (*cold.Time, bool) {
	switch {
	case valid&set == 0:
		return nil, false
	case valid&now != 0:
		return nil, true
	}
	return &cold.Time{Sec: int64(sec), Nsec: nsec}, false
}

// Access is requested only on a mount without default_permissions, for access(2) and chdir(2).
func (f *filesystem) Access(_ <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	n, err := f.node(in.NodeId)
	if err == nil {
		err = n.Volume().Access(n, in.Mask, caller(&in.InHeader, 0))
	}
	return f.status("access", in.NodeId, err)
}

func (f *filesystem) StatFs(_ <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	n, err := f.node(h.NodeId)
	if err != nil {
		return f.status("statfs", h.NodeId, err)
	}
	s, err := n.Volume().Statfs(n)
	if err != nil {
		return f.status("statfs", h.NodeId, err)
	}
	out.Blocks, out.Bfree, out.Bavail = s.Blocks, s.Bfree, s.Bavail
	out.Files, out.Ffree = s.Files, s.Ffree
	out.Bsize, out.Frsize = uint32(s.Bsize), uint32(s.Frsize)
	out.NameLen = uint32(s.Namelen)
	return fuse.OK
}
