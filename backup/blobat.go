package backup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// blobAt reads content that is a single blob, at any offset. A blob up to ChunkThreshold is read and verified as a
// whole, and kept. A bigger one (the volume was written with another threshold) is streamed; reading backwards starts
// the stream again.
type blobAt struct {
	c    *Cold
	id   cold.ID
	size int64

	mu struct {
		sync.Mutex
		closed bool
		data   []byte
		whole  bool
		stream *odb.BlobReader
		pos    int64
	}
}

var _ cold.BlobAt = (*blobAt)(nil)

func newBlobAt(c *Cold, id cold.ID, b *odb.BlobReader) *blobAt {
	a := &blobAt{c: c, id: id, size: b.Size()}
	a.mu.stream = b
	return a
}

func (a *blobAt) Size() int64 { return a.size }

// Data implements cold.BlobAt. git knows no holes, so for a blob that fits into memory it looks for pages of zeros.
func (a *blobAt) Data(off int64) (cold.Range, bool, error) {
	if a.size > a.c.o.ChunkThreshold || off >= a.size {
		return cold.Range{Off: off, End: a.size}, off < a.size, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.closed {
		return cold.Range{}, false, fmt.Errorf("read object %s: %w", a.id, fs.ErrClosed)
	}
	if err := a.load(); err != nil {
		return cold.Range{}, false, err
	}
	const page = 4 << 10
	start := off &^ (page - 1)
	for start < a.size && zeroPage(a.mu.data[start:min(start+page, a.size)]) {
		start += page
	}
	if start >= a.size {
		return cold.Range{}, false, nil
	}
	end := start
	for end < a.size && !zeroPage(a.mu.data[end:min(end+page, a.size)]) {
		end += page
	}
	return cold.Range{Off: start, End: min(end, a.size)}, true, nil
}

var zeros [4 << 10]byte

func zeroPage(p []byte) bool { return string(p) == string(zeros[:len(p)]) }

// ReadAt implements io.ReaderAt.
func (a *blobAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read object %s: %w", a.id, errOffset)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.closed {
		return 0, fmt.Errorf("read object %s: %w", a.id, fs.ErrClosed)
	}
	var tail error
	if rest := max(a.size-off, 0); int64(len(p)) > rest {
		p, tail = p[:rest], io.EOF
	}
	if len(p) == 0 {
		return 0, tail
	}
	if a.size <= a.c.o.ChunkThreshold {
		if err := a.load(); err != nil {
			return 0, err
		}
		return copy(p, a.mu.data[off:]), tail
	}
	n, err := a.forward(p, off)
	if err != nil {
		return n, errors.Join(err, a.drop())
	}
	return n, tail
}

// load reads the whole blob into memory. a.mu must be held.
func (a *blobAt) load() error {
	if a.mu.whole {
		return nil
	}
	if err := a.drop(); err != nil {
		return err
	}
	data, err := a.c.db.Read(a.id, odb.Blob, a.size)
	if err != nil {
		return err
	}
	a.mu.data, a.mu.whole = data, true
	return nil
}

// forward reads from the stream, after moving it to off. a.mu must be held.
func (a *blobAt) forward(p []byte, off int64) (int, error) {
	if a.mu.stream != nil && a.mu.pos > off {
		if err := a.drop(); err != nil {
			return 0, err
		}
	}
	if a.mu.stream == nil {
		b, err := a.c.openBlob(a.id, a.size)
		if err != nil {
			return 0, err
		}
		a.mu.stream, a.mu.pos = b, 0
	}
	if _, err := io.CopyN(io.Discard, a.mu.stream, off-a.mu.pos); err != nil {
		return 0, fmt.Errorf("read object %s: %w", a.id, err)
	}
	a.mu.pos = off
	n, err := io.ReadFull(a.mu.stream, p)
	a.mu.pos += int64(n)
	if err != nil {
		return n, fmt.Errorf("read object %s: %w", a.id, err)
	}
	return n, nil
}

// drop closes the stream. a.mu must be held.
func (a *blobAt) drop() error {
	if a.mu.stream == nil {
		return nil
	}
	err := a.mu.stream.Close()
	a.mu.stream = nil
	return err
}

// Close implements cold.BlobAt.
func (a *blobAt) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.closed, a.mu.data = true, nil
	return a.drop()
}
