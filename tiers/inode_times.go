package tiers

import (
	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// fileTimes are the times that a file system keeps: ext4 those until 2446, with small inodes until 2038 and whole
// seconds. It takes others without an error, and keeps what is next. What a record does not hold counts as not kept.
type fileTimes struct {
	min, max int64 // seconds
	whole    bool  // no nanoseconds
}

// keeps says whether a time is kept as it is.
func (f *fileTimes) keeps(t cold.Time) bool {
	return f == nil || t.Sec >= f.min && t.Sec <= f.max && (t.Nsec == 0 || !f.whole)
}

// clamp is what becomes of a time, the nearest one that is kept.
func (f *fileTimes) clamp(t cold.Time) cold.Time {
	switch {
	case f.keeps(t):
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

// fitsRecord says whether a record holds a time.
func fitsRecord(t cold.Time) bool { return t.Sec >= -recordTimes && t.Sec <= recordTimes }

// timesOf finds out which times the directory behind fd keeps, by a file of its own; nil where it cannot: then all are
// taken for kept.
func timesOf(dirfd int) *fileTimes {
	fd, err := warm.OpenAt(dirfd, ".", unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	kept := func(t cold.Time) (cold.Time, bool) {
		if utimens(fd, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, t.Timespec()}) != nil {
			return cold.Time{}, false
		}
		var st unix.Statx_t
		err := warm.StatAt(fd, "", &st)
		return warm.TimeOf(st.Mtime), err == nil
	}
	least, ok := kept(cold.Time{Sec: -1 << 62})
	most, ok2 := kept(cold.Time{Sec: 1 << 62})
	fine, ok3 := kept(cold.Time{Sec: 1, Nsec: 123456789})
	if !ok || !ok2 || !ok3 {
		return nil
	}
	return &fileTimes{min: max(least.Sec, -recordTimes), max: min(most.Sec, recordTimes), whole: fine.Nsec != 123456789}
}
