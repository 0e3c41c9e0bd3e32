package restore

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/heldback"
	"emberfs/tiers/warm"
)

// entry restores the entry e, whose path is at, in the directory behind fd. Something else with its name is replaced.
// want lists the paths to restore below it, nil for all. clean says that the entry is as the commit has it, so that it
// need not keep its directory from being marked clean.
func (r *Restorer) entry(ctx context.Context, fd int, at string, e *cold.Entry, want []string, depth int) (clean bool,
	err error) {
	if err := r.stepEntry(); err != nil {
		return false, err
	}
	r.at = at
	var st unix.Statx_t
	exists := warm.StatAt(fd, e.Name, &st) == nil
	if exists && r.Vol != nil {
		h, err := heldback.Holding(r.Vol.Held, heldback.KeyOf(&st))
		if err != nil {
			return false, err
		}
		if h != nil && h.Entry != nil || warm.KindOf(uint32(st.Mode)) != e.Kind {
			if err := errors.Join(r.Vol.Held.Drop(heldback.KeyOf(&st)), warm.RemoveTree(fd, e.Name)); err != nil {
				return false, err
			}
			exists = false
		}
	}
	if exists && warm.KindOf(uint32(st.Mode)) != e.Kind {
		if err := warm.RemoveTree(fd, e.Name); err != nil {
			return false, err
		}
		exists = false
	}
	if e.Kind == cold.KindDir {
		return r.subdir(ctx, fd, at, e, exists, want, depth)
	}
	if exists {
		if r.Vol != nil && e.Kind == cold.KindFile && e.Link == "" && st.Nlink == 1 {
			if done, err := r.same(fd, e, &st); done || err != nil {
				return done, err
			}
		}
		if err := r.unlink(fd, e, &st); err != nil {
			return false, err
		}
	}
	if done, err := r.link(fd, at, e); done || err != nil {
		return true, err
	}
	ok, err := r.Make(ctx, fd, e, warm.CoarseNow(), Fresh{UID: noID, GID: noID, Attrs: true})
	switch {
	case err != nil:
		return false, err
	case ok && e.Kind == cold.KindFile && !r.Stubbed(e):
		r.count(e.Size)
	case ok:
		r.count(0)
	}
	return true, nil
}

// Stubbed says whether a file is made as a stub. A file that gets capabilities is not: the kernel removes them at the
// first write, and bringing the bytes back is a write.
func (r *Restorer) Stubbed(e *cold.Entry) bool { return r.Lazy && (r.Untrusted || !warm.HasCaps(e)) }

// Make makes an entry that is no directory. It returns EEXIST if something has the entry's name. fresh says which
// attributes a new file in this directory has from the start; ctime is what a stub shows. Make returns false where it
// made an empty file that stands in for the entry.
func (r *Restorer) Make(ctx context.Context, fd int, e *cold.Entry, ctime cold.Time, fresh Fresh) (bool, error) {
	var err error
	switch {
	case e.Kind != cold.KindFile:
		if err = r.special(fd, e); err == nil {
			return true, r.attrsOfNew(fd, e)
		}
	case r.Stubbed(e):
		return true, r.stub(fd, e, ctime, fresh)
	default:
		err = r.whole(ctx, fd, e)
		if err == nil || !errors.Is(err, cold.ErrMissing) && !errors.Is(err, cold.ErrCorrupt) {
			return true, err
		}
	}
	if errors.Is(err, unix.EEXIST) {
		return false, err
	}
	return false, r.standIn(fd, e, err)
}

// unlink removes the file with e's name, because it is made anew; st describes it. If this was its only name, what is
// held back of it is forgotten too.
func (r *Restorer) unlink(fd int, e *cold.Entry, st *unix.Statx_t) error {
	if r.Vol != nil && st.Nlink == 1 {
		if err := r.Vol.Held.Drop(heldback.KeyOf(st)); err != nil {
			return err
		}
	}
	return unix.Unlinkat(fd, e.Name, 0)
}

// errReplaced says that somebody who may write in the directory put something else in the place of what was restored.
var errReplaced = errors.New("it was replaced by something else while it was restored")

// attrsOfNew is attrs for an entry that was just made by its name. Somebody else may have moved another file to that
// name in the directory of a copy, but cannot have made one that we own: attrsOfNew returns errReplaced unless the file
// there has the entry's kind, our owner and one name. Nobody else gets at a volume's warm directory, whose file system
// may give files another owner than ours.
func (r *Restorer) attrsOfNew(fd int, e *cold.Entry) error {
	f, err := warm.OpenAt(fd, e.Name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(f)
	var st unix.Statx_t
	if err := warm.StatAt(f, "", &st); err != nil {
		return err
	}
	if r.Vol == nil && (warm.KindOf(uint32(st.Mode)) != e.Kind || st.Uid != r.Owner || st.Nlink != 1) {
		return errReplaced
	}
	r.madeLink(e, &st)
	return r.attrsOf(f, warm.ByName(fd, e.Name), e)
}

// madeLink notes, if e is in a hard-link group, that the inode that st describes is the one behind the group's first
// name. The names that come later are linked to no other inode.
func (r *Restorer) madeLink(e *cold.Entry, st *unix.Statx_t) {
	if e.Link == "" {
		return
	}
	if r.firsts == nil {
		r.firsts = map[LinkKey]heldback.Key{}
	}
	r.firsts[LinkKeyOf(e)] = heldback.KeyOf(st)
}

func (r *Restorer) subdir(ctx context.Context, fd int, at string, e *cold.Entry, exists bool, want []string,
	depth int) (bool, error) {
	wasLazy := false
	if exists && r.Vol != nil && want == nil {
		rec, ok := r.record(warm.ByName(fd, e.Name), true, nil)
		if ok && rec.Has(warm.FlagDir|warm.FlagClean) && e.Dir() == (cold.DirID{Tree: rec.ID, Meta: rec.Meta}) {
			if err := r.attrs(fd, e.Name, e); err != nil || !rec.Has(warm.FlagLazy) {
				return true, err // it and everything below is as the commit has it
			}
			rec.Mtime, rec.Flags = e.Mtime, rec.Flags&^warm.FlagCtime
			return true, r.putRecord(warm.ByName(fd, e.Name), rec)
		}
		wasLazy = rec.Has(warm.FlagLazy)
	}
	if r.Lazy && (!exists || wasLazy) {
		clean, err := r.valid(ctx, e)
		if err != nil {
			return false, err
		}
		if exists {
			if err := r.emptyDir(fd, e.Name); err != nil {
				return false, err
			}
		}
		r.count(0)
		return clean, r.LazyDir(fd, e, warm.CoarseNow(), exists, clean)
	}
	if wasLazy {
		if err := r.emptyDir(fd, e.Name); err != nil {
			return false, err
		}
	}
	if !exists {
		if err := unix.Mkdirat(fd, e.Name, 0700); err != nil {
			return false, err
		}
	}
	sub, err := warm.OpenAt(fd, e.Name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(sub)
	if exists && r.Owner != 0 {
		_ = unix.Chmod(warm.FDPath(sub), 0700) // its mode is set when its children are there
	}
	clean, err := r.dir(ctx, sub, at, e.Dir(), want, depth+1)
	if err != nil {
		return false, err
	}
	r.count(0)
	return clean, r.finishDir(sub, warm.ByName(fd, e.Name), e, at, clean)
}

// finishDir sets a directory's attributes once its children are there, and its record last.
func (r *Restorer) finishDir(sub int, at warm.XattrTarget, e *cold.Entry, name string, clean bool) error {
	r.at = name
	if err := r.attrsOf(sub, at, e); err != nil {
		return fmt.Errorf("attributes of %q: %w", name, err)
	}
	if r.Vol == nil || !r.Vol.Records {
		return nil
	}
	if err := r.stepRecord(); err != nil {
		return err
	}
	var st unix.Statx_t
	if err := warm.StatAt(sub, "", &st); err != nil {
		return err
	}
	rec := warm.Record{Flags: warm.FlagDir | warm.FlagCtime, Mtime: warm.TimeOf(st.Mtime), Ctime: warm.TimeOf(st.Ctime)}
	if clean {
		rec.Flags |= warm.FlagClean
		rec.ID, rec.Meta = e.ID, e.Meta
	}
	return r.putRecord(at, rec)
}

func (r *Restorer) stepEntry() error {
	if r.Vol == nil {
		return nil
	}
	return r.Vol.Step("restore.entry")
}

func (r *Restorer) stepRecord() error {
	if r.Vol == nil {
		return nil
	}
	return r.Vol.Step("restore.record")
}

func (r *Restorer) putRecord(at warm.XattrTarget, rec warm.Record) error {
	rec.Trust = r.Vol.Trust
	err := at.Set(warm.RecordAttr, rec.Encode(make([]byte, 0, warm.RecordMax)), 0)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return nil // present and dirty: the next commit compares it
	}
	return err
}

// record reads the record of the inode at, as far as it may be believed. It returns false where nothing of it counts.
// st is the file's state, nil for a directory.
func (r *Restorer) record(at warm.XattrTarget, dir bool, st *unix.Statx_t) (warm.Record, bool) {
	if !r.Vol.Records {
		return warm.Record{}, false
	}
	rec, ok := warm.ReadRecord(at)
	if !ok {
		return warm.Record{}, false
	}
	rec = rec.Believed(r.Vol.Trust, dir, st)
	return rec, rec != (warm.Record{})
}

// same completes a file whose record says that its bytes are the commit's: it sets the attributes and adapts the
// record. It returns false if the bytes are others, or nobody knows.
func (r *Restorer) same(fd int, e *cold.Entry, st *unix.Statx_t) (bool, error) {
	rec, ok := r.record(warm.ByName(fd, e.Name), false, st)
	if !ok || !rec.Has(warm.FlagClean) || rec.ID != e.ID || rec.Size != int64(st.Size) ||
		!(rec.IsStub() && r.Lazy || !rec.IsStub() && rec.Mtime == warm.TimeOf(st.Mtime)) {
		return false, nil
	}
	if err := r.attrs(fd, e.Name, e); err != nil {
		return false, err
	}
	rec.Mtime, rec.Flags = e.Mtime, rec.Flags&^warm.FlagCtime
	return true, r.putRecord(warm.ByName(fd, e.Name), rec)
}

// whole makes a regular file with its bytes, owner, mode, attributes, times and record, in an order in which each
// survives the next. If its bytes or attributes cannot be written, it removes the file again.
func (r *Restorer) whole(ctx context.Context, fd int, e *cold.Entry) error {
	blob, err := r.Cold.Open(ctx, e.ID, e.Size)
	if err != nil {
		return err
	}
	defer blob.Close()
	f, err := warm.OpenAt(fd, e.Name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0600)
	if err != nil {
		return err
	}
	defer unix.Close(f)
	size, err := warm.WriteSparse(ctx, f, blob)
	if err == nil && size != e.Size {
		err = fmt.Errorf("%w: %d bytes, the metadata says %d", cold.ErrCorrupt, size, e.Size)
	}
	var fresh unix.Statx_t
	if err == nil {
		err = warm.StatAt(f, "", &fresh)
	}
	if err == nil {
		r.madeLink(e, &fresh)
		err = r.attrsOf(f, warm.ByFD(f), e)
	}
	if err != nil {
		return errors.Join(err, unix.Unlinkat(fd, e.Name, 0))
	}
	if r.Vol == nil || !r.Vol.Records {
		return nil
	}
	var now unix.Statx_t
	if err := warm.StatAt(f, "", &now); err != nil {
		return err
	}
	rec := warm.Record{Flags: warm.FlagClean | warm.FlagCtime, ID: e.ID, Size: e.Size, Mtime: warm.TimeOf(now.Mtime),
		Ctime: warm.TimeOf(now.Ctime)}
	if e.Holes > 0 { // the file may have more holes now than where it was committed
		rec.Flags, rec.Blocks = rec.Flags|warm.FlagBlocks, e.Blocks()
	}
	if err := r.putRecord(warm.ByName(fd, e.Name), rec); err != nil || len(e.Xattrs) == 0 || e.Holes > 0 {
		return err
	}
	before := now.Blocks
	if err := warm.StatAt(f, "", &now); err != nil || now.Blocks <= before {
		return err
	}
	rec.Flags, rec.Blocks = rec.Flags|warm.FlagBlocks, before // this block is the record's, not the file's
	return r.putRecord(warm.ByName(fd, e.Name), rec)
}

// link makes e another name of the file that its hard-link group has already. done is false where the caller has to
// make a file: e is in no group, it is the first name of its group, or the file has as many names as its file system
// allows.
func (r *Restorer) link(fd int, at string, e *cold.Entry) (done bool, err error) {
	if e.Link == "" {
		return false, nil
	}
	first, ok := r.links[LinkKeyOf(e)]
	if !ok {
		r.links[LinkKeyOf(e)] = at
		return false, nil
	}
	old, err := warm.OpenPath(r.RootFD, first)
	if err != nil {
		return false, fmt.Errorf("other name %q of the same file: %w", first, err)
	}
	defer unix.Close(old)
	var st unix.Statx_t
	if err := warm.StatAt(old, "", &st); err != nil {
		return false, err
	}
	if was, ok := r.firsts[LinkKeyOf(e)]; ok && was != heldback.KeyOf(&st) {
		return false, fmt.Errorf("other name %q of the same file: %w", first, errReplaced)
	}
	if err := unix.Linkat(unix.AT_FDCWD, warm.FDPath(old), fd, e.Name, unix.AT_SYMLINK_FOLLOW); err != nil {
		if errors.Is(err, unix.EMLINK) {
			delete(r.links, LinkKeyOf(e))
			return false, nil
		}
		return false, err
	}
	r.count(0)
	return true, nil
}

// Attrs sets the attributes of name in the directory behind fd.
func (r *Restorer) attrs(fd int, name string, e *cold.Entry) error {
	f, err := warm.OpenAt(fd, name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(f)
	return r.attrsOf(f, warm.ByName(fd, name), e)
}

// attrsOf sets owner, mode, extended attributes and mtime of the inode f to those of e, whatever it had before.
func (r *Restorer) attrsOf(f int, at warm.XattrTarget, e *cold.Entry) error {
	return r.setAttrs(f, at, e, Fresh{UID: noID, GID: noID, Attrs: true})
}

func (r *Restorer) count(bytes int64) {
	r.Files++
	r.bytes += bytes
	if r.Progress != nil {
		r.Progress(r.Files, r.bytes, r.total)
	}
}
