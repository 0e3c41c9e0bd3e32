package tiers

import (
	"emberfs/tiers/warm"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// SetAtime sets how access times are kept from now on.
func (v *Volume) SetAtime(a Atime) {
	v.atime.mode.Store(&a)
	if area := v.area.Load(); area != nil {
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

// mountClone is a private clone of warm's mount that treats access times in another way. A read through it moves the
// atime, or does not, whatever warm's own mount does; and unlike utimensat(2) it does not move the ctime.
type mountClone struct {
	once sync.Once
	fd   int // 0: not made, or not possible
}

func (c *mountClone) get(v *Volume, attr uint64) int {
	c.once.Do(func() {
		if v.areaOf != nil { // a clone would keep the tmpfs alive
			return
		}
		tree, err := unix.OpenTree(v.warmFD, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
		if err == nil {
			defer unix.Close(tree)
			err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH,
				&unix.MountAttr{Attr_set: attr, Attr_clr: unix.MOUNT_ATTR__ATIME})
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

// open opens the inode at (dirfd, name) through the clone, by its file handle. It returns EOPNOTSUPP where there is no
// clone.
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

// readlinkQuiet reads a symlink without moving its access time, where a mount clone is possible.
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
