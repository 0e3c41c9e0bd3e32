package tiers

import (
	"errors"
	"fmt"
	"path"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// readTogether bounds how many files wait to be read together, which holds their inodes in the table.
const readTogether = 1024

// dirWalk finds out what one directory held at the boundary.
type dirWalk struct {
	c    *capture
	m    *dirMark
	fd   int
	at   string
	b    *baseDir
	put  []cold.Entry
	del  []string
	work []pendingFile
	lost map[int]uint64         // by index in put: the inode numbers of files whose content could not be read
	have map[string]*cold.Entry // what an earlier call of entries found; a nil entry: no such name

	plainRoot bool // the root's own extended attributes are too much; it keeps those of the last commit
}

// pendingFile is a file that is to be read for the entry put[slot].
type pendingFile struct {
	slot int
	n    *Inode // holds a reference
	pre  *preimage
	hint cold.ID
}

// seen is what a name stood for at the boundary; pre is nil where that was nothing.
type seen struct {
	n    *Inode // with a reference; nil where pre is enough
	pre  *preimage
	lost bool // its inode had no known name until now
}

// find returns what name stood for at the boundary: its pre-image, or, if it has none even after the look, what it is
// now.
func (w *dirWalk) find(name string) (s seen, err error) {
	c, v, dir := w.c, w.c.v, w.m.n
	for range 1000 {
		if b, ok := c.boundary.binding(dir, name); ok {
			return seen{n: b.n, pre: b.pre}, nil
		}
		s, err = w.look(name)
		if c.boundary.bindingKept(dir, name) || errors.Is(err, unix.ESTALE) { // it changed meanwhile
			if s.n != nil {
				v.unref(s.n, 1)
			}
			if err := c.boundary.failed(); err != nil {
				return seen{}, err
			}
			continue
		}
		if errors.Is(err, unix.ENOENT) {
			return seen{}, nil
		}
		return s, err
	}
	return seen{}, fmt.Errorf("look at %q: %w", path.Join(w.at, name), ErrSpoiled)
}

// look returns what name stands for now, with the pre-image of its inode if that has one.
func (w *dirWalk) look(name string) (s seen, err error) {
	v := w.c.v
	moves := v.nameChanges.Load()
	var st unix.Statx_t
	if err := warm.StatAt(w.fd, name, &st); err != nil {
		return seen{}, err
	}
	if warm.KindOf(uint32(st.Mode)) != cold.KindDir && st.Nlink == 1 {
		s.lost = v.regainName(w.m.n, w.fd, name, &st, moves)
	}
	if s.n, _, err = v.lookupAt(w.c.ctx, w.m.n, w.fd, name); err != nil {
		return seen{}, err
	}
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	if s.pre = w.c.boundary.preimage(s.n); s.pre == nil {
		s.pre = &preimage{}
		err = v.look(s.n, w.fd, name, warm.ByName(w.fd, name), s.pre)
	}
	return s, err
}

// entries returns what of the directory is to be stored (put) and what leaves it (del): everything where the mark is
// full, else for the given names. It may be called again for more names, and keeps what earlier calls found: that may
// be different by now.
func (w *dirWalk) entries(names []string) (put []cold.Entry, del []string, err error) {
	if !w.m.full {
		if full, err := w.needsFull(names); err != nil {
			return nil, nil, err
		} else if full && w.c.live {
			return nil, nil, errNeedWhole
		} else if full {
			w.c.beginFull(w.m)
		}
	}
	if w.m.full {
		if names, err = w.allNames(); err != nil {
			return nil, nil, err
		}
	}
	w.earlier()
	defer func() {
		for _, p := range w.work {
			w.c.v.unref(p.n, 1)
		}
		w.work = nil
	}()
	for _, name := range names {
		if e, ok := w.have[name]; ok {
			if e != nil {
				w.put = append(w.put, *e)
			}
			continue
		}
		if err := w.entry(name); err != nil {
			return nil, nil, err
		}
		if len(w.work) >= readTogether {
			if err := w.read(); err != nil {
				return nil, nil, err
			}
		}
	}
	if err := w.read(); err != nil {
		return nil, nil, err
	}
	put, del = w.outcome()
	w.put, w.del, w.lost = put, del, nil
	if w.m.full {
		del = nil
	}
	return put, del, nil
}

// earlier moves the result of an earlier call to have.
func (w *dirWalk) earlier() {
	w.have = make(map[string]*cold.Entry, len(w.put)+len(w.del))
	for i := range w.put {
		w.have[w.put[i].Name] = &w.put[i]
	}
	for _, name := range w.del {
		w.have[name] = nil
	}
	w.put, w.del = nil, nil
}

// allNames returns the names that are in the directory and those that have a pre-image.
func (w *dirWalk) allNames() ([]string, error) {
	list, err := warm.ListNames(w.fd)
	if err != nil && !errors.Is(err, unix.ENOENT) { // it was removed, so all its names have pre-images
		return nil, fmt.Errorf("list directory %q: %w", w.at, err)
	}
	names := w.c.boundary.bound(w.m.n) // after the listing, so that names that changed during it are included
	for i := range list {
		names = append(names, list[i].Name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// needsFull says whether one of the names is of a file with several, whose group needs the whole listing.
func (w *dirWalk) needsFull(names []string) (bool, error) {
	m := w.c.boundary
	for _, name := range names {
		var st unix.Statx_t
		err := warm.StatAt(w.fd, name, &st)
		if plain := err == nil && (st.Nlink == 1 || warm.KindOf(uint32(st.Mode)) == cold.KindDir) ||
			errors.Is(err, unix.ENOENT); plain &&
			!m.bindingKept(w.m.n, name) && !m.has(inoKey{st.Ino, warm.GenOf(&st)}) {
			continue
		}
		s, err := w.find(name)
		if s.n != nil {
			w.c.v.unref(s.n, 1)
		}
		if err != nil {
			return false, fmt.Errorf("stat %q: %w", path.Join(w.at, name), err)
		}
		if s.pre != nil && s.pre.err == nil && s.pre.attr.Nlink > 1 && warm.KindOf(s.pre.attr.Mode) != cold.KindDir {
			return true, nil
		}
	}
	return false, nil
}

// entry captures one name: it adds to put, del or work.
func (w *dirWalk) entry(name string) error {
	c, m, full := w.c, w.m, path.Join(w.at, name)
	if err := c.boundary.failed(); err != nil {
		return err
	}
	s, err := w.find(name)
	if err == nil && s.pre != nil {
		err = s.pre.err
	}
	if staysOut(err) {
		if s.n != nil {
			c.v.unref(s.n, 1)
		}
		w.leaveOut(name, 0, err)
		return nil
	}
	if err != nil {
		if s.n != nil {
			c.v.unref(s.n, 1)
		}
		return fmt.Errorf("stat %q: %w", full, err)
	}
	if s.pre == nil {
		w.del = append(w.del, name)
		return nil
	}
	n, pre, keep := s.n, s.pre, false
	defer func() {
		if n != nil && !keep {
			c.v.unref(n, 1)
		}
	}()
	if pre.taken {
		return fmt.Errorf("%q: %w: it moved within what was taken", full, ErrSpoiled)
	}
	e := pre.entry(name)
	if c.v.ignored(full, e.Kind == cold.KindDir) {
		if !c.passBy(m, name, n, pre) {
			w.del = append(w.del, name)
		} else if old := w.b.entry(name); old != nil && m.full {
			w.put = append(w.put, *old)
		}
		return nil
	}
	single := pre.attr.Nlink == 1 || e.Kind == cold.KindDir
	if !single {
		m.n.noteLinks()
		m.keep = true
		e.Link = c.links.group(pre.attr.Ino, w.b.entry(name), w.at)
	} else if e.Link != "" { // an empty file stands in for one with several names
		m.n.noteLinks()
		m.keep = true
		c.links.stands(e.Link, w.at)
	} else if s.lost {
		// A change of it may not have been noted, as it had no name: the next commit reads this directory whole again.
		m.n.noteLinks()
		m.keep = true
	}
	switch e.Kind {
	case cold.KindDir:
		return w.subdir(e, n, pre)
	case cold.KindSymlink:
		if e.ID, err = c.tx.PutSymlink(c.ctx, e.Target, cold.ID{}); err != nil {
			return fmt.Errorf("store symlink %q: %w", full, err)
		}
		c.count(0)
	case cold.KindFile:
		if e.Lost { // an empty file stands in for it
			c.count(0)
			break
		}
		id, hint, known := c.knownContent(&e, pre, m, w.b)
		e.Lost = known && pre.rec.IsStub()
		e.ID = id
		if !known {
			if n == nil {
				return fmt.Errorf("%q: %w: its bytes are gone", full, ErrSpoiled)
			}
			w.work, keep = append(w.work, pendingFile{len(w.put), n, pre, hint}), true
			w.put = append(w.put, e)
			return nil
		}
		if _, ok := slices.BinarySearch(m.touched, name); ok {
			c.count(0) // its attributes changed
		}
	default:
		c.count(0)
	}
	if n != nil && single {
		c.boundary.done(n)
	}
	w.put = append(w.put, e)
	return nil
}

// subdir stores a child directory. A clean one is taken from its record, without a walk.
func (w *dirWalk) subdir(e cold.Entry, n *Inode, pre *preimage) error {
	c, m, full := w.c, w.m, path.Join(w.at, e.Name)
	id := cold.DirID{Tree: pre.rec.ID, Meta: pre.rec.Meta}
	if old := w.b.entry; c.live && !pre.rec.Has(warm.FlagClean) {
		// A commit to the live branch takes only its attributes here; critical names below it are noted by themselves.
		if old(e.Name) == nil || old(e.Name).Kind != cold.KindDir {
			return errNeedWhole
		}
		id = old(e.Name).Dir()
	} else if !pre.rec.Has(warm.FlagClean|warm.FlagDir) || c.rewalk && !pre.rec.Has(warm.FlagLazy) {
		if n == nil {
			return fmt.Errorf("%q: %w: what it held is gone", full, ErrSpoiled)
		}
		n.dir.mu.Lock()
		known := n.dir.mu.tracking
		n.dir.mu.Unlock()
		var base cold.DirID
		if !known {
			if e := w.b.entry(e.Name); e != nil && e.Kind == cold.KindDir {
				base = e.Dir()
			}
		}
		var err error
		before := len(c.marks)
		id, err = c.dir(n, full, base, m)
		if staysOut(err) {
			c.passOver(before)
			w.leaveOut(e.Name, 0, err)
			return nil
		}
		if err != nil {
			return err
		}
	} else if n != nil {
		c.boundary.done(n)
	}
	e.ID, e.Meta = id.Tree, id.Meta
	w.put = append(w.put, e)
	return nil
}

// read reads and stores the pending files, at least two at a time: hashing and compressing takes longer than reading.
func (w *dirWalk) read() error {
	c, m := w.c, w.m
	var g errgroup.Group
	g.SetLimit(max(2, runtime.GOMAXPROCS(0)))
	var mu sync.Mutex
	// By inode number: the slots of files with several names, which are read once.
	first := map[uint64]int{}
	for _, p := range w.work {
		e := &w.put[p.slot]
		if e.Link != "" {
			if _, ok := first[p.n.ino]; ok || c.links.read(p.n.ino, e) {
				continue
			}
			first[p.n.ino] = p.slot
		}
		g.Go(func() error {
			mark, err := c.content(p.n, p.pre, e, p.hint)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				if mark.untracked {
					m.keep, m.redo = true, append(m.redo, e.Name)
				} else {
					m.files = append(m.files, mark)
				}
				if e.Link == "" {
					c.boundary.done(p.n)
				}
				return nil
			case staysOut(err):
				if errors.Is(err, errNoTime) {
					c.failLate(path.Join(w.at, e.Name), e.Size, p.pre.attr.Ctime)
				} else {
					c.fail(path.Join(w.at, e.Name), e.Size, err)
				}
				if w.lost == nil {
					w.lost = map[int]uint64{}
				}
				w.lost[p.slot] = p.n.ino
				return nil
			case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE): // warm was changed behind our back
				err = fmt.Errorf("%w: %w", ErrSpoiled, err)
			}
			return fmt.Errorf("store %q: %w", path.Join(w.at, e.Name), err)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, p := range w.work {
		if slot, ok := first[p.n.ino]; ok {
			switch {
			case w.lost[slot] != 0:
				w.lost[p.slot] = p.n.ino
			case slot == p.slot:
				c.links.wasRead(p.n.ino, w.put[slot].ID)
			default:
				w.put[p.slot].ID = w.put[slot].ID
			}
		}
		c.v.unref(p.n, 1)
	}
	w.work = nil
	return nil
}

// entry returns p as a commit describes it, with what is held back, but without the id of its bytes or children.
func (p *preimage) entry(name string) cold.Entry {
	a := &p.attr
	e := cold.Entry{
		Name: name, Kind: warm.KindOf(a.Mode), Mode: a.Mode & 07777, UID: a.UID, GID: a.GID, Mtime: a.Mtime,
		Xattrs: p.xattrs,
	}
	switch e.Kind {
	case cold.KindFile:
		e.Size, e.Holes = int64(a.Size), cold.HolesOf(int64(a.Size), a.Blocks)
	case cold.KindSymlink:
		e.Target, e.Size = p.target, int64(len(p.target))
	case cold.KindChar, cold.KindBlock:
		e.Rdev = p.rdev
	}
	p.held.Fill(&e)
	return e
}
