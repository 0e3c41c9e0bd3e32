package integration

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// futimens sets the times of an open file by its descriptor alone.
func futimens(fd int, atime, mtime unix.Timespec) error {
	t := [2]unix.Timespec{atime, mtime}
	if _, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&t[0])), 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

// aligned gives n bytes at a page's start, as O_DIRECT wants them.
func aligned(n int) []byte {
	const page = 4096
	b := make([]byte, n+page)
	skip := page - int(uintptr(unsafe.Pointer(&b[0]))%page)
	return b[skip : skip+n : skip+n]
}

// ioctl calls an ioctl with a pointer to a buffer that is large enough for those used here.
func ioctl(fd int, req uint) error {
	var buf [4096]byte
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(unsafe.Pointer(&buf[0]))); e != 0 {
		return e
	}
	return nil
}
