package backup

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"

	"emberfs/backup/coldtest"
	"emberfs/backup/format"
	"emberfs/tiers/cold"
)

// testThreshold is a chunk threshold with which files of a few chunks count as big.
const testThreshold = 256 << 10

// holed is content with data in some ranges only. No other byte of it may be read, except the last one.
type holed struct {
	size  int64
	parts map[int64][]byte
	reads *readLog // nil: nobody asks
}

// readLog records what was read of a content.
type readLog struct {
	sync.Mutex
	list []cold.Range
}

func (h holed) Size() int64 { return h.size }

func (h holed) ReadAt(p []byte, off int64) (int, error) {
	if h.reads != nil {
		h.reads.Lock()
		h.reads.list = append(h.reads.list, cold.Range{Off: off, End: off + int64(len(p))})
		h.reads.Unlock()
	}
	n := int(min(int64(len(p)), max(h.size-off, 0)))
	clear(p[:n])
	for at, data := range h.parts {
		if at < off+int64(n) && at+int64(len(data)) > off {
			if at < off {
				copy(p[:n], data[off-at:])
			} else {
				copy(p[at-off:n], data)
			}
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h holed) Data(off int64) (r cold.Range, ok bool, err error) {
	for at, data := range h.parts {
		end := at + int64(len(data))
		if end > off && (!ok || at < r.Off) {
			r, ok = cold.Range{Off: at, End: end}, true
		}
	}
	return r, ok, nil
}

func (h holed) bytes() []byte {
	b := make([]byte, h.size)
	_, _ = h.ReadAt(b, 0)
	return b
}

// store commits a volume of one file, stored with base, and returns its id and the number of objects in its pack.
func (v *testVolume) store(c cold.Content, base cold.Base) (id cold.ID, objects int) {
	v.T.Helper()
	ctx := v.T.Context()
	x, err := v.Begin(ctx)
	coldtest.Check(v.T, err)
	defer x.Abort()
	id, err = x.PutFile(ctx, c, base)
	coldtest.Check(v.T, err)
	objects = txLen(v.T, x)
	e := cold.Entry{Name: "f", Kind: cold.KindFile, Mode: 0o755, Size: c.Size(), ID: id}
	root, err := x.PutDir(ctx, cold.DirID{}, true, &cold.Root{Entry: coldtest.NewDir(0o755).Entry}, []cold.Entry{e},
		nil)
	coldtest.Check(v.T, err)
	if _, err := x.Commit(ctx, cold.CommitOptions{Root: root}); err != nil {
		v.T.Fatal(err)
	}
	return id, objects
}

// storeLoose stores a file, all of it as loose objects.
func (v *testVolume) storeLoose(data []byte) (cold.ID, *format.ChunkTree) {
	v.T.Helper()
	id, _ := v.store(coldtest.Content(data), cold.Base{})
	tree, err := format.LoadChunks(v.db, id)
	coldtest.Check(v.T, err)
	coldtest.Explode(v.T, v.Dir)
	return id, tree
}

// entry returns the only file's entry in the last commit.
func (v *testVolume) entry(name string) cold.Entry {
	v.T.Helper()
	s := v.HeadSnapshot()
	l, err := s.ReadDir(v.T.Context(), coldtest.RootOf(s))
	if err != nil || len(l.Problems) > 0 {
		v.T.Fatal(err, l.Problems)
	}
	at := slices.IndexFunc(l.Entries, func(e cold.Entry) bool { return e.Name == name })
	if at < 0 {
		v.T.Fatalf("no %q in %+v", name, l.Entries)
	}
	return l.Entries[at]
}

// check reads the file f in all ways and has git look at the repository.
func (v *testVolume) checkFile(want []byte) {
	v.T.Helper()
	e := v.entry("f")
	if e.Size != int64(len(want)) || e.Kind != cold.KindFile || e.Mode != 0o755 {
		v.T.Errorf("entry %+v, want %d bytes", e, len(want))
	}
	if got := v.ContentOf(e.ID, e.Size); !bytes.Equal(got, want) {
		v.T.Errorf("content differs: %d bytes, want %d", len(got), len(want))
	}
	if got := v.ContentOf(e.ID, -1); !bytes.Equal(got, want) {
		v.T.Error("content of unknown size differs")
	}
	for _, size := range []int64{e.Size + 1, e.Size - 1} {
		if b, err := v.Open(v.T.Context(), e.ID, size); size >= 0 && !errors.Is(err, cold.ErrCorrupt) {
			v.T.Errorf("opened with %d bytes of %d: %v, %v", size, e.Size, b, err)
		}
	}
	v.checkAt(e, want)
	coldtest.Fsck(v.T, v.Dir)
}

// checkAt reads parts of a file in no particular order.
func (v *testVolume) checkAt(e cold.Entry, want []byte) {
	v.T.Helper()
	at, err := v.OpenAt(v.T.Context(), e.ID, e.Size)
	coldtest.Check(v.T, err)
	if at.Size() != int64(len(want)) {
		v.T.Errorf("Size = %d", at.Size())
	}
	buf := make([]byte, 900<<10)
	for i := range 30 {
		off := rand.Int64N(e.Size + 10)
		p := buf[:rand.IntN(len(buf))]
		if i == 0 {
			off, p = max(e.Size-1, 0), buf[:2]
		}
		n, err := at.ReadAt(p, off)
		if wantN := max(min(len(p), len(want)-int(off)), 0); n != wantN || (n < len(p)) != errors.Is(err, io.EOF) ||
			err != nil && !errors.Is(err, io.EOF) {
			v.T.Fatalf("ReadAt(%d, %d) = %d, %v; want %d", len(p), off, n, err, wantN)
		}
		if n > 0 && !bytes.Equal(p[:n], want[off:off+int64(n)]) {
			v.T.Fatalf("%d bytes at %d differ", n, off)
		}
	}
	if err := at.Close(); err != nil {
		v.T.Error(err)
	}
	if _, err := at.ReadAt(buf[:1], 0); err == nil {
		v.T.Error("read after Close")
	}
}

// holes returns where a stream has holes, by SkipHole.
func (v *testVolume) holes(e cold.Entry) (holes []cold.Range, data []byte) {
	v.T.Helper()
	b, err := v.Open(v.T.Context(), e.ID, e.Size)
	coldtest.Check(v.T, err)
	defer b.Close()
	pos := int64(0)
	buf := make([]byte, 10<<10)
	for {
		if n := b.SkipHole(); n > 0 {
			holes = append(holes, cold.Range{Off: pos, End: pos + n})
			pos += n
			if b.SkipHole() != 0 {
				v.T.Error("a hole behind a hole")
			}
		}
		n, err := b.Read(buf)
		data = append(data, buf[:n]...)
		pos += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		coldtest.Check(v.T, err)
	}
	if pos != e.Size {
		v.T.Errorf("%d bytes of %d", pos, e.Size)
	}
	if got := v.dataHoles(e); !slices.Equal(got, holes) {
		v.T.Errorf("Data says holes %v, the stream %v", got, holes)
	}
	return holes, data
}

// dataHoles returns where a file has holes, by Data.
func (v *testVolume) dataHoles(e cold.Entry) (holes []cold.Range) {
	v.T.Helper()
	at, err := v.OpenAt(v.T.Context(), e.ID, e.Size)
	coldtest.Check(v.T, err)
	defer at.Close()
	for pos := int64(0); pos < e.Size; {
		r, ok, err := at.Data(pos)
		coldtest.Check(v.T, err)
		if !ok {
			return append(holes, cold.Range{Off: pos, End: e.Size})
		}
		if r.End <= pos || r.End > e.Size || r.Off >= r.End {
			v.T.Fatalf("Data(%d) = %v", pos, r)
		}
		if r.Off > pos {
			holes = append(holes, cold.Range{Off: pos, End: r.Off})
		}
		if mid := (max(r.Off, pos) + r.End) / 2; mid > pos {
			if again, ok, err := at.Data(mid); again.End != r.End || again.Off > mid || !ok || err != nil {
				v.T.Errorf("Data(%d) = %v, %v, %v; want the end of %v", mid, again, ok, err, r)
			}
		}
		pos = r.End
	}
	if r, ok, err := at.Data(e.Size); ok || err != nil {
		v.T.Errorf("Data at the end = %v, %v, %v", r, ok, err)
	}
	return holes
}
