package tiers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// capture is one commit's walk over what is dirty. Its cost depends on how much changed: for a clean directory its
// record is used, and of a tracked one only the names that were touched are looked at.
type capture struct {
	v      *Volume
	ctx    context.Context
	tx     cold.Tx
	base   cold.Snapshot // nil for the first commit
	root   *cold.Entry   // the root's own attributes
	before uint64        // Volume.mainEpoch before this commit
	// epoch begins at the boundary: what is touched in it is in the commit as it was before, and stays dirty.
	epoch    uint64
	boundary *boundary // the pre-images of what changed since
	live     bool      // the commit is one to the live branch: of critical names only
	repeats  bool      // nothing is captured: the commit has what its base has
	tree     *liveDir  // of a live commit: the directories with critical names
	treeErr  error
	crit     *criticalSet // the notes of critical names that the commit takes
	due      int64        // the value of Volume.backupDue when it began
	part     *part        // what of it is left out for lack of time; nil: nothing
	regained riskCount    // what earlier commits left out and this one has, which stands
	short    bool         // the commit stands, and left something out for lack of time
	rewalk   bool         // clean directories are walked too: what is ignored may have changed
	later    atomic.Bool  // of some file it has what was written after the boundary
	begun    time.Time    // when the boundary was drawn
	expected int64        // how many changed names were counted until then

	mu      mutex[leaf]
	files   int64
	bytes   int64
	missing []leftOut // what could not be taken

	marks    []*dirMark // children before parents
	marked   int        // how many file marks there were so far
	markFile *markFile  // has file marks beyond the first ones; nil while they are few
	links    linkGroups
}

// dirMark is a directory that was stored, and what will be recorded of it once the commit stands.
type dirMark struct {
	n       *Inode // holds a reference
	parent  *dirMark
	name    string
	id      cold.DirID
	full    bool
	touched []string // names whose changes were at risk, sorted; not known where full
	keep    bool     // it is not to be marked clean: something below is not, or was not taken
	redo    []string // names that the next commit has to look at again
	files   []fileMark
	stored  markRange // where they are in markFile, if files is nil
}

// fileMark is a file whose content the commit has, and that may be recorded clean.
type fileMark struct {
	name  string
	ino   uint64
	gen   uint64
	read  uint64 // the number of the read (written.start)
	id    cold.ID
	size  int64
	mtime cold.Time

	untracked bool // it may have changed unseen since: it is not recorded
}

// fail notes that the commit does not take what is at this path, a file of so many bytes or 0, because of err. It stays
// at risk until a commit has it.
func (c *capture) fail(at string, bytes int64, err error) {
	c.mu.Lock()
	c.missing = append(c.missing, leftOut{path: at, bytes: bytes, err: err})
	c.mu.Unlock()
}

// failLate is fail for a file that is left out for lack of time, and changed last at changed.
func (c *capture) failLate(at string, bytes int64, changed cold.Time) {
	c.mu.Lock()
	c.missing = append(c.missing, leftOut{path: at, bytes: bytes, err: errNoTime, late: true,
		since: time.Unix(changed.Sec, int64(changed.Nsec)).UnixNano()})
	c.mu.Unlock()
}

// dir stores the directory n, which is at the path at, and returns its id. base is what the last commit has under this
// path, zero if unknown or none. parent is nil for the root.
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
	// n is lazy here only if a stock client changed it: a clean lazy directory is taken from its record.
	if err := v.list(c.ctx, n); err != nil {
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

// begin returns the names to look at and the stored directory that they extend. Where the touched names are not known
// it calls beginFull instead, and returns no names.
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
				continue // touched only since the boundary: base has it
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

// beginFull prepares for reading the whole directory. From now on changes are noted by name, unless one of this epoch
// was already missed. Where a capture that failed noted them before, those since the boundary stay: this commit does
// not have them.
func (c *capture) beginFull(m *dirMark) {
	m.full = true
	ds := m.n.dir
	ds.mu.Lock()
	ds.mu.links = false // the walk finds out
	if !ds.mu.tracking && ds.mu.missed != c.epoch {
		ds.mu.pending = true
		maps.DeleteFunc(ds.mu.changed, func(_ string, t touch) bool { return t.epoch < c.epoch })
	}
	ds.mu.Unlock()
}

// errNotListed says that the children of a lazy directory cannot be read from cold.
var errNotListed = errors.New("the directory cannot be listed")

// baseDir is the last commit's listing of a directory. It is read when it is needed first.
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
		// The listing saves work only: without it everything is stored again.
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
