package integration

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// threadGroups sets the supplementary groups of the calling thread alone; package syscall would set all threads'.
func threadGroups(groups []int) error {
	list := make([]uint32, len(groups)+1)
	for i, g := range groups {
		list[i] = uint32(g)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&list[0])),
		0); e != 0 {
		return e
	}
	return nil
}
