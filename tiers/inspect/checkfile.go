package inspect

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/heldback"
	"emberfs/tiers/warm"
)

// attrsDiffer reports whether what a commit stores of an inode besides its content has changed.
func (w *warmWalk) attrsDiffer(fd int, name string, st *unix.Statx_t, e *cold.Entry, mtime bool) bool {
	now := warm.EntryOf(name, st)
	var err error
	if now.Xattrs, err = warm.ByName(fd, name).All(); err != nil {
		return false
	}
	if h, err := heldback.Holding(w.held, heldback.KeyOf(st)); err == nil {
		h.Fill(&now)
	}
	if now.Mode != e.Mode || now.UID != e.UID || now.GID != e.GID || now.Rdev != e.Rdev || now.Flags != e.Flags ||
		mtime && now.Mtime != e.Mtime {
		return true
	}
	if e.Kind == cold.KindSymlink {
		to, err := warm.ReadlinkAt(fd, name)
		return err == nil && string(to) != e.Target
	}
	return !slices.EqualFunc(now.Xattrs, e.Xattrs, func(a, b cold.Xattr) bool {
		return a.Name == b.Name && string(a.Value) == string(b.Value)
	})
}

// file compares a regular file by its record and its stat data and, if Same is set, by its bytes.
func (w *warmWalk) file(fd int, at, name, mark string, st *unix.Statx_t, e *cold.Entry, dirty bool) error {
	self := warm.ByName(fd, name)
	rec, ok, seen := w.record(self, false)
	if rec.IsStub() && rec.Size == int64(st.Size) {
		return w.stub(fd, at, name, st, rec, e, dirty)
	}
	if rec.IsStub() { // the mark does not count, because the file was being emptied
		rec, ok = warm.Record{}, false
	}
	fits := rec.Has(warm.FlagClean) && rec.Size == int64(st.Size) && rec.Mtime == warm.TimeOf(st.Mtime)
	var id cold.ID // the content that the file should have; zero if it has changed
	switch {
	case ok && fits:
		id = rec.ID
	case ok && rec.Has(warm.FlagClean) && !dirty:
		if w.marked() && w.stillDiffers(fd, name, self, st, rec) {
			w.untrue(at, mark, fmt.Sprintf("is %d bytes of %s under a clean mark, its record says %d bytes of %s",
				st.Size, cold.ClockText(warm.TimeOf(st.Mtime)), rec.Size, cold.ClockText(rec.Mtime)))
		}
		return nil
	case seen && fits && e != nil && rec.ID == e.ID:
		id = e.ID
		w.out.Doubtful++
	case !dirty && e != nil, !seen && e != nil && e.Size == int64(st.Size) && e.Mtime == warm.TimeOf(st.Mtime):
		// It has no record: the volume has none, or the disk was full.
		if e.Size != int64(st.Size) || e.Mtime != warm.TimeOf(st.Mtime) {
			if w.marked() && w.stillDiffers(fd, name, self, st, rec) {
				w.untrue(at, mark, fmt.Sprintf("is %d bytes of %s under a clean mark, the commit says %d bytes of %s",
					st.Size, cold.ClockText(warm.TimeOf(st.Mtime)), e.Size, cold.ClockText(e.Mtime)))
			}
			return nil
		}
		id = e.ID
	}
	if !dirty && e != nil && !id.IsZero() && id != e.ID {
		if !w.marked() {
			return nil
		}
		w.untrue(at, at, fmt.Sprintf("its record names object %s under a clean mark, the commit has %s", id, e.ID))
		return nil
	}
	if dirty {
		switch {
		case e == nil || e.Kind != cold.KindFile || id != e.ID:
			w.risk(st, int64(st.Size))
		case w.attrsDiffer(fd, name, st, e, true):
			w.risk(st, 0)
		}
	}
	if w.o.Same == nil || id.IsZero() {
		return nil
	}
	return w.content(fd, at, name, st, rec, ok && fits, dirty, id)
}

// content compares a file's bytes with the id that its record names.
func (w *warmWalk) content(fd int, at, name string, st *unix.Statx_t, rec warm.Record, marked, dirty bool,
	id cold.ID) error {
	f, err := warm.OpenQuiet(fd, name, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open warm/%s: %w", at, err)
	}
	defer warm.CloseFD(f)
	same, err := w.o.Same(w.ctx, id, warm.NewContent(f, int64(st.Size)))
	w.files++
	if w.done += int64(st.Blocks) * 512; w.o.Progress != nil {
		w.o.Progress(w.files, min(w.done, w.total), w.total)
	}
	switch {
	case same, errors.Is(err, cold.ErrSizeChanged), errors.Is(err, unix.ENOENT):
		return nil
	case err != nil && w.ctx.Err() != nil:
		return w.ctx.Err()
	case err != nil:
		return fmt.Errorf("read warm/%s: %w", at, err)
	case !marked && dirty:
		w.risk(st, int64(st.Size)) // it was only a hint; the next mount compares the bytes too
		return nil
	}
	if !w.stillDiffers(fd, name, warm.ByName(fd, name), st, rec) {
		return nil
	}
	w.untrue(at, at, fmt.Sprintf("its bytes are not those of object %s, although its record says so", id))
	return nil
}
