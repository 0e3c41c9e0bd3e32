package tiers

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// This file: when access times move. Programs' reads move them as the mount's own options say (mount(8): noatime, relatime, strictatime,
// nodiratime), by what everybody sees of a file: warm's own ctime moves with records. What the daemon reads for itself moves none.

// Atime is how a mount keeps access times.
type Atime struct {
	Never  bool // noatime
	Strict bool // strictatime: with every read that reaches the daemon
	NoDirs bool // nodiratime
}

// AtimeOf reads mount(8)'s words; without one of them it is relatime.
func AtimeOf(words []string) (a Atime) {
	for _, w := range words {
		switch w {
		case "noatime":
			a.Never, a.Strict = true, false
		case "strictatime":
			a.Never, a.Strict = false, true
		case "relatime":
			a.Never, a.Strict = false, false
		case "nodiratime":
			a.NoDirs = true
		}
	}
	return a
}

// SetAtime says how access times are kept from now on.
func (v *Volume) SetAtime(a Atime) {
	v.atime.mode.Store(&a)
	if area := v.memory.area.Load(); area != nil {
		area.atime.mode.Store(&a)
	}
}

type atimes struct {
	mode          atomic.Pointer[Atime]
	quiet, strict mountClone
}

func (v *Volume) atimeMode() Atime {
	if a := v.atime.mode.Load(); a != nil {
		return *a
	}
	return Atime{}
}

// mountClone is warm's mount once more, seen by nobody, with another way to keep access times: what is read through it moves them, or
// not, whatever warm's own mount does, and unlike utimensat(2) without moving the ctime.
type mountClone struct {
	once sync.Once
	fd   int // 0: there is none
}

func (c *mountClone) get(v *Volume, attr uint64) int {
	c.once.Do(func() {
		if v.host != nil { // it would keep the tmpfs
			return
		}
		tree, err := unix.OpenTree(v.warmFD, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
		if err == nil {
			defer unix.Close(tree)
			err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: attr, Attr_clr: unix.MOUNT_ATTR__ATIME})
		}
		if err == nil {
			c.fd, err = unix.Openat(tree, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
		if err != nil { // a plain user, or a kernel before 5.12
			c.fd = 0
			v.log.WithError(err).Debug("no clone of warm's mount: access times move as warm's own mount says")
		}
	})
	return c.fd
}

func (c *mountClone) close() {
	c.once.Do(func() {})
	if c.fd != 0 {
		warm.CloseFD(c.fd)
	}
}

// open opens what (dirfd, name) is once more, by its file handle, so that it is the same inode.
func (c *mountClone) open(v *Volume, attr uint64, dirfd int, name string, flags int) (int, error) {
	mount := c.get(v, attr)
	if mount == 0 {
		return -1, unix.EOPNOTSUPP
	}
	at := 0
	if name == "" {
		at = unix.AT_EMPTY_PATH
	}
	h, _, err := unix.NameToHandleAt(dirfd, name, at)
	if err != nil {
		return -1, err
	}
	return unix.OpenByHandleAt(mount, h, flags|unix.O_CLOEXEC)
}

// readlinkQuiet is readlinkAt that moves no access time, where that can be had.
func (v *Volume) readlinkQuiet(dirfd int, name string) ([]byte, error) {
	return v.readlinkVia(&v.atime.quiet, unix.MOUNT_ATTR_NOATIME, dirfd, name)
}

func (v *Volume) readlinkVia(c *mountClone, attr uint64, dirfd int, name string) ([]byte, error) {
	fd, err := c.open(v, attr, dirfd, name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return warm.ReadlinkAt(dirfd, name)
	}
	defer unix.Close(fd)
	return warm.ReadlinkAt(fd, "")
}

// movesAtime says whether a read moves the access time of n, as everybody sees it. h may be nil.
func (v *Volume) movesAtime(n *Inode, h *Handle) bool {
	mode := v.atimeMode()
	switch {
	case mode.Never || v.noatime || v.flags(n)&cold.FlagNoatime != 0 || n.kind == cold.KindDir && mode.NoDirs:
		return false
	case mode.Strict || !v.relatime:
		return true
	}
	a, err := v.attrNow(n, h)
	const day = 24 * 60 * 60
	return err == nil && (!a.Mtime.Before(a.Atime) || !a.Ctime.Before(a.Atime) || time.Now().Unix()-a.Atime.Sec >= day)
}

// accessed moves the atime of a file that is read from off on. Descriptors are opened with O_NOATIME.
func (h *Handle) accessed(off int64) {
	v := h.v
	if !h.noatime || !v.movesAtime(h.n, h) {
		return
	}
	var one [1]byte
	if v.atimeMode().Strict {
		if fd, err := v.atime.strict.open(v, unix.MOUNT_ATTR_STRICTATIME, h.fd, "", unix.O_RDONLY|unix.O_NONBLOCK); err == nil {
			_, _ = unix.Pread(fd, one[:], off)
			unix.Close(fd)
			return
		}
	}
	withAtime(h.fd, func() { _, _ = unix.Pread(h.fd, one[:], off) }) // warm's file system does the rest
}

// withAtime runs f while fd is without O_NOATIME.
func withAtime(fd int, f func()) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&^unix.O_NOATIME)
	}
	f()
	if err == nil {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
	}
}

// openHandle opens n for a handle: with O_NOATIME where that is allowed, which is the owner's and root's right.
func (v *Volume) openHandle(n *Inode, flags uint32) (fd int, noatime bool, err error) {
	return warm.Quietly(warmFlags(flags), func(flags int) (int, error) { return v.openNode(n, flags) })
}

// getdents reads entries of the stream; the first time it moves the directory's access time, where it is to move.
func (d *DirHandle) getdents() (int, error) {
	if d.accessed || !d.noatime {
		return unix.Getdents(d.fd, d.room)
	}
	d.accessed = true
	v := d.v
	if !v.movesAtime(d.n, nil) {
		return unix.Getdents(d.fd, d.room)
	}
	if v.atimeMode().Strict {
		if fd, err := v.atime.strict.open(v, unix.MOUNT_ATTR_STRICTATIME, d.fd, "", unix.O_RDONLY|unix.O_DIRECTORY); err == nil {
			_, _ = unix.Getdents(fd, d.room)
			unix.Close(fd)
			return unix.Getdents(d.fd, d.room)
		}
	}
	var n int
	var err error
	withAtime(d.fd, func() { n, err = unix.Getdents(d.fd, d.room) })
	return n, err
}
