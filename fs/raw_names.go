package fs

import (
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"emberfs/tiers/cold"
)

// This file has the operations on names in directories.

func (f *filesystem) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	ctx := newRequest(cancel, h)
	defer ctx.end()
	dir, err := f.node(h.NodeId)
	if err != nil {
		return f.status("lookup", h.NodeId, err)
	}
	n, a, err := dir.Volume().Lookup(ctx, dir, trueName(name))
	if err != nil {
		if f.policy.cache && errors.Is(err, syscall.ENOENT) {
			// An entry with node id 0 makes the kernel cache that the name does not exist; replying with ENOENT would
			// not.
			out.NodeId, out.EntryValid = 0, f.policy.seconds()
			return fuse.OK
		}
		return f.status("lookup", h.NodeId, err)
	}
	if n.Kind() != cold.KindDir {
		f.listers.looked(h.Pid, h.NodeId)
	}
	f.fillEntry(out, n, &a)
	return fuse.OK
}

func (f *filesystem) Forget(node, nlookup uint64) {
	if node == fuse.FUSE_ROOT_ID { // the root lives as long as the mount
		return
	}
	if n := f.vol.Inode(node); n != nil {
		n.Volume().Forget(n, nlookup)
	}
}

func (f *filesystem) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	dir, err := f.node(in.NodeId)
	if err != nil {
		return f.status("mknod", in.NodeId, err)
	}
	n, a, err := dir.Volume().Mknod(ctx, dir, trueName(name), in.Mode, in.Rdev, caller(&in.InHeader, in.Umask))
	if err != nil {
		return f.status("mknod", in.NodeId, err)
	}
	f.fillEntry(out, n, &a)
	return fuse.OK
}

func (f *filesystem) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	dir, err := f.node(in.NodeId)
	if err != nil {
		return f.status("mkdir", in.NodeId, err)
	}
	n, a, err := dir.Volume().Mkdir(ctx, dir, trueName(name), in.Mode&modeBits, caller(&in.InHeader, in.Umask))
	if err != nil {
		return f.status("mkdir", in.NodeId, err)
	}
	f.fillEntry(out, n, &a)
	return fuse.OK
}

func (f *filesystem) Symlink(cancel <-chan struct{}, h *fuse.InHeader, target, name string,
	out *fuse.EntryOut) fuse.Status {
	ctx := newRequest(cancel, h)
	defer ctx.end()
	dir, err := f.node(h.NodeId)
	if err != nil {
		return f.status("symlink", h.NodeId, err)
	}
	n, a, err := dir.Volume().Symlink(ctx, dir, trueName(name), target, caller(h, 0))
	if err != nil {
		return f.status("symlink", h.NodeId, err)
	}
	f.fillEntry(out, n, &a)
	return fuse.OK
}

func (f *filesystem) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	dir, err := f.node(in.NodeId)
	if err != nil {
		return f.status("link", in.NodeId, err)
	}
	n, err := f.node(in.Oldnodeid)
	if err != nil {
		return f.status("link", in.Oldnodeid, err)
	}
	a, err := dir.Volume().Link(ctx, n, dir, trueName(name))
	if err != nil {
		return f.status("link", in.NodeId, err)
	}
	f.fillEntry(out, n, &a)
	return fuse.OK
}

func (f *filesystem) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	n, err := f.node(h.NodeId)
	if err != nil {
		return nil, f.status("readlink", h.NodeId, err)
	}
	target, err := n.Volume().Readlink(n)
	if err != nil {
		return nil, f.status("readlink", h.NodeId, err)
	}
	return target, fuse.OK
}

func (f *filesystem) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	ctx := newRequest(cancel, h)
	defer ctx.end()
	dir, err := f.node(h.NodeId)
	if err == nil {
		err = dir.Volume().Unlink(ctx, dir, trueName(name))
	}
	return f.status("unlink", h.NodeId, err)
}

func (f *filesystem) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	ctx := newRequest(cancel, h)
	defer ctx.end()
	dir, err := f.node(h.NodeId)
	if err == nil {
		err = dir.Volume().Rmdir(ctx, dir, trueName(name))
	}
	return f.status("rmdir", h.NodeId, err)
}

func (f *filesystem) Rename(cancel <-chan struct{}, in *fuse.RenameIn, name, newname string) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	dir, err := f.node(in.NodeId)
	if err != nil {
		return f.status("rename", in.NodeId, err)
	}
	newdir, err := f.node(in.Newdir)
	if err != nil {
		return f.status("rename", in.Newdir, err)
	}
	err = dir.Volume().Rename(ctx, dir, trueName(name), newdir, newname, in.Flags)
	return f.status("rename", in.NodeId, err)
}
