package tiers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// A file that the kernel writes by itself is "untracked" from the first such open for writing until nobody is left who
// could: not at the last close, since mappings go on, and not with the daemon, whom programs outlive. Who is left the
// kernel tells: it grants a read lease on a file only while nobody has it open for writing, and a write lease only
// while nobody else has it open at all. A mapping holds its file open.
//
// While a file is untracked nothing that is known of it holds for longer than a look: no hot, no attributes in the
// kernel, no written ranges, no clean record. A commit that takes it, because the rules or its name changed, takes a
// copy, and comes again.

// errInUse: somebody has the file open.
var errInUse = errors.New("somebody has the file open")

// lease asks for a lease of the given kind, F_RDLCK or F_WRLCK, and gives it back at once. For the first fd is open for
// reading only. errInUse: somebody else has the file open, for writing or at all.
func lease(fd int, kind int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, kind)
	if errors.Is(err, unix.EAGAIN) {
		return errInUse
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	}
	return err
}

// written untracked: somebody has n's file in warm open for writing; so it is where the daemon itself has, and where it
// cannot be found out. n.mu is held, so that no open can meet the lease that this takes.
func (v *Volume) writtenUnseen(n *Inode) bool {
	fd, err := v.openToRead(n)
	if err != nil {
		return !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESTALE)
	}
	defer unix.Close(fd)
	return lease(fd, unix.F_RDLCK) != nil
}

// markUnseen notes that n may be written without the daemon's knowledge from now on. made: no attributes of it went out
// yet that the kernel may keep. n.mu is held.
func (v *Volume) markUnseen(n *Inode, made bool) {
	n.mu.captured, n.mu.ungranted = cold.ID{}, true
	n.written.Store(nil)
	if n.untracked.Swap(true) {
		return
	}
	if !made {
		n.mu.stale = true
		v.invalidate(n)
	}
}

// noteUntracked notes that n has changed, as far as anybody knows: it was written untracked and is closed or fsynced
// now. What is ignored needs no note. Not between begin and end.
func (v *Volume) noteUntracked(n *Inode) {
	if !n.untracked.Load() || v.ignoredInode(n) {
		return
	}
	v.begin()
	defer v.end()
	if err := v.touchOwn(n, touchBytes); err != nil {
		v.log.WithError(err).WithField("inode", n.ino).Warn(
			"cannot mark the directories of a file that is written untracked")
	}
}

func (v *Volume) invalidate(n *Inode) {
	if i := v.inval.Load(); i != nil {
		(*i).InvalInode(n.id)
	}
}

// lookUntracked finds out, before n is opened, whether programs write it untracked: those that an earlier daemon let at
// it, and those that have not let go yet.
func (v *Volume) lookUntracked(n *Inode) {
	if !v.direct.shared.Load() || n.untracked.Load() && v.Rules().HasPassthrough() && v.decide(n).Passthrough() {
		return
	}
	if n.untracked.Load() {
		v.endUntracked(n)
		return
	}
	if !v.direct.inherited {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.looked || n.stub.Load() {
		return
	}
	n.mu.looked = true
	if n.mu.cached == 0 && n.mu.direct == 0 && n.mu.writers == 0 && v.writtenUnseen(n) {
		v.markUnseen(n, false)
		v.writers.Store(n, struct{}{})
		v.linger(n)
	}
}

// endUntracked says whether n is untracked no longer: nobody is left who writes it. Nothing is locked.
func (v *Volume) endUntracked(n *Inode) bool {
	n.io.Lock()
	defer n.io.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.untracked.Load() {
		return true
	}
	if n.mu.direct > 0 || n.mu.writers > 0 || v.writtenUnseen(n) {
		return false
	}
	v.hot.newVersion(n)
	n.untracked.Store(false)
	v.writers.Delete(n)
	if n.mu.stale {
		n.mu.stale = false
		v.invalidate(n)
	}
	return true
}

// untrackedNow says whether n, which fd is open for reading, may change while it is read. Who writes it later does so
// through an open that this daemon sees.
func (v *Volume) untrackedNow(n *Inode, fd int) bool {
	if !v.direct.shared.Load() {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.untracked.Load() {
		return true
	}
	return v.direct.inherited && n.mu.writers == 0 && n.mu.direct == 0 && lease(fd, unix.F_RDLCK) != nil
}

// unused says whether nobody but fd, which is open for writing, has its file open. n.mu is held.
func (v *Volume) unused(fd int) bool {
	return !v.direct.shared.Load() || lease(fd, unix.F_WRLCK) == nil
}

const (
	// lingerFirst is how soon after the last close it is looked whether somebody is left. The kernel closes its own
	// descriptor of warm's file a moment after it told of the close.
	lingerFirst = 10 * time.Millisecond
	lingerMost  = 10 * time.Second
)

// lingering are untracked inodes that no handle here is open on.
type lingering struct {
	mu   mutex[leaf]
	list []*Inode      // each with a reference
	wake chan struct{} // capacity 1
}

// linger has n looked at until nobody is left who writes it. n.mu is held.
func (v *Volume) linger(n *Inode) {
	if n.mu.lingers {
		return
	}
	n.mu.lingers = true
	v.ref(n)
	l := &v.direct.lingering
	l.mu.Lock()
	l.list = append(l.list, n)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// lingerLoop looks at those that linger, at first often.
func (v *Volume) lingerLoop(ctx context.Context) {
	l := &v.direct.lingering
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		}
		for pause := lingerFirst; ; pause = min(4*pause, lingerMost) {
			if !sleep(ctx, pause) {
				return
			}
			if v.endLingering() == 0 {
				break
			}
			select {
			case <-l.wake:
				pause = lingerFirst
			default:
			}
		}
	}
}

// endLingering lets go of those that nobody writes any more, and of those that are open again. It gives how many are
// left.
func (v *Volume) endLingering() int {
	l := &v.direct.lingering
	l.mu.Lock()
	list := l.list
	l.list = nil
	l.mu.Unlock()
	var left []*Inode
	for _, n := range list {
		n.mu.Lock()
		open := n.mu.direct > 0 // its close will say so again
		if open {
			n.mu.lingers = false
		}
		n.mu.Unlock()
		if !open && !v.endUntracked(n) {
			left = append(left, n)
			continue
		}
		n.mu.Lock()
		n.mu.lingers = false
		again := n.untracked.Load() && n.mu.direct == 0 // opened and closed between these looks
		if again {
			v.linger(n)
		}
		n.mu.Unlock()
		v.unref(n, 1)
	}
	l.mu.Lock()
	l.list = append(l.list, left...)
	count := len(l.list)
	l.mu.Unlock()
	return count
}

// frozen is a copy of a file that may change while a commit reads it.
type frozen struct {
	*warm.Content
	fd int
}

// freeze copies what a commit is to have of a file that is written untracked, as it is while it is copied.
func (v *Volume) freeze(ctx context.Context, c *boundaryContent) (*frozen, error) {
	fd, err := warm.OpenAt(v.warmFD, ".", unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err != nil {
		if fd, err = tempFile(v.cfg.State); err != nil {
			return nil, err
		}
	}
	f := &frozen{Content: warm.NewContent(fd, c.size), fd: fd}
	if err := f.fill(ctx, c); err != nil {
		f.close()
		return nil, fmt.Errorf("copy a file that is written meanwhile: %w", err)
	}
	return f, nil
}

func (f *frozen) fill(ctx context.Context, c *boundaryContent) error {
	buf := preserveBuffers.Get().(*[]byte)
	defer preserveBuffers.Put(buf)
	for off := int64(0); off < c.size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, ok, err := c.Data(off)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		for off = data.Off; off < data.End; {
			b := (*buf)[:min(int64(len(*buf)), data.End-off)]
			n, err := c.ReadAt(b, off)
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if n == 0 {
				return cold.ErrSizeChanged
			}
			if _, err := warm.PwriteFull(f.fd, b[:n], off); err != nil {
				return err
			}
			off += int64(n)
		}
	}
	return unix.Ftruncate(f.fd, c.size)
}

func (f *frozen) ReadAt(p []byte, off int64) (int, error) { return warm.FDReader(f.fd).ReadAt(p, off) }

func (f *frozen) close() { unix.Close(f.fd) }
