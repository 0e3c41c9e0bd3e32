package tiers

import (
	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// fileTimes says which times a file system can store. ext4 stores those until 2446; with small inodes only whole
// seconds until 2038. For others it takes the nearest one without an error. What a record cannot hold counts as not
// stored either.
type fileTimes struct {
	min, max int64 // seconds
	whole    bool  // whole seconds only
}

// keeps says whether t is stored as it is. A nil f stores every time.
func (f *fileTimes) keeps(t cold.Time) bool {
	return f == nil || t.Sec >= f.min && t.Sec <= f.max && (t.Nsec == 0 || !f.whole)
}

// clamp returns what is stored for t: the nearest time that is kept.
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

// recordTimes bounds the seconds that a record can hold, in both directions (warm's putTime).
const recordTimes = 1<<39 - 1

// fitsRecord says whether a record can hold t.
func fitsRecord(t cold.Time) bool { return t.Sec >= -recordTimes && t.Sec <= recordTimes }

// timesOf finds out, with an unnamed file, which times the file system of the directory dirfd stores. It returns nil
// where it cannot: then all times are taken to be stored.
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
