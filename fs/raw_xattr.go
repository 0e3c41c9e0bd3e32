package fs

import (
	"bytes"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"emberfs/tiers"
)

// This file has the operations on extended attributes, including ACLs. Package tiers hides the records in them.

func (f *filesystem) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	return f.readXattr("getxattr", h, dest, func(n *tiers.Inode) (int, error) {
		return n.Volume().Getxattr(n, name, dest)
	})
}

func (f *filesystem) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if h.Uid == 0 {
		return f.readXattr("listxattr", h, dest, func(n *tiers.Inode) (int, error) {
			return n.Volume().Listxattr(n, dest)
		})
	}
	// Other file systems show trusted.* only to programs with CAP_SYS_ADMIN (xattr(7)); the protocol tells us no more
	// than the user.
	return f.readXattr("listxattr", h, dest, func(n *tiers.Inode) (int, error) {
		all := make([]byte, xattrListMax)
		size, err := n.Volume().Listxattr(n, all)
		if err != nil {
			return 0, err
		}
		size = copy(all, withoutTrusted(all[:size]))
		if len(dest) > 0 && size <= len(dest) {
			copy(dest, all[:size])
		}
		return size, nil
	})
}

// xattrListMax is XATTR_LIST_MAX of linux/limits.h.
const xattrListMax = 64 << 10

// withoutTrusted removes the names of trusted attributes from a list, in place.
func withoutTrusted(list []byte) []byte {
	kept := list[:0]
	for len(list) > 0 {
		name, rest, _ := bytes.Cut(list, []byte{0})
		if !bytes.HasPrefix(name, []byte("trusted.")) {
			kept = append(append(kept, name...), 0)
		}
		list = rest
	}
	return kept
}

// readXattr follows the protocol's rule: an empty dest asks for the size; otherwise what does not fit is ERANGE.
func (f *filesystem) readXattr(op string, h *fuse.InHeader, dest []byte, read func(*tiers.Inode) (int, error)) (uint32,
	fuse.Status) {
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

func (f *filesystem) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	ctx := newRequest(cancel, &in.InHeader)
	defer ctx.end()
	n, err := f.node(in.NodeId)
	if err == nil {
		if int(in.Size) < len(data) {
			data = data[:in.Size]
		}
		killSGID := in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0
		err = n.Volume().Setxattr(ctx, n, name, data, in.Flags, killSGID, caller(&in.InHeader, 0))
	}
	if err == nil {
		attrsChangedBy(n, name)
	}
	return f.status("setxattr", in.NodeId, err)
}

func (f *filesystem) RemoveXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	ctx := newRequest(cancel, h)
	defer ctx.end()
	n, err := f.node(h.NodeId)
	if err == nil {
		err = n.Volume().Removexattr(ctx, n, name)
	}
	if err == nil {
		attrsChangedBy(n, name)
	}
	return f.status("removexattr", h.NodeId, err)
}

// attrsChangedBy tells the kernel to read the attributes again after an ACL, which may have changed the mode, was set.
// Without default_permissions the kernel treats an ACL like any other attribute.
func attrsChangedBy(n *tiers.Inode, attr string) {
	if strings.HasPrefix(attr, "system.posix_acl_") {
		n.Volume().AttrChanged(n)
	}
}
