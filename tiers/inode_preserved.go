package tiers

import (
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

const (
	// preserveShift is the grain of what is kept before a change, 64 KiB: the smallest chunk that cold makes, so
	// that holes are known finely enough. Grains are copied, not cloned: FICLONERANGE (ioctl_ficlonerange(2)) writes
	// dirty pages to the disk first, and what is kept was mostly just written. Measured, 64 KiB dirty: copy 10 us
	// on xfs and 51 us on btrfs, clone 198 and 177 us; of clean bytes a clone takes 10 us, at worst 3.8 ms, of 1 MiB 51
	// ms, which alone is more than a write may wait.
	preserveShift = writtenShift
	// preserveStep bounds in bytes what is kept, or read, in one go while the file's content is locked.
	preserveStep = 1 << 20
	readStep     = 256 << 10
)

// preserved is the content of a dirty file as it was at the boundary. It exists from the first change since the
// boundary, or from when the commit begins to read the file, until the commit has read it. Inode.io guards grains and
// fd: it is held for writing to keep bytes, and for reading to read them.
type preserved struct {
	boundary *boundary
	n        *Inode
	size     int64     // of the file at the boundary
	base     cold.Base // what cold has of the file
	read     uint64

	sparse bool
	fd     int // a readable descriptor of the file; 0: not open yet
	grains map[int64]int64
}

// hole is the value in preserved.grains of a grain without data. Other values are offsets in the boundary's file.
const hole = -1

// preserve returns n's preserved content for this commit, and begins to keep it if nobody did. hint is an id that cold
// may have for it, pre is n's pre-image. n.mu is held.
func (m *boundary) preserve(n *Inode, pre *preimage, hint cold.ID) *preserved {
	if p := n.preserved.Load(); p != nil && p.boundary == m {
		return p
	}
	p := &preserved{boundary: m, n: n, size: int64(pre.attr.Size)}
	p.sparse = cold.HolesOf(p.size, pre.attr.Blocks) > 0
	// From here on the written ranges are those that change after the boundary.
	if p.size >= writtenMin && n.written.Load() == nil {
		n.written.Store(newWritten(cold.ID{}))
	}
	p.base, p.read = n.written.Load().start(hint)
	m.mu.Lock()
	m.hold(n)
	m.mu.Unlock()
	n.preserved.Store(p)
	return p
}

// keepContent is keepPast for a change of bytes: it also begins to keep n's bytes before they change, if the commit
// needs them. n.mu is held; called between begin and end.
func (v *Volume) keepContent(n *Inode) {
	m := v.boundary.Load()
	if m == nil {
		return
	}
	had := m.live && m.preimage(n) != nil
	pre := m.keep(n)
	// A commit to the live branch reads critical files only. n is none where it stands now, and if it was moved since
	// the boundary, whoever moved it has left its pre-image (had).
	if m.live && !had && v.laneOf(n) != laneCritical {
		return
	}
	if pre == nil || pre.taken || pre.err != nil || pre.attr.Nlink == 0 || pre.known() || n.readIn.Load() == m.epoch ||
		m.over.Load() {
		return
	}
	m.preserve(n, pre, pre.id())
}

// keepAhead keeps for a commit under way what a change of [off, end) is about to overwrite, all but the last piece of
// preserveStep bytes. It locks for each piece anew: if the change did all of that under its locks, boundaries and
// readers of the file would wait for it. Called outside begin and end, with nothing locked.
func (v *Volume) keepAhead(n *Inode, off, end int64) {
	off = max(off, 0)
	for more := n.kind == cold.KindFile; more; off += preserveStep {
		m := v.boundary.Load()
		if m == nil || m.over.Load() {
			return
		}
		more = func() bool {
			v.beginOwn()
			defer v.end()
			n.io.Lock()
			defer n.io.Unlock()
			if n.contentEpoch.Load() != v.epoch.Load() {
				n.mu.Lock()
				v.keepContent(n)
				n.mu.Unlock()
			}
			p := n.preserved.Load()
			if p == nil || p.boundary != m || min(end, p.size)-off <= preserveStep { // the change itself does the rest
				return false
			}
			p.keep(off, off+preserveStep)
			return true
		}()
	}
}

// end ends the keeping of the file's content and closes its descriptor.
func (p *preserved) end() {
	p.n.io.Lock()
	defer p.n.io.Unlock()
	if p.n.preserved.CompareAndSwap(p, nil) && p.fd > 0 {
		unix.Close(p.fd)
		p.fd = 0
		p.boundary.countFDs(-1)
	}
}

// keep copies the bytes of [off, end) to the boundary's file before they change; an error spoils the boundary. Inode.io
// is held for writing. A nil *preserved does nothing.
func (p *preserved) keep(off, end int64) {
	if p == nil || p.boundary.over.Load() {
		return
	}
	if err := p.keepGrains(off, min(end, p.size)); err != nil {
		p.boundary.spoil(fmt.Errorf("keep the pre-image of inode %d's bytes: %w", p.n.ino, err))
	}
}

// keepFrom keeps everything from off on.
func (p *preserved) keepFrom(off int64) { p.keep(off, math.MaxInt64) }

var preserveBuffers = sync.Pool{New: func() any { b := make([]byte, preserveStep); return &b }}

func (p *preserved) keepGrains(off, end int64) error {
	const grain = 1 << preserveShift
	for g := off >> preserveShift; off < end && g<<preserveShift < end; g++ {
		if _, ok := p.grains[g]; ok {
			continue
		}
		if err := p.openFD(); err != nil {
			return err
		}
		from := g << preserveShift
		to := min(from+grain, p.size)
		// Neighbours that will change too are read together with this one.
		for next := g + 1; to < end && to-from < preserveStep && !p.sparse; next++ {
			if _, ok := p.grains[next]; ok {
				break
			}
			to = min((next+1)<<preserveShift, p.size)
		}
		if err := p.copyGrains(from, to); err != nil {
			return err
		}
		g = (to - 1) >> preserveShift
	}
	return nil
}

// copyGrains copies the whole grains [from, to), at most preserveStep bytes; of a sparse file they are one grain.
func (p *preserved) copyGrains(from, to int64) error {
	const grain = 1 << preserveShift
	if p.grains == nil {
		p.grains = map[int64]int64{}
	}
	if p.sparse {
		data, err := unix.Seek(p.fd, from, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && data >= to {
			p.grains[from>>preserveShift] = hole
			return nil
		}
	}
	file, err := p.boundary.openFile()
	if err != nil {
		return err
	}
	buf := preserveBuffers.Get().(*[]byte)
	defer preserveBuffers.Put(buf)
	b := (*buf)[:to-from]
	if n, err := warm.PreadFull(p.fd, b, from); err != nil || n < len(b) {
		return errors.Join(err, fmt.Errorf("%d of %d bytes at %d", n, len(b), from))
	}
	at := p.boundary.file.end.Add(int64(len(b))) - int64(len(b))
	if _, err := warm.PwriteFull(file, b, at); err != nil {
		return err
	}
	for off := from; off < to; off += grain {
		p.grains[off>>preserveShift] = at + off - from
	}
	return nil
}

// openFD opens the file for reading, once: the descriptors of writers may not be readable.
func (p *preserved) openFD() error {
	if p.fd > 0 {
		return nil
	}
	fd, err := p.boundary.v.openToRead(p.n)
	if err != nil {
		return err
	}
	p.fd = fd
	p.boundary.countFDs(1)
	return nil
}

// openToRead opens a file for a commit. It does not move the atime, and works where the daemon's user owns the file but
// may not read it.
func (v *Volume) openToRead(n *Inode) (int, error) {
	flags := unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOATIME
	fd, _, err := warm.Quietly(flags, func(flags int) (int, error) { return v.openNode(n, flags) })
	if errors.Is(err, unix.EACCES) {
		fd, err = v.openLent(n, flags)
	}
	return fd, err
}

// boundaryContent is a file's content at the boundary, which a commit reads while programs may change the file.
type boundaryContent struct {
	*preserved
	fd   int
	read atomic.Int64 // bytes read so far
}

const (
	// removedLook is how many bytes are read between two checks whether the file was removed meanwhile.
	removedLook = 256 << 20
	// removedMost is how much of a removed file is still read to its end. Where more is left the commit begins again
	// without the file.
	removedMost = 1 << 30
)

// wanted counts n more bytes, and returns ErrSpoiled where the file was removed and much of it is still to be read:
// people who wait for the commit should not wait for that.
func (c *boundaryContent) wanted(n int) error {
	read := c.read.Add(int64(n))
	if (read-int64(n))/removedLook == read/removedLook || c.size-read < removedMost {
		return nil
	}
	var st unix.Statx_t
	if warm.StatAt(c.fd, "", &st) == nil && st.Nlink == 0 {
		return fmt.Errorf("%w: a file of %d bytes was removed while it was read", ErrSpoiled, c.size)
	}
	return nil
}

func (c *boundaryContent) Size() int64 { return c.size }

// ready returns an error where the content cannot be read: ErrSpoiled where the boundary is over, errStub where the
// bytes have left warm. n.io is held for reading.
func (c *boundaryContent) ready() error {
	if c.boundary.over.Load() {
		return errors.Join(ErrSpoiled, c.boundary.failed())
	}
	if c.n.stub.Load() { // it was found to be clean since, and released
		return errStub
	}
	return nil
}

func (c *boundaryContent) ReadAt(b []byte, off int64) (done int, err error) {
	if err := c.wanted(len(b)); err != nil {
		return 0, err
	}
	end := min(off+int64(len(b)), c.size)
	for at := off; at < end; {
		stop := min(end, at+readStep)
		c.n.io.RLock()
		if err = c.ready(); err == nil {
			err = c.readLocked(b[at-off:stop-off], at)
		}
		c.n.io.RUnlock()
		if err != nil {
			return done, err
		}
		done, at = int(stop-off), stop
	}
	if done < len(b) {
		return done, io.EOF
	}
	return done, nil
}

// readLocked fills b from offset at on; all of it lies before the end. n.io is held for reading.
func (c *boundaryContent) readLocked(b []byte, at int64) error {
	for len(b) > 0 {
		g := at >> preserveShift
		src, kept := c.grains[g]
		stop := (g + 1) << preserveShift
		for next := g + 1; !kept && stop < at+int64(len(b)); next++ {
			if _, ok := c.grains[next]; ok {
				break
			}
			stop = (next + 1) << preserveShift
		}
		part := b[:min(int64(len(b)), stop-at)]
		n, err := len(part), error(nil)
		switch {
		case !kept:
			n, err = warm.PreadFull(c.fd, part, at)
		case src == hole:
			clear(part)
		default:
			n, err = warm.PreadFull(c.boundary.file.fd, part, src+at-g<<preserveShift)
		}
		if err != nil {
			return err
		}
		if n < len(part) { // somebody changed warm behind the daemon's back
			return cold.ErrSizeChanged
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

func (c *boundaryContent) Data(off int64) (cold.Range, bool, error) {
	c.n.io.RLock()
	defer c.n.io.RUnlock()
	if err := c.ready(); err != nil {
		return cold.Range{}, false, err
	}
	for off < c.size {
		g := off >> preserveShift
		end := min((g+1)<<preserveShift, c.size)
		if src, kept := c.grains[g]; kept {
			if src != hole {
				return cold.Range{Off: off, End: end}, true, nil
			}
			off = end
			continue
		}
		for next := g + 1; end < c.size; next++ {
			if _, ok := c.grains[next]; ok {
				break
			}
			end = min((next+1)<<preserveShift, c.size)
		}
		r, ok, err := warm.NewContent(c.fd, c.size).Data(off)
		if err != nil {
			return cold.Range{}, false, err
		}
		if ok && r.Off < end {
			return cold.Range{Off: r.Off, End: min(r.End, end)}, true, nil
		}
		off = end
	}
	return cold.Range{}, false, nil
}
