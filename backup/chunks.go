package backup

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

// Big files (FORMAT.md section 4).
const (
	chunksName = ".emberfs%chunks"

	minChunk   = 64 << 10
	maxChunk   = 4 << 20
	wantChunks = 4096 // the chunk size is chosen so that a file has about as many
	maxGrowth  = 8    // a file grown so many times gets a new chunk size
	chunkName  = 8    // digits
	maxChunks  = 100_000_000

	// maxLong is up to which length in bytes a chunk is read that a stock client made longer than the chunk size.
	maxLong = 4 * maxChunk

	maxChunksInfo = 4096 // bytes of chunksName

	defaultChunkThreshold = 8 << 20
	minChunkThreshold     = 2 * minChunk
)

// errNotChunks: the tree lacks chunksName, so it is a directory.
var errNotChunks = errors.New("is not a chunk tree")

// chunkRef is one chunk of a file.
type chunkRef struct {
	n  uint32
	id cold.ID
}

// chunkTree is a file's content as a tree of chunks says it. It is immutable but for whole.
type chunkTree struct {
	size, chunk int64   // as chunksName says
	info        cold.ID // the blob chunksName
	refs        []chunkRef
	whole       bool // all chunks are known to be there, of the lengths that size and chunk give
}

// chunkSizeOf chooses the chunk size for a file of size bytes.
func chunkSizeOf(size int64) int64 {
	n := max(chunkCount(size, wantChunks), 1)
	return min(max(int64(1)<<bits.Len64(uint64(n-1)), minChunk), maxChunk)
}

// chunkSizeFor says how a file of size bytes is stored that was stored as old (nil: as one blob, or not at all): the chunk
// size, or 0 for one blob. Between half the threshold and the whole a file stays what it was.
func chunkSizeFor(size, threshold int64, old *chunkTree) int64 {
	switch {
	case old == nil && size <= threshold, old != nil && size < threshold/2:
		return 0
	case old != nil && (old.chunk >= maxChunk || size <= maxGrowth*wantChunks*old.chunk):
		return old.chunk
	}
	return chunkSizeOf(size)
}

func checkChunkSize(chunk int64) error {
	if chunk < minChunk || chunk > maxChunk || chunk&(chunk-1) != 0 {
		return fmt.Errorf("chunk size %d: want a power of two from %d to %d", chunk, minChunk, maxChunk)
	}
	return nil
}

// count is the number of chunks, holes included, that the size gives.
func (c *chunkTree) count() int64 { return chunkCount(c.size, c.chunk) }

func chunkCount(size, chunk int64) int64 {
	n := size / chunk
	if size%chunk > 0 {
		n++
	}
	return n
}

// length is the length of chunk n; 0 behind the end.
func (c *chunkTree) length(n int64) int64 { return max(min(c.chunk, c.size-n*c.chunk), 0) }

// find gives the id of chunk n; false where it is a hole.
func (c *chunkTree) find(n int64) (cold.ID, bool) {
	at, ok := slices.BinarySearchFunc(c.refs, n, func(r chunkRef, n int64) int { return cmp.Compare(int64(r.n), n) })
	if !ok {
		return cold.ID{}, false
	}
	return c.refs[at].id, true
}

func encodeChunksInfo(size, chunk int64) []byte {
	return fmt.Appendf(nil, `{"size":%d,"chunk":%d}`+"\n", size, chunk)
}

// decodeChunksInfo reads the blob chunksName strictly.
func decodeChunksInfo(data []byte) (size, chunk int64, err error) {
	if n := len(data); n > 0 && data[n-1] == '\n' {
		data = data[:n-1]
	}
	r := jsonReader{b: data}
	var hasSize, hasChunk bool
	err = r.object(func(key string) (err error) {
		switch key {
		case "size":
			hasSize = true
			size, err = r.integer(0, 1<<63-1)
		case "chunk":
			hasChunk = true
			chunk, err = r.integer(minChunk, maxChunk)
		default:
			return errUnknownKey
		}
		return err
	})
	if err == nil {
		err = r.end()
	}
	switch {
	case err != nil:
	case !hasSize || !hasChunk:
		err = errors.New("a key is missing: size and chunk are needed")
	case checkChunkSize(chunk) != nil:
		err = checkChunkSize(chunk)
	case chunkCount(size, chunk) > maxChunks:
		err = fmt.Errorf("size %d makes more than %d chunks of %d", size, maxChunks, chunk)
	}
	return size, chunk, err
}

// encode makes the git tree.
func (c *chunkTree) encode() ([]byte, error) {
	const entry = len("100644 ") + chunkName + 1 + len(cold.ID{})
	size := (len(c.refs)+1)*entry + len(chunksName)
	if size > maxTreeBlob {
		return nil, tooMuch("a file of %d chunks of %d bytes", len(c.refs), c.chunk)
	}
	b := make([]byte, 0, size)
	add := func(name []byte, id cold.ID) {
		b = append(b, "100644 "...)
		b = append(b, name...)
		b = append(b, 0)
		b = append(b, id[:]...)
	}
	add([]byte(chunksName), c.info) // a dot sorts before the digits
	var name [16]byte
	for _, r := range c.refs {
		add(fmt.Appendf(name[:0], "%0*d", chunkName, r.n), r.id)
	}
	return b, nil
}

// loadChunks reads a tree of chunks; errNotChunks where it is a directory, tiers.ErrCorrupt where it is neither.
func loadChunks(db objects, id cold.ID) (*chunkTree, error) {
	if id == odb.EmptyTree {
		return nil, fmt.Errorf("tree %s: %w", id, errNotChunks)
	}
	raw, err := db.Read(id, odb.Tree, maxTreeBlob)
	if err != nil {
		return nil, err
	}
	entries, bad := odb.DecodeTree(raw)
	if bad != nil {
		entries = salvageTree(raw, ignored())
	}
	at := slices.IndexFunc(entries, func(e odb.TreeEntry) bool { return e.Name == chunksName })
	switch {
	case at < 0:
		return nil, fmt.Errorf("tree %s: %w", id, errNotChunks)
	case bad != nil:
		return nil, fmt.Errorf("chunk tree %s: %w", id, bad)
	case entries[at].Mode != odb.ModeFile && entries[at].Mode != odb.ModeExec:
		return nil, fmt.Errorf("chunk tree %s: %w: %s has the mode %o", id, cold.ErrCorrupt, chunksName, entries[at].Mode)
	}
	c := &chunkTree{info: entries[at].ID}
	data, err := db.Read(c.info, odb.Blob, maxChunksInfo)
	if err == nil {
		if c.size, c.chunk, err = decodeChunksInfo(data); err != nil {
			err = fmt.Errorf("%w: %w", cold.ErrCorrupt, err)
		}
	}
	if errors.Is(err, odb.ErrTooLarge) {
		err = fmt.Errorf("%w: %w", cold.ErrCorrupt, err)
	}
	if err != nil {
		return nil, fmt.Errorf("chunk tree %s: %s: %w", id, chunksName, err)
	}
	if err := c.setRefs(entries); err != nil {
		return nil, fmt.Errorf("chunk tree %s: %w: %w", id, cold.ErrCorrupt, err)
	}
	return c, nil
}

// setRefs takes the chunks from the tree's entries. Behind the size chunks may go on without a gap: a stock client added them.
func (c *chunkTree) setRefs(entries []odb.TreeEntry) error {
	c.refs = make([]chunkRef, 0, len(entries)-1)
	next := c.count()
	for i := range entries {
		e := &entries[i]
		if e.Name == chunksName {
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
			return fmt.Errorf("chunk %s lies behind the end of %d bytes", e.Name, c.size)
		}
		c.refs = append(c.refs, chunkRef{uint32(n), e.ID})
	}
	return nil
}

func parseChunkName(name string) (int64, error) {
	n, err := strconv.ParseUint(name, 10, 32)
	if err != nil || len(name) != chunkName || !isDigit(name[0]) {
		return 0, fmt.Errorf("entry %q is not a chunk's: want %d digits", name, chunkName)
	}
	return int64(n), nil
}
