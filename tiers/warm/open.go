package warm

import (
	"errors"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// Quietly calls open with O_NOATIME or, if that is not allowed, without. noatime reports which.
func Quietly(flags int, open func(flags int) (int, error)) (fd int, noatime bool, err error) {
	if fd, err = open(flags | unix.O_NOATIME); err == nil || !errors.Is(err, unix.EPERM) {
		return fd, true, err
	}
	fd, err = open(flags &^ unix.O_NOATIME)
	return fd, false, err
}

// OpenQuiet opens a name for reading by the daemon itself, if possible without changing access times.
func OpenQuiet(dirfd int, name string, flags int) (int, error) {
	fd, _, err := Quietly(unix.O_RDONLY|unix.O_NONBLOCK|flags, func(flags int) (int, error) {
		return OpenAt(dirfd, name, flags, 0)
	})
	return fd, err
}

// EntryOf returns an entry with what stat says about an inode; target, extended attributes, link group and id are
// missing.
func EntryOf(name string, st *unix.Statx_t) cold.Entry {
	e := cold.Entry{
		Name: name, Kind: KindOf(uint32(st.Mode)), Mode: uint32(st.Mode) & 07777,
		UID: st.Uid, GID: st.Gid, Mtime: TimeOf(st.Mtime), Size: int64(st.Size),
	}
	if e.Kind == cold.KindFile {
		e.Holes = cold.HolesOf(e.Size, st.Blocks)
	}
	if e.Kind == cold.KindChar || e.Kind == cold.KindBlock {
		e.Rdev = unix.Mkdev(st.Rdev_major, st.Rdev_minor)
	}
	return e
}

// ReadlinkAt reads a symlink of any length.
func ReadlinkAt(dirfd int, name string) ([]byte, error) {
	buf := make([]byte, 256)
	for {
		n, err := unix.Readlinkat(dirfd, name, buf)
		if err != nil {
			return nil, err
		}
		if n < len(buf) {
			return buf[:n], nil
		}
		buf = make([]byte, 2*len(buf))
	}
}

// ErrNotAFile says that the name now stands for something else than the regular file that was listed.
var ErrNotAFile = errors.New("not the regular file that was listed")
