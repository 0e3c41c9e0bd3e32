package inspect

import (
	"golang.org/x/sys/unix"

	"emberfs/tiers/warm"
)

// A daemon marks a directory dirty, and all directories above it, before anything in it changes. So beside a daemon a
// finding counts only if the record that it is based on is still the same afterwards.

// seenMark is a directory's clean mark as it was read.
type seenMark struct {
	at  warm.XattrTarget
	rec warm.Record
}

// confirmed reports whether a record is still the same. Without a daemon it always is.
func (w *warmWalk) confirmed(self warm.XattrTarget, dir bool, rec warm.Record) bool {
	if !w.o.Live {
		return true
	}
	now, ok, _ := w.record(self, dir)
	return ok && now == rec
}

// marked reports whether the innermost clean mark is still there; it is removed before anything below it changes.
// Without a daemon it always is.
func (w *warmWalk) marked() bool {
	if !w.o.Live || len(w.marks) == 0 {
		return true
	}
	m := w.marks[len(w.marks)-1]
	return w.confirmed(m.at, true, m.rec)
}

// stillDiffers reports whether a file that differed from its record still does. Without a daemon it always does.
func (w *warmWalk) stillDiffers(fd int, name string, self warm.XattrTarget, st *unix.Statx_t, rec warm.Record) bool {
	if !w.o.Live {
		return true
	}
	var now unix.Statx_t
	return w.confirmed(self, false, rec) && warm.StatAt(fd, name, &now) == nil && now.Ino == st.Ino &&
		now.Size == st.Size && now.Mtime == st.Mtime
}

// stands reports whether the record of something that is in cold only is still the same, whether it is believed or not.
// Without a daemon it always is.
func (w *warmWalk) stands(self warm.XattrTarget, rec warm.Record) bool {
	if !w.o.Live {
		return true
	}
	now, ok := warm.ReadRecord(self)
	return ok && now == rec
}
