package tiers

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/heldback"
	"emberfs/tiers/warm"
)

// boundary is the point between two system calls that a commit shows. While the commit walks over the volume, whoever
// changes something first leaves its pre-image here: what a name stood for, what stat and the extended attributes show
// of an inode, the bytes of a file (inode_preserved.go). What has no pre-image is still as it was. What the walk has
// already taken, and what did not exist at the boundary, needs none.
//
// A pre-image that cannot be taken spoils the boundary, and with it the commit; the change itself never fails or waits.
type boundary struct {
	v      *Volume
	epoch  uint64
	maxFDs int // how many descriptors it may keep open

	live   bool   // the commit is one to the live branch: its walk takes critical names only
	rewalk bool   // the walk goes into clean directories too
	rules  uint64 // the value of ruleBook.changes at the boundary

	over atomic.Bool // pre-images are no longer kept: everything is taken, or the boundary is spoiled

	mu     mutex[lockBoundary] // guards what follows; only table.mu is locked under it
	err    error               // why the boundary is spoiled; nil: it is not
	inodes map[inoKey]*preimage
	names  map[inoKey]map[string]binding // by directory
	// held are inodes that the walk will need, each with a reference. The value is true where it counts in fds because
	// it has lost its name.
	held map[*Inode]bool
	fds  int
	file preimageFile
}

type inoKey struct{ ino, gen uint64 }

func (n *Inode) key() inoKey { return inoKey{n.ino, n.gen} }

// binding is what a name stood for at the boundary; pre is nil where it stood for nothing.
type binding struct {
	pre *preimage
	n   *Inode // a directory that must be walked or a file that must be read; nil where pre is enough
}

// preimage is an inode as it was at the boundary.
type preimage struct {
	attr      Attr // as stat shows it
	rdev      uint64
	xattrs    []cold.Xattr
	target    string // a symlink's target
	rec       warm.Record
	captured  cold.ID // as Inode.mu.captured
	open      bool    // it was open for writing
	ungranted bool    // no commit has the contents (needed on volumes without records)
	taken     bool    // set on its own: the walk has taken the inode already
	held      *heldback.Held
	err       error
}

// ErrSpoiled says that a commit was given up, because something changed during it whose pre-image could not be kept.
// The commit can be tried again.
var ErrSpoiled = errors.New("the volume changed faster than the commit could set aside what it was to take")

func newBoundary(v *Volume, epoch uint64) *boundary {
	limit := 1024
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) == nil {
		limit = int(min(lim.Cur, 1<<20))
	}
	return &boundary{
		v: v, epoch: epoch, maxFDs: limit / 4, rules: v.book.changes.Load(),
		inodes: map[inoKey]*preimage{}, names: map[inoKey]map[string]binding{}, held: map[*Inode]bool{},
	}
}

// spoil gives the boundary up because of err. Only the first reason is kept.
func (m *boundary) spoil(err error) {
	m.mu.Lock()
	if m.err == nil && !m.over.Load() {
		m.err = fmt.Errorf("%w: %w", ErrSpoiled, err)
	}
	m.over.Store(true)
	m.mu.Unlock()
}

// failed returns the reason for which the boundary was spoiled, or nil where it is intact.
func (m *boundary) failed() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// close ends the boundary: no more pre-images are kept, and those that were are dropped. It may be called twice.
func (m *boundary) close() {
	m.v.boundary.CompareAndSwap(m, nil)
	m.mu.Lock()
	m.over.Store(true)
	held := m.held
	m.held, m.inodes, m.names = nil, nil, nil
	m.mu.Unlock()
	for n := range held {
		if p := n.preserved.Load(); p != nil {
			p.end()
		}
		m.v.unref(n, 1)
	}
	m.mu.Lock()
	m.file.close()
	m.mu.Unlock()
}

// preimage returns n's pre-image, or nil where there is none.
func (m *boundary) preimage(n *Inode) *preimage {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.inodes[n.key()]
}

// has says whether an inode has a pre-image.
func (m *boundary) has(key inoKey) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.inodes[key] != nil
}

// binding returns the pre-image of a name; ok is false where there is none. The caller gets a reference on b.n.
func (m *boundary) binding(dir *Inode, name string) (b binding, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok = m.names[dir.key()][name]
	if _, held := m.held[b.n]; !held {
		b.n = nil
	} else {
		m.v.ref(b.n)
	}
	return b, ok
}

// bound returns the names in dir that have a pre-image.
func (m *boundary) bound(dir *Inode) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for name := range m.names[dir.key()] {
		out = append(out, name)
	}
	return out
}

// hold takes a reference to n until the boundary is closed; m.mu is held.
func (m *boundary) hold(n *Inode) {
	if m.held == nil {
		return
	}
	if _, ok := m.held[n]; !ok {
		m.v.ref(n)
		m.held[n] = false
	}
}

// done notes that the walk has taken all of n and will not come to it again, and drops the pre-images of n.
func (m *boundary) done(n *Inode) {
	n.taken.Store(m.epoch)
	if p := n.preserved.Load(); p != nil {
		p.end()
	}
	m.mu.Lock()
	counted, held := m.held[n]
	delete(m.held, n)
	delete(m.inodes, n.key())
	delete(m.names, n.key())
	if counted {
		m.fds--
	}
	m.mu.Unlock()
	if held {
		m.v.unref(n, 1)
	}
}

// countFDs adds to the number of descriptors that the boundary keeps open, and spoils it where they are too many.
func (m *boundary) countFDs(more int) {
	m.mu.Lock()
	m.fds += more
	many := m.fds > m.maxFDs
	m.mu.Unlock()
	if many {
		m.spoil(fmt.Errorf("more than %d files were removed or written at the same time", m.maxFDs))
	}
}

// keep returns the pre-image of n, and takes it first if there is none. It returns nil where none is needed: n was made
// since the boundary, or the boundary is over. Where the walk has taken n, only the field taken is set in the result.
// n.mu is held; called between begin and end.
func (m *boundary) keep(n *Inode) *preimage {
	if m.over.Load() || n.born.Load() == m.epoch {
		return nil
	}
	if n.taken.Load() == m.epoch {
		return &preimage{taken: true}
	}
	if p := m.preimage(n); p != nil {
		return p
	}
	p := &preimage{}
	err := m.v.locate(n, func(dirfd int, name string, anon bool) error {
		return m.v.look(n, dirfd, name, target(dirfd, name, anon), p)
	})
	if err != nil {
		p.err = fmt.Errorf("look at inode %d before it changes: %w", n.ino, err)
	}
	m.mu.Lock()
	if m.inodes != nil {
		m.inodes[n.key()] = p
	}
	m.mu.Unlock()
	return p
}

// look fills p with the present state of n, which it reaches by (dirfd, name) and, for extended attributes, by at. It
// returns ESTALE where (dirfd, name) is another inode. n.mu is held.
func (v *Volume) look(n *Inode, dirfd int, name string, at warm.XattrTarget, p *preimage) error {
	var st unix.Statx_t
	if err := warm.StatAt(dirfd, name, &st); err != nil {
		return err
	}
	if st.Ino != n.ino || warm.GenOf(&st) != n.gen {
		return unix.ESTALE
	}
	p.attr = n.attrLocked(&st)
	p.rdev = unix.Mkdev(st.Rdev_major, st.Rdev_minor)
	p.rec, p.captured, p.open = n.mu.rec, n.mu.captured, n.mu.writers > 0
	p.ungranted = n.mu.ungranted || v.dirtyHint.has(n.ino)
	var err error
	if p.held, err = heldback.Holding(v.held, n.heldKey()); err != nil {
		return err
	}
	if n.kind == cold.KindSymlink {
		var to []byte
		if to, err = v.readlinkQuiet(dirfd, name); err != nil {
			return err
		}
		p.target = string(to)
	}
	if !n.mu.noXattrs {
		p.xattrs, err = at.All()
	}
	return err
}

// known says whether a commit has the bytes of this file, under p.id().
func (p *preimage) known() bool {
	if p.rec.IsStub() || !p.captured.IsZero() && p.open {
		return true
	}
	return p.rec.Has(warm.FlagClean) && p.captured.IsZero() && p.rec.Size == int64(p.attr.Size) &&
		p.rec.Mtime == p.attr.Mtime
}

// id is the object that cold had last for this file's bytes.
func (p *preimage) id() cold.ID {
	if !p.captured.IsZero() {
		return p.captured
	}
	return p.rec.ID
}

// failure returns the error with which the pre-image could not be taken. p may be nil.
func (p *preimage) failure() error {
	if p == nil {
		return nil
	}
	return p.err
}

// walked says whether the walk will need the inode itself, because the record does not say what its bytes or children
// are.
func (p *preimage) walked(k cold.Kind) bool {
	switch k {
	case cold.KindDir:
		return !p.rec.Has(warm.FlagClean | warm.FlagDir)
	case cold.KindFile:
		return !p.known()
	}
	return false
}

// keepPast keeps n's pre-image, attributes and record, for a commit under way. It is called before they change, between
// begin and end. n.mu is held.
func (v *Volume) keepPast(n *Inode) {
	if m := v.boundary.Load(); m != nil {
		m.keep(n)
	}
}

// keepBound keeps, for a commit under way, that (dir, name) stands for n. It is called before that changes, between
// begin and end.
func (v *Volume) keepBound(dir *Inode, name string, n *Inode) {
	m := v.boundary.Load()
	if m == nil || m.bindingKept(dir, name) {
		return
	}
	n.mu.Lock()
	b := binding{pre: m.keep(n)}
	n.mu.Unlock()
	// n was made since the boundary and moved here: what the name stood for before is kept already.
	if b.pre == nil {
		return
	}
	if !b.pre.taken && (b.pre.walked(n.kind) || m.rewalk && n.kind == cold.KindDir) {
		b.n = n
	}
	m.bind(dir, name, b)
}

// keepUnbound keeps, for a commit under way, that (dir, name) stands for nothing. It is called before the name is made,
// between begin and end. Where the name exists it does nothing: the caller's system call will fail.
func (v *Volume) keepUnbound(dir *Inode, dirfd int, name string) {
	m := v.boundary.Load()
	if m == nil || m.bindingKept(dir, name) {
		return
	}
	var st unix.Statx_t
	switch err := warm.StatAt(dirfd, name, &st); {
	case err == unix.ENOENT:
		m.bind(dir, name, binding{})
	case err != nil:
		m.spoil(fmt.Errorf("look at %q in directory %d before it changes: %w", name, dir.ino, err))
	}
}

// bindingKept says whether a change of the name needs no pre-image, or has one already.
func (m *boundary) bindingKept(dir *Inode, name string) bool {
	if m.over.Load() || dir.born.Load() == m.epoch || dir.taken.Load() == m.epoch {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.names[dir.key()][name]
	return ok
}

// bind stores a binding unless there is one: the first caller saw the name before anybody changed it.
func (m *boundary) bind(dir *Inode, name string, b binding) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names == nil {
		return
	}
	names := m.names[dir.key()]
	if names == nil {
		names = map[string]binding{}
		m.names[dir.key()] = names
	}
	if _, ok := names[name]; ok {
		return
	}
	names[name] = b
	if b.n != nil {
		m.hold(b.n)
	}
}

// lost notes that n has lost its name and lives on as an open descriptor. If the boundary holds n, that descriptor
// counts.
func (v *Volume) lost(n *Inode) {
	m := v.boundary.Load()
	if m == nil || m.over.Load() {
		return
	}
	m.mu.Lock()
	counted, held := m.held[n]
	if held {
		m.held[n] = true
	}
	m.mu.Unlock()
	if held && !counted {
		m.countFDs(1)
	}
}
