package fs

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// ioctls of /dev/fuse that go-fuse does not export.
const (
	backingOpen  = 0x4010e501 // FUSE_DEV_IOC_BACKING_OPEN
	backingClose = 0x4004e502 // FUSE_DEV_IOC_BACKING_CLOSE
)

// Reasons why the kernel cannot have direct access to files of warm.
var (
	errNoPassthrough = errors.New("the kernel has no FUSE passthrough for this mount (it needs Linux 6.9 and root)")
	errNotAdmin      = errors.New("CAP_SYS_ADMIN is missing")
	errStacked       = errors.New("the state directory lies on a stacked file system (overlayfs)")
)

// Register implements tiers.Backing. The kernel takes its own reference to the open file fd.
func (d *device) Register(fd int) (int32, error) {
	if d.flags&fuse.CAP_PASSTHROUGH == 0 {
		return 0, errNoPassthrough
	}
	d.closing.RLock()
	defer d.closing.RUnlock()
	if d.closed {
		return 0, syscall.ENODEV
	}
	m := fuse.BackingMap{Fd: int32(fd)}
	id, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), backingOpen, uintptr(unsafe.Pointer(&m)))
	switch e {
	case 0:
		return int32(id), nil
	case unix.EPERM:
		return 0, errNotAdmin
	case unix.ELOOP:
		return 0, errStacked
	}
	return 0, fmt.Errorf("register a file with the kernel: %w", e)
}

// Unregister implements tiers.Backing. When the connection has been closed, all ids are gone and it does nothing.
func (d *device) Unregister(id int32) {
	d.closing.RLock()
	defer d.closing.RUnlock()
	if d.closed {
		return
	}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), backingClose, uintptr(unsafe.Pointer(&id))); e != 0 {
		d.log.WithError(e).WithField("id", id).Error("the kernel keeps a file of warm open")
	}
}
