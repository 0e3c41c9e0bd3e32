package format

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// Constants for big files (FORMAT.md section 4).
const (
	ChunksName = ".emberfs%chunks"

	MinChunk   = 64 << 10
	MaxChunk   = 4 << 20
	WantChunks = 4096 // the chunk size is chosen so that a file has about this many chunks
	MaxGrowth  = 8    // a file that has grown by this factor gets a new chunk size
	ChunkName  = 8    // digits of a chunk's name
	MaxChunks  = 100_000_000

	// MaxLong is the maximum length in bytes of a chunk that a stock client made longer than the chunk size.
	MaxLong = 4 * MaxChunk

	maxChunksInfo = 4096 // maximum bytes of the blob ChunksName

	DefaultChunkThreshold = 8 << 20
	MinChunkThreshold     = 2 * MinChunk
)

// ErrNotChunks says that the tree has no entry ChunksName, so it is a directory.
var ErrNotChunks = errors.New("is not a chunk tree")

// ChunkRef is one chunk of a file.
type ChunkRef struct {
	N  uint32
	ID cold.ID
}

// ChunkTree is a file's content as described by a tree of chunks. It is immutable, except for Whole.
type ChunkTree struct {
	Size, Chunk int64   // size of the file and of a chunk, from the blob ChunksName
	Info        cold.ID // the blob ChunksName
	Refs        []ChunkRef
	Whole       bool // all chunks are known to exist and to have the lengths that Size and Chunk imply
}

// ChunkSizeOf returns the chunk size for a new file of size bytes.
func ChunkSizeOf(size int64) int64 {
	n := max(chunkCount(size, WantChunks), 1)
	return min(max(int64(1)<<bits.Len64(uint64(n-1)), MinChunk), MaxChunk)
}

// ChunkSizeFor returns the chunk size with which to store a file of size bytes, or 0 for a single blob. old is how it
// was stored before; nil means as one blob, or not at all. Between half the threshold and the threshold the form does
// not change.
func ChunkSizeFor(size, threshold int64, old *ChunkTree) int64 {
	switch {
	case old == nil && size <= threshold, old != nil && size < threshold/2:
		return 0
	case old != nil && (old.Chunk >= MaxChunk || size <= MaxGrowth*WantChunks*old.Chunk):
		return old.Chunk
	}
	return ChunkSizeOf(size)
}

func checkChunkSize(chunk int64) error {
	if chunk < MinChunk || chunk > MaxChunk || chunk&(chunk-1) != 0 {
		return fmt.Errorf("chunk size %d: want a power of two from %d to %d", chunk, MinChunk, MaxChunk)
	}
	return nil
}

// Count returns the number of chunks that the size implies, including holes.
func (c *ChunkTree) Count() int64 { return chunkCount(c.Size, c.Chunk) }

func chunkCount(size, chunk int64) int64 {
	n := size / chunk
	if size%chunk > 0 {
		n++
	}
	return n
}

// Length returns the length of chunk n, or 0 if it is beyond the end.
func (c *ChunkTree) Length(n int64) int64 { return max(min(c.Chunk, c.Size-n*c.Chunk), 0) }

// Find returns the id of chunk n. It returns false if that is a hole.
func (c *ChunkTree) Find(n int64) (cold.ID, bool) {
	at, ok := slices.BinarySearchFunc(c.Refs, n, func(r ChunkRef, n int64) int { return cmp.Compare(int64(r.N), n) })
	if !ok {
		return cold.ID{}, false
	}
	return c.Refs[at].ID, true
}

// EncodeChunksInfo returns the content of the blob ChunksName for a file of size bytes in chunks of chunk bytes.
func EncodeChunksInfo(size, chunk int64) []byte {
	return fmt.Appendf(nil, `{"size":%d,"chunk":%d}`+"\n", size, chunk)
}

// decodeChunksInfo parses the blob ChunksName strictly.
func decodeChunksInfo(data []byte) (size, chunk int64, err error) {
	if n := len(data); n > 0 && data[n-1] == '\n' {
		data = data[:n-1]
	}
	r := JSONReader{B: data}
	var hasSize, hasChunk bool
	err = r.Object(func(key string) (err error) {
		switch key {
		case "size":
			hasSize = true
			size, err = r.integer(0, 1<<63-1)
		case "chunk":
			hasChunk = true
			chunk, err = r.integer(MinChunk, MaxChunk)
		default:
			return ErrUnknownKey
		}
		return err
	})
	if err == nil {
		err = r.End()
	}
	switch {
	case err != nil:
	case !hasSize || !hasChunk:
		err = errors.New("a key is missing: size and chunk are needed")
	case checkChunkSize(chunk) != nil:
		err = checkChunkSize(chunk)
	case chunkCount(size, chunk) > MaxChunks:
		err = fmt.Errorf("size %d makes more than %d chunks of %d", size, MaxChunks, chunk)
	}
	return size, chunk, err
}

// Encode returns the content of the git tree.
func (c *ChunkTree) Encode() ([]byte, error) {
	const entry = len("100644 ") + ChunkName + 1 + len(cold.ID{})
	size := (len(c.Refs)+1)*entry + len(ChunksName)
	if size > MaxTreeBlob {
		return nil, TooMuch("a file of %d chunks of %d bytes", len(c.Refs), c.Chunk)
	}
	b := make([]byte, 0, size)
	add := func(name []byte, id cold.ID) {
		b = append(b, "100644 "...)
		b = append(b, name...)
		b = append(b, 0)
		b = append(b, id[:]...)
	}
	add([]byte(ChunksName), c.Info) // a dot sorts before the digits
	var name [16]byte
	for _, r := range c.Refs {
		add(fmt.Appendf(name[:0], "%0*d", ChunkName, r.N), r.ID)
	}
	return b, nil
}

// LoadChunks reads a tree of chunks. The error is ErrNotChunks if the tree is a directory, and cold.ErrCorrupt if it is
// neither.
func LoadChunks(db Objects, id cold.ID) (*ChunkTree, error) {
	if id == odb.EmptyTree {
		return nil, fmt.Errorf("tree %s: %w", id, ErrNotChunks)
	}
	raw, err := db.Read(id, odb.Tree, MaxTreeBlob)
	if err != nil {
		return nil, err
	}
	entries, bad := odb.DecodeTree(raw)
	if bad != nil {
		entries = SalvageTree(raw, Ignored())
	}
	at := slices.IndexFunc(entries, func(e odb.TreeEntry) bool { return e.Name == ChunksName })
	switch {
	case at < 0:
		return nil, fmt.Errorf("tree %s: %w", id, ErrNotChunks)
	case bad != nil:
		return nil, fmt.Errorf("chunk tree %s: %w", id, bad)
	case entries[at].Mode != odb.ModeFile && entries[at].Mode != odb.ModeExec:
		return nil, fmt.Errorf("chunk tree %s: %w: %s has the mode %o", id, cold.ErrCorrupt, ChunksName,
			entries[at].Mode)
	}
	c := &ChunkTree{Info: entries[at].ID}
	data, err := db.Read(c.Info, odb.Blob, maxChunksInfo)
	if err == nil {
		if c.Size, c.Chunk, err = decodeChunksInfo(data); err != nil {
			err = fmt.Errorf("%w: %w", cold.ErrCorrupt, err)
		}
	}
	if errors.Is(err, odb.ErrTooLarge) {
		err = fmt.Errorf("%w: %w", cold.ErrCorrupt, err)
	}
	if err != nil {
		return nil, fmt.Errorf("chunk tree %s: %s: %w", id, ChunksName, err)
	}
	if err := c.setRefs(entries); err != nil {
		return nil, fmt.Errorf("chunk tree %s: %w: %w", id, cold.ErrCorrupt, err)
	}
	return c, nil
}

// setRefs takes the chunks from the tree's entries. There may be chunks beyond the size, without a gap, if a stock
// client added them.
func (c *ChunkTree) setRefs(entries []odb.TreeEntry) error {
	c.Refs = make([]ChunkRef, 0, len(entries)-1)
	next := c.Count()
	for i := range entries {
		e := &entries[i]
		if e.Name == ChunksName {
			continue
		}
		if e.Mode != odb.ModeFile && e.Mode != odb.ModeExec {
			return fmt.Errorf("entry %q has the mode %o", e.Name, e.Mode)
		}
		n, err := parseChunkName(e.Name)
		switch {
		case err != nil:
			return err
		case n < next:
		case n == next:
			next++
		default:
			return fmt.Errorf("chunk %s lies behind the end of %d bytes", e.Name, c.Size)
		}
		c.Refs = append(c.Refs, ChunkRef{uint32(n), e.ID})
	}
	return nil
}

func parseChunkName(name string) (int64, error) {
	n, err := strconv.ParseUint(name, 10, 32)
	if err != nil || len(name) != ChunkName || !isDigit(name[0]) {
		return 0, fmt.Errorf("entry %q is not a chunk's: want %d digits", name, ChunkName)
	}
	return int64(n), nil
}
