package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

const (
	chunkWorkers = 2 // how many chunks of one file are read, hashed and deflated at a time
	recentChunks = 4 // how many chunk trees a transaction remembers: a file that changes meanwhile is stored again
)

// chunkCache is what a transaction remembers about chunk trees.
type chunkCache struct {
	recent []*cachedChunks
	sizes  map[cold.ID]int64 // chunk size by tree
}

type cachedChunks struct {
	id cold.ID
	c  *format.ChunkTree
}

// keepChunks remembers a chunk tree that was stored or read.
func (t *tx) keepChunks(id cold.ID, c *format.ChunkTree) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.chunks.sizes == nil {
		t.mu.chunks.sizes = make(map[cold.ID]int64)
	}
	t.mu.chunks.sizes[id] = c.Chunk
	recent := t.mu.chunks.recent
	if len(recent) >= recentChunks {
		recent = append(recent[:0], recent[1:]...)
	}
	t.mu.chunks.recent = append(recent, &cachedChunks{id, c})
}

// cachedChunks returns a chunk tree that keepChunks remembers, or nil.
func (t *tx) cachedChunks(id cold.ID) *format.ChunkTree {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.mu.chunks.recent {
		if r.id == id {
			return r.c
		}
	}
	return nil
}

// loadBaseChunks reads the chunk tree that a file's content was before. It returns nil if that was no chunk tree, or is
// damaged.
func (t *tx) loadBaseChunks(id cold.ID) *format.ChunkTree {
	if id.IsZero() {
		return nil
	}
	if c := t.cachedChunks(id); c != nil {
		return c
	}
	if kind, _, err := t.c.db.Stat(id); err != nil || kind != odb.Tree {
		return nil
	}
	c, err := format.LoadChunks(t.c.db, id)
	if err != nil {
		return nil
	}
	return c
}

// chunkSizeIn returns the chunk size of content that is a chunk tree, and 0 if it is a blob. The content is one that
// this transaction stored or that the repository has. mode is the mode that the base's tree has with this id, or 0 if
// that is not known.
func (t *tx) chunkSizeIn(id cold.ID, mode uint32) (int64, error) {
	t.mu.Lock()
	chunk := t.mu.chunks.sizes[id]
	t.mu.Unlock()
	switch {
	case chunk != 0:
		return chunk, nil
	case mode != 0 && mode != odb.ModeTree, mode == 0 && t.w.Has(id):
		return 0, nil
	case mode == 0:
		kind, _, err := t.c.db.Stat(id)
		if err != nil {
			return 0, fmt.Errorf("object %s: %w", id, err)
		}
		if kind != odb.Tree {
			return 0, nil
		}
	}
	c, err := format.LoadChunks(t.c.db, id)
	if err != nil {
		return 0, err
	}
	t.keepChunks(id, c)
	return c.Chunk, nil
}

// chunkStore stores one file as chunks.
type chunkStore struct {
	t     *tx
	f     cold.Content
	base  cold.Base
	old   *format.ChunkTree // the previous content's chunks; nil if not known
	same  bool              // chunks outside of base.Changed are those of old and need not be read
	now   *format.ChunkTree
	group *errgroup.Group
	mu    sync.Mutex // guards now.Refs
}

// storeChunks stores content in chunks of the given size. Chunks that old has at the same place are not stored again.
func (t *tx) storeChunks(ctx context.Context, f cold.Content, base cold.Base, old *format.ChunkTree, chunk int64) (
	cold.ID, error) {
	now := &format.ChunkTree{Size: f.Size(), Chunk: chunk}
	if n := now.Count(); n > format.MaxChunks {
		return cold.ID{}, format.TooMuch("a file of %d bytes", now.Size)
	}
	if old != nil && old.Chunk != chunk {
		old = nil
	}
	s := &chunkStore{t: t, f: f, base: base, old: old, now: now}
	s.same = base.Known && old != nil && (old.Whole || old.Regular(ctx, t.c.db))
	var gctx context.Context
	s.group, gctx = errgroup.WithContext(ctx)
	s.group.SetLimit(chunkWorkers)
	err := s.walk(gctx)
	if werr := s.group.Wait(); werr != nil {
		err = werr // the cause; walk's own error may only say that the context was cancelled
	}
	if err == nil {
		err = checkEnd(f)
	}
	if err != nil {
		return cold.ID{}, err
	}
	return s.finish()
}

// walk goes through the chunks, leaves out those that are all hole, and stores those that may have changed.
func (s *chunkStore) walk(ctx context.Context) error {
	changed := s.base.Changed
	var data cold.Range // the last answer of Content.Data
	for n := int64(0); n < s.now.Count(); n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		off := n * s.now.Chunk
		end := off + s.now.Length(n)
		for len(changed) > 0 && changed[0].End <= off {
			changed = changed[1:]
		}
		if s.same && s.old.Length(n) == end-off && (len(changed) == 0 || changed[0].Off >= end) {
			if id, ok := s.old.Find(n); ok {
				s.add(n, id)
			}
			continue
		}
		if data.End <= off {
			var ok bool
			var err error
			if data, ok, err = s.f.Data(off); err != nil {
				return fmt.Errorf("look for data: %w", err)
			}
			if !ok {
				data = cold.Range{Off: s.now.Size, End: s.now.Size}
			}
		}
		if data.Off >= end {
			if !s.same {
				n = max(n, data.Off/s.now.Chunk-1) // there is only a hole before that
			}
			continue
		}
		at := s.add(n, cold.ID{})
		s.group.Go(func() error { return s.store(ctx, n, at) })
	}
	return nil
}

func (s *chunkStore) add(n int64, id cold.ID) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Refs = append(s.now.Refs, format.ChunkRef{N: uint32(n), ID: id})
	return len(s.now.Refs) - 1
}

// store reads and stores one chunk and notes its id.
func (s *chunkStore) store(ctx context.Context, n int64, at int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	buf, ok := s.t.c.buffers.Get().(*[]byte)
	if !ok || int64(cap(*buf)) < s.now.Chunk {
		b := make([]byte, s.now.Chunk)
		buf = &b
	}
	defer s.t.c.buffers.Put(buf)
	off := n * s.now.Chunk
	data := (*buf)[:s.now.Length(n)]
	if err := readExactly(s.f, data, off); err != nil {
		return err
	}
	was, known := cold.ID{}, false
	if s.old != nil {
		was, known = s.old.Find(n)
	}
	id, err := s.t.w.PutBlob(data, func(id cold.ID) bool { return known && id == was && s.t.c.db.Has(id) })
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.now.Refs[at].ID = id
	s.mu.Unlock()
	return nil
}

// readExactly fills p from off. If the content ends before that, it returns cold.ErrSizeChanged.
func readExactly(f cold.Content, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil, errors.Is(err, io.EOF):
		return fmt.Errorf("%w: %d bytes, expected %d", cold.ErrSizeChanged, off+int64(n), f.Size())
	}
	return fmt.Errorf("read content: %w", err)
}

// checkEnd makes sure that the content is as long as it says, which reading alone would not show if it ends in a hole.
func checkEnd(f cold.Content) error {
	size := f.Size()
	var last [2]byte
	n, err := f.ReadAt(last[:], size-1)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return fmt.Errorf("read content: %w", err)
	case n != 1:
		return fmt.Errorf("%w: not the expected %d bytes", cold.ErrSizeChanged, size)
	}
	return nil
}

// finish stores the chunk tree, unless the base has the same one.
func (s *chunkStore) finish() (cold.ID, error) {
	known := make(map[cold.ID]struct{})
	if s.old != nil {
		known[s.base.ID], known[s.old.Info] = struct{}{}, struct{}{}
	}
	var err error
	if s.now.Info, err = s.t.putNew(odb.Blob, format.EncodeChunksInfo(s.now.Size, s.now.Chunk), known); err != nil {
		return cold.ID{}, err
	}
	data, err := s.now.Encode()
	if err != nil {
		return cold.ID{}, err
	}
	id, err := s.t.putNew(odb.Tree, data, known)
	if err != nil {
		return cold.ID{}, err
	}
	s.now.Whole = true
	s.t.keepChunks(id, s.now)
	return id, nil
}
