package tiers

import (
	"context"
	"errors"
	"fmt"
	"path"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// capture is one commit's walk over what is dirty. Its cost follows the change: clean directories are taken by their record,
// tracked ones by the names that were touched.
type capture struct {
	v      *Volume
	ctx    context.Context
	tx     Tx
	base   Snapshot // nil for the first commit
	root   *Entry   // the root's own attributes
	rewalk bool     // clean marks are not enough: what is ignored may have changed
	epoch  uint64   // the boundary: what is touched in this epoch may or may not be in the commit, and stays dirty

	mu      sync.Mutex
	files   int64
	bytes   int64
	missing []string // what could not be taken, and why

	marks  []*dirMark // children before parents
	marked int        // file marks so far
	spill  *markSpill // nil while they are few
	links  linkGroups
}

// dirMark is what will be recorded of a directory once the commit stands.
type dirMark struct {
	n       *Inode // holds a reference
	parent  *dirMark
	name    string
	id      DirID
	full    bool
	touched []string // names that were changed, sorted; unknown where full
	keep    bool     // not to be marked clean: something below is not, or could not be taken
	redo    []string // names to look at again next time
	files   []fileMark
	aside   spilled // or where they lie
}

// fileMark is a file whose content the commit has.
type fileMark struct {
	name  string
	ino   uint64
	gen   uint64
	read  uint64 // which read of it (written.start)
	id    ID
	size  int64
	mtime Time
}

func (c *capture) fail(at string, err error) {
	c.mu.Lock()
	c.missing = append(c.missing, fmt.Sprintf("%s: %v", at, err))
	c.mu.Unlock()
}

// dir stores the directory n. base is what the last commit has under this path, zero if unknown or none.
func (c *capture) dir(n *Inode, at string, base DirID, parent *dirMark) (DirID, error) {
	if err := c.ctx.Err(); err != nil {
		return DirID{}, err
	}
	v := c.v
	m := &dirMark{n: n, parent: parent, name: path.Base(at)}
	if err := v.list(n); err != nil { // only what a stock client changed, else its record's word is taken
		return DirID{}, fmt.Errorf("%w: %w", errNotListed, err)
	}
	names, base := c.begin(m, base)
	fd, err := v.dirFD(n)
	if err != nil {
		return DirID{}, fmt.Errorf("open directory %q: %w", at, err)
	}
	defer v.unpin(n)
	b := &baseDir{c: c, id: base}
	var st unix.Statx_t
	if err := statAt(fd, "", &st); err == nil && v.mayLend(&st) && uint32(st.Mode)&0500 != 0500 {
		undo, err := v.lend(n, fd, 0500)
		if err != nil {
			return DirID{}, fmt.Errorf("read directory %q: %w", at, err)
		}
		defer undo()
	}
	put, del, err := c.entries(m, fd, at, names, b)
	if errors.Is(err, errNeedFull) {
		c.beginFull(m)
		put, del, err = c.entries(m, fd, at, nil, b)
	}
	if err != nil {
		return DirID{}, err
	}
	var root *Root
	if n == v.root {
		root = &Root{Entry: *c.root, Links: v.links.spanning(c.links.spanning())}
	}
	m.id, err = c.tx.PutDir(c.ctx, base, m.full, root, put, del)
	if !m.full && (errors.Is(err, ErrCorrupt) || errors.Is(err, ErrMissing)) {
		// What the last commit has of this directory cannot be extended: it is stored anew from what is here.
		v.log.WithError(err).WithField("path", at).Warn("directory is damaged in cold; storing it whole")
		c.beginFull(m)
		if put, _, err = c.entries(m, fd, at, nil, b); err == nil {
			m.id, err = c.tx.PutDir(c.ctx, DirID{}, true, root, put, nil)
		}
	}
	if err != nil {
		return DirID{}, fmt.Errorf("store directory %q: %w", at, err)
	}
	v.ref(n)
	c.marks = append(c.marks, m)
	c.keepMarks(m)
	return m.id, nil
}

// begin decides between the touched names and the whole directory, and which stored directory it extends.
func (c *capture) begin(m *dirMark, base DirID) ([]string, DirID) {
	ds := m.n.dir
	ds.mu.Lock()
	if ds.mu.tracking {
		base = ds.mu.base
	}
	if ds.mu.tracking && !ds.mu.links && !c.rewalk && base != (DirID{}) {
		names := make([]string, 0, len(ds.mu.changed))
		for name := range ds.mu.changed {
			names = append(names, name)
			if ds.mu.changed[name].risk {
				m.touched = append(m.touched, name)
			}
		}
		ds.mu.Unlock()
		slices.Sort(names)
		slices.Sort(m.touched)
		return names, base
	}
	ds.mu.Unlock()
	c.beginFull(m)
	return nil, base
}

// beginFull prepares for reading the whole directory: from now on changes are noted by name, unless some already were not.
func (c *capture) beginFull(m *dirMark) {
	m.full = true
	ds := m.n.dir
	ds.mu.Lock()
	ds.mu.links = false // found out anew
	if !ds.mu.tracking && ds.mu.missed.epoch != c.epoch {
		ds.mu.pending = true
		ds.mu.changed = nil
	}
	ds.mu.Unlock()
}

// errNotListed: what a restored directory holds cannot be read from cold.
var errNotListed = errors.New("the directory cannot be listed")

// errNeedFull: a directory turned out to hold a name of a file with several, whose group needs the whole listing.
var errNeedFull = errors.New("directory must be read whole")

// baseDir reads the last commit's listing of a directory when it is needed first.
type baseDir struct {
	c       *capture
	id      DirID
	loaded  bool
	entries map[string]*Entry
}

func (b *baseDir) entry(name string) *Entry {
	b.load()
	return b.entries[name]
}

func (b *baseDir) load() {
	if b.loaded {
		return
	}
	b.loaded = true
	if b.id == (DirID{}) || b.c.base == nil {
		return
	}
	l, err := b.c.base.ReadDir(b.c.ctx, b.id)
	if err != nil {
		// Only a hint: without it everything is stored again.
		b.c.v.log.WithError(err).WithField("tree", b.id.Tree).Warn("cannot read the last commit's listing")
	}
	b.entries = make(map[string]*Entry, len(l.Entries))
	for i := range l.Entries {
		b.entries[l.Entries[i].Name] = &l.Entries[i]
	}
}

// entries collects what a directory holds: all of it where names is nil.
func (c *capture) entries(m *dirMark, fd int, at string, names []string, b *baseDir) (put []Entry, del []string, err error) {
	if m.full {
		list, err := listNames(fd)
		if err != nil {
			return nil, nil, fmt.Errorf("list directory %q: %w", at, err)
		}
		names = make([]string, len(list))
		for i := range list {
			names[i] = list[i].Name
		}
		slices.Sort(names)
	}
	type pendingFile struct {
		slot int
		st   unix.Statx_t
		base ID
	}
	var work []pendingFile
	m.files, m.redo, m.keep = nil, nil, false
	for _, name := range names {
		full := path.Join(at, name)
		moves := c.v.moves.Load()
		var st unix.Statx_t
		if err := statAt(fd, name, &st); err != nil {
			if errors.Is(err, unix.ENOENT) {
				del = append(del, name)
				continue
			}
			return nil, nil, fmt.Errorf("stat %q: %w", full, err)
		}
		e := entryOf(name, &st)
		if c.v.ignored(full, e.Kind == KindDir) {
			if !c.passBy(m, fd, name) {
				del = append(del, name)
			} else if old := b.entry(name); old != nil && m.full {
				put = append(put, *old)
			}
			continue
		}
		if st.Nlink > 1 && e.Kind != KindDir {
			if !m.full {
				return nil, nil, errNeedFull
			}
			m.n.noteLinks()
			m.keep = true
			e.Link = c.links.group(&st, b.entry(name), at)
		} else if e.Kind != KindDir && c.v.regainName(m.n, fd, name, &st, moves) {
			m.n.noteLinks() // what changes it right now may have been noted nowhere: the next commit reads all of this again
			m.keep = true
		}
		if e.Xattrs, err = byName(fd, name).all(); err != nil {
			if gone(fd, name) {
				del = append(del, name)
				continue
			}
			return nil, nil, err
		}
		switch e.Kind {
		case KindDir:
			id, mtime, err := c.subdir(m, fd, name, full, b)
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
				del = append(del, name) // gone since the stat; its directory is dirty again
				m.redo = append(m.redo, name)
				continue
			}
			if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EIO) || errors.Is(err, errNotListed) {
				c.fail(full, err)
				m.keep, m.redo = true, append(m.redo, name)
				if old := b.entry(name); old != nil { // better than nothing
					put = append(put, *old)
				}
				continue
			}
			if err != nil {
				return nil, nil, err
			}
			e.ID, e.Meta, e.Size, e.Mtime = id.Tree, id.Meta, 0, mtime
		case KindSymlink:
			to, err := readlinkAt(fd, name)
			if err != nil {
				del, m.redo = append(del, name), append(m.redo, name)
				continue
			}
			e.Target, e.Size = string(to), int64(len(to))
			if e.ID, err = c.tx.PutSymlink(c.ctx, e.Target, ID{}); err != nil {
				return nil, nil, fmt.Errorf("store symlink %q: %w", full, err)
			}
			c.count(0)
		case KindFile:
			id, hint, known := c.knownContent(fd, &e, &st, m, b)
			if !known {
				work = append(work, pendingFile{len(put), st, hint})
			} else if _, ok := slices.BinarySearch(m.touched, name); ok {
				c.count(0) // its attributes
			}
			e.ID = id
		default:
			e.Size = 0
			c.count(0)
		}
		put = append(put, e)
	}
	// Two files at a time: hashing and deflating take longer than reading.
	var g errgroup.Group
	g.SetLimit(max(2, runtime.GOMAXPROCS(0)))
	var mu sync.Mutex
	failed := make(map[int]bool)
	for _, w := range work {
		g.Go(func() error {
			e := &put[w.slot]
			mark, err := c.content(m.n, fd, e, &w.st, w.base)
			full := path.Join(at, e.Name)
			switch {
			case err == nil:
				mu.Lock()
				m.files = append(m.files, mark)
				mu.Unlock()
				return nil
			case errors.Is(err, unix.ENOENT) || errors.Is(err, errNotAFile):
				mu.Lock()
				failed[w.slot] = true // removed or replaced meanwhile: its directory is dirty again
				mu.Unlock()
				return nil
			case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EIO):
				c.fail(full, err)
				mu.Lock()
				failed[w.slot] = true
				mu.Unlock()
				return nil
			}
			return fmt.Errorf("store %q: %w", full, err)
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	if len(failed) > 0 {
		m.keep = true
		kept := put[:0]
		for i := range put {
			if !failed[i] {
				kept = append(kept, put[i])
				continue
			}
			m.redo = append(m.redo, put[i].Name)
			// What the last commit has of it is better than nothing.
			if old := b.entry(put[i].Name); old != nil && !gone(fd, put[i].Name) {
				kept = append(kept, *old)
			} else {
				del = append(del, put[i].Name)
			}
		}
		put = kept
	}
	if m.full {
		del = nil
		put = c.withheld(put, names, b)
	}
	return put, del, nil
}

// withheld adds what the last commit has in a directory and an untrusted restore did not make: that it is not here says nothing.
func (c *capture) withheld(put []Entry, names []string, b *baseDir) []Entry {
	if !c.v.cfg.Untrusted {
		return put
	}
	b.load()
	for name, e := range b.entries {
		if _, here := slices.BinarySearch(names, name); !here && (e.Kind == KindChar || e.Kind == KindBlock) {
			put = append(put, *e)
		}
	}
	return put
}

func gone(fd int, name string) bool {
	var st unix.Statx_t
	return errors.Is(statAt(fd, name, &st), unix.ENOENT)
}

func entryOf(name string, st *unix.Statx_t) Entry {
	e := Entry{
		Name: name, Kind: kindOf(uint32(st.Mode)), Mode: uint32(st.Mode) & 07777,
		UID: st.Uid, GID: st.Gid, Mtime: timeOf(st.Mtime), Size: int64(st.Size),
	}
	if e.Kind == KindFile {
		e.Holes = HolesOf(e.Size, st.Blocks)
	}
	if e.Kind == KindChar || e.Kind == KindBlock {
		e.Rdev = unix.Mkdev(st.Rdev_major, st.Rdev_minor)
	}
	return e
}

// subdir stores a child directory, or takes its record's word that it is as the last commit has it. The mtime is the one that
// everybody sees: listing moves warm's own for a while.
func (c *capture) subdir(m *dirMark, fd int, name, at string, b *baseDir) (DirID, Time, error) {
	n, a, err := c.v.lookupAt(m.n, fd, name)
	if err != nil {
		return DirID{}, Time{}, err
	}
	defer c.v.unref(n, 1)
	if n.dir == nil {
		return DirID{}, Time{}, unix.ENOTDIR
	}
	n.mu.Lock()
	rec := n.mu.rec
	n.mu.Unlock()
	if rec.has(recClean|recDir) && !(c.rewalk && !rec.has(recUnlisted)) {
		return DirID{Tree: rec.id, Meta: rec.meta}, a.Mtime, nil
	}
	n.dir.mu.Lock()
	known := n.dir.mu.tracking
	n.dir.mu.Unlock()
	var base DirID
	if !known {
		if e := b.entry(name); e != nil && e.Kind == KindDir {
			base = e.Dir()
		}
	}
	id, err := c.dir(n, at, base, m)
	return id, a.Mtime, err
}

func (c *capture) count(bytes int64) {
	c.mu.Lock()
	c.files++
	c.bytes += bytes
	c.mu.Unlock()
}
