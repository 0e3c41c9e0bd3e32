package tiers

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// lazyRoot makes an unlisted directory of the root where nothing of it was listed yet: then the whole restore is done.
func (r *restorer) lazyRoot(ctx context.Context, fd int, root *Entry) (done bool, err error) {
	rec, ok := r.record(byFD(fd), true, nil)
	list, err := listNames(fd)
	if err != nil {
		return false, fmt.Errorf("list warm: %w", err)
	}
	if len(list) > 0 && !(ok && rec.has(recUnlisted)) {
		return false, nil
	}
	if err := r.stepEntry(); err != nil {
		return false, err
	}
	for _, d := range list { // of a listing that was cut off
		if err := removeTree(fd, d.Name); err != nil {
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
	return true, r.unlisted(fd, byFD(fd), root, coarseNow(), valid)
}

// valid says whether a directory is as EmberFS committed it, all the way down. One that cannot be read is found out when it is
// listed.
func (r *restorer) valid(ctx context.Context, e *Entry) (bool, error) {
	ok, err := r.snap.Valid(ctx, e.Dir())
	if errors.Is(err, ErrMissing) || errors.Is(err, ErrCorrupt) {
		return false, nil
	}
	return ok, err
}

// lazyDir makes a directory whose children come later, or makes one that is unlisted stand for another tree.
func (r *restorer) lazyDir(ctx context.Context, dirfd int, e *Entry, exists bool) (clean bool, err error) {
	if !exists {
		if err := unix.Mkdirat(dirfd, e.Name, 0700); err != nil {
			return false, err
		}
	} else if err := r.emptyDir(dirfd, e.Name); err != nil {
		return false, err
	}
	if clean, err = r.valid(ctx, e); err != nil {
		return false, err
	}
	fd, err := openAt(dirfd, e.Name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	if err := r.stepRecord(); err != nil {
		return false, err
	}
	r.count(0)
	return clean, r.unlisted(fd, byName(dirfd, e.Name), e, coarseNow(), clean)
}

// emptyDir removes what a listing that was cut off left in an unlisted directory.
func (r *restorer) emptyDir(dirfd int, name string) error {
	fd, err := openAt(dirfd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	list, err := listNames(fd)
	if err != nil {
		return err
	}
	for _, d := range list {
		if err := removeTree(fd, d.Name); err != nil {
			return err
		}
	}
	return nil
}
