package tiers

import (
	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
	"maps"

	"golang.org/x/sys/unix"
)

// recordClean records as clean what the commit has: files first, then directories from the leaves up.
func (c *capture) recordClean() {
	for _, m := range c.marks {
		fd, err := c.v.dirFD(m.n)
		if err == nil {
			c.eachFile(m, func(f *fileMark) { c.v.recordFile(fd, f, c.epoch) })
			c.v.unpin(m.n)
		}
		if !c.recordDir(m) && m.parent != nil {
			m.parent.keep = true
			m.parent.redo = append(m.parent.redo, m.name)
		}
	}
}

// recordFile records one file as clean, unless it was changed since the commit's boundary, which began epoch.
func (v *Volume) recordFile(dirfd int, f *fileMark, epoch uint64) {
	var st unix.Statx_t
	if warm.StatAt(dirfd, f.name, &st) != nil || st.Ino != f.ino || warm.GenOf(&st) != f.gen {
		return
	}
	n, fresh := v.peekRef(&st), false
	if n == nil {
		var err error
		if n, fresh, err = v.internAt(dirfd, f.name, &st); err != nil {
			return
		}
	}
	if !fresh {
		n.mu.Lock()
	}
	if n.ino != f.ino || n.gen != f.gen {
		n.mu.Unlock()
		v.unref(n, 1)
		return
	}
	if !fresh {
		// Look again under n.mu, for the ctime of this moment.
		if warm.StatAt(dirfd, f.name, &st) != nil || st.Ino != f.ino || warm.GenOf(&st) != f.gen {
			n.mu.Unlock()
			v.unref(n, 1)
			return
		}
	}
	r := warm.Record{Flags: warm.FlagClean | warm.FlagCtime, ID: f.id, Size: f.size, Mtime: f.mtime}
	if w := n.written.Load(); w != nil {
		w.stored(r.ID, f.read)
	}
	a := n.attrLocked(&st)
	switch {
	case n.mu.rec.IsStub(): // recorded under another of its names, and released since then
	case n.contentEpoch.Load() >= epoch || v.late.has(n.ino) || n.untracked.Load():
	case r.Size != int64(a.Size) || r.Mtime != a.Mtime:
	case n.mu.writers > 0:
		n.mu.captured = r.ID
	default:
		r.Ctime = a.Ctime
		r.Flags |= n.mu.rec.Flags & warm.FlagGroup
		r.Group = n.mu.rec.Group
		if a.Blocks != st.Blocks { // stat shows other blocks than warm has: keep that
			r.Flags, r.Blocks = r.Flags|warm.FlagBlocks, a.Blocks
		}
		if v.step("record.file") == nil && v.storeNamed(n, r, warm.ByName(dirfd, f.name)) == nil {
			v.hideBlock(n, &r, &st, dirfd, f.name)
			n.mu.ungranted, n.mu.captured = false, cold.ID{}
			if n.written.Load() == nil && r.Size >= writtenMin {
				n.written.Store(newWritten(r.ID))
			}
			v.dirtyHint.remove(n.ino)
		}
	}
	n.mu.Unlock()
	v.unref(n, 1)
}

// hideBlock keeps the number of blocks that stat shows of a file, where the record just written did not fit beside the
// user's attributes and took one block more: a commit should not make a file grow. n.mu is held; st is from before the
// write.
func (v *Volume) hideBlock(n *Inode, r *warm.Record, st *unix.Statx_t, dirfd int, name string) {
	var now unix.Statx_t
	if r.Has(warm.FlagBlocks) || !v.records || warm.StatAt(dirfd, name, &now) != nil || now.Ino != n.ino ||
		now.Blocks <= st.Blocks {
		return
	}
	r.Flags, r.Blocks = r.Flags|warm.FlagBlocks, st.Blocks
	if err := v.storeNamed(n, *r, warm.ByName(dirfd, name)); err != nil {
		v.log.WithError(err).WithField("inode", n.ino).Debug("a file shows a block more than it has")
	}
}

// recordDir marks a directory clean if nothing below it was touched since the boundary, and says whether it did so. The
// names that the commit has are no longer noted as changed.
func (c *capture) recordDir(m *dirMark) bool {
	v, n := c.v, m.n
	v.marks.Lock()
	defer v.marks.Unlock()
	ds := n.dir
	ds.mu.Lock()
	links := ds.mu.links
	ds.mu.Unlock()
	clean := !m.keep && !links && n.epoch.Load() < c.epoch && !v.late.has(n.ino)
	if clean {
		clean = v.step("record.dir") == nil && v.storeClean(n, m.id) == nil
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.mu.pending {
		ds.mu.pending, ds.mu.tracking = false, true
	}
	if ds.mu.tracking {
		ds.mu.base, ds.mu.counted = m.id, nil
		maps.DeleteFunc(ds.mu.changed, func(_ string, t touch) bool { return t.epoch < c.epoch })
		for _, name := range m.redo {
			if _, ok := ds.mu.changed[name]; !ok {
				if ds.mu.changed == nil {
					ds.mu.changed = make(map[string]touch)
				}
				ds.mu.changed[name] = touch{}
			}
		}
	}
	return clean
}

// storeClean writes a clean record with tree and meta of id for a directory, with the ctime that stat shows now.
func (v *Volume) storeClean(n *Inode, id cold.DirID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var st unix.Statx_t
	if err := v.statNode(n, &st); err != nil {
		return err
	}
	a := n.attrLocked(&st)
	r := warm.Record{Flags: warm.FlagClean | warm.FlagCtime, ID: id.Tree, Meta: id.Meta, Mtime: a.Mtime, Ctime: a.Ctime}
	r.Flags |= n.mu.rec.Flags & warm.FlagLazy // a lazy directory was described, not listed
	return v.storeRecord(n, r)
}
