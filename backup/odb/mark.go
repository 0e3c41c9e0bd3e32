package odb

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"emberfs/tiers/cold"
)

// marker marks what is reachable. Objects have numbers: first those in packs, in the order of the packs' indexes and
// the biggest pack first, then the loose ones. If an object exists in several places, its mark is at the number of the
// first. It takes one bit of memory per object, and 4 bytes for each object that waits to be walked.
type marker struct {
	db    *DB
	ctx   context.Context
	packs []*pack
	first []int // for each pack, the number of its first object
	loose []looseFile
	base  int      // number of the first loose object
	bits  []uint64 // marks
	stack []uint32 // marked commits, trees and tags that are still to be walked

	doubles []copyOf // all places of objects except the first ones, sorted by number
	recent  int      // the pack that an object was last found in

	newer   map[ID]struct{} // marked objects in packs that came after the list was made
	waiting []ID            // those of newer that are still to be walked
	shallow map[ID]struct{}
	// lenient says that missing objects are ignored.
	lenient bool
	// promised says that the remote has promised to have what is missing here.
	promised bool
	// sealed says that marking was complete. A further mark means that an object came into use meanwhile; late counts
	// those.
	sealed bool
	late   int

	progress func(done, total int64)
	marked   int64
}

// copyOf is a further place of an object (n) with the object's first place.
type copyOf struct{ n, first uint32 }

const (
	maxWalked = 256 << 20 // maximum bytes of a tree, commit or tag; git makes none that big
	maxNewer  = 1 << 20   // maximum number of objects that may be added during a walk
)

func (db *DB) newMarker(ctx context.Context, l *packList, progress func(done, total int64)) (*marker, error) {
	m := &marker{db: db, ctx: ctx, packs: slices.Clone(l.packs), newer: map[ID]struct{}{}, progress: progress}
	slices.SortStableFunc(m.packs, func(a, b *pack) int { return b.idx.count - a.idx.count })
	for _, p := range m.packs {
		m.first = append(m.first, m.base)
		m.base += p.idx.count
		promised, err := exists(p.base + ".promisor")
		if err != nil {
			return nil, err
		}
		m.promised = m.promised || promised
	}
	var err error
	if m.loose, _, err = db.looseObjects(); err != nil {
		return nil, err
	}
	if m.total() > math.MaxUint32 {
		return nil, fmt.Errorf("%w: %d objects", ErrTooLarge, m.total())
	}
	m.bits = make([]uint64, (m.total()+63)/64)
	if m.shallow, err = db.shallow(); err != nil {
		return nil, err
	}
	return m, m.findDoubles()
}

func (m *marker) total() int { return m.base + len(m.loose) }

// findDoubles finds the objects that exist in several places.
func (m *marker) findDoubles() error {
	var last ID
	first := -1
	for k, i := range mergeIndexes(m.packs) {
		id, n := m.packs[k].idx.id(i), m.first[k]+i
		if first >= 0 && id == last {
			m.doubles = append(m.doubles, copyOf{uint32(n), uint32(first)})
			continue
		}
		if first, last = n, id; i%4096 == 0 && m.ctx.Err() != nil {
			return m.ctx.Err()
		}
	}
	for i, o := range m.loose {
		if n := m.findPacked(o.id); n >= 0 {
			m.doubles = append(m.doubles, copyOf{uint32(m.base + i), uint32(n)})
		}
	}
	slices.SortFunc(m.doubles, func(a, b copyOf) int { return cmp.Compare(a.n, b.n) })
	for i := range m.doubles { // for a loose object it may not be the first place yet
		m.doubles[i].first = uint32(m.canonical(int(m.doubles[i].first)))
	}
	return nil
}

// canonical returns the number of the first place of the object at n.
func (m *marker) canonical(n int) int {
	i, ok := slices.BinarySearchFunc(m.doubles, uint32(n), func(d copyOf, n uint32) int { return cmp.Compare(d.n, n) })
	if ok {
		return int(m.doubles[i].first)
	}
	return n
}

// find returns the number that the object's mark is at, or -1 if the object was not here when the walk began.
func (m *marker) find(id ID) int {
	n := m.findPacked(id)
	if n < 0 {
		i, ok := slices.BinarySearchFunc(m.loose, id, func(o looseFile, id ID) int {
			return bytes.Compare(o.id[:], id[:])
		})
		if !ok {
			return -1
		}
		n = m.base + i
	}
	return m.canonical(n)
}

// findPacked returns the number of one of the object's places in the packs, or -1. It tries the pack of the last object
// first, because objects that are walked together are mostly in one pack.
func (m *marker) findPacked(id ID) int {
	if len(m.packs) == 0 {
		return -1
	}
	if i := m.packs[m.recent].idx.find(id); i >= 0 {
		return m.first[m.recent] + i
	}
	for k, p := range m.packs {
		if i := p.idx.find(id); i >= 0 {
			m.recent = k
			return m.first[k] + i
		}
	}
	return -1
}

func (m *marker) isMarked(n int) bool { return m.bits[n/64]&(1<<(n%64)) != 0 }

// live reports whether object i of pack k is marked.
func (m *marker) live(k, i int) bool { return m.isMarked(m.canonical(m.first[k] + i)) }

// liveLoose reports whether loose object i is marked.
func (m *marker) liveLoose(i int) bool { return m.isMarked(m.canonical(m.base + i)) }

// reach marks id and queues it for walking, unless it is a leaf, that is, an entry of a tree other than a tree.
func (m *marker) reach(id ID, leaf bool) error {
	if id == EmptyTree {
		return nil
	}
	n := m.find(id)
	if n < 0 {
		return m.reachNewer(id, leaf)
	}
	if !m.isMarked(n) {
		m.set(n, leaf)
	}
	return nil
}

func (m *marker) set(n int, leaf bool) {
	m.bits[n/64] |= 1 << (n % 64)
	if m.sealed {
		m.late++
	}
	if !leaf {
		m.stack = append(m.stack, uint32(n))
	}
	if m.marked++; m.progress != nil && m.marked%10_000 == 0 {
		m.progress(m.marked, int64(m.total()))
	}
}

// reachNewer is reach for an object that was not here when the walk began.
func (m *marker) reachNewer(id ID, leaf bool) error {
	if _, done := m.newer[id]; done {
		return nil
	}
	if len(m.newer) >= maxNewer {
		return fmt.Errorf("%w: more than %d objects came meanwhile", ErrTooLarge, maxNewer)
	}
	if !m.db.Has(id) {
		return m.missing(errMissing(id))
	}
	m.newer[id] = struct{}{}
	if !leaf {
		m.waiting = append(m.waiting, id)
	}
	return nil
}

// missing returns nil instead of err if err says that an object is missing and that is allowed.
func (m *marker) missing(err error) error {
	if errors.Is(err, cold.ErrMissing) && (m.lenient || m.promised) {
		return nil
	}
	return err
}

// from marks everything reachable from the ids.
func (m *marker) from(ids []ID) error {
	for _, id := range ids {
		if err := m.reach(id, false); err != nil {
			return err
		}
		if err := m.drain(); err != nil {
			return err
		}
	}
	return nil
}

// drain walks all queued objects.
func (m *marker) drain() error {
	for len(m.stack)+len(m.waiting) > 0 {
		if err := m.ctx.Err(); err != nil {
			return err
		}
		var id ID
		var t Type
		var data []byte
		var err error
		if last := len(m.stack) - 1; last >= 0 {
			n := int(m.stack[last])
			m.stack = m.stack[:last]
			id, t, data, err = m.read(n)
		} else {
			id = m.waiting[len(m.waiting)-1]
			m.waiting = m.waiting[:len(m.waiting)-1]
			t, data, err = m.readAnywhere(id)
		}
		if err == nil {
			err = m.walk(id, t, data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// read returns the content of a commit, tree or tag, but only the type of a blob.
func (m *marker) read(n int) (id ID, t Type, data []byte, err error) {
	if n >= m.base {
		id = m.loose[n-m.base].id
	} else {
		k, i := m.place(n)
		p := m.packs[k]
		id = p.idx.id(i)
		if off, ok := p.idx.offset(i); ok {
			if t, err = p.typeAt(off, m.db.opt.MaxDepth); err == nil && t == Blob {
				return id, t, nil, nil
			}
			if o, oerr := m.db.openEntry(p, off); oerr == nil {
				data, err = readObject(o, m.db.hasherFor(source{p: p}, o.typ, o.size), id, 0, maxWalked, nil)
				if err = errors.Join(err, o.close()); err == nil {
					return id, o.typ, data, nil
				}
			}
		}
	}
	t, data, err = m.readAnywhere(id) // loose, or damaged in this pack; another copy may be good
	return id, t, data, err
}

func (m *marker) readAnywhere(id ID) (Type, []byte, error) {
	t, _, err := m.db.Stat(id)
	if err != nil || t == Blob {
		return t, nil, m.missing(err)
	}
	return m.db.ReadAny(id, 0, maxWalked)
}

// place returns the pack and the position in it that a number stands for.
func (m *marker) place(n int) (k, i int) {
	at, _ := slices.BinarySearchFunc(m.first, n, func(f, n int) int {
		if f <= n {
			return -1
		}
		return 1
	})
	return at - 1, n - m.first[at-1]
}

// typeAt returns the type of the object at off. The type of a delta is that of the base at the end of its chain.
func (p *pack) typeAt(off int64, maxDepth int) (Type, error) {
	for range maxDepth + 1 {
		h, err := p.header(off)
		if err != nil {
			return 0, err
		}
		switch h.typ {
		case ofsDelta:
			off = h.base
		case refDelta:
			i := p.idx.find(h.baseRef)
			ok := i >= 0
			if ok {
				off, ok = p.idx.offset(i)
			}
			if !ok {
				return 0, corruptf("%s: delta base %s is not in the pack", p.what(h.off), h.baseRef)
			}
		default:
			return h.typ, nil
		}
	}
	return 0, corruptf("%s: delta chain of more than %d, or a cycle", p.name(), maxDepth)
}

// walk marks what an object points to.
func (m *marker) walk(id ID, t Type, data []byte) error {
	switch t {
	case Tree:
		err := eachTreeEntry(data, func(mode uint64, e ID) error {
			if mode == uint64(ModeGitlink) {
				return nil
			}
			return m.reach(e, mode != uint64(ModeTree))
		})
		return wrapObject(id, err)
	case Commit:
		c, err := DecodeCommit(data)
		if err != nil {
			return wrapObject(id, err)
		}
		if err := m.reach(c.Tree, false); err != nil {
			return wrapObject(id, err)
		}
		if _, cut := m.shallow[id]; cut {
			return nil
		}
		for _, p := range c.Parents {
			if err := m.reach(p, false); err != nil {
				return wrapObject(id, err)
			}
		}
	case Tag:
		line, _, _ := bytes.Cut(data, []byte{'\n'})
		target, err := headerID(string(line), "object ")
		if err == nil {
			err = m.reach(target, false)
		}
		return wrapObject(id, err)
	}
	return nil
}

// eachTreeEntry calls fn for the entries of a tree without allocating. It does not check names, which do not matter
// here.
func eachTreeEntry(data []byte, fn func(mode uint64, id ID) error) error {
	for len(data) > 0 {
		sp := bytes.IndexByte(data[:min(len(data), 8)], ' ')
		nul := bytes.IndexByte(data, 0)
		if sp < 1 || nul < sp || len(data) < nul+1+hashSize {
			return corruptf("tree: cut off")
		}
		mode, err := strconv.ParseUint(string(data[:sp]), 8, 32)
		if err != nil {
			return corruptf("tree: mode %q", data[:sp])
		}
		if err := fn(mode, ID(data[nul+1:nul+1+hashSize])); err != nil {
			return err
		}
		data = data[nul+1+hashSize:]
	}
	return nil
}

// everything marks all objects of pack k and what they reach.
func (m *marker) everything(k int) error {
	p := m.packs[k]
	for i := range p.idx.count {
		n := m.canonical(m.first[k] + i)
		if m.isMarked(n) {
			continue
		}
		off, ok := p.idx.offset(i)
		if !ok {
			return corruptf("index %s: offset of object %d", p.name(), i)
		}
		t, err := p.typeAt(off, m.db.opt.MaxDepth)
		if err != nil {
			return err
		}
		m.set(n, t == Blob)
		if err := m.drain(); err != nil {
			return err
		}
	}
	return nil
}
