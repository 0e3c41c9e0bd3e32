package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"emberfs/tiers"
)

// This file: extended attributes, ACLs included. tiers hides the records.

func (f *filesystem) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	return f.readXattr("getxattr", h, dest, func(n *tiers.Inode) (int, error) { return n.Volume().Getxattr(n, name, dest) })
}

func (f *filesystem) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	return f.readXattr("listxattr", h, dest, func(n *tiers.Inode) (int, error) { return n.Volume().Listxattr(n, dest) })
}

// readXattr keeps the protocol's rule: an empty dest asks for the size, else what does not fit is ERANGE.
func (f *filesystem) readXattr(op string, h *fuse.InHeader, dest []byte, read func(*tiers.Inode) (int, error)) (uint32, fuse.Status) {
	n, err := f.node(h.NodeId)
	if err != nil {
		return 0, f.status(op, h.NodeId, err)
	}
	size, err := read(n)
	if err == nil && len(dest) > 0 && size > len(dest) {
		err = syscall.ERANGE
	}
	if err != nil {
		return 0, f.status(op, h.NodeId, err)
	}
	return uint32(size), fuse.OK
}

func (f *filesystem) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	n, err := f.node(in.NodeId)
	if err == nil {
		if int(in.Size) < len(data) {
			data = data[:in.Size]
		}
		killSGID := in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0
		err = n.Volume().Setxattr(n, name, data, in.Flags, killSGID, caller(&in.InHeader, 0))
	}
	return f.status("setxattr", in.NodeId, err)
}

func (f *filesystem) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	n, err := f.node(h.NodeId)
	if err == nil {
		err = n.Volume().Removexattr(n, name)
	}
	return f.status("removexattr", h.NodeId, err)
}
