package tiers

import (
	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// Attr is what stat shows of an inode.
type Attr struct {
	Ino      uint64
	Size     uint64
	Blocks   uint64 // of 512 bytes
	Atime    cold.Time
	Mtime    cold.Time
	Ctime    cold.Time
	Btime    cold.Time
	Mode     uint32 // with S_IFMT
	Nlink    uint32
	UID, GID uint32
	Rdev     uint32 // as the FUSE protocol wants it: new_encode_dev
	Blksize  uint32
}

// Caller is who made a request. Umask is set where the request carries one.
type Caller struct {
	UID, GID, PID uint32
	Umask         uint32
}

// SetAttr lists what a setattr changes; nil or false fields stay.
type SetAttr struct {
	Mode               *uint32 // 07777
	UID, GID           *uint32
	Size               *uint64
	Atime, Mtime       *cold.Time
	AtimeNow, MtimeNow bool
	KillPriv           bool // clear suid, and sgid where the group may execute
}

func (v *Volume) reloadMode(n *Inode, fd int) error {
	var st unix.Statx_t
	if err := warm.StatAt(fd, "", &st); err != nil {
		return err
	}
	n.mu.mode, n.mu.lent = uint32(st.Mode), 0
	return nil
}

// recordMtime updates n's record after its mtime was set. A clean file stays clean, because its record is valid for one
// (size, mtime); for a lazy directory the record holds the mtime that stat shows. n.mu is held.
func (v *Volume) recordMtime(n *Inode, fd int) error {
	if n.kind == cold.KindFile && !n.mu.rec.Has(warm.FlagClean) || n.kind == cold.KindDir &&
		!n.mu.rec.Has(warm.FlagLazy) || n.kind != cold.KindFile && n.kind != cold.KindDir {
		return nil
	}
	var st unix.Statx_t
	if err := warm.StatAt(fd, "", &st); err != nil {
		return err
	}
	r := n.mu.rec
	r.Mtime = warm.TimeOf(st.Mtime)
	r.Flags &^= warm.FlagCtime
	return v.storeOrRemove(n, r)
}

func attrOf(st *unix.Statx_t) Attr {
	return Attr{
		Ino: st.Ino, Size: st.Size, Blocks: st.Blocks,
		Atime: warm.TimeOf(st.Atime), Mtime: warm.TimeOf(st.Mtime), Ctime: warm.TimeOf(st.Ctime),
		Btime: warm.TimeOf(st.Btime),
		Mode:  uint32(st.Mode), Nlink: st.Nlink, UID: st.Uid, GID: st.Gid,
		Rdev:    st.Rdev_minor&0xff | st.Rdev_major<<8 | st.Rdev_minor&^0xff<<12,
		Blksize: st.Blksize,
	}
}

// What is known of a directory's default ACL.
const (
	aclUnknown = iota
	aclNone
	aclPresent
)

// hasDefaultACL returns aclPresent where children of dir inherit an ACL, so that the umask does not count; else
// aclNone.
func (v *Volume) hasDefaultACL(dir *Inode, dirfd int) int8 {
	d := dir.dir
	d.mu.Lock()
	acl := d.mu.acl
	d.mu.Unlock()
	if acl != aclUnknown {
		return acl
	}
	acl = aclPresent
	if _, err := warm.ByName(dirfd, ".").Get("system.posix_acl_default", nil); err != nil {
		acl = aclNone
	}
	d.mu.Lock()
	// The kernel holds the directory's lock while it creates something or sets an ACL, so nothing changed meanwhile.
	d.mu.acl = acl
	d.mu.Unlock()
	return acl
}

// attrLocked returns what stat shows of n: st, corrected by the record. It also stores the mode in n. n.mu is held.
func (n *Inode) attrLocked(st *unix.Statx_t) Attr {
	a := attrOf(st)
	a.Ino = n.shownIno()
	if n.mu.lent != 0 && a.Mode == n.mu.lent {
		a.Mode = n.mu.mode // only the commit that reads it needs the lent bits
	}
	n.mu.mode = a.Mode
	r := &n.mu.rec
	switch {
	case r.IsStub():
		a.Size, a.Mtime, a.Blocks = uint64(r.Size), r.Mtime, r.Blocks
	case r.Has(warm.FlagLazy):
		a.Mtime = r.Mtime
	case r.Has(warm.FlagBlocks|warm.FlagClean) && r.Mtime == a.Mtime && r.Size == int64(a.Size):
		a.Blocks = r.Blocks
	}
	if r.Has(warm.FlagCtime) && r.Mtime == a.Mtime && (r.Has(warm.FlagDir) || !r.Has(warm.FlagClean) ||
		r.Size == int64(a.Size)) {
		a.Ctime = r.Ctime
	}
	return a
}

// attrAfter returns what stat shows of n, by an st that was taken before n.mu was held. Where st does not fit what is
// known of n, something changed in between, and n is looked at again.
func (v *Volume) attrAfter(n *Inode, st *unix.Statx_t) Attr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.attrFitting(st, func(st *unix.Statx_t) error { return v.statNode(n, st) })
}

// attrFitting is attrAfter for callers that hold n.mu; look fills in a new stat of n.
func (n *Inode) attrFitting(st *unix.Statx_t, look func(*unix.Statx_t) error) Attr {
	r := &n.mu.rec
	if n.mu.mode != uint32(st.Mode) || r.Has(warm.FlagCtime) && !r.IsStub() && !r.Has(warm.FlagLazy) &&
		r.Mtime != warm.TimeOf(st.Mtime) {
		var now unix.Statx_t
		if look(&now) == nil && now.Ino == n.ino && warm.GenOf(&now) == n.gen {
			st = &now
		}
	}
	return n.attrLocked(st)
}
