package tiers

import (
	"math"
	"math/bits"

	"emberfs/tiers/cold"
)

const (
	// writtenMin is the size in bytes from which on a file's written ranges are noted. Smaller files are quickly read
	// whole.
	writtenMin = 1 << 20
	// writtenShift is the finest grain of written ranges, 64 KiB, which is the smallest chunk that cold makes.
	writtenShift = 16
	// writtenBits bounds the bitmap of ranges, which takes 8 KiB at most. For files over 64 Ki grains (4 GiB with the
	// finest ones) the grain doubles.
	writtenBits = 64 << 10
)

// written notes which parts of a file's content changed since the content that cold has, so that the next commit of a
// big file reads only those. Ranges are added under Inode.io before the bytes change. Safe for concurrent use.
type written struct {
	mu    mutex[leaf]
	base  cold.ID // what the ranges are relative to; zero: nothing is known
	since ranges  // changed since base
	fresh ranges  // changed since a commit last began to read the file
	reads uint64  // how many reads began
}

// ranges is a set of a file's parts: grains of a bitmap below tail, and everything from tail on.
type ranges struct {
	shift uint
	bits  []uint64
	tail  int64
}

func newRanges() ranges { return ranges{shift: writtenShift, tail: math.MaxInt64} }

// add notes [off, end).
func (r *ranges) add(off, end int64) {
	if off >= r.tail || end <= off {
		return
	}
	last := (min(end, r.tail) - 1) >> r.shift
	for last >= writtenBits {
		r.coarsen()
		last = (min(end, r.tail) - 1) >> r.shift
	}
	if words := int(last/64) + 1; words > len(r.bits) {
		r.bits = append(r.bits, make([]uint64, words-len(r.bits))...)
	}
	for g := off >> r.shift; g <= last; g++ {
		r.bits[g/64] |= 1 << (g % 64)
	}
}

// addFrom notes everything from off on.
func (r *ranges) addFrom(off int64) { r.tail = min(r.tail, off) }

// coarsen doubles the grain.
func (r *ranges) coarsen() {
	old := r.bits
	r.shift++
	r.bits = make([]uint64, (len(old)+1)/2)
	for i, w := range old {
		for ; w != 0; w &= w - 1 {
			g := (i*64 + bits.TrailingZeros64(w)) / 2
			r.bits[g/64] |= 1 << (g % 64)
		}
	}
}

func (r *ranges) empty() bool {
	for _, w := range r.bits {
		if w != 0 {
			return false
		}
	}
	return r.tail == math.MaxInt64
}

// list gives the set as sorted, disjoint ranges.
func (r *ranges) list() []cold.Range {
	var l []cold.Range
	add := func(off, end int64) {
		if n := len(l); n > 0 && l[n-1].End >= off {
			l[n-1].End = max(l[n-1].End, end)
			return
		}
		l = append(l, cold.Range{Off: off, End: end})
	}
	for i, w := range r.bits {
		for ; w != 0; w &= w - 1 {
			g := int64(i*64 + bits.TrailingZeros64(w))
			if off := g << r.shift; off < r.tail {
				add(off, (g+1)<<r.shift)
			}
		}
	}
	if r.tail != math.MaxInt64 {
		add(r.tail, math.MaxInt64)
	}
	return l
}

func newWritten(base cold.ID) *written {
	return &written{base: base, since: newRanges(), fresh: newRanges()}
}

// add notes that [off, end) is about to change. A nil *written notes nothing.
func (w *written) add(off, end int64) {
	if w == nil {
		return
	}
	w.mu.Lock()
	w.since.add(off, end)
	w.fresh.add(off, end)
	w.mu.Unlock()
}

// addFrom notes that everything from off on is about to change, move or go.
func (w *written) addFrom(off int64) {
	if w == nil {
		return
	}
	w.mu.Lock()
	w.since.addFrom(off)
	w.fresh.addFrom(off)
	w.mu.Unlock()
}

// start is called when a commit begins to read the file, or before the first change since its boundary. It returns what
// is known of the content at this moment, and the number of the read. A nil *written knows the hint only.
func (w *written) start(hint cold.ID) (b cold.Base, read uint64) {
	b.ID = hint
	if w == nil {
		return b, 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.base.IsZero() {
		b = cold.Base{ID: w.base, Known: true, Changed: w.since.list()}
	}
	w.fresh = newRanges()
	w.reads++
	return b, w.reads
}

// stored notes that cold has, under id, the content as it was when the given read began. Only the last read counts, and
// only once.
func (w *written) stored(id cold.ID, read uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if read == w.reads {
		w.base = id
		w.since = w.fresh
		w.fresh = newRanges()
		w.reads++ // a second call would take later changes for stored
	}
}

// bytes returns about how many bytes of a file of this size the next commit reads.
func (w *written) bytes(size int64) (n int64) {
	if w == nil {
		return size
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.base.IsZero() {
		return size
	}
	for _, r := range w.since.list() {
		n += max(0, min(r.End, size)-r.Off)
	}
	return n
}

// dirty says whether forgetting the ranges would make the next commit read the whole file.
func (w *written) dirty() bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.base.IsZero() && !w.since.empty()
}
