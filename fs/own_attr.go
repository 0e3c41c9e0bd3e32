package fs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// This file has the attributes and listings of .emberfs. Its owner is whoever runs the daemon, and cannot be changed.

func (o *ownFiles) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if !isOwn(in.NodeId) {
		return o.filesystem.GetAttr(cancel, in, out)
	}
	var h *ownHandle
	if in.Flags()&fuse.FUSE_GETATTR_FH != 0 {
		h = o.handle(in.NodeId, in.Fh())
	}
	return o.ownAttrOut("getattr", in.NodeId, h, out)
}

func (o *ownFiles) ownAttrOut(op string, node uint64, h *ownHandle, out *fuse.AttrOut) fuse.Status {
	a, err := o.ownAttr(node, h)
	if err != nil {
		return o.status(op, node, err)
	}
	*out = fuse.AttrOut{}
	fillAttr(&out.Attr, &a)
	return fuse.OK
}

func (o *ownFiles) Statx(cancel <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	if !isOwn(in.NodeId) {
		return o.filesystem.Statx(cancel, in, out)
	}
	var h *ownHandle
	if in.GetattrFlags&fuse.FUSE_GETATTR_FH != 0 {
		h = o.handle(in.NodeId, in.Fh)
	}
	a, err := o.ownAttr(in.NodeId, h)
	if err != nil {
		return o.status("statx", in.NodeId, err)
	}
	*out = fuse.StatxOut{}
	fillStatx(&out.Statx, &a)
	return fuse.OK
}

// SetAttr implements fuse.RawFileSystem. The size of rules.yaml can be changed. Setting times succeeds without effect,
// and so does setting the mode or owner that the file already has.
func (o *ownFiles) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if !isOwn(in.NodeId) {
		return o.filesystem.SetAttr(cancel, in, out)
	}
	var h *ownHandle
	if in.Valid&fuse.FATTR_FH != 0 {
		h = o.handle(in.NodeId, in.Fh)
	}
	a, err := o.ownAttr(in.NodeId, h)
	if err != nil {
		return o.status("setattr", in.NodeId, err)
	}
	if in.Valid&fuse.FATTR_MODE != 0 && in.Mode&modeBits != a.Mode&modeBits || in.Valid&fuse.FATTR_UID != 0 &&
		in.Uid != a.UID ||
		in.Valid&fuse.FATTR_GID != 0 && in.Gid != a.GID {
		return fuse.EPERM
	}
	if in.Valid&fuse.FATTR_SIZE != 0 {
		if err := o.truncate(in.NodeId, h, in.Size); err != nil {
			return o.status("setattr", in.NodeId, err)
		}
	}
	return o.ownAttrOut("setattr", in.NodeId, h, out)
}

// Access is requested on private mounts only, where everybody who gets here is the owner.
func (o *ownFiles) Access(cancel <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	if !isOwn(in.NodeId) {
		return o.filesystem.Access(cancel, in)
	}
	if in.Mask&unix.X_OK != 0 && in.NodeId != ownDir || in.Mask&unix.W_OK != 0 && isReport(in.NodeId) {
		return fuse.EACCES
	}
	return fuse.OK
}

func (o *ownFiles) StatFs(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	if isOwn(h.NodeId) {
		root := *h
		root.NodeId = fuse.FUSE_ROOT_ID
		h = &root
	}
	return o.filesystem.StatFs(cancel, h, out)
}

func (o *ownFiles) Readlink(cancel <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	if isOwn(h.NodeId) {
		return nil, fuse.EINVAL
	}
	return o.filesystem.Readlink(cancel, h)
}

func (o *ownFiles) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if isOwn(h.NodeId) {
		return 0, fuse.ENODATA
	}
	return o.filesystem.GetXAttr(cancel, h, name, dest)
}

func (o *ownFiles) ListXAttr(cancel <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if isOwn(h.NodeId) {
		return 0, fuse.OK
	}
	return o.filesystem.ListXAttr(cancel, h, dest)
}

func (o *ownFiles) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	if isOwn(in.NodeId) {
		return fuse.ENOTSUP
	}
	return o.filesystem.SetXAttr(cancel, in, name, data)
}

func (o *ownFiles) RemoveXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if isOwn(h.NodeId) {
		return fuse.ENODATA
	}
	return o.filesystem.RemoveXAttr(cancel, h, name)
}

func (o *ownFiles) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if !isOwn(in.NodeId) {
		return o.filesystem.OpenDir(cancel, in, out)
	}
	return fuse.OK // no handle is needed, and the kernel does not cache the listing
}

func (o *ownFiles) ReleaseDir(in *fuse.ReleaseIn) {
	if !isOwn(in.NodeId) {
		o.filesystem.ReleaseDir(in)
	}
}

func (o *ownFiles) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if isOwn(in.NodeId) {
		return fuse.OK // there is nothing to sync
	}
	return o.filesystem.FsyncDir(cancel, in)
}

// entries returns the entries of .emberfs. The offset of an entry is its position in this list.
func (o *ownFiles) entries() []fuse.DirEntry {
	up := uint64(fuse.FUSE_ROOT_ID)
	if _, a, err := o.getattr(context.Background(), fuse.FUSE_ROOT_ID, false, 0); err == nil {
		up = a.Ino
	}
	list := []fuse.DirEntry{
		{Name: ".", Ino: ownDir, Mode: syscall.S_IFDIR}, {Name: "..", Ino: up, Mode: syscall.S_IFDIR},
		{Name: statusName, Ino: ownStatus, Mode: syscall.S_IFREG},
	}
	for _, name := range []string{noticeName, rulesName} {
		if node, errno := o.find(name); errno == 0 {
			list = append(list, fuse.DirEntry{Name: name, Ino: node, Mode: syscall.S_IFREG})
		}
	}
	for i := range list {
		list[i].Off = uint64(i + 1)
	}
	return list
}

func (o *ownFiles) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if !isOwn(in.NodeId) {
		return o.filesystem.ReadDir(cancel, in, out)
	}
	for _, e := range o.entries() {
		if e.Off > in.Offset && !out.AddDirEntry(e) {
			break
		}
	}
	return fuse.OK
}

func (o *ownFiles) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if !isOwn(in.NodeId) {
		return o.filesystem.ReadDirPlus(cancel, in, out)
	}
	for _, e := range o.entries() {
		if e.Off <= in.Offset {
			continue
		}
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			break
		}
		if e.Ino != ownDir && e.Mode != syscall.S_IFDIR {
			o.ownEntry(e.Ino, entry) // if it has just been removed, only its name goes out
		}
	}
	return fuse.OK
}
