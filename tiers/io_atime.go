package tiers

import (
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// This file: when access times move. Programs' reads move them as the mount's own options say (mount(8): noatime,
// relatime, strictatime, nodiratime), by what everybody sees of a file: warm's own ctime moves with records. What the
// daemon reads for itself moves none.

// updatesAtime says whether a read moves the access time of n, by the times that stat shows. h may be nil.
func (v *Volume) updatesAtime(n *Inode, h *Handle) bool {
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

// accessed moves the access time of the file, which is read from off on, if that is due. Since h's descriptor has
// O_NOATIME, this takes another read, of one byte.
func (h *Handle) accessed(off int64) {
	v := h.v
	if !h.noatime || !v.updatesAtime(h.n, h) {
		return
	}
	var one [1]byte
	if v.atimeMode().Strict {
		if fd, err := v.atime.strict.open(v, unix.MOUNT_ATTR_STRICTATIME, h.fd, "",
			unix.O_RDONLY|unix.O_NONBLOCK); err == nil {
			_, _ = unix.Pread(fd, one[:], off)
			unix.Close(fd)
			return
		}
	}
	withAtime(h.fd, func() { _, _ = unix.Pread(h.fd, one[:], off) }) // warm's file system does the rest
}

// withAtime runs f, and takes O_NOATIME off fd for that time.
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
	if !v.updatesAtime(d.n, nil) {
		return unix.Getdents(d.fd, d.room)
	}
	if v.atimeMode().Strict {
		if fd, err := v.atime.strict.open(v, unix.MOUNT_ATTR_STRICTATIME, d.fd, "",
			unix.O_RDONLY|unix.O_DIRECTORY); err == nil {
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
