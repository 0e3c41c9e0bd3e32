package warm

import (
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// Times are the times that a file system keeps: ext4 those until 2446, with small inodes until 2038 and whole
// seconds. It takes others without an error, and keeps what is next. What a record does not hold counts as not kept.
type Times struct {
	min, max int64 // seconds
	whole    bool  // no nanoseconds
}

// Keeps says whether a time is kept as it is.
func (f *Times) Keeps(t cold.Time) bool {
	return f == nil || t.Sec >= f.min && t.Sec <= f.max && (t.Nsec == 0 || !f.whole)
}

// Clamp is what becomes of a time, the nearest one that is kept.
func (f *Times) Clamp(t cold.Time) cold.Time {
	switch {
	case f.Keeps(t):
		return t
	case t.Sec < f.min:
		return cold.Time{Sec: f.min}
	case t.Sec > f.max:
		return cold.Time{Sec: f.max}
	}
	return cold.Time{Sec: t.Sec}
}

// recordTimes are those that a record holds (putTime).
const recordTimes = 1<<39 - 1

// FitsRecord says whether a record holds a time.
func FitsRecord(t cold.Time) bool { return t.Sec >= -recordTimes && t.Sec <= recordTimes }

// TimesOf finds out which times the directory behind fd keeps, by a file of its own; nil where it cannot: then all are
// taken for kept.
func TimesOf(dirfd int) *Times {
	fd, err := OpenAt(dirfd, ".", unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	kept := func(t cold.Time) (cold.Time, bool) {
		if Utimens(fd, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, t.Timespec()}) != nil {
			return cold.Time{}, false
		}
		var st unix.Statx_t
		err := StatAt(fd, "", &st)
		return TimeOf(st.Mtime), err == nil
	}
	least, ok := kept(cold.Time{Sec: -1 << 62})
	most, ok2 := kept(cold.Time{Sec: 1 << 62})
	fine, ok3 := kept(cold.Time{Sec: 1, Nsec: 123456789})
	if !ok || !ok2 || !ok3 {
		return nil
	}
	return &Times{min: max(least.Sec, -recordTimes), max: min(most.Sec, recordTimes), whole: fine.Nsec != 123456789}
}

// Now is the time of the clock, in nanoseconds.
func Now() cold.Time {
	t := time.Now()
	return cold.Time{Sec: t.Unix(), Nsec: uint32(t.Nanosecond())}
}

// Utimens sets times through fd, O_PATH included, symlinks themselves included.
func Utimens(fd int, ts []unix.Timespec) error {
	err := unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.EINVAL || err == unix.ENOENT { // before Linux 5.8 utimensat had no AT_EMPTY_PATH
		return unix.UtimesNanoAt(unix.AT_FDCWD, FDPath(fd), ts, 0)
	}
	return err
}

// HasRoom says that the file system behind fd is not full: blocks and inodes can be had.
func HasRoom(fd int) bool {
	var st unix.Statfs_t
	const blocks, inodes = 256, 16 // what may be taken between this look and the next try
	return unix.Fstatfs(fd, &st) == nil && st.Bavail >= blocks && (st.Files == 0 || st.Ffree >= inodes)
}

// CoarseNow is the time that the kernel would give an inode now.
func CoarseNow() cold.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts); err != nil {
		return Now()
	}
	return cold.Time{Sec: ts.Sec, Nsec: uint32(ts.Nsec)}
}
