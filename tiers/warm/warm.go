package warm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// resolveFlags keep every path walk inside the directory in which it starts: no symbolic link, no mount and no ".."
// leads out.
const resolveFlags = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

const statxMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME | unix.STATX_MNT_ID

// OpenAt opens a path relative to dirfd, without leaving that directory (openat2(2)).
func OpenAt(dirfd int, name string, flags int, mode uint32) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC | unix.O_NOFOLLOW, Mode: uint64(mode),
		Resolve: resolveFlags}
	for {
		fd, err := unix.Openat2(dirfd, name, &how)
		if err != unix.EINTR && err != unix.EAGAIN { // EAGAIN: a rename raced with the walk
			return fd, err
		}
	}
}

// OpenPath opens a slash path of any length as O_PATH. It does so in parts, because the kernel takes only 4,096 bytes
// at a time.
func OpenPath(dirfd int, at string) (int, error) {
	const most = unix.PathMax - 1
	fd, opened := dirfd, false
	for {
		part := at
		if len(part) > most {
			part = at[:strings.LastIndexByte(at[:most], '/')] // there is a slash, because a name has at most 255 bytes
		}
		next, err := OpenAt(fd, part, unix.O_PATH, 0)
		if opened {
			CloseFD(fd)
		}
		if err != nil || len(part) == len(at) {
			return next, err
		}
		fd, opened, at = next, true, at[len(part)+1:]
	}
}

// StatAt is statx(2) for a name, without following a symbolic link, or for dirfd itself if name is empty.
func StatAt(dirfd int, name string, st *unix.Statx_t) error {
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return unix.Statx(dirfd, name, flags, statxMask, st)
}

// FDPath returns a path for an open descriptor, for system calls that only take paths.
func FDPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// TimeOf converts a time of statx(2).
func TimeOf(t unix.StatxTimestamp) cold.Time { return cold.Time{Sec: t.Sec, Nsec: t.Nsec} }

// KindOf returns the kind that a mode stands for.
func KindOf(mode uint32) cold.Kind {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return cold.KindDir
	case unix.S_IFLNK:
		return cold.KindSymlink
	case unix.S_IFIFO:
		return cold.KindFIFO
	case unix.S_IFSOCK:
		return cold.KindSocket
	case unix.S_IFCHR:
		return cold.KindChar
	case unix.S_IFBLK:
		return cold.KindBlock
	}
	return cold.KindFile
}

// GenOf returns an inode's generation, made from its birth time, which distinguishes uses of the same inode number.
func GenOf(st *unix.Statx_t) uint64 {
	return uint64(st.Btime.Sec)*1e9 + uint64(st.Btime.Nsec) | 1
}

// ---- extended attributes by (directory descriptor, name), never following a symlink ----

// System call numbers of the *xattrat calls of Linux 6.13. On older kernels the l*xattr calls are used with
// /proc/self/fd/DIR/NAME; they do not follow the last component.
const (
	sysSetxattrat    = 463
	sysGetxattrat    = 464
	sysListxattrat   = 465
	sysRemovexattrat = 466
)

type xattrArgs struct {
	value unsafe.Pointer // 64 bits, as in the kernel's struct xattr_args
	size  uint32
	flags uint32
}

// XattrTarget says what the calls for extended attributes are about: name in dirfd or, if follow is true, the object
// behind dirfd itself.
type XattrTarget struct {
	dirfd  int
	name   string
	follow bool // name is /proc/self/fd/N, whose magic link is followed
}

// ByName returns the target for a name in a directory. A symbolic link is not followed.
func ByName(dirfd int, name string) XattrTarget { return XattrTarget{dirfd: dirfd, name: name} }

// ByFD returns the target for an open descriptor, which may be O_PATH.
func ByFD(fd int) XattrTarget {
	return XattrTarget{dirfd: unix.AT_FDCWD, name: FDPath(fd), follow: true}
}

func (t XattrTarget) path() string {
	if t.follow {
		return t.name
	}
	return FDPath(t.dirfd) + "/" + t.name
}

var noXattrAt atomic.Bool // set once when the kernel lacks the *xattrat calls

func ptr(b []byte) unsafe.Pointer {
	if len(b) == 0 {
		return nil
	}
	return unsafe.Pointer(&b[0])
}

func (t XattrTarget) call(nr uintptr, attr string, args *xattrArgs) (int, bool, error) {
	if noXattrAt.Load() {
		return 0, false, nil
	}
	p, err := unix.BytePtrFromString(t.name)
	if err != nil {
		return 0, true, err
	}
	a, err := unix.BytePtrFromString(attr)
	if err != nil {
		return 0, true, err
	}
	flags := uintptr(unix.AT_SYMLINK_NOFOLLOW)
	if t.follow {
		flags = 0
	}
	n, _, errno := unix.Syscall6(nr, uintptr(t.dirfd), uintptr(unsafe.Pointer(p)), flags, uintptr(unsafe.Pointer(a)),
		uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args))
	if errno == unix.ENOSYS {
		noXattrAt.Store(true)
		return 0, false, nil
	}
	if errno != 0 {
		return 0, true, errno
	}
	return int(n), true, nil
}

// Get is getxattr(2).
func (t XattrTarget) Get(attr string, buf []byte) (int, error) {
	args := &xattrArgs{value: ptr(buf), size: uint32(len(buf))}
	n, ok, err := t.call(sysGetxattrat, attr, args)
	if ok {
		return n, err
	}
	if t.follow {
		return unix.Getxattr(t.path(), attr, buf)
	}
	return unix.Lgetxattr(t.path(), attr, buf)
}

// Set is setxattr(2).
func (t XattrTarget) Set(attr string, value []byte, flags int) error {
	args := &xattrArgs{value: ptr(value), size: uint32(len(value)), flags: uint32(flags)}
	_, ok, err := t.call(sysSetxattrat, attr, args)
	if ok {
		return err
	}
	if t.follow {
		return unix.Setxattr(t.path(), attr, value, flags)
	}
	return unix.Lsetxattr(t.path(), attr, value, flags)
}

// Remove is removexattr(2).
func (t XattrTarget) Remove(attr string) error {
	if t.follow {
		return unix.Removexattr(t.path(), attr)
	}
	return unix.Lremovexattr(t.path(), attr)
}

// List is listxattr(2).
func (t XattrTarget) List(buf []byte) (int, error) {
	if t.follow {
		return unix.Listxattr(t.path(), buf)
	}
	return unix.Llistxattr(t.path(), buf)
}

// fetch returns a whole attribute value of any size.
func (t XattrTarget) fetch(attr string) ([]byte, error) {
	buf := make([]byte, 256)
	for {
		n, err := t.Get(attr, buf)
		if err == nil {
			return buf[:n:n], nil
		}
		if !errors.Is(err, unix.ERANGE) || len(buf) >= 1<<16 {
			return nil, err
		}
		buf = make([]byte, 1<<16)
	}
}

// All returns the attributes that belong to the user, sorted by name. On a file system without extended attributes
// there are none.
func (t XattrTarget) All() ([]cold.Xattr, error) {
	var stack [512]byte
	buf := stack[:]
	n, err := t.List(buf)
	if errors.Is(err, unix.ERANGE) {
		buf = make([]byte, 1<<16)
		n, err = t.List(buf)
	}
	if err != nil {
		if errors.Is(err, unix.ENOTSUP) {
			return nil, nil
		}
		return nil, fmt.Errorf("list extended attributes of %s: %w", t.path(), err)
	}
	var out []cold.Xattr
	for _, name := range SplitNames(buf[:n]) {
		if ReservedXattr(name) {
			continue
		}
		value, err := t.fetch(name)
		if err != nil {
			if errors.Is(err, unix.ENODATA) { // it was removed after it had been listed
				continue
			}
			return nil, fmt.Errorf("read extended attribute %s of %s: %w", name, t.path(), err)
		}
		out = append(out, cold.Xattr{Name: name, Value: value})
	}
	SortXattrs(out)
	return out, nil
}

// SplitNames splits the result of listxattr(2) into names.
func SplitNames(list []byte) []string {
	var names []string
	start := 0
	for i, c := range list {
		if c == 0 {
			names = append(names, string(list[start:i]))
			start = i + 1
		}
	}
	return names
}

// PreadFull reads until p is full or the file ends; at the end it returns fewer bytes and no error.
func PreadFull(fd int, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pread(fd, p[done:], off+int64(done))
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return done, err
		}
		if n == 0 {
			break
		}
		done += n
	}
	return done, nil
}

// PwriteFull writes all of p. If it writes less it returns the error that caused this.
func PwriteFull(fd int, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pwrite(fd, p[done:], off+int64(done))
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// CloseFD closes a descriptor that was not written to, so that errors do not matter.
func CloseFD(fd int) { _ = unix.Close(fd) }
