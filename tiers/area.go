package tiers

import (
	"time"

	"golang.org/x/sys/unix"
)

// This file: what a tmpfs does otherwise than the file systems that warm lies on, and programs on a volume would notice.

// areaMaxSize is how long a file of an area may be, in bytes: as on ext4, so that it can be moved out. A tmpfs has no bound.
const areaMaxSize = 1<<44 - 4<<10

// fallocateArea is fallocate(2) with FALLOC_FL_ZERO_RANGE, which a tmpfs has not: a hole, then room for it. Without room the range is
// zeros already.
func fallocateArea(fd int, mode uint32, off, length int64) error {
	if off > areaMaxSize-length {
		return unix.EFBIG
	}
	err := unix.Fallocate(fd, mode, off, length)
	if err != unix.EOPNOTSUPP || mode&^unix.FALLOC_FL_KEEP_SIZE != unix.FALLOC_FL_ZERO_RANGE {
		return err
	}
	if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length); err != nil {
		return err
	}
	return unix.Fallocate(fd, mode&unix.FALLOC_FL_KEEP_SIZE, off, length)
}

const (
	forgetStep = 2 * time.Millisecond
	forgetMost = 100 * time.Millisecond
	forgetRest = time.Second
)

// awaitForgotten waits for files of the area that were removed a moment ago: their bytes go when the kernel forgets them, which it
// tells after it told the program that they are gone. It says whether there may be room now. Nothing is locked.
func (v *Volume) awaitForgotten() bool {
	last := v.rest.Load()
	if time.Now().UnixNano() < last {
		return false // a program that goes on writing into a full tmpfs
	}
	var before, st unix.Statfs_t
	if unix.Fstatfs(v.warmFD, &before) != nil {
		return false
	}
	for waited := time.Duration(0); v.nameless.Load() > 0 && waited < forgetMost; waited += forgetStep {
		time.Sleep(forgetStep)
		if unix.Fstatfs(v.warmFD, &st) == nil && (st.Bfree > before.Bfree || st.Ffree > before.Ffree) {
			return true
		}
	}
	if before.Bfree > 0 && before.Ffree > 0 { // they went before the look
		return true
	}
	if v.nameless.Load() > 0 { // somebody has them open
		v.rest.CompareAndSwap(last, time.Now().Add(forgetRest).UnixNano())
	}
	return false
}
