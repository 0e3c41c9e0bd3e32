package inspect

import (
	"golang.org/x/sys/unix"

	"emberfs/tiers/warm"
)

// A daemon that works beside a check marks a directory dirty, and all above it, before anything in it changes: a
// finding counts only while what it was told by still stands.

// seenMark is a directory's clean mark as it was read.
type seenMark struct {
	at  warm.XattrTarget
	rec warm.Record
}

// confirmed says, where a daemon works, whether a record still stands after what was seen: marks turn dirty before a
// change.
func (w *warmWalk) confirmed(self warm.XattrTarget, dir bool, rec warm.Record) bool {
	if !w.o.Live {
		return true
	}
	now, ok, _ := w.record(self, dir)
	return ok && now == rec
}

// marked says, where a daemon works, whether the innermost clean mark still stands: it goes before anything below it
// changes.
func (w *warmWalk) marked() bool {
	if !w.o.Live || len(w.marks) == 0 {
		return true
	}
	m := w.marks[len(w.marks)-1]
	return w.confirmed(m.at, true, m.rec)
}

// stillDiffers says, where a daemon works, whether a file that was seen to differ from its record still does.
func (w *warmWalk) stillDiffers(fd int, name string, self warm.XattrTarget, st *unix.Statx_t, rec warm.Record) bool {
	if !w.o.Live {
		return true
	}
	var now unix.Statx_t
	return w.confirmed(self, false, rec) && warm.StatAt(fd, name, &now) == nil && now.Ino == st.Ino &&
		now.Size == st.Size && now.Mtime == st.Mtime
}

// stands says, where a daemon works, whether the record of what is in cold only is still what it was: believed or not.
func (w *warmWalk) stands(self warm.XattrTarget, rec warm.Record) bool {
	if !w.o.Live {
		return true
	}
	now, ok := warm.ReadRecord(self)
	return ok && now == rec
}
