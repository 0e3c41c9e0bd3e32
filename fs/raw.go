package fs

import (
	"os"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/sirupsen/logrus"

	"emberfs/tiers"
)

// filesystem answers FUSE requests from a volume. Its methods run concurrently on the worker threads.
type filesystem struct {
	vol    *tiers.Volume
	policy policy
	log    logrus.FieldLogger

	files handleTable[tiers.Handle]
	dirs  handleTable[tiers.DirHandle]
	plus  sync.Pool // of *plus
	quiet throttle

	listers listers
	quota   *openQuota
}

var _ fuse.RawFileSystem = (*filesystem)(nil)

func newFilesystem(v *tiers.Volume, p policy, log logrus.FieldLogger) *filesystem {
	return &filesystem{vol: v, policy: p, log: log, quota: newOpenQuota(uint32(os.Geteuid()))}
}

func (f *filesystem) String() string { return subtype }

// SetDebug implements fuse.RawFileSystem. It does nothing, because the protocol server logs requests.
func (f *filesystem) SetDebug(bool) {}

// Init implements fuse.RawFileSystem. Only go-fuse's own server, which is not used here, would call it.
func (f *filesystem) Init(*fuse.Server) {}

// OnUnmount implements fuse.RawFileSystem. Only go-fuse's own server would call it; releaseAll takes its place.
func (f *filesystem) OnUnmount() {}

// releaseAll closes the handles that the kernel did not release: when the kernel goes away it drops pending RELEASE
// requests.
func (f *filesystem) releaseAll() {
	f.files.drain((*tiers.Handle).Release)
	f.dirs.drain((*tiers.DirHandle).Close)
}

// node returns the inode of a request. The kernel only names inodes that it was given and has not forgotten. If one is
// unknown all the same, ESTALE makes the kernel look the name up anew.
func (f *filesystem) node(id uint64) (*tiers.Inode, error) {
	if n := f.vol.Inode(id); n != nil {
		return n, nil
	}
	return nil, syscall.ESTALE
}

// file returns the open file of a request.
func (f *filesystem) file(fh uint64) (*tiers.Handle, error) {
	if h := f.files.get(fh); h != nil {
		return h, nil
	}
	return nil, syscall.EBADF
}

// dir returns the open directory of a request.
func (f *filesystem) dir(fh uint64) (*tiers.DirHandle, error) {
	if d := f.dirs.get(fh); d != nil {
		return d, nil
	}
	return nil, syscall.EBADF
}

// caller returns who made the request.
func caller(h *fuse.InHeader, umask uint32) tiers.Caller {
	return tiers.Caller{UID: h.Uid, GID: h.Gid, PID: h.Pid, Umask: umask}
}

// fillOpen fills in the reply to an open, with h under the number fh.
func (f *filesystem) fillOpen(out *fuse.OpenOut, fh uint64, h *tiers.Handle) {
	io, backing := h.IO()
	out.Fh, out.OpenFlags, out.BackingID = fh, f.policy.fileFlags(io), backing
}

func fillAttr(out *fuse.Attr, a *tiers.Attr) {
	out.Ino = a.Ino
	out.Size = a.Size
	out.Blocks = a.Blocks
	out.Atime, out.Atimensec = uint64(a.Atime.Sec), a.Atime.Nsec
	out.Mtime, out.Mtimensec = uint64(a.Mtime.Sec), a.Mtime.Nsec
	out.Ctime, out.Ctimensec = uint64(a.Ctime.Sec), a.Ctime.Nsec
	out.Mode = a.Mode
	out.Nlink = a.Nlink
	out.Uid = a.UID
	out.Gid = a.GID
	out.Rdev = a.Rdev
	out.Blksize = a.Blksize
	out.Flags = 0
}

func (f *filesystem) fillEntry(out *fuse.EntryOut, n *tiers.Inode, a *tiers.Attr) {
	out.NodeId = n.ID()
	out.Generation = n.Gen()
	out.EntryValid, out.EntryValidNsec = f.policy.seconds(), 0
	out.AttrValid, out.AttrValidNsec = f.policy.attrSeconds(n), 0
	fillAttr(&out.Attr, a)
}

func (f *filesystem) fillAttrOut(out *fuse.AttrOut, n *tiers.Inode, a *tiers.Attr) {
	out.AttrValid, out.AttrValidNsec = f.policy.attrSeconds(n), 0
	fillAttr(&out.Attr, a)
}
