package tiers

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// Read reads at off; 0, nil at the end of the file. With an error nothing was read: the kernel takes a short read for
// the end of the file. When ctx ends while cold is asked, it returns ctx's error at once.
func (h *Handle) Read(ctx context.Context, p []byte, off int64) (int, error) {
	for first := true; ; first = false {
		done, cold, err := h.readHere(p, off, first)
		if err != nil || cold == nil {
			return done, err
		}
		m, err := h.readCold(ctx, cold, p[done:], off+int64(done))
		if h.n.answered(cold, func() { h.fill(p, off, done, m, err) }) {
			if err != nil {
				return 0, h.v.coldFailed(h.n, cold.id, err)
			}
			return done + m, nil
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
}

// coldPart is the content of a stub as it was when a read found that cold has to be asked for it.
type coldPart struct {
	id   cold.ID
	size int64
	seq  uint64 // Inode.writeSeq
}

// coldPart describes a stub. n.io is held for reading.
func (n *Inode) coldPart() *coldPart {
	n.mu.Lock()
	defer n.mu.Unlock()
	return &coldPart{id: n.mu.rec.ID, size: n.mu.rec.Size, seq: n.writeSeq.Load()}
}

// answered says whether what cold gave for c is still n's content. If so, it calls f under n.io, before the content can
// change. Bytes that came back to warm meanwhile are the same.
func (n *Inode) answered(c *coldPart, f func()) bool {
	n.io.RLock()
	defer n.io.RUnlock()
	if n.writeSeq.Load() != c.seq {
		return false
	}
	f()
	return true
}

// readHere reads from hot, and from warm. Where the rest is in cold only, it returns what to ask cold for, so that the
// caller waits for cold with nothing locked. first is false when the same read tries again.
func (h *Handle) readHere(p []byte, off int64, first bool) (done int, cold *coldPart, err error) {
	v, n, hot := h.v, h.n, h.v.hot
	n.io.RLock()
	defer n.io.RUnlock()
	if first && h.flags&unix.O_NOATIME == 0 && (!h.atime.Load() && !h.atime.Swap(true) || v.atimeMode().Strict) {
		h.accessed(off)
	}
	if hot == nil {
		n.touchUse(v)
		done, err = warm.PreadFull(h.fd, p, off)
		if err != nil {
			return 0, nil, err
		}
		return done, nil, nil
	}
	stub := n.stub.Load()
	if stub && !h.cold.Swap(true) && n.coldReads.Add(1) >= readAgain {
		v.recallSoon(n)
	}
	if !n.untracked.Load() {
		var atEnd bool
		if done, atEnd = hot.read(n, p, off); done == len(p) || atEnd {
			return done, nil, nil
		}
	}
	n.touchUse(v)
	if stub {
		cold = n.coldPart()
		if off+int64(done) >= cold.size || done == len(p) {
			return done, nil, nil
		}
		return done, cold, nil
	}
	m, err := warm.PreadFull(h.fd, p[done:], off+int64(done))
	v.moved.warmHits.Add(uint64(pages(m)))
	if !n.untracked.Load() {
		h.fill(p, off, done, m, err)
	}
	if err != nil {
		return 0, nil, err
	}
	return done + m, nil, nil
}

// fill stores in hot what was read from warm or cold: m bytes of p, from p[done] on. p begins at off in the file. err
// is the read's error, after which nothing is stored. n.io is held for reading.
func (h *Handle) fill(p []byte, off int64, done, m int, err error) {
	if err != nil || m == 0 {
		return
	}
	if from := off + int64(done); m < 2*BlockSize || from+int64(m) <= h.v.hot.stream {
		h.v.hot.fill(h.n, p[done:done+m], from, done+m < len(p))
	}
}

// readCold reads from cold for a program that waits. Nothing is locked.
func (h *Handle) readCold(ctx context.Context, c *coldPart, p []byte, off int64) (int, error) {
	v := h.v
	v.moved.foreground.Add(1)
	defer v.moved.foreground.Add(-1)
	m, err := v.coldReads.read(ctx, c.id, c.size, p, off)
	v.moved.coldHits.Add(uint64(pages(m)))
	return m, err
}

// SeekData finds data or a hole: whence is SEEK_DATA or SEEK_HOLE. ctx is as for Read.
func (h *Handle) SeekData(ctx context.Context, off int64, whence uint32) (int64, error) {
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, unix.EINVAL
	}
	for {
		at, cold, err := h.seekHere(off, whence)
		if err != nil || cold == nil {
			return at, err
		}
		at, err = h.v.seekCold(ctx, cold, off, whence)
		if h.n.answered(cold, func() {}) {
			if err != nil && !errors.Is(err, unix.ENXIO) {
				err = h.v.coldFailed(h.n, cold.id, err)
			}
			return at, err
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
}

// seekHere is SeekData for all but a sparse stub, for which cold has to be asked.
func (h *Handle) seekHere(off int64, whence uint32) (at int64, cold *coldPart, err error) {
	n := h.n
	n.io.RLock()
	defer n.io.RUnlock()
	if !n.stub.Load() {
		at, err = unix.Seek(h.fd, off, int(whence))
		return at, nil, err
	}
	n.mu.Lock()
	r := n.mu.rec
	n.mu.Unlock()
	switch {
	case off < 0 || off >= r.Size:
		return 0, nil, unix.ENXIO
	case int64(r.Blocks) >= r.Size/512 && whence == unix.SEEK_DATA: // not sparse: no need to ask
		return off, nil, nil
	case int64(r.Blocks) >= r.Size/512:
		return r.Size, nil, nil
	}
	return 0, n.coldPart(), nil
}

// seekCold is SeekData for a stub: the holes are those of its content in cold, not the one that warm's file is. Nothing
// is locked.
func (v *Volume) seekCold(ctx context.Context, c *coldPart, off int64, whence uint32) (int64, error) {
	found := make(chan int64, 1)
	err := v.coldReads.with(ctx, c.id, c.size, func(b cold.BlobAt) error {
		at, err := seekBlob(b, off, whence)
		found <- at
		return err
	}, func() {})
	if err != nil {
		return 0, err
	}
	return <-found, nil
}

// seekBlob finds data or a hole in a content.
func seekBlob(b cold.BlobAt, off int64, whence uint32) (int64, error) {
	for at := off; ; {
		data, ok, err := b.Data(at)
		switch {
		case err != nil:
			return 0, err
		case whence == unix.SEEK_DATA && !ok:
			return 0, unix.ENXIO
		case whence == unix.SEEK_DATA:
			return max(at, data.Off), nil
		case !ok || data.Off > at:
			return at, nil // a hole here
		case data.End >= b.Size():
			return b.Size(), nil
		}
		at = data.End
	}
}
