package odb

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"math"
	"slices"

	"golang.org/x/time/rate"

	"emberfs/tiers/cold"
)

// repacker writes the objects of several packs into one. Objects are known by number: those of the first pack in the
// order of its index, then those of the second; memory is 24 bytes for each.
type repacker struct {
	db    *DB
	ctx   context.Context
	src   []*pack // newest first: what is read most stays whole, the older versions become deltas
	first []int   // number of each pack's first object
	slots []slot
	order []uint32 // an object's first number each, sorted by id
	pf    *packFile
	pace  *rate.Limiter // nil: as fast as it goes
	fresh int64         // length of the new pack when it was last made durable
	delta *shardDeltas
	cur   curPack
	buf   []byte

	damage map[*pack]error // the first entry of each that could not be copied; another copy may have done
}

// curPack is the source that is being copied.
type curPack struct {
	k        int
	p        *pack
	byOffset []uint32 // positions in the index
	bases    []uint64 // bit by position: a delta in this pack is based on it
}

// slot is what becomes of one object.
type slot struct {
	off   int64 // written: in the new pack; double: the number of its first copy
	crc   uint32
	depth uint16
	state slotState
}

type slotState uint8

const (
	waiting slotState = iota
	written
	double
	unwanted
)

const (
	// copiedDepth bounds the delta chains in packs that we write; what would be deeper is written whole. Git's own
	// default.
	copiedDepth = 50
	// syncEvery is after how many bytes a big new pack is made durable, so that the end does not come with a long
	// fsync.
	syncEvery = 64 << 20
	paceBurst = 1 << 20
)

// newRepacker merges the packs' indexes; want says which objects are taken (nil: all).
func (db *DB) newRepacker(ctx context.Context, src []*pack, want func(p *pack, i int) bool, pace *rate.Limiter) (
	*repacker, error) {
	r := &repacker{db: db, ctx: ctx, src: src, pace: pace, delta: newShardDeltas(db), damage: map[*pack]error{},
		buf: make([]byte, packBuffer)}
	total := 0
	for _, p := range src {
		r.first = append(r.first, total)
		total += p.idx.count
	}
	if total > math.MaxInt32 {
		return nil, fmt.Errorf("%w: %d objects in one pack", ErrTooLarge, total)
	}
	r.slots = make([]slot, total)
	r.order = make([]uint32, 0, total)
	var last ID
	for k, i := range mergeIndexes(src) {
		n, id := uint32(r.first[k]+i), src[k].idx.id(i)
		switch {
		case len(r.order) > 0 && id == last:
			r.slots[n] = slot{off: int64(r.order[len(r.order)-1]), state: double}
			continue
		case want != nil && !want(src[k], i):
			r.slots[n].state = unwanted
		}
		// Unwanted ones have a place in the order too: their doubles must find them.
		r.order, last = append(r.order, n), id
	}
	return r, ctx.Err()
}

// mergeIndexes gives pack and position of all objects of the packs, sorted by id, then by pack.
func mergeIndexes(src []*pack) iter.Seq2[int, int] {
	return func(yield func(k, i int) bool) {
		h := &indexHeap{src: src, at: make([]int, len(src)), next: make([]ID, len(src))}
		for k, p := range src {
			if p.idx.count > 0 {
				h.ks = append(h.ks, k)
				h.next[k] = p.idx.id(0)
			}
		}
		heap.Init(h)
		for len(h.ks) > 0 {
			k := h.ks[0]
			if !yield(k, h.at[k]) {
				return
			}
			if h.at[k]++; h.at[k] == src[k].idx.count {
				heap.Pop(h)
			} else {
				h.next[k] = src[k].idx.id(h.at[k])
				heap.Fix(h, 0)
			}
		}
	}
}

// indexHeap has the packs that still have objects, by the next one's id.
type indexHeap struct {
	src  []*pack
	at   []int
	ks   []int
	next []ID // by pack
}

func (h *indexHeap) Len() int      { return len(h.ks) }
func (h *indexHeap) Swap(i, j int) { h.ks[i], h.ks[j] = h.ks[j], h.ks[i] }
func (h *indexHeap) Push(any)      {} // none ever joins
func (h *indexHeap) Less(i, j int) bool {
	c := bytes.Compare(h.next[h.ks[i]][:], h.next[h.ks[j]][:])
	return c < 0 || c == 0 && h.ks[i] < h.ks[j]
}
func (h *indexHeap) Pop() any {
	k := h.ks[len(h.ks)-1]
	h.ks = h.ks[:len(h.ks)-1]
	return k
}

// canonical is the number that an object's state is kept under.
func (r *repacker) canonical(n int) int {
	if r.slots[n].state == double {
		return int(r.slots[n].off)
	}
	return n
}

// run writes the new pack. On an error nothing stays of it, unless the error is a simulated crash.
func (r *repacker) run() (_ *packFile, err error) {
	if r.pf, err = r.db.newPackFile(); err != nil {
		return nil, err
	}
	r.pf.ctx = r.ctx
	defer func() {
		if err != nil && !crashed(err) {
			err = errors.Join(err, r.pf.discard())
		}
	}()
	for k := range r.src {
		if err := r.copyPack(k); err != nil {
			return nil, err
		}
	}
	for _, n := range r.order {
		switch r.slots[n].state {
		case written:
			r.pf.count++
		case waiting:
			return nil, r.lost()
		}
	}
	r.pf.sorted = r.objects
	return r.pf, nil
}

// lost marks the packs with damage, so that they are not merged again, and says what it is.
func (r *repacker) lost() (err error) {
	for _, p := range r.src {
		if d := r.damage[p]; d != nil {
			p.damaged.Store(true)
			err = errors.Join(err, d)
		}
	}
	return err
}

// objects gives what was written, sorted by id.
func (r *repacker) objects(yield func(packedObject) bool) {
	for _, n := range r.order {
		if s := &r.slots[n]; s.state == written {
			k, _ := slices.BinarySearch(r.first, int(n)+1)
			if !yield(packedObject{id: r.src[k-1].idx.id(int(n) - r.first[k-1]), crc: s.crc, off: s.off}) {
				return
			}
		}
	}
}

// copyPack takes over what no earlier pack had, in the order in which it lies there: a base comes before its deltas.
func (r *repacker) copyPack(k int) error {
	p := r.src[k]
	r.cur = curPack{k: k, p: p, byOffset: p.offsets(), bases: make([]uint64, (p.idx.count+63)/64)}
	if err := r.findBases(); err != nil {
		return err
	}
	for j, i := range r.cur.byOffset {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		n := r.canonical(r.first[k] + int(i))
		if r.slots[n].state != waiting {
			continue
		}
		off, ok := p.idx.offset(int(i))
		end := p.size - hashSize
		if j+1 < len(r.cur.byOffset) {
			end, _ = p.idx.offset(int(r.cur.byOffset[j+1]))
		}
		var err error
		if !ok || off < packHeader || end <= off || end > p.size-hashSize {
			err = corruptf("index %s: entries overlap at %d", p.name(), off)
		} else {
			err = r.copyEntry(int(i), n, off, end)
		}
		if err == nil {
			err = r.settle(end - off)
		} else if errors.Is(err, cold.ErrCorrupt) {
			if r.damage[p] == nil {
				r.damage[p] = err
			}
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// settle keeps to the pace after n bytes were copied.
func (r *repacker) settle(n int64) error {
	if l := r.pf.len(); l-r.fresh > syncEvery {
		if err := r.pf.flush(); err != nil {
			return err
		}
		if err := r.pf.f.Sync(); err != nil {
			return fmt.Errorf("write pack: %w", err)
		}
		r.fresh = l
	}
	for ; r.pace != nil && n > 0; n -= paceBurst {
		if err := r.pace.WaitN(r.ctx, int(min(n, paceBurst))); err != nil {
			return err
		}
	}
	return nil
}

// findBases notes which entries others are based on. Entries that cannot be parsed are met again when they are copied.
func (r *repacker) findBases() error {
	p := r.cur.p
	for _, i := range r.cur.byOffset {
		off, ok := p.idx.offset(int(i))
		if !ok {
			continue
		}
		h, err := p.header(off)
		if err != nil {
			if errors.Is(err, cold.ErrCorrupt) {
				continue
			}
			return err
		}
		if b := r.base(&h); b >= 0 {
			r.cur.bases[b/64] |= 1 << (b % 64)
		}
	}
	return r.ctx.Err()
}

// base is the position of a delta's base in the current pack; -1: none.
func (r *repacker) base(h *entryHeader) int {
	p := r.cur.p
	switch h.typ {
	case refDelta:
		return p.idx.find(h.baseRef)
	case ofsDelta:
		at, ok := slices.BinarySearchFunc(r.cur.byOffset, h.base, func(i uint32, want int64) int {
			o, _ := p.idx.offset(int(i))
			return int(max(-1, min(1, o-want)))
		})
		if ok {
			return int(r.cur.byOffset[at])
		}
	}
	return -1
}

// copyEntry writes object n, which lies at position i of the current pack from off to end.
func (r *repacker) copyEntry(i, n int, off, end int64) error {
	p := r.cur.p
	h, err := p.header(off)
	if err != nil {
		return err
	}
	if h.data >= end {
		return corruptf("%s: no content", p.what(off))
	}
	at := r.pf.len()
	var crc uint32
	depth := uint16(0)
	switch {
	case h.isDelta():
		b := r.base(&h)
		if b < 0 {
			return corruptf("%s: its delta base is not in the pack", p.what(off))
		}
		base := &r.slots[r.canonical(r.first[r.cur.k]+b)]
		if base.state == written && base.depth < copiedDepth {
			depth = base.depth + 1
			crc, err = r.copyRaw(i, appendDeltaHeader(nil, h.size, at-base.off), off, h.data, end)
		} else {
			crc, err = r.copyWhole(i, off)
		}
	case r.delta.takes(&h):
		var done bool
		isBase := r.cur.bases[i/64]&(1<<(i%64)) != 0
		if crc, depth, done, err = r.copyShard(i, n, &h, end, isBase); err == nil && !done {
			crc, err = r.copyRaw(i, nil, off, off, end)
		}
	default:
		crc, err = r.copyRaw(i, nil, off, off, end)
	}
	if errors.Is(err, cold.ErrCorrupt) { // perhaps it is the index that is wrong
		if terr := r.pf.truncate(at); terr != nil {
			return terr
		}
		damage := err
		if crc, err = r.copyWhole(i, off); err != nil {
			err = errors.Join(damage, err)
		}
		depth = 0
	}
	if err != nil {
		return errors.Join(err, r.pf.truncate(at))
	}
	r.slots[n] = slot{off: at, crc: crc, depth: depth, state: written}
	if at == packHeader {
		r.pf.firstEnd, r.pf.firstCRC = r.pf.len(), &r.slots[n].crc
	}
	return nil
}

// copyRaw writes head and the bytes of the current pack from data to end. The bytes from off to end are checked against
// the index.
func (r *repacker) copyRaw(i int, head []byte, off, data, end int64) (uint32, error) {
	p := r.cur.p
	src := crc32.NewIEEE()
	out := &crcWriter{pf: r.pf}
	if data > off {
		if _, err := io.CopyN(src, p.section(off), data-off); err != nil {
			return 0, p.at(off, err)
		}
	}
	if _, err := out.Write(head); err != nil {
		return 0, err
	}
	for data < end {
		n := min(int64(len(r.buf)), end-data)
		if _, err := p.f.ReadAt(r.buf[:n], data); err != nil {
			return 0, fmt.Errorf("read pack %s: %w", p.name(), err)
		}
		_, _ = src.Write(r.buf[:n])
		if _, err := out.Write(r.buf[:n]); err != nil {
			return 0, err
		}
		data += n
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
	}
	if src.Sum32() != p.idx.crc(i) {
		return 0, corruptf("%s: checksum does not match the index", p.what(off))
	}
	return out.crc, nil
}

// copyWhole writes an object that cannot stay a delta.
func (r *repacker) copyWhole(i int, off int64) (uint32, error) {
	o, err := r.db.openEntry(r.cur.p, off)
	if err != nil {
		return 0, err
	}
	out := &crcWriter{pf: r.pf}
	err = errors.Join(writeEntry(out, o, r.cur.p.idx.id(i)), o.close())
	return out.crc, err
}

// offsets are the positions of the index sorted by where the objects lie.
func (p *pack) offsets() []uint32 {
	by := make([]uint32, p.idx.count)
	for i := range by {
		by[i] = uint32(i)
	}
	slices.SortFunc(by, func(a, b uint32) int {
		x, _ := p.idx.offset(int(a))
		y, _ := p.idx.offset(int(b))
		return int(max(-1, min(1, x-y)))
	})
	return by
}
