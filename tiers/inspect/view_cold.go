package inspect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// ViewCold is what a View needs of the repository, for the names in lazy directories and the bytes of stubs. Every
// cold.Cold is one.
type ViewCold interface {
	Newest(ctx context.Context) (cold.Snapshot, error)
	Snapshot(ctx context.Context, commit cold.ID) (cold.Snapshot, error)
	Open(ctx context.Context, id cold.ID, size int64) (cold.Blob, error)
}

// viewCommit is the commit that lazy directories are listed from, opened when it is first needed.
type viewCommit struct {
	sync.Mutex
	snap cold.Snapshot
}

// inCold reports whether an entry has an id in cold.
func inCold(e *cold.Entry) bool { return e != nil && !e.ID.IsZero() }

// Untouched reports whether nobody has looked into the volume since it was restored: its root is still lazy.
func (w *View) Untouched() bool {
	r, ok := warm.ReadRecord(warm.ByFD(w.fd))
	return ok && r.Has(warm.FlagDir|warm.FlagLazy)
}

func (w *View) listCold(ctx context.Context, id cold.DirID) (cold.Listing, error) {
	s, err := w.snapshot(ctx)
	if err != nil {
		return cold.Listing{}, err
	}
	l, err := s.ReadDir(ctx, id)
	if err != nil {
		return cold.Listing{}, fmt.Errorf("list directory, which is in cold only: %w", err)
	}
	return l, nil
}

// snapshot returns the commit that was restored or, if that cannot be read, the newest one, as the daemon does.
func (w *View) snapshot(ctx context.Context) (cold.Snapshot, error) {
	c := &w.commit
	c.Lock()
	defer c.Unlock()
	if c.snap != nil {
		return c.snap, nil
	}
	if id, err := cold.ParseID(w.origin); err == nil {
		if c.snap, err = w.cold.Snapshot(ctx, id); err == nil {
			return c.snap, nil
		}
	}
	s, err := w.cold.Newest(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the last commit: %w", err)
	}
	if s == nil {
		return nil, fmt.Errorf("the branch has no commit: %w", cold.ErrMissing)
	}
	c.snap = s
	return s, nil
}

// Open opens the file at a slash path for reading; e is its entry, or nil. The bytes of stubs are read from cold.
func (w *View) Open(ctx context.Context, at string, e *cold.Entry) (io.ReadCloser, error) {
	fd, _, err := warm.Quietly(unix.O_RDONLY|unix.O_NONBLOCK, func(flags int) (int, error) { return w.open(at, flags) })
	if (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)) && inCold(e) {
		return w.cold.Open(ctx, e.ID, e.Size)
	}
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	var st unix.Statx_t
	if err := warm.StatAt(fd, "", &st); err != nil || warm.KindOf(uint32(st.Mode)) != cold.KindFile {
		return nil, errors.Join(warm.ErrNotAFile, err, unix.Close(fd))
	}
	if _, ok := warm.ReadRecord(warm.ByFD(fd)); !ok && inCold(e) { // being made, or changed since it was listed
		if err := unix.Close(fd); err != nil {
			return nil, fmt.Errorf("open: %w", err)
		}
		return w.cold.Open(ctx, e.ID, e.Size)
	}
	return &viewFile{ctx: ctx, w: w, fd: fd}, nil
}

// viewFile reads a file of warm. If a daemon releases its bytes meanwhile, the rest is read from cold.
type viewFile struct {
	ctx  context.Context
	w    *View
	fd   int
	off  int64
	blob cold.Blob // the content in cold; nil while reading from warm
}

func (f *viewFile) Read(p []byte) (int, error) {
	if f.blob != nil {
		return f.blob.Read(p)
	}
	n, err := unix.Pread(f.fd, p, f.off)
	if err != nil {
		return 0, fmt.Errorf("read: %w", err)
	}
	// The record says so before the bytes go.
	var st unix.Statx_t
	if r, ok := warm.ReadRecord(warm.ByFD(f.fd)); ok && r.IsStub() && warm.StatAt(f.fd, "", &st) == nil &&
		r.Size == int64(st.Size) {
		if err := f.toCold(&r); err != nil {
			return 0, err
		}
		return f.blob.Read(p)
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	f.off += int64(n)
	return n, nil
}

// toCold continues reading in cold.
func (f *viewFile) toCold(r *warm.Record) error {
	b, err := f.w.cold.Open(f.ctx, r.ID, r.Size)
	if err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, b, f.off); err != nil {
		return errors.Join(fmt.Errorf("read: %w", err), b.Close())
	}
	f.blob = b
	return nil
}

func (f *viewFile) Close() error {
	err := unix.Close(f.fd)
	if f.blob != nil {
		err = errors.Join(err, f.blob.Close())
	}
	return err
}
