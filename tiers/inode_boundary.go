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

// boundary is the point between two system calls that a commit shows. It keeps the volume as it was then while the
// commit walks over it. Whoever changes something first leaves its pre-image here: the binding of a name, what stat and
// the attributes show of an inode, the bytes of a file (inode_preserved.go). What has no pre-image is still as it was.
// What the walk has taken already, and what did not exist at the boundary, needs none.
//
// A pre-image that cannot be taken never holds up or fails the change: it spoils the boundary, and with it the commit.
type boundary struct {
	v      *Volume
	epoch  uint64
	maxFDs int // descriptors that it may keep open

	live   bool   // the walk takes critical names alone
	rewalk bool   // the walk goes into clean directories too
	rules  uint64 // ruleBook.changes at the boundary

	over atomic.Bool // nothing is kept any more: everything is taken, or the boundary is spoiled

	mu     mutex[lockBoundary] // a leaf
	err    error               // what spoiled it
	inodes map[inoKey]*preimage
	names  map[inoKey]map[string]binding // by directory
	// With a reference each: what the walk will need itself; true: for a descriptor's price.
	held map[*Inode]bool
	fds  int
	file preimageFile
}

type inoKey struct{ ino, gen uint64 }

func (n *Inode) key() inoKey { return inoKey{n.ino, n.gen} }

// binding is what a name stood for at the boundary: nothing where pre is nil.
type binding struct {
	pre *preimage
	n   *Inode // a directory that must be walked, or a file that must be read; else nil
}

// preimage is an inode as it was at the boundary.
type preimage struct {
	attr      Attr // as stat shows it
	rdev      uint64
	xattrs    []cold.Xattr
	target    string // of a symlink
	rec       warm.Record
	captured  cold.ID // what the last commit stored of a file that is open for writing
	open      bool    // for writing
	ungranted bool    // contents that no commit has, on volumes without records
	taken     bool    // the walk had it already
	held      *heldback.Held
	err       error
}

// ErrSpoiled says that a commit was given up because it could not keep apart what changed while it was made. It can be
// tried again.
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

// spoil gives the boundary up; the first reason counts.
func (m *boundary) spoil(err error) {
	m.mu.Lock()
	if m.err == nil && !m.over.Load() {
		m.err = fmt.Errorf("%w: %w", ErrSpoiled, err)
	}
	m.over.Store(true)
	m.mu.Unlock()
}

// failed says what spoiled the boundary.
func (m *boundary) failed() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// close ends the boundary: nothing is kept any more, and what was is let go.
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

// preimage looks for n's pre-image.
func (m *boundary) preimage(n *Inode) *preimage {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.inodes[n.key()]
}

// has says that an inode has a pre-image.
func (m *boundary) has(key inoKey) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.inodes[key] != nil
}

// binding looks for the pre-image of a name; its inode has a reference more.
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

// bound gives the names of dir that have a pre-image.
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

// done notes that the walk has all of n, which it will not come by again.
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

// countFDs notes that the boundary keeps so many descriptors more open.
func (m *boundary) countFDs(more int) {
	m.mu.Lock()
	m.fds += more
	many := m.fds > m.maxFDs
	m.mu.Unlock()
	if many {
		m.spoil(fmt.Errorf("more than %d files were removed or written at the same time", m.maxFDs))
	}
}

// keep takes the pre-image of n unless there is one. n.mu is held; between begin and end.
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

// look fills p with what n is now, looking at it by (dirfd, name) and at. n.mu is held. ESTALE: something else is
// there.
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

// known says that a commit has the bytes of a file under p.id().
func (p *preimage) known() bool {
	if p.rec.IsStub() || !p.captured.IsZero() && p.open {
		return true
	}
	return p.rec.Has(warm.FlagClean) && p.captured.IsZero() && p.rec.Size == int64(p.attr.Size) &&
		p.rec.Mtime == p.attr.Mtime
}

// id is what cold had of a file last.
func (p *preimage) id() cold.ID {
	if !p.captured.IsZero() {
		return p.captured
	}
	return p.rec.ID
}

// failure says why there is no pre-image.
func (p *preimage) failure() error {
	if p == nil {
		return nil
	}
	return p.err
}

// walked says that the walk will need the inode itself: what the record says is not all.
func (p *preimage) walked(k cold.Kind) bool {
	switch k {
	case cold.KindDir:
		return !p.rec.Has(warm.FlagClean | warm.FlagDir)
	case cold.KindFile:
		return !p.known()
	}
	return false
}

// keepPast leaves n's pre-image for a commit that is under way. n.mu is held; between begin and end.
func (v *Volume) keepPast(n *Inode) {
	if m := v.boundary.Load(); m != nil {
		m.keep(n)
	}
}

// keepBound leaves for a commit that is under way that (dir, name) stands for n, before that changes. Between begin and
// end.
func (v *Volume) keepBound(dir *Inode, name string, n *Inode) {
	m := v.boundary.Load()
	if m == nil || m.bindingKept(dir, name) {
		return
	}
	n.mu.Lock()
	b := binding{pre: m.keep(n)}
	n.mu.Unlock()
	if b.pre == nil { // it was made since the boundary, and moved here: what it replaced, or nothing, is noted
		return
	}
	if !b.pre.taken && (b.pre.walked(n.kind) || m.rewalk && n.kind == cold.KindDir) {
		b.n = n
	}
	m.bind(dir, name, b)
}

// keepUnbound leaves for a commit that is under way that (dir, name) stands for nothing, before that changes. Where it
// stands for something, whoever is about to make it will fail. Between begin and end.
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

// bindingKept says that there is nothing to do about a name that changes.
func (m *boundary) bindingKept(dir *Inode, name string) bool {
	if m.over.Load() || dir.born.Load() == m.epoch || dir.taken.Load() == m.epoch {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.names[dir.key()][name]
	return ok
}

// bind notes a binding, unless somebody else did meanwhile: whoever comes first saw it before anybody changed it.
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

// lost notes that n, which may be held, goes on as a descriptor alone.
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
