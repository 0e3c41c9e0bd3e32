package warm

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// HasCaps says whether an entry has file capabilities.
func HasCaps(e *cold.Entry) bool {
	for i := range e.Xattrs {
		if e.Xattrs[i].Name == CapsAttr {
			return true
		}
	}
	return false
}

// RemoveTree removes name and all below it, never following a symlink.
func RemoveTree(dirfd int, name string) error {
	err := unix.Unlinkat(dirfd, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	fd, err := OpenAt(dirfd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if os.Geteuid() != 0 {
		_ = unix.Chmod(FDPath(fd), 0700) // a user's own directory may be closed to himself; the listing tells
	}
	list, err := ListNames(fd)
	if err != nil {
		return err
	}
	for _, d := range list {
		if err := RemoveTree(fd, d.Name); err != nil {
			return err
		}
	}
	return unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
}
