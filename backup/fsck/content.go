package fsck

import (
	"bytes"
	"context"
	"errors"
	"io"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// Same reports whether content is what id names: a blob is compared by its hash, a file in chunks byte by byte. What
// cannot be read in the repository counts as the same, because it was reported by the repository's own check. It is
// safe for concurrent use.
func (c *Checker) Same(ctx context.Context, id cold.ID, f cold.Content) (bool, error) {
	switch t, size, err := c.DB().Stat(id); {
	case err != nil:
		return true, nil
	case t == odb.Blob:
		if size != f.Size() {
			return false, nil
		}
		got, err := hashContent(ctx, f)
		return got == id, err
	}
	b, err := c.OpenContent(ctx, id, f.Size())
	if err != nil {
		return !errors.Is(err, cold.ErrCorrupt), nil
	}
	same, err := sameBytes(ctx, b, f)
	return same, errors.Join(err, b.Close())
}

// hashContent returns the id that a file's content has as a blob.
func hashContent(ctx context.Context, f cold.Content) (cold.ID, error) {
	h := odb.NewBlobHash(f.Size())
	if _, err := io.CopyBuffer(h, &contentReader{ctx: ctx, c: f}, make([]byte, 256<<10)); err != nil {
		return cold.ID{}, err
	}
	return h.Sum()
}

// contentReader reads a file's content from its beginning. If there are fewer bytes than its size, it fails with
// cold.ErrSizeChanged.
type contentReader struct {
	ctx context.Context
	c   cold.Content
	off int64
}

func (r *contentReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	left := r.c.Size() - r.off
	if left <= 0 {
		return 0, io.EOF
	}
	n, err := r.c.ReadAt(p[:min(int64(len(p)), left)], r.off)
	r.off += int64(n)
	if errors.Is(err, io.EOF) {
		err = nil
		if n == 0 {
			err = cold.ErrSizeChanged
		}
	}
	return n, err
}

// sameBytes compares a file in cold with one in warm. It reads nothing where both have a hole.
func sameBytes(ctx context.Context, a cold.Blob, f cold.Content) (bool, error) {
	x, y := make([]byte, 256<<10), make([]byte, 256<<10)
	for off := int64(0); off < f.Size(); {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if hole := a.SkipHole(); hole > 0 {
			if empty, err := isHole(f, off, off+hole); err != nil || !empty {
				return false, err
			}
			off += hole
			continue
		}
		n, err := a.Read(y)
		if n == 0 && err != nil {
			return false, nil // the blob is shorter, or damaged
		}
		k, err := f.ReadAt(x[:n], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if k != n {
			return false, cold.ErrSizeChanged
		}
		if !bytes.Equal(x[:n], y[:n]) {
			return false, nil
		}
		off += int64(n)
	}
	return true, nil
}

// isHole reports whether a file has only zeros from off to end. It does not read holes.
func isHole(f cold.Content, off, end int64) (bool, error) {
	buf := make([]byte, 256<<10)
	for off < end {
		r, ok, err := f.Data(off)
		if err != nil || !ok || r.Off >= end {
			return err == nil, err
		}
		off = max(off, r.Off)
		n, err := f.ReadAt(buf[:min(int64(len(buf)), min(r.End, end)-off)], off)
		if n == 0 {
			return false, err
		}
		if len(bytes.TrimLeft(buf[:n], "\x00")) > 0 {
			return false, nil
		}
		off += int64(n)
	}
	return true, nil
}
