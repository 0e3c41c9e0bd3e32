package odb

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/klauspost/compress/zlib"

	"emberfs/tiers/cold"
)

// smallBlob is the size in bytes up to which a blob is hashed and deflated in memory, outside the Writer's lock.
const smallBlob = 1 << 20

// Writer collects objects in new packs, which become part of the repository at Publish. The order of calls is
// NewWriter, Put..., Publish, DB.UpdateRef, Release. Abort before Release takes everything back, as far as possible. A
// Writer is safe for concurrent use, but after Publish, Release or Abort nobody can put any more.
type Writer struct {
	db *DB
	mu struct {
		sync.Mutex
		packs []*packFile     // the last one is open for appending
		seen  map[ID]struct{} // what is in the last pack
		count int             // number of objects in the packs before the last one
		state writerState
		err   error // a pack could not be completed, or not truncated to its last good length: the Writer is unusable
	}
}

type writerState uint8

const (
	writing writerState = iota
	published
	released // a reference may reach the objects: Abort does nothing any more
	ended
)

// NewWriter begins a pack. It creates no file before the first object.
func (db *DB) NewWriter() (*Writer, error) {
	if db.readOnly {
		return nil, ErrReadOnly
	}
	if db.closed.Load() {
		return nil, ErrClosed
	}
	w := &Writer{db: db}
	w.mu.seen = map[ID]struct{}{}
	return w, nil
}

// usable returns an error if nothing can be put any more. w.mu must be held.
func (w *Writer) usable() error {
	if w.mu.state != writing {
		return fmt.Errorf("write object: %w", ErrClosed)
	}
	return w.mu.err
}

// Put stores an object that is in memory and returns its id. An object that this Writer already has is not stored
// again.
func (w *Writer) Put(t Type, data []byte) (ID, error) {
	id, err := HashObject(t, data)
	if err != nil {
		return ID{}, err
	}
	return id, w.put(id, t, data)
}

// PutBlob is Put for a blob. If drop, called with the id, returns true, the blob is not stored, and only its id is
// returned.
func (w *Writer) PutBlob(data []byte, drop func(ID) bool) (ID, error) {
	id, err := HashObject(Blob, data)
	if err != nil || drop(id) {
		return id, err
	}
	return id, w.put(id, Blob, data)
}

func (w *Writer) put(id ID, t Type, data []byte) error {
	if w.Has(id) {
		return nil
	}
	d, err := w.db.deflater()
	if err != nil {
		return err
	}
	defer w.db.putDeflater(d)
	entry, crc, err := d.entry(t, data)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(); err != nil {
		return err
	}
	if w.has(id) {
		return nil
	}
	pf, err := w.pack()
	if err != nil {
		return err
	}
	off := pf.len()
	if err := pf.write(entry); err != nil {
		return w.takeBack(pf, off, err)
	}
	w.added(pf, packedObject{id: id, crc: crc, off: off})
	return nil
}

// pack returns the pack that takes the next object. When a pack is full its index is written at once and then serves to
// tell what is in the pack, so that a commit of millions of objects has the ids of only one pack in memory. w.mu must
// be held.
func (w *Writer) pack() (*packFile, error) {
	if n := len(w.mu.packs); n > 0 {
		last := w.mu.packs[n-1]
		if len(last.objs) < w.db.opt.MaxPerPack {
			return last, nil
		}
		err := w.db.finish(last)
		if err == nil {
			last.full, err = openIndex(last.idxPath)
		}
		if err != nil {
			w.mu.err = fmt.Errorf("write object: %w", err)
			return nil, w.mu.err
		}
		w.mu.count += len(last.objs)
		last.objs, w.mu.seen = nil, map[ID]struct{}{}
	}
	pf, err := w.db.newPackFile()
	if err != nil {
		return nil, err
	}
	w.mu.packs = append(w.mu.packs, pf)
	return pf, nil
}

func (w *Writer) added(pf *packFile, o packedObject) {
	pf.objs = append(pf.objs, o)
	w.mu.seen[o.id] = struct{}{}
}

// takeBack truncates the pack to off, to remove an unwanted entry, and returns err. w.mu must be held.
func (w *Writer) takeBack(pf *packFile, off int64, err error) error {
	if terr := pf.truncate(off); terr != nil {
		w.mu.err = terr
		return errors.Join(err, terr)
	}
	return err
}

// PutStream stores a blob of size bytes read from r, in constant memory, and returns its id. If r yields more or fewer
// bytes, it fails with cold.ErrSizeChanged. If drop is not nil and, called with the id, returns true, the blob is not
// stored, and only its id is returned. For blobs up to 1 MiB the work is done outside the Writer's lock. A bigger blob
// holds the lock all the time, so drop must not use the Writer.
func (w *Writer) PutStream(size int64, r io.Reader, drop func(ID) bool) (ID, error) {
	return w.PutStreamContext(context.Background(), size, r, drop)
}

// PutStreamContext is PutStream, but gives up when ctx is cancelled.
func (w *Writer) PutStreamContext(ctx context.Context, size int64, r io.Reader, drop func(ID) bool) (ID, error) {
	if size < 0 {
		return ID{}, fmt.Errorf("write object: size %d", size)
	}
	if size > smallBlob {
		return w.putBig(ctx, size, r, drop)
	}
	buf, ok := w.db.pools.mem.Get().(*[]byte)
	if !ok || int64(cap(*buf)) <= size {
		b := make([]byte, max(64<<10, size+1))
		buf = &b
	}
	defer w.db.pools.mem.Put(buf)
	data := (*buf)[:size+1] // one more byte, to notice if r yields too much
	n, err := io.ReadFull(r, data)
	if err == nil || int64(n) < size && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
		return ID{}, sizeChanged(int64(n), size)
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return ID{}, fmt.Errorf("read content: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return ID{}, err
	}
	data = data[:size]
	id, err := HashObject(Blob, data)
	if err != nil {
		return ID{}, err
	}
	if drop != nil && drop(id) {
		return id, nil
	}
	return id, w.put(id, Blob, data)
}

func sizeChanged(got, want int64) error {
	more := ""
	if got > want {
		got, more = want, "over "
	}
	return fmt.Errorf("%w: %s%d bytes, expected %d", cold.ErrSizeChanged, more, got, want)
}

// putBig streams a blob into the pack while it holds the lock.
func (w *Writer) putBig(ctx context.Context, size int64, r io.Reader, drop func(ID) bool) (ID, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(); err != nil {
		return ID{}, err
	}
	pf, err := w.pack()
	if err != nil {
		return ID{}, err
	}
	off := pf.len()
	id, crc, err := w.stream(ctx, pf, size, r)
	if err != nil {
		return ID{}, w.takeBack(pf, off, err)
	}
	if w.has(id) || drop != nil && drop(id) {
		return id, w.takeBack(pf, off, nil)
	}
	w.added(pf, packedObject{id: id, crc: crc, off: off})
	return id, nil
}

// crcWriter appends to a pack and computes the CRC of what it appended.
type crcWriter struct {
	pf  *packFile
	crc uint32
}

func (c *crcWriter) Write(p []byte) (int, error) {
	c.crc = crc32.Update(c.crc, crc32.IEEETable, p)
	return len(p), c.pf.write(p)
}

// stream writes one blob's entry.
func (w *Writer) stream(ctx context.Context, pf *packFile, size int64, r io.Reader) (ID, uint32, error) {
	d, err := w.db.deflater()
	if err != nil {
		return ID{}, 0, err
	}
	defer w.db.putDeflater(d)
	out := &crcWriter{pf: pf}
	var head [16]byte
	if _, err := out.Write(appendEntryHeader(head[:0], Blob, size)); err != nil {
		return ID{}, 0, err
	}
	h := newHasher(Blob, size)
	buf := make([]byte, packBuffer)
	var total int64
	var z *zlib.Writer
	for {
		if err := ctx.Err(); err != nil {
			return ID{}, 0, err
		}
		n, rerr := io.ReadFull(r, buf)
		if rerr != nil && !errors.Is(rerr, io.EOF) && !errors.Is(rerr, io.ErrUnexpectedEOF) {
			return ID{}, 0, fmt.Errorf("read content: %w", rerr)
		}
		total += int64(n)
		if total > size || rerr != nil && total < size {
			return ID{}, 0, sizeChanged(total, size)
		}
		if z == nil {
			if z, err = d.writer(out, buf[:n]); err != nil {
				return ID{}, 0, err
			}
		}
		_, _ = h.Write(buf[:n])
		if _, err := z.Write(buf[:n]); err != nil {
			return ID{}, 0, err
		}
		if rerr != nil {
			break
		}
	}
	if err := z.Close(); err != nil {
		return ID{}, 0, err
	}
	id, err := h.sum()
	return id, out.crc, err
}

// Has reports whether this Writer has the object.
func (w *Writer) Has(id ID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.has(id)
}

// has is Has for callers that hold w.mu.
func (w *Writer) has(id ID) bool {
	if _, ok := w.mu.seen[id]; ok {
		return true
	}
	for _, pf := range w.mu.packs {
		if pf.full != nil && pf.full.find(id) >= 0 {
			return true
		}
	}
	return false
}

// Len returns the number of objects put so far.
func (w *Writer) Len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.len()
}

// len is Len for callers that hold w.mu.
func (w *Writer) len() int { return w.mu.count + len(w.mu.seen) }

// Publish makes the objects durable and visible, protected by .keep files until Release. If there are no objects it
// writes nothing. After an error nothing is published, except that packs which git could see already stay (see
// withdraw), and the Writer cannot be used any more.
func (w *Writer) Publish() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(); err != nil {
		return err
	}
	w.mu.state = published
	packs, err := w.dropEmpty()
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if len(packs) == 0 {
		return nil
	}
	if err := w.db.publishPacks(packs); err != nil {
		w.mu.state = ended
		return fmt.Errorf("publish %d objects: %w", w.len(), err)
	}
	return nil
}

// dropEmpty discards packs without objects and returns the others. w.mu must be held.
func (w *Writer) dropEmpty() ([]*packFile, error) {
	packs := w.mu.packs[:0]
	for i, pf := range w.mu.packs {
		if len(pf.objs) > 0 || pf.full != nil {
			packs = append(packs, pf)
		} else if err := pf.discard(); err != nil {
			return nil, errors.Join(err, w.db.withdraw(append(packs, w.mu.packs[i+1:]...)))
		}
	}
	w.mu.packs = packs
	return packs, nil
}

// Release removes the .keep files. It must not be called before a reference reaches the objects, because afterwards
// nothing else protects them from a git gc. It may be called again after an error.
func (w *Writer) Release() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.state != published && w.mu.state != released {
		return fmt.Errorf("release: %w", ErrClosed)
	}
	w.mu.state = released
	return errors.Join(w.db.unkeep(w.mu.packs), closeIndexes(w.mu.packs))
}

// Abort removes what was not published. Published packs stay, because a git repack may rely on them, but lose their
// .keep, so that a later GC removes them; if a reference points to one of the objects they also keep their .keep. After
// Release, Abort does nothing.
func (w *Writer) Abort() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.state >= released {
		return nil
	}
	if w.mu.state == published && len(w.mu.packs) > 0 {
		used, err := w.referenced()
		if err != nil || used {
			w.mu.state = ended
			w.db.log.WithError(err).Warn("a pack that is not wanted stays: a reference may need it")
			return err
		}
	}
	w.mu.state = ended
	if err := w.db.withdraw(w.mu.packs); err != nil {
		return fmt.Errorf("abort: %w", err)
	}
	return nil
}

// referenced reports whether a reference points to an object of this Writer; this happens if UpdateRef failed after it
// had moved the reference.
func (w *Writer) referenced() (bool, error) {
	refs, err := w.db.Refs("")
	if err != nil {
		return false, fmt.Errorf("abort: %w", err)
	}
	for _, id := range refs {
		if w.has(id) {
			return true, nil
		}
	}
	return false, nil
}
