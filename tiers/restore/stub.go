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

// lazyRoot makes the root a lazy directory, if it is empty or still lazy. done says that it did so, which completes the
// restore.
func (r *Restorer) lazyRoot(ctx context.Context, fd int, root *cold.Entry) (done bool, err error) {
	rec, ok := r.record(warm.ByFD(fd), true, nil)
	list, err := warm.ListNames(fd)
	if err != nil {
		return false, fmt.Errorf("list warm: %w", err)
	}
	if len(list) > 0 && !(ok && rec.Has(warm.FlagLazy)) {
		return false, nil
	}
	if err := r.stepEntry(); err != nil {
		return false, err
	}
	for _, d := range list { // of a listing that was cut off
		if err := warm.RemoveTree(fd, d.Name); err != nil {
			return false, fmt.Errorf("remove %q: %w", d.Name, err)
		}
	}
	if err := r.stepRecord(); err != nil {
		return false, err
	}
	valid, err := r.valid(ctx, root)
	if err != nil {
		return false, err
	}
	return true, r.makeLazy(fd, warm.ByFD(fd), root, warm.CoarseNow(), valid)
}

// valid says whether the directory e, and everything below it, is as EmberFS committed it. A directory that is missing
// or damaged in cold is not valid, and no error here: listing it returns the error.
func (r *Restorer) valid(ctx context.Context, e *cold.Entry) (bool, error) {
	ok, err := r.Snap.Valid(ctx, e.Dir())
	if errors.Is(err, cold.ErrMissing) || errors.Is(err, cold.ErrCorrupt) {
		return false, nil
	}
	return ok, err
}

// LazyDir makes a lazy directory, or makes an existing one stand for e's tree; what is in that stays. valid is what
// Restorer.valid says of e.
func (r *Restorer) LazyDir(dirfd int, e *cold.Entry, ctime cold.Time, exists, valid bool) error {
	if !exists {
		if err := unix.Mkdirat(dirfd, e.Name, 0700); err != nil {
			return err
		}
	}
	fd, err := warm.OpenAt(dirfd, e.Name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := r.stepRecord(); err != nil {
		return err
	}
	return r.makeLazy(fd, warm.ByName(dirfd, e.Name), e, ctime, valid)
}

// emptyDir removes what a listing that was cut off left in a lazy directory.
func (r *Restorer) emptyDir(dirfd int, name string) error {
	fd, err := warm.OpenAt(dirfd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	list, err := warm.ListNames(fd)
	if err != nil {
		return err
	}
	for _, d := range list {
		if err := warm.RemoveTree(fd, d.Name); err != nil {
			return err
		}
	}
	return nil
}

// stub makes a regular file without its bytes. Where the file system knows O_TMPFILE, the file is complete before it
// gets its name. stub returns EEXIST if something has the name.
func (r *Restorer) stub(dirfd int, e *cold.Entry, ctime cold.Time, fresh Fresh) (err error) {
	mode := e.Mode & 0777
	var fd int
	fd, err = warm.OpenAt(dirfd, ".", unix.O_TMPFILE|unix.O_RDWR, mode)
	named := errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR)
	if named { // a crash may leave it half made, but then without a record, in a directory not listed yet
		fd, err = warm.OpenAt(dirfd, e.Name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, mode)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	defer func() {
		var st unix.Statx_t
		if err != nil && !r.Vol.Held.Empty() && warm.StatAt(fd, "", &st) == nil {
			err = errors.Join(err, r.Vol.Held.Drop(heldback.KeyOf(&st)))
		}
	}()
	if e.Size > 0 {
		if err := unix.Ftruncate(fd, e.Size); err != nil {
			return err
		}
	}
	if err := r.setAttrs(fd, warm.ByFD(fd), e, fresh); err != nil {
		return err
	}
	rec := warm.Record{Flags: warm.FlagClean | warm.FlagCtime, ID: e.ID, Size: e.Size, Mtime: r.Times.Clamp(e.Mtime),
		Ctime: ctime, Trust: r.Vol.Trust}
	if e.Size > 0 {
		rec.Flags |= warm.FlagStub | warm.FlagBlocks
		rec.Blocks = e.Blocks()
		var st unix.Statx_t
		if len(e.Xattrs) > 0 && warm.StatAt(fd, "", &st) == nil {
			// Blocks that the file's attributes take count. The record may take a block too, which does not count.
			rec.Blocks += st.Blocks
		}
	}
	if err := r.setRecord(fd, warm.ByFD(fd), e, &rec); err != nil {
		return fmt.Errorf("store the record of a stub: %w", err)
	}
	if named {
		return nil
	}
	err = unix.Linkat(fd, "", dirfd, e.Name, unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPERM) { // without CAP_DAC_READ_SEARCH
		err = unix.Linkat(unix.AT_FDCWD, warm.FDPath(fd), dirfd, e.Name, unix.AT_SYMLINK_FOLLOW)
	}
	return err
}

// makeLazy gives a directory its attributes, and the record that says that it is lazy. at and fd both lead to it.
func (r *Restorer) makeLazy(fd int, at warm.XattrTarget, e *cold.Entry, ctime cold.Time, valid bool) error {
	if err := r.attrsOf(fd, at, e); err != nil {
		return err
	}
	rec := warm.Record{Flags: warm.FlagDir | warm.FlagLazy | warm.FlagCtime, ID: e.ID, Meta: e.Meta,
		Mtime: r.Times.Clamp(e.Mtime), Ctime: ctime, Trust: r.Vol.Trust}
	if valid {
		rec.Flags |= warm.FlagClean
	}
	if err := r.setRecord(fd, at, e, &rec); err != nil {
		return fmt.Errorf("store the record of a directory: %w", err)
	}
	return nil
}

// Fresh is what an inode has that was just made, so that only the rest has to be set.
type Fresh struct {
	UID, GID uint32
	Attrs    bool // there may be extended attributes, and a mode that comes from them
}
