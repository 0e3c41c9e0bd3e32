package tiers

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// This file has what a commit does about what it cannot take: it leaves that out and goes on.

// staysOut says whether an error concerns only the one name where it was met. Then the commit takes all else, and says
// what it did not take.
func staysOut(err error) bool {
	var much *cold.TooMuchError
	for _, e := range []error{unix.EACCES, unix.EPERM, unix.EIO, unix.E2BIG, errNotListed, errNoTime, cold.ErrTooDeep} {
		if errors.Is(err, e) {
			return true
		}
	}
	return errors.As(err, &much)
}

// leaveOut leaves a name out: it is in the commit as the last one has it, if at all.
func (w *dirWalk) leaveOut(name string, bytes int64, err error) {
	w.c.fail(path.Join(w.at, name), bytes, err)
	w.m.keep, w.m.redo = true, append(w.m.redo, name)
	if old := w.b.entry(name); old != nil {
		w.put = append(w.put, *old)
	} else if !w.m.full {
		w.del = append(w.del, name)
	}
}

// without removes from put, or from root, what a Tx found to be too much. It returns what is left, and whether another
// try makes sense.
func (w *dirWalk) without(much *cold.TooMuchError, put []cold.Entry, root *cold.Root) ([]cold.Entry, bool) {
	c := w.c
	if much.Links && root != nil && len(root.Links) > 0 {
		for i, group := range slices.Sorted(maps.Keys(root.Links)) {
			if i%2 == 1 || len(root.Links) == 1 {
				delete(root.Links, group)
			}
		}
		if !c.links.dropped {
			c.fail("hard links", 0, fmt.Errorf("%w: some come back as files of their own", much.Err))
		}
		c.links.dropped = true
		return put, true
	}
	tried := len(much.Names) > 0
	for _, name := range much.Names {
		if name == "" {
			if root == nil || w.plainRoot {
				return put, false
			}
			c.fail(".", 0, much.Err)
			w.m.keep, w.plainRoot, root.Xattrs = true, true, nil
			if c.base != nil {
				root.Xattrs = c.base.Root().Xattrs
			}
			continue
		}
		i := slices.IndexFunc(put, func(e cold.Entry) bool { return e.Name == name })
		if i < 0 {
			return put, false
		}
		size := put[i].Size
		put, w.put = slices.Delete(put, i, i+1), nil
		w.m.files = slices.DeleteFunc(w.m.files, func(f fileMark) bool { return f.name == name })
		c.passOverThose(func(m *dirMark) bool { return m.in(w.m, name) })
		w.leaveOut(name, size, much)
		put, w.put = append(put, w.put...), nil
	}
	return put, tried
}

// outcome returns what was put and what leaves the directory. A file whose content could not be read is in it as the
// last commit has it, if at all.
func (w *dirWalk) outcome() (put []cold.Entry, del []string) {
	if len(w.lost) == 0 {
		return w.put, w.del
	}
	w.m.keep = true
	for i := range w.put {
		if w.lost[i] == 0 {
			put = append(put, w.put[i])
			continue
		}
		name := w.put[i].Name
		w.m.redo = append(w.m.redo, name)
		if old := w.b.entry(name); old != nil {
			e := *old
			if e.Link != "" && !w.c.links.stays(e.Link, w.lost[i], w.at) {
				e.Link = ""
			}
			put = append(put, e)
		} else {
			w.del = append(w.del, name)
		}
	}
	return put, w.del
}

// passOver is passOverThose for the marks from the given index on.
func (c *capture) passOver(from int) {
	i := 0
	c.passOverThose(func(*dirMark) bool { i++; return i > from })
}

// passOverThose drops the marks of directories that were stored but will not be in the commit: nothing of them may be
// recorded as clean.
func (c *capture) passOverThose(those func(*dirMark) bool) {
	var kept []*dirMark
	for _, m := range c.marks {
		if !those(m) {
			kept = append(kept, m)
			continue
		}
		ds := m.n.dir
		ds.mu.Lock()
		if ds.mu.pending {
			ds.mu.pending, ds.mu.tracking, ds.mu.missed = false, false, c.epoch
		}
		ds.mu.Unlock()
		c.v.unref(m.n, 1)
	}
	c.marks = kept
}

// in says whether the directory is the one called name in parent, or lies below it.
func (m *dirMark) in(parent *dirMark, name string) bool {
	for ; m != nil; m = m.parent {
		if m.parent == parent && m.name == name {
			return true
		}
	}
	return false
}
