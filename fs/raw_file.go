package fs

import (
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"

	"emberfs/tiers"
)

// This file has the operations on open files.

func (f *filesystem) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	dir, err := f.node(in.NodeId)
	if err != nil {
		return f.status("create", in.NodeId, err)
	}
	if err := f.quota.take(in.Uid); err != nil {
		return f.status("create", in.NodeId, err)
	}
	n, h, a, err := dir.Volume().Create(ctx, dir, trueName(name), in.Flags, in.Mode&modeBits,
		caller(&in.InHeader, in.Umask))
	return f.opened("create", in.NodeId, in.Uid, n, h, &a, err, out)
}

func (f *filesystem) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	dir, err := f.node(in.NodeId)
	if err != nil {
		return f.status("tmpfile", in.NodeId, err)
	}
	if err := f.quota.take(in.Uid); err != nil {
		return f.status("tmpfile", in.NodeId, err)
	}
	n, h, a, err := dir.Volume().Tmpfile(ctx, dir, in.Flags, in.Mode&modeBits, caller(&in.InHeader, in.Umask))
	return f.opened("tmpfile", in.NodeId, in.Uid, n, h, &a, err, out)
}

// opened fills in the reply to a request that created and opened a file. The quota has counted the open for uid.
func (f *filesystem) opened(op string, dir uint64, uid uint32, n *tiers.Inode, h *tiers.Handle, a *tiers.Attr,
	err error, out *fuse.CreateOut) fuse.Status {
	if err != nil {
		f.quota.give(uid)
		return f.status(op, dir, err)
	}
	h.Opener = uid
	fh, err := f.files.put(h)
	if err != nil {
		f.quota.give(uid)
		h.Release()
		n.Volume().Forget(n, 1)
		return f.status(op, dir, err)
	}
	f.fillEntry(&out.EntryOut, n, a)
	f.fillOpen(&out.OpenOut, fh, h)
	return fuse.OK
}

func (f *filesystem) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	n, err := f.node(in.NodeId)
	if err != nil {
		return f.status("open", in.NodeId, err)
	}
	if err := f.quota.take(in.Uid); err != nil {
		return f.status("open", in.NodeId, err)
	}
	kill := in.Mode&fuse.OPEN_KILL_SUIDGID != 0
	if kill {
		err = f.killForeignSGID(ctx, n, &in.InHeader)
	}
	var h *tiers.Handle
	if err == nil {
		h, err = n.Volume().Open(ctx, n, in.Flags, kill)
	}
	if err != nil {
		f.quota.give(in.Uid)
		return f.status("open", in.NodeId, err)
	}
	h.Opener = in.Uid
	fh, err := f.files.put(h)
	if err != nil {
		f.quota.give(in.Uid)
		h.Release()
		return f.status("open", in.NodeId, err)
	}
	f.fillOpen(out, fh, h)
	return fuse.OK
}

func (f *filesystem) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if h := f.files.take(in.Fh); h != nil {
		h.Release()
		f.quota.give(h.Opener)
	}
}

// Flush is never requested, because all files are opened with FOPEN_NOFLUSH.
func (f *filesystem) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

func (f *filesystem) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	h, err := f.file(in.Fh)
	if err != nil {
		return nil, f.status("read", in.NodeId, err)
	}
	n, err := h.Read(ctx, buf, int64(in.Offset)) // n is short only at the end of the file
	if err != nil && n == 0 {
		return nil, f.status("read", in.NodeId, err)
	}
	return filled{buf: buf[:n]}, fuse.OK
}

// filled is the result of a READ whose bytes are already in the reply's buffer, so that nothing is copied.
type filled struct{ buf []byte }

func (r filled) Bytes([]byte) ([]byte, fuse.Status) { return r.buf, fuse.OK }
func (r filled) Size() int                          { return len(r.buf) }
func (r filled) Done()                              {}

// Readv hands the bytes to go-fuse's ProtocolServer.
func (r filled) Readv(dst [][]byte) (int, fuse.Status) {
	if len(dst) == 1 && unsafe.SliceData(dst[0]) == unsafe.SliceData(r.buf) {
		return len(r.buf), fuse.OK
	}
	n := 0
	for _, d := range dst {
		n += copy(d, r.buf[n:])
	}
	return n, fuse.OK
}

func (f *filesystem) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	h, err := f.file(in.Fh)
	if err != nil {
		return 0, f.status("write", in.NodeId, err)
	}
	kill := in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0
	if kill {
		if err := f.killForeignSGID(ctx, h.Inode(), &in.InHeader); err != nil {
			return 0, f.status("write", in.NodeId, err)
		}
	}
	if in.WriteFlags&fuse.WRITE_CACHE == 0 {
		if err := h.Pace(ctx, len(data)); err != nil {
			return 0, f.status("write", in.NodeId, err)
		}
	}
	n, err := h.Write(ctx, data, int64(in.Offset), kill)
	if n > 0 { // a partial write is a success; the next write will meet the error
		return uint32(n), fuse.OK
	}
	return 0, f.status("write", in.NodeId, err)
}

// Writev is Write for data in several pieces. The device passes a single one.
func (f *filesystem) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	if len(data) == 1 {
		return f.Write(cancel, in, data[0])
	}
	var total uint32
	for _, d := range data {
		n, st := f.Write(cancel, in, d)
		total += n
		in.Offset += uint64(n)
		if !st.Ok() && total == 0 {
			return 0, st
		}
		if int(n) < len(d) {
			break
		}
	}
	return total, fuse.OK
}

// Fsync is not interrupted by signals, as on a disk's file system, because programs take an error of fsync(2) for lost
// data. Only if the program was killed does it stop waiting for the remote.
func (f *filesystem) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	h, err := f.file(in.Fh)
	if err == nil {
		err = h.Fsync(ctx, in.FsyncFlags&fsyncData != 0)
	}
	return f.status("fsync", in.NodeId, err)
}

// fsyncData is FUSE_FSYNC_FDATASYNC, for which go-fuse has no name.
const fsyncData = 1

func (f *filesystem) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	h, err := f.file(in.Fh)
	if err == nil {
		err = killHeld(h.Inode(), &in.InHeader)
	}
	if err == nil {
		err = h.Fallocate(ctx, in.Mode, int64(in.Offset), int64(in.Length))
	}
	return f.status("fallocate", in.NodeId, err)
}

// Lseek is requested for SEEK_DATA and SEEK_HOLE only.
func (f *filesystem) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	h, err := f.file(in.Fh)
	if err != nil {
		return f.status("lseek", in.NodeId, err)
	}
	off, err := h.SeekData(ctx, int64(in.Offset), in.Whence)
	if err != nil {
		return f.status("lseek", in.NodeId, err)
	}
	out.Offset = uint64(off)
	return fuse.OK
}

// maxCopy is how many bytes one CopyFileRange copies at most, so that a program that copies a huge file can be stopped
// in between.
const maxCopy = 64 << 20

func (f *filesystem) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	from, err := f.file(in.FhIn)
	if err != nil {
		return 0, f.status("copy_file_range", in.NodeId, err)
	}
	to, err := f.file(in.FhOut)
	if err != nil {
		return 0, f.status("copy_file_range", in.NodeIdOut, err)
	}
	if err := killHeld(to.Inode(), &in.InHeader); err != nil {
		return 0, f.status("copy_file_range", in.NodeIdOut, err)
	}
	// The kernel has already cleared the target's suid and sgid by a separate SETATTR.
	n, err := to.Inode().Volume().CopyFileRange(ctx, from, int64(in.OffIn), to, int64(in.OffOut),
		int64(min(in.Len, maxCopy)), false)
	if err != nil {
		return 0, f.status("copy_file_range", in.NodeId, err)
	}
	return uint32(n), fuse.OK
}

// The kernel handles locks itself: remote locks are not negotiated, so these methods are never called.

func (f *filesystem) GetLk(<-chan struct{}, *fuse.LkIn, *fuse.LkOut) fuse.Status { return fuse.ENOTSUP }
func (f *filesystem) SetLk(<-chan struct{}, *fuse.LkIn) fuse.Status              { return fuse.ENOTSUP }
func (f *filesystem) SetLkw(<-chan struct{}, *fuse.LkIn) fuse.Status             { return fuse.ENOTSUP }
