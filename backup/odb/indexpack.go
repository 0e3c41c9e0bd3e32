package odb

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/go-git/go-git/v5/plumbing/cache"
)

// fetched is a pack that is being received.
type fetched struct {
	db      *DB
	pf      *packFile
	label   string // what errors call the pack
	entries []fetchedEntry
	came    int   // how many of the entries came from outside; the bases that complete a thin pack follow them
	work    int64 // bytes inflated so far
	count   int64 // how many entries the pack says that it has
	indexed int64 // of them, those whose ids are known
	// inPlace says that the pack is in the repository already and is only read; the bases of all its deltas are inside
	// it.
	inPlace bool
	// tolerant says that damaged entries are skipped.
	tolerant bool

	// Used while resolving deltas: which entries wait for which base.
	byOffset map[int64][]int32 // those of type ofsDelta, by the base's offset
	byID     map[ID][]int32    // those of type refDelta, by the base's id
	cache    *cache.BufferLRU  // resolved bases, by offset
	last     *content          // the last base that was too big for the cache
	lastOff  int64
}

// fetchedEntry is one entry; id and typ are final once known is set.
type fetchedEntry struct {
	id    ID
	off   int64
	data  int64
	size  int64 // declared size; of a delta the size of the delta itself
	base  int32 // of a delta the index of its base, -1 if not known
	crc   uint32
	depth uint16
	typ   Type
	known bool
}

// IndexPack receives a pack as a fetch delivers it. The pack is streamed to a temporary file, every object is inflated
// and hashed, deltas are resolved within the pack and against this repository (a thin pack is completed), and the
// result is published with a .keep. The caller moves the reference and then calls keep, which removes the .keep. An
// empty pack is allowed and publishes nothing.
//
// It takes 60 to 200 bytes of memory per object, Options.DeltaCache, and two delta bases of up to Options.DeltaMemory
// each. maxBytes limits the size of the pack (0: no limit), and Options the rest; what exceeds a limit is ErrTooLarge.
// A damaged pack is cold.ErrCorrupt and leaves nothing behind. IndexPack may read r a little beyond the pack's trailer.
// It does not check that everything that the objects point to exists.
func (db *DB) IndexPack(r io.Reader, maxBytes int64) (objects int, keep func() error, err error) {
	return db.indexPack(r, maxBytes, nil)
}

// indexPack is IndexPack that calls check, if there is one, before it publishes the pack; nothing is published if check
// fails. The pack is nil if it is empty.
func (db *DB) indexPack(r io.Reader, maxBytes int64, check func(f *fetched, p *pack) error) (objects int,
	keep func() error, err error) {
	if db.readOnly {
		return 0, nil, fmt.Errorf("index pack: %w", ErrReadOnly)
	}
	if db.closed.Load() {
		return 0, nil, fmt.Errorf("index pack: %w", ErrClosed)
	}
	pf, err := db.newPackFile()
	if err != nil {
		return 0, nil, err
	}
	f := newFetched(db, pf)
	err = f.run(r, maxBytes)
	empty := err == nil && len(f.entries) == 0
	if err == nil && check != nil {
		err = db.checkFetched(f, check)
	}
	err = errors.Join(err, f.last.close())
	if empty {
		if err = errors.Join(err, pf.discard()); err != nil {
			err = fmt.Errorf("index pack: %w", err)
		}
		return 0, func() error { return nil }, err
	}
	if err == nil {
		err = db.publishPacks([]*packFile{pf})
	} else if !crashed(err) {
		err = errors.Join(err, pf.discard())
	}
	if err != nil {
		return 0, nil, fmt.Errorf("index pack: %w", err)
	}
	return len(f.entries), func() error { return db.unkeep([]*packFile{pf}) }, nil
}

func newFetched(db *DB, pf *packFile) *fetched {
	return &fetched{db: db, pf: pf, label: "fetched pack", byOffset: map[int64][]int32{}, byID: map[ID][]int32{},
		cache: cache.NewBufferLRU(cache.FileSize(db.opt.DeltaCache))}
}

func (f *fetched) run(r io.Reader, maxBytes int64) error {
	if err := f.db.step("index.receive"); err != nil {
		return err
	}
	if err := f.receive(r, maxBytes); err != nil {
		return err
	}
	f.came = len(f.entries)
	if err := f.db.step("index.resolve"); err != nil {
		return err
	}
	if err := f.resolve(); err != nil {
		return err
	}
	f.report()
	f.pf.objs = f.objects()
	return nil
}

// objects returns what the index says about the entries.
func (f *fetched) objects() []packedObject {
	objs := make([]packedObject, len(f.entries))
	for i, e := range f.entries {
		objs[i] = packedObject{id: e.id, off: e.off, crc: e.crc}
	}
	return objs
}

// receiver copies what is read from the wire into the pack file.
type receiver struct {
	r     io.Reader
	pf    *packFile
	left  int64 // bytes still allowed
	limit int64
	eof   bool
	came  func() // is called when more has come

	inPlace bool // the pack file itself is read, so nothing is copied
}

func (w *receiver) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if w.left -= int64(n); w.left < 0 && w.limit > 0 {
		return 0, &sourceError{fmt.Errorf("%w: a pack of more than %d bytes", ErrTooLarge, w.limit)}
	}
	if w.inPlace {
		w.pf.done += int64(n)
	} else if werr := w.pf.write(p[:n]); werr != nil {
		return 0, &sourceError{werr}
	}
	w.came()
	if errors.Is(err, io.EOF) {
		w.eof = true
	} else if err != nil {
		err = &sourceError{fmt.Errorf("receive pack: %w", err)}
	}
	return n, err
}

// receive reads the pack's entries once, and hashes those that are not deltas.
func (f *fetched) receive(r io.Reader, maxBytes int64) error {
	if !f.inPlace {
		if err := f.pf.truncate(0); err != nil {
			return err
		}
	}
	in := &receiver{r: r, pf: f.pf, left: maxBytes, limit: maxBytes, inPlace: f.inPlace,
		came: f.report}
	br := bufio.NewReaderSize(in, 64<<10)
	err := f.receiveEntries(br)
	if err != nil && in.eof && br.Buffered() == 0 {
		// This is not damage; the sender stopped.
		return fmt.Errorf("the pack is cut off after %d bytes (%v): %w", f.pf.len(), err, io.ErrUnexpectedEOF)
	}
	return err
}

func (f *fetched) receiveEntries(br *bufio.Reader) error {
	at := func() int64 { return f.pf.len() - int64(br.Buffered()) }
	var head [packHeader]byte
	if _, err := io.ReadFull(br, head[:]); err != nil {
		return err
	}
	count, err := parsePackHeader(head[:])
	if err != nil {
		return err
	}
	if int64(count) > int64(f.db.opt.MaxPackObjects) {
		return fmt.Errorf("%w: a pack of %d objects, at most %d", ErrTooLarge, count, f.db.opt.MaxPackObjects)
	}
	f.count = int64(count)
	for range count {
		if err := f.receiveEntry(br, at); err != nil {
			return err
		}
	}
	end := at()
	var sum [hashSize]byte
	if _, err := io.ReadFull(br, sum[:]); err != nil {
		return err
	}
	if f.inPlace {
		f.pf.done = end
	} else if err := f.pf.truncate(end); err != nil { // also removes what was buffered from beyond the trailer
		return err
	}
	if err := f.pf.flush(); err != nil {
		return err
	}
	if err := f.checksums(); err != nil {
		return err
	}
	if !bytes.Equal(f.pf.sum[:], sum[:]) {
		return corruptf("the pack's checksum does not match")
	}
	f.pf.summed = end
	return nil
}

// receiveEntry reads one entry. at returns how much of the pack was consumed.
func (f *fetched) receiveEntry(br *bufio.Reader, at func() int64) error {
	off := at()
	what := fmt.Sprintf("%s, offset %d", f.label, off)
	h, err := readEntryHeader(br, off)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if h.isDelta() {
		if err := f.spend(h.size); err != nil {
			return err
		}
	}
	in := &inflater{db: f.db, left: h.size, what: what}
	defer in.close()
	if err := in.start(br); err != nil {
		return err
	}
	if h.size == 0 {
		if err := in.finish(); err != nil {
			return err
		}
	}
	e := fetchedEntry{off: off, data: h.data, size: h.size, base: -1, typ: h.typ}
	n := int32(len(f.entries))
	switch {
	case h.typ == ofsDelta:
		f.byOffset[h.base] = append(f.byOffset[h.base], n)
	case h.typ == refDelta:
		f.byID[h.baseRef] = append(f.byID[h.baseRef], n)
	default:
		hash := newHasher(h.typ, h.size)
		if _, err := io.Copy(hash, in); err != nil {
			return err
		}
		if e.id, err = hash.sum(); err != nil {
			return err
		}
		e.known = true
		f.indexed++
	}
	if h.isDelta() {
		if _, err := io.Copy(io.Discard, in); err != nil {
			return err
		}
	}
	f.entries = append(f.entries, e)
	return nil
}

// report tells Options.Receiving how far the pack is.
func (f *fetched) report() {
	if f.db.opt.Receiving != nil && !f.inPlace {
		f.db.opt.Receiving(min(f.indexed, f.count), f.count, f.pf.len()) // the bases of a thin pack come to it
	}
}

// spend counts what a delta will inflate to against the limit, before it is inflated.
func (f *fetched) spend(n int64) error {
	most := max(f.db.opt.MaxInflate, min(f.pf.len(), 1<<50)*256)
	if f.work += n; f.work > most || f.work < 0 {
		return fmt.Errorf("%w: the pack's deltas inflate to more than %d bytes", ErrTooLarge, most)
	}
	return nil
}

// checksums computes each entry's CRC and the pack's own checksum in one pass over what was received.
func (f *fetched) checksums() error {
	br := f.pf.reader(0, f.pf.done)
	sum, crc := sha1.New(), crc32.NewIEEE()
	if _, err := io.CopyN(sum, br, packHeader); err != nil {
		return fmt.Errorf("read pack back: %w", err)
	}
	both := io.MultiWriter(sum, crc)
	for i := range f.entries {
		e := &f.entries[i]
		end := f.pf.done
		if i+1 < len(f.entries) {
			end = f.entries[i+1].off
		}
		crc.Reset()
		if _, err := io.CopyN(both, br, end-e.off); err != nil {
			return fmt.Errorf("read pack back: %w", err)
		}
		e.crc = crc.Sum32()
	}
	copy(f.pf.sum[:], sum.Sum(nil))
	return nil
}
