package tiers

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// capture is one commit's walk over what is dirty. Its cost follows the change: clean directories are taken by their
// record, tracked ones by the names that were touched.
type capture struct {
	v      *Volume
	ctx    context.Context
	tx     cold.Tx
	base   cold.Snapshot // nil for the first commit
	root   *cold.Entry   // the root's own attributes
	before uint64        // Volume.mainEpoch as it was
	// The boundary: what is touched in this epoch is in the commit as it was before, and stays dirty.
	epoch    uint64
	boundary *boundary // what changed since the boundary, as it was then
	live     bool      // to the live branch: critical names alone
	absorbs  bool      // nothing: main only takes the place of the live branch
	tree     *liveDir  // those, and why they cannot be had
	treeErr  error
	crit     *criticalSet // what of them the commit takes
	due      int64        // Volume.backupDue until it was begun
	rewalk   bool         // clean marks are not enough: what is ignored may have changed

	mu      mutex[leaf]
	files   int64
	bytes   int64
	missing []leftOut // what could not be taken, and why

	marks    []*dirMark // children before parents
	marked   int        // file marks so far
	markFile *markFile  // nil while they are few
	links    linkGroups
}

// dirMark is what will be recorded of a directory once the commit stands.
type dirMark struct {
	n       *Inode // holds a reference
	parent  *dirMark
	name    string
	id      cold.DirID
	full    bool
	touched []string // names that were changed, sorted; unknown where full
	keep    bool     // not to be marked clean: something below is not, or could not be taken
	redo    []string // names to look at again next time
	files   []fileMark
	stored  markRange // or where they lie
}

// fileMark is a file whose content the commit has.
type fileMark struct {
	name  string
	ino   uint64
	gen   uint64
	read  uint64 // which read of it (written.start)
	id    cold.ID
	size  int64
	mtime cold.Time

	untracked bool // it may have changed while it was read, or since: not to be recorded
}

// fail notes what could not be taken: what is at a path, of so many bytes. It stays at risk until a commit has it.
func (c *capture) fail(at string, bytes int64, err error) {
	c.mu.Lock()
	c.missing = append(c.missing, leftOut{path: at, bytes: bytes, err: err})
	c.mu.Unlock()
}

// dir stores the directory n. base is what the last commit has under this path, zero if unknown or none.
func (c *capture) dir(n *Inode, at string, base cold.DirID, parent *dirMark) (cold.DirID, error) {
	if err := c.ctx.Err(); err != nil {
		return cold.DirID{}, err
	}
	if err := cold.TooDeepToTake(at); err != nil {
		return cold.DirID{}, err
	}
	v := c.v
	if id, done, err := c.describe(n, at, parent); done || err != nil {
		return id, err
	}
	m := &dirMark{n: n, parent: parent, name: path.Base(at)}
	if err := v.list(c.ctx, n); err != nil { // only what a stock client changed, else its record's word is taken
		return cold.DirID{}, fmt.Errorf("%w: %w", errNotListed, err)
	}
	names, base := c.begin(m, base)
	fd, err := v.dirFD(n)
	if err != nil {
		return cold.DirID{}, fmt.Errorf("open directory %q: %w", at, err)
	}
	defer v.unpin(n)
	b := &baseDir{c: c, id: base}
	var st unix.Statx_t
	if err := warm.StatAt(fd, "", &st); err == nil && v.mayLend(&st) && uint32(st.Mode)&0500 != 0500 {
		undo, err := v.lend(n, fd, 0500)
		if err != nil {
			return cold.DirID{}, fmt.Errorf("read directory %q: %w", at, err)
		}
		defer undo()
	}
	w := &dirWalk{c: c, m: m, fd: fd, at: at, b: b}
	put, del, err := w.entries(names)
	if err != nil {
		return cold.DirID{}, err
	}
	var root *cold.Root
	if n == v.root {
		root = &cold.Root{Entry: *c.root, Links: v.links.spanning(c.links.spanning())}
	}
	m.id, err = c.tx.PutDir(c.ctx, base, m.full, root, put, del)
	for much, more := (*cold.TooMuchError)(nil), true; more && errors.As(err, &much); {
		if put, more = w.without(much, put, root); more {
			m.id, err = c.tx.PutDir(c.ctx, base, m.full, root, put, del)
		}
	}
	if !m.full && (errors.Is(err, cold.ErrCorrupt) || errors.Is(err, cold.ErrMissing)) {
		// What the last commit has of this directory cannot be extended: it is stored anew from what is here.
		v.log.WithError(err).WithField("path", at).Warn("directory is damaged in cold; storing it whole")
		c.beginFull(m)
		if put, _, err = w.entries(nil); err == nil {
			m.id, err = c.tx.PutDir(c.ctx, cold.DirID{}, true, root, put, nil)
		}
	}
	if err != nil {
		return cold.DirID{}, fmt.Errorf("store directory %q: %w", at, err)
	}
	v.ref(n)
	c.marks = append(c.marks, m)
	c.keepMarks(m)
	c.boundary.done(n)
	return m.id, nil
}

// begin decides between the touched names and the whole directory, and which stored directory it extends.
func (c *capture) begin(m *dirMark, base cold.DirID) ([]string, cold.DirID) {
	ds := m.n.dir
	ds.mu.Lock()
	if ds.mu.tracking && !(m.n == c.v.root && c.v.live.has(c.base, base)) {
		base = ds.mu.base
	}
	if ds.mu.tracking && !ds.mu.links && !c.rewalk && base != (cold.DirID{}) {
		names := make([]string, 0, len(ds.mu.changed))
		for name, t := range ds.mu.changed {
			if t.epoch >= c.epoch && !t.earlier {
				continue // as base has it
			}
			names = append(names, name)
			if t.risk {
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

// beginFull prepares for reading the whole directory: from now on changes are noted by name, unless some already were
// not.
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

// baseDir reads the last commit's listing of a directory when it is needed first.
type baseDir struct {
	c       *capture
	id      cold.DirID
	loaded  bool
	entries map[string]*cold.Entry
}

func (b *baseDir) entry(name string) *cold.Entry {
	b.load()
	return b.entries[name]
}

func (b *baseDir) load() {
	if b.loaded {
		return
	}
	b.loaded = true
	if b.id == (cold.DirID{}) || b.c.base == nil {
		return
	}
	l, err := b.c.base.ReadDir(b.c.ctx, b.id)
	if err != nil {
		// Only a hint: without it everything is stored again.
		b.c.v.log.WithError(err).WithField("tree", b.id.Tree).Warn("cannot read the last commit's listing")
	}
	b.entries = make(map[string]*cold.Entry, len(l.Entries))
	for i := range l.Entries {
		b.entries[l.Entries[i].Name] = &l.Entries[i]
	}
}

func (c *capture) count(bytes int64) {
	c.mu.Lock()
	c.files++
	c.bytes += bytes
	c.mu.Unlock()
}
