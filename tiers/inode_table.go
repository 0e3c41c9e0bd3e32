package tiers

import (
	"emberfs/tiers/cold"
	"emberfs/tiers/warm"

	"golang.org/x/sys/unix"
)

// table finds inodes by node id and by warm's inode number.
type table struct {
	mu    rwMutex[lockTable]
	byID  map[uint64]*Inode
	byIno map[uint64]*Inode
	next  uint64
	// clock is the head of a ring of all inodes but the root; the hand comes to clock.next next (inode_prune.go).
	clock Inode
	max   int           // how many inodes there should be at most
	wake  chan struct{} // capacity 1: the table has more than max
}

func (t *table) init(limit int) {
	t.byID, t.byIno = map[uint64]*Inode{}, map[uint64]*Inode{}
	t.clock.prev, t.clock.next = &t.clock, &t.clock
	t.max, t.wake = limit, make(chan struct{}, 1)
}

// Inode returns the inode with this node id, or nil.
func (v *Volume) Inode(id uint64) *Inode {
	if id&areaBit != v.areaBit() {
		if v = v.area.Load(); v == nil {
			return nil
		}
	}
	v.table.mu.RLock()
	n := v.table.byID[id]
	v.table.mu.RUnlock()
	if n != nil && !n.used.Load() {
		n.used.Store(true)
	}
	return n
}

// intern returns the inode that st describes, with a reference for the caller, and whether it is new. A new one has no
// name and no record yet, and its mu is held: the caller loads the record and unlocks.
func (v *Volume) intern(st *unix.Statx_t) (n *Inode, fresh bool) {
	t := &v.table
	gen := warm.GenOf(st)
	t.mu.Lock()
	defer t.mu.Unlock()
	if n = t.byIno[st.Ino]; n != nil && n.gen == gen {
		n.refs++
		return n, false
	}
	t.next++
	n = &Inode{vol: v, id: t.next, ino: st.Ino, gen: gen, kind: warm.KindOf(uint32(st.Mode)), refs: 1, anon: -1}
	n.mu.mode = uint32(st.Mode)
	n.mu.marks = 1 // more than marksSynced: nobody knows whether it is durable
	if n.kind == cold.KindDir {
		n.dir = &dirState{fd: -1}
	}
	n.mu.TryLock() // never fails: nobody else knows n. Lock is not allowed under table.mu
	t.byID[n.id] = n
	t.byIno[n.ino] = n
	if !n.isRoot() {
		n.used.Store(true)
		n.lastUse.Store(v.forgotten.take(n.ino))
		t.link(n)
		t.crowded()
	}
	return n, true
}

// peek returns the inode that st describes, or nil, without a reference: the caller may only use its atomics, and what
// its mu guards.
func (v *Volume) peek(st *unix.Statx_t) *Inode {
	v.table.mu.RLock()
	defer v.table.mu.RUnlock()
	if n := v.table.byIno[st.Ino]; n != nil && n.gen == warm.GenOf(st) {
		return n
	}
	return nil
}

// peekRef is peek, with a reference for the caller.
func (v *Volume) peekRef(st *unix.Statx_t) *Inode {
	v.table.mu.Lock()
	defer v.table.mu.Unlock()
	if n := v.table.byIno[st.Ino]; n != nil && n.gen == warm.GenOf(st) {
		n.refs++
		return n
	}
	return nil
}

func (v *Volume) ref(n *Inode) {
	v.table.mu.Lock()
	n.refs++
	v.table.mu.Unlock()
}

// Forget drops as many of the kernel's references on n as nlookup says.
func (v *Volume) Forget(n *Inode, nlookup uint64) { v.unref(n, int64(nlookup)) }

// unref drops references on n. With the last one n leaves the table, and its reference on its parent is dropped.
func (v *Volume) unref(n *Inode, count int64) {
	t := &v.table
	for n != nil {
		t.mu.Lock()
		n.refs -= count
		if n.refs > 0 {
			t.mu.Unlock()
			return
		}
		delete(t.byID, n.id)
		t.unlink(n)
		if t.byIno[n.ino] == n {
			delete(t.byIno, n.ino)
		}
		if v.capturing.Load() != 0 && n.epoch.Load() >= v.capturing.Load() {
			v.late.add(n.ino) // so that the commit under way does not record it as clean
		}
		t.mu.Unlock()

		v.ns.Lock()
		parent := n.parent
		n.parent = nil
		anon := n.anon
		n.anon = -1
		v.ns.Unlock()
		if anon >= 0 {
			unix.Close(anon)
			v.nameless.Add(-1)
		}
		if n.dir != nil {
			v.dirs.drop(n)
		}
		if !v.records && v.areaOf == nil {
			v.keepDirtyHint(n)
		}
		v.keepUse(n)
		n, count = parent, 1
	}
}

// inoSet is a set of inode numbers.
type inoSet struct {
	mu  mutex[leaf]
	set map[uint64]struct{}
}

func (s *inoSet) add(ino uint64) {
	s.mu.Lock()
	if s.set == nil {
		s.set = make(map[uint64]struct{})
	}
	s.set[ino] = struct{}{}
	s.mu.Unlock()
}

func (s *inoSet) has(ino uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.set[ino]
	return ok
}

func (s *inoSet) remove(ino uint64) {
	s.mu.Lock()
	delete(s.set, ino)
	s.mu.Unlock()
}

func (s *inoSet) clear() {
	s.mu.Lock()
	s.set = nil
	s.mu.Unlock()
}
