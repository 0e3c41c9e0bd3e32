package odb

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"

	"golang.org/x/time/rate"

	"emberfs/tiers/cold"
)

// repacker writes the objects of several packs into one new pack. Objects are known by number: first those of the first
// pack in the order of its index, then those of the second, and so on. It takes 24 bytes of memory per object.
type repacker struct {
	db    *DB
	ctx   context.Context
	src   []*pack // newest first: the newest versions, which are read most, stay whole, older ones become deltas
	first []int   // number of each pack's first object
	slots []slot
	order []uint32 // the first number of each object, sorted by id
	pf    *packFile
	pace  *rate.Limiter // limits the speed; nil: no limit
	fresh int64         // length of the new pack when it was last fsynced
	delta *shardDeltas
	cur   curPack
	buf   []byte

	damage map[*pack]error // for each pack the first entry that could not be copied, even if another copy was
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
	off   int64 // if written, its offset in the new pack; if double, the number of the object's first copy
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
	// copiedDepth is the maximum length of delta chains in packs that we write, as in git by default. An object that
	// would be deeper is written whole.
	copiedDepth = 50
	// syncEvery is after how many bytes a big new pack is fsynced, so that the fsync at the end does not take long.
	syncEvery = 64 << 20
	paceBurst = 1 << 20
)

// newRepacker prepares the merging of src. want reports which objects are taken; nil means all.
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
		// Unwanted objects are in the order too, so that their doubles find them.
		r.order, last = append(r.order, n), id
	}
	return r, ctx.Err()
}

// canonical returns the number under which the state of object n is kept.
func (r *repacker) canonical(n int) int {
	if r.slots[n].state == double {
		return int(r.slots[n].off)
	}
	return n
}

// run writes the new pack. On an error it is removed, unless the error is a simulated crash.
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

// lost marks the packs with damage, so that they are not merged again, and returns what is damaged.
func (r *repacker) lost() (err error) {
	for _, p := range r.src {
		if d := r.damage[p]; d != nil {
			p.damaged.Store(true)
			err = errors.Join(err, d)
		}
	}
	return err
}

// objects yields what was written, sorted by id.
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

// copyPack copies the objects of pack k that no earlier pack had, in the order of the pack, in which a base usually
// comes before its deltas.
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
			err = r.keepPace(end - off)
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

// takeEffect is called after n bytes were copied; it waits to keep to the pace, and fsyncs now and then.
func (r *repacker) keepPace(n int64) error {
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

// findBases notes which entries are bases of deltas. Entries that cannot be parsed are skipped here; copying them
// reports the error.
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

// base returns the position of a delta's base in the current pack's index, or -1 if it has none.
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

// copyEntry writes object n, which is at position i of the current pack's index and lies from off to end.
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
	if errors.Is(err, cold.ErrCorrupt) { // perhaps only the index's checksum is wrong
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

// copyRaw writes head, followed by the bytes of the current pack from data to end. It compares the bytes from off to
// end with the index's checksum.
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

// copyWhole writes an object whole, after resolving its delta.
func (r *repacker) copyWhole(i int, off int64) (uint32, error) {
	o, err := r.db.openEntry(r.cur.p, off)
	if err != nil {
		return 0, err
	}
	out := &crcWriter{pf: r.pf}
	err = errors.Join(writeEntry(out, o, r.cur.p.idx.id(i)), o.close())
	return out.crc, err
}

// offsets returns the positions in the index, sorted by the objects' offsets in the pack.
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
