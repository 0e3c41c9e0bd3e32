package tiers

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// Read reads at off; 0, nil at the end of the file. With an error nothing was read: the kernel takes a short read for the end of
// the file.
func (h *Handle) Read(p []byte, off int64) (int, error) {
	n, hot := h.n, h.v.hot
	n.io.RLock()
	defer n.io.RUnlock()
	if h.flags&unix.O_NOATIME == 0 && (!h.atime.Load() && !h.atime.Swap(true) || h.v.atimeMode().Strict) {
		h.accessed(off)
	}
	if hot == nil {
		n.touchUse(h.v)
		m, err := preadFull(h.fd, p, off)
		if err != nil {
			return 0, err
		}
		return m, nil
	}
	if n.stub.Load() && !h.cold.Swap(true) && n.coldReads.Add(1) >= readAgain {
		h.v.comeBackSoon(n)
	}
	if n.unseen.Load() {
		n.touchUse(h.v)
		return h.readBehind(p, off)
	}
	done, atEnd := hot.read(n, p, off)
	if done == len(p) || atEnd {
		return done, nil
	}
	n.touchUse(h.v)
	m, err := h.readBehind(p[done:], off+int64(done))
	if err != nil {
		return 0, err
	}
	if m > 0 {
		if from := off + int64(done); m < 2*BlockSize || from+int64(m) <= hot.stream {
			hot.fill(n, p[done:done+m], from, done+m < len(p))
		}
	}
	return done + m, nil
}

// readBehind reads what is not in hot: from warm, and of a stub from cold, without a write to warm. n.io is held for reading.
func (h *Handle) readBehind(p []byte, off int64) (int, error) {
	v, n := h.v, h.n
	if !n.stub.Load() {
		m, err := preadFull(h.fd, p, off)
		v.moved.warmHits.Add(uint64(pages(m)))
		return m, err
	}
	n.mu.Lock()
	r := n.mu.rec
	n.mu.Unlock()
	if off >= r.size || len(p) == 0 {
		return 0, nil
	}
	v.moved.foreground.Add(1)
	m, err := v.coldReads.read(context.Background(), r.id, r.size, p, off)
	v.moved.foreground.Add(-1)
	v.moved.coldHits.Add(uint64(pages(m)))
	if err != nil {
		return 0, v.coldFailed(n, r.id, err)
	}
	return m, nil
}

// SeekData finds data or a hole: whence is SEEK_DATA or SEEK_HOLE.
func (h *Handle) SeekData(off int64, whence uint32) (int64, error) {
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, unix.EINVAL
	}
	h.n.io.RLock()
	defer h.n.io.RUnlock()
	if h.n.stub.Load() {
		return h.v.seekCold(h.n, off, whence)
	}
	return unix.Seek(h.fd, off, int(whence))
}

// seekCold is SeekData for a stub, whose hole nobody is to see: its holes are those that cold knows of. n.io is held for reading.
func (v *Volume) seekCold(n *Inode, off int64, whence uint32) (at int64, err error) {
	n.mu.Lock()
	r := n.mu.rec
	n.mu.Unlock()
	switch {
	case off < 0 || off >= r.size:
		return 0, unix.ENXIO
	case int64(r.blocks) >= r.size/512 && whence == unix.SEEK_DATA: // not sparse: no need to ask
		return off, nil
	case int64(r.blocks) >= r.size/512:
		return r.size, nil
	}
	err = v.coldReads.with(context.Background(), r.id, r.size, func(b BlobAt) error {
		for at = off; ; {
			data, ok, err := b.Data(at)
			switch {
			case err != nil:
				return err
			case whence == unix.SEEK_DATA && !ok:
				return unix.ENXIO
			case whence == unix.SEEK_DATA:
				at = max(at, data.Off)
				return nil
			case !ok || data.Off > at:
				return nil // a hole here
			case data.End >= r.size:
				at = r.size
				return nil
			}
			at = data.End
		}
	})
	if err != nil && !errors.Is(err, unix.ENXIO) {
		err = v.coldFailed(n, r.id, err)
	}
	return at, err
}
