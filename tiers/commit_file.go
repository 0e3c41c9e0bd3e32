package tiers

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// knownContent returns the id of a file's content where it is known without reading the bytes; else known is false, and
// hint is an id that the content may have.
func (c *capture) knownContent(e *cold.Entry, pre *preimage, m *dirMark, b *baseDir) (id, hint cold.ID, known bool) {
	v := c.v
	if pre.known() {
		return pre.id(), pre.id(), true
	}
	hint = pre.id()
	if m.full {
		if old := b.entry(e.Name); old != nil && old.Kind == cold.KindFile {
			if v.records {
				return cold.ID{}, old.ID, false
			}
			// Without records stat data decides, as in git's index. And as there, a file that changed within the last
			// tick before the commit is read again.
			racy := e.Mtime.Sec >= c.base.Info().Time.Unix()-1
			if !pre.ungranted && !racy && old.Size == e.Size && old.Mtime == e.Mtime {
				e.Holes = old.Holes
				return old.ID, old.ID, true
			}
			hint = old.ID
		}
	}
	return cold.ID{}, hint, false
}

// content stores a file's bytes as they were at the boundary, whatever changes meanwhile, and sets e.ID.
func (c *capture) content(n *Inode, pre *preimage, e *cold.Entry, hint cold.ID) (fileMark, error) {
	if err := c.part.refuses(c.v, n, pre); err != nil {
		return fileMark{}, err
	}
	ctx, cancel := c.part.within(c.ctx, c.v, n)
	defer cancel()
	n.mu.Lock()
	p := c.boundary.preserve(n, pre, hint)
	n.mu.Unlock()
	base := p.base
	if base.ID.IsZero() {
		base.ID = hint // whoever began to keep the file had no hint
	}
	defer p.end()
	fd, err := c.v.openToRead(n)
	if err != nil {
		return fileMark{}, err
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := warm.StatAt(fd, "", &st); err != nil {
		return fileMark{}, err
	}
	if st.Ino != n.ino || warm.KindOf(uint32(st.Mode)) != cold.KindFile {
		return fileMark{}, warm.ErrNotAFile
	}
	var id cold.ID
	from := &boundaryContent{preserved: p, fd: fd}
	untracked := c.v.untrackedNow(n, fd)
	if untracked {
		c.later.Store(true)
		base = cold.Base{ID: base.ID}
		var copied *frozen
		if copied, err = c.v.freeze(ctx, from); err == nil {
			defer copied.close()
			id, err = c.tx.PutFile(ctx, copied, base)
		}
	} else {
		id, err = c.tx.PutFile(ctx, from, base)
	}
	if errors.Is(err, errStub) { // it was found to be clean meanwhile, and released
		n.mu.Lock()
		if r := n.mu.rec; r.IsStub() && r.Size == e.Size {
			id, err = r.ID, nil
		}
		n.mu.Unlock()
	}
	if err != nil && ctx.Err() != nil && c.ctx.Err() == nil {
		err = errNoTime
	}
	if err != nil {
		return fileMark{}, err
	}
	n.readIn.Store(c.epoch)
	e.ID = id
	c.count(e.Size)
	return fileMark{
		name: e.Name, ino: n.ino, gen: n.gen, read: p.read,
		id: id, size: e.Size, mtime: e.Mtime, untracked: untracked || c.v.direct.inherited && !sameStat(&st, e),
	}, nil
}

// sameStat says whether size and mtime of a file are those of the entry. If not, a program that had the file open under
// an earlier daemon has changed it.
func sameStat(st *unix.Statx_t, e *cold.Entry) bool {
	return int64(st.Size) == e.Size && warm.TimeOf(st.Mtime) == e.Mtime
}

// checkBoundary returns an error where the boundary is spoiled: then the capture is incomplete.
func (c *capture) checkBoundary() error {
	if err := c.boundary.failed(); err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	return nil
}
