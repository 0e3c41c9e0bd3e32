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
// can write it. That is not the last close, because mappings go on, and not the daemon's end, because programs go on.
// The kernel tells who is left: it grants a read lease on a file only while nobody has it open for writing, and a write
// lease only while nobody else has it open at all. A mapping holds its file open.
//
// While a file is untracked, what the daemon sees of it may be outdated at once: so hot and the kernel keep nothing of
// it, and there are no written ranges and no clean record. A commit that takes it, because the rules or its name
// changed, takes a copy, and the next commit takes it again.

// errInUse says that somebody else has the file open.
var errInUse = errors.New("somebody has the file open")

// lease asks for a lease of the given kind, F_RDLCK or F_WRLCK, and gives it back at once. For F_RDLCK fd must be open
// for reading only. It returns errInUse where somebody else has the file open: for writing, or with F_WRLCK at all.
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

// writtenUnseen says whether somebody has n's file in warm open for writing. It is also true where the daemon itself
// has, and where it cannot be found out. n.mu is held, so that no open meets the lease that this takes.
func (v *Volume) writtenUnseen(n *Inode) bool {
	fd, err := v.openToRead(n)
	if err != nil {
		return !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESTALE)
	}
	defer unix.Close(fd)
	return lease(fd, unix.F_RDLCK) != nil
}

// markUnseen makes n untracked. made says that n is new, so that the kernel has no attributes of it yet. n.mu is held.
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

// noteUntracked notes a change of n if it is untracked: it may have been written, and is closed or fsynced now. An
// ignored file needs no note. Called outside begin and end.
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

// lookUntracked finds out, before n is opened, whether programs write it untracked: because an earlier daemon gave it
// to the kernel, or because they have not let go of it yet. Nothing is locked.
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

// endUntracked makes n tracked again if nobody is left who can write it. It says whether n is tracked now. Nothing is
// locked.
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

// untrackedNow says whether n may change unseen while it is read through fd, which is open for reading. Whoever opens
// it for writing later does so through this daemon.
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

// unused says whether nobody else has the file of fd open; fd is open for writing. Inode.mu is held.
func (v *Volume) unused(fd int) bool {
	return !v.direct.shared.Load() || lease(fd, unix.F_WRLCK) == nil
}

const (
	// lingerFirst is the time from the last close to the first look whether somebody is left. The kernel closes its own
	// descriptor of warm's file a moment after it told of the close.
	lingerFirst = 10 * time.Millisecond
	lingerMost  = 10 * time.Second
)

// lingering has the untracked inodes on which the kernel serves no handle any more.
type lingering struct {
	mu   mutex[leaf]
	list []*Inode      // each with a reference
	wake chan struct{} // capacity 1
}

// linger has lingerLoop look at n until nobody is left who can write it. n.mu is held.
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

// lingerLoop looks at the lingering inodes, at first often.
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

// endLingering drops the lingering inodes that nobody can write any more, and those that are open again. It returns how
// many are left.
func (v *Volume) endLingering() int {
	l := &v.direct.lingering
	l.mu.Lock()
	list := l.list
	l.list = nil
	l.mu.Unlock()
	var left []*Inode
	for _, n := range list {
		n.mu.Lock()
		open := n.mu.direct > 0 // its close makes it linger again
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
		again := n.untracked.Load() && n.mu.direct == 0 // it was opened and closed between these two looks
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

// freeze copies the content of a file that is written untracked, for a commit. Each part is as it is when it is copied.
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
