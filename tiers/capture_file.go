package tiers

import (
	"errors"

	"golang.org/x/sys/unix"
)

// knownContent returns the id of a file whose bytes need not be read, or a hint which id they may have. Of a stub it corrects e:
// warm's own mtime is not always the one that everybody sees.
func (c *capture) knownContent(fd int, e *Entry, st *unix.Statx_t, m *dirMark, b *baseDir) (id, hint ID, known bool) {
	v, name := c.v, e.Name
	var rec record
	n := v.peek(st)
	if n != nil {
		n.mu.Lock()
		rec = n.mu.rec
		captured, open := n.mu.captured, n.mu.writers > 0
		n.mu.Unlock()
		switch {
		case !captured.IsZero() && open:
			return captured, captured, true
		case !captured.IsZero(): // nobody writes it any more: it is read once more, to be recorded
			rec.id = captured
		}
	} else if v.records {
		if r, ok := readRecord(byName(fd, name)); ok {
			if rec = r.believed(v.trust, false, st); rec == (record{}) {
				rec.id = r.id // a hint
			}
		}
	}
	if rec.isStub() && rec.size == int64(st.Size) {
		e.Mtime, e.Holes = rec.mtime, HolesOf(rec.size, rec.blocks)
		return rec.id, rec.id, true
	}
	if rec.has(recClean) && rec.size == int64(st.Size) && rec.mtime == timeOf(st.Mtime) {
		if rec.has(recBlocks) {
			e.Holes = HolesOf(rec.size, rec.blocks)
		}
		return rec.id, rec.id, true
	}
	if !rec.id.IsZero() {
		hint = rec.id
	}
	if m.full {
		if old := b.entry(name); old != nil && old.Kind == KindFile {
			if v.records {
				return ID{}, old.ID, false
			}
			// Without records stat data decides, as git's index does, and like there a file changed within the last tick before
			// the commit is read again.
			dirty := v.dirtyHint.has(st.Ino)
			if n != nil {
				n.mu.Lock()
				dirty = dirty || n.mu.ungranted
				n.mu.Unlock()
			}
			racy := timeOf(st.Mtime).Sec >= c.base.Info().Time.Unix()-1
			if !dirty && !racy && old.Size == int64(st.Size) && old.Mtime == timeOf(st.Mtime) {
				e.Holes = old.Holes
				return old.ID, old.ID, true
			}
			hint = old.ID
		}
	}
	return ID{}, hint, false
}

// errNotAFile: the name is something else by now.
var errNotAFile = errors.New("not the regular file that was listed")

// content stores a file's bytes and completes e with the attributes they were read under. A file that changes meanwhile is
// read again, the third time with writers kept out.
func (c *capture) content(dir *Inode, dirfd int, e *Entry, st *unix.Statx_t, base ID) (fileMark, error) {
	v := c.v
	n, _, err := v.lookupAt(dir, dirfd, e.Name)
	if err != nil {
		return fileMark{}, err
	}
	defer v.unref(n, 1)
	if n.kind != KindFile {
		return fileMark{}, errNotAFile
	}
	flags := unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOATIME
	fd, err := openAt(dirfd, e.Name, flags, 0)
	if errors.Is(err, unix.EPERM) { // O_NOATIME is for the owner
		fd, err = openAt(dirfd, e.Name, flags&^unix.O_NOATIME, 0)
	}
	if errors.Is(err, unix.EACCES) && v.mayLend(st) {
		fd, err = v.openLent(n, dirfd, e.Name, flags)
	}
	if err != nil {
		return fileMark{}, err
	}
	defer unix.Close(fd)
	var last attempt
	for try := 1; ; try++ {
		last, err = c.readOnce(n, fd, e, st, last, base, try == 3)
		if err == nil {
			break
		}
		if try == 3 || !errors.Is(err, ErrSizeChanged) {
			return fileMark{}, err
		}
	}
	c.count(e.Size)
	return fileMark{
		name: e.Name, ino: n.ino, gen: n.gen, read: last.read,
		id: e.ID, size: e.Size, mtime: e.Mtime,
	}, nil
}

// readOnce reads a file, or what may have changed of it; ErrSizeChanged means that it changed meanwhile. exclusive keeps writers out.
func (c *capture) readOnce(n *Inode, fd int, e *Entry, st *unix.Statx_t, last attempt, hint ID, exclusive bool) (now attempt, err error) {
	n.io.RLock() // no write is half done at this moment; exclusive: none begins before we are through
	if err := statAt(fd, "", st); err != nil {
		n.io.RUnlock()
		return attempt{}, err
	}
	if n.stub.Load() { // it came back, was taken for changed, and left again, all since it was looked at
		defer n.io.RUnlock()
		n.mu.Lock()
		defer n.mu.Unlock()
		r := &n.mu.rec
		e.ID, e.Size, e.Mtime, e.Holes = r.id, r.size, r.mtime, HolesOf(r.size, r.blocks)
		e.Mode, e.UID, e.GID = uint32(st.Mode)&07777, st.Uid, st.Gid
		return attempt{id: r.id}, nil
	}
	size := int64(st.Size)
	if size >= writtenMin && n.written.Load() == nil {
		n.written.Store(newWritten(ID{}))
	}
	seq := n.writeSeq.Load()
	base, read := n.written.Load().start(last, hint)
	if exclusive {
		defer n.io.RUnlock()
	} else {
		n.io.RUnlock()
	}
	if st.Ino != n.ino || kindOf(uint32(st.Mode)) != KindFile {
		return attempt{}, errNotAFile
	}
	id, err := c.tx.PutFile(c.ctx, &warmContent{fd: fd, size: size}, base)
	if err != nil {
		return attempt{}, err
	}
	if err := statAt(fd, "", st); err != nil {
		return attempt{}, err
	}
	if n.writeSeq.Load() != seq || int64(st.Size) != size {
		return attempt{read, id}, ErrSizeChanged
	}
	e.ID, e.Size, e.Mtime, e.Holes = id, size, timeOf(st.Mtime), HolesOf(size, st.Blocks)
	e.Mode, e.UID, e.GID = uint32(st.Mode)&07777, st.Uid, st.Gid
	return attempt{read, id}, nil
}
