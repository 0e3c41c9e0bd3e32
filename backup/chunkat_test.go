package backup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/integration/effort"
	"emberfs/tiers/cold"
)

// Many readers of one open file, each reading in an order of its own: of chunks, of a blob that is kept, and of one
// that is streamed.
func TestOpenAtConcurrently(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cold.git")
	data := coldtest.Noise(40, 50*format.MinChunk+9)
	v := openVolume(t, dir, Options{})
	big, _ := v.store(coldtest.Content(data), cold.Base{})
	coldtest.Check(t, v.Close())
	v = openVolume(t, dir, Options{ChunkThreshold: testThreshold})
	chunks, _ := v.store(coldtest.Content(data), cold.Base{})
	small, _ := v.store(coldtest.Content(data[:testThreshold]), cold.Base{})
	reads := effort.Count(t, 30, 2000)
	for name, c := range map[string]struct {
		id   cold.ID
		data []byte
		n    int
	}{"chunks": {chunks, data, reads}, "kept": {small, data[:testThreshold], reads},
		"streamed": {big, data, max(reads/10, 1)}} {
		at, err := v.OpenAt(t.Context(), c.id, int64(len(c.data)))
		coldtest.Check(t, err)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(i), 2))
				buf := make([]byte, 150<<10<<(i%3*2)) // the long ones are read past the chunks that are kept
				for range c.n {
					off := r.IntN(len(c.data))
					p := buf[:r.IntN(len(buf))]
					n, err := at.ReadAt(p, int64(off))
					if err != nil && !errors.Is(err, io.EOF) || n != min(len(p), len(c.data)-off) ||
						!bytes.Equal(p[:n], c.data[off:off+n]) {
						t.Errorf("%s: ReadAt(%d, %d) = %d, %v", name, len(p), off, n, err)
						return
					}
				}
			})
		}
		wg.Wait()
		if n, err := at.ReadAt(make([]byte, 1), -1); n != 0 || err == nil {
			t.Errorf("%s: read before the beginning: %d, %v", name, n, err)
		}
		if n, err := at.ReadAt(nil, 0); n != 0 || err != nil {
			t.Errorf("%s: read of nothing: %d, %v", name, n, err)
		}
		// Closing while somebody reads: the read gives the bytes or says that it is closed.
		wg.Go(func() {
			p := make([]byte, 100)
			if _, err := at.ReadAt(p, 5); err == nil && !bytes.Equal(p, c.data[5:105]) {
				t.Errorf("%s: wrong bytes while closing", name)
			}
		})
		if err := at.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
}

// A read touches only the chunks that it needs; all others may be missing. A chunk that was missing is read again once
// it is back.
func TestOpenAtTouchesLittle(t *testing.T) {
	v := newVolume(t, Options{ChunkThreshold: testThreshold})
	data := coldtest.Noise(41, 20*format.MinChunk)
	id, tree := v.storeLoose(data)
	for i, r := range tree.Refs {
		if i != 7 && i != 8 {
			coldtest.RemoveLoose(t, v.Dir, r.ID)
		}
	}
	coldtest.Check(t, v.db.Refresh())
	at, err := v.OpenAt(t.Context(), id, int64(len(data)))
	coldtest.Check(t, err)
	defer at.Close()
	p := make([]byte, 100)
	for _, off := range []int64{7 * format.MinChunk, 8*format.MinChunk - 50, 9*format.MinChunk - 100} {
		if _, err := at.ReadAt(p, off); err != nil || !bytes.Equal(p, data[off:off+100]) {
			t.Errorf("at %d: %v", off, err)
		}
	}
	n, err := at.ReadAt(p, 9*format.MinChunk-50)
	if n != 50 || !errors.Is(err, cold.ErrMissing) || !strings.Contains(err.Error(), "00000009") {
		t.Errorf("over a missing chunk: %d, %v", n, err)
	}
	v.object("blob", data[9*format.MinChunk:10*format.MinChunk])
	if _, err := at.ReadAt(p, 9*format.MinChunk-50); err != nil {
		t.Errorf("the chunk is there again: %v", err)
	}
}

// A long request reads its chunks in parallel. It returns what is before the first chunk that cannot be read, and
// nothing of that one.
func TestOpenAtLongOverBadChunks(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{ChunkThreshold: testThreshold})
	data := coldtest.Noise(42, 20*format.MinChunk)
	id, tree := v.storeLoose(data)
	for _, i := range []int{9, 13} {
		coldtest.RemoveLoose(t, v.Dir, tree.Refs[i].ID)
	}
	other := v.object("blob", coldtest.Noise(43, format.MinChunk)).String()
	damaged := tree.Refs[5].ID.String()
	coldtest.RemoveLoose(t, v.Dir, tree.Refs[5].ID)
	coldtest.Check(t, os.Link(filepath.Join(v.Dir, "objects", other[:2], other[2:]),
		filepath.Join(v.Dir, "objects", damaged[:2], damaged[2:])))
	coldtest.Check(t, v.db.Refresh())
	at, err := v.OpenAt(t.Context(), id, int64(len(data)))
	coldtest.Check(t, err)
	p := make([]byte, len(data))
	for _, c := range []struct {
		off, end int
		want     error
	}{{0, 5, cold.ErrCorrupt}, {6, 9, cold.ErrMissing}, {10, 13, cold.ErrMissing}} {
		for _, shift := range []int{0, 7} {
			off := c.off*format.MinChunk + shift
			n, err := at.ReadAt(p[off:], int64(off))
			if end := c.end * format.MinChunk; n != end-off || !errors.Is(err, c.want) ||
				!bytes.Equal(p[off:end], data[off:end]) {
				t.Errorf("from %d: %d bytes, %v", off, n, err)
			}
		}
	}
	for _, i := range []int{9, 13} {
		v.object("blob", data[i*format.MinChunk:(i+1)*format.MinChunk])
	}
	if n, err := at.ReadAt(p, 6*format.MinChunk); n != 14*format.MinChunk || !errors.Is(err, io.EOF) ||
		!bytes.Equal(p[:n], data[6*format.MinChunk:]) {
		t.Errorf("the chunks are there again: %d, %v", n, err)
	}
	if err := at.Close(); err != nil {
		t.Error(err)
	}
}

// While small reads go forward, chunks are loaded ahead. A chunk that cannot be read ends the reads at its beginning,
// until it can be read again.
func TestOpenAtForward(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{ChunkThreshold: testThreshold})
	data := coldtest.Noise(44, 60*format.MinChunk+5)
	id, tree := v.storeLoose(data)
	coldtest.RemoveLoose(t, v.Dir, tree.Refs[40].ID)
	coldtest.Check(t, v.db.Refresh())
	at, err := v.OpenAt(t.Context(), id, int64(len(data)))
	coldtest.Check(t, err)
	const step = 10_000
	p := make([]byte, step)
	for off, failed := 0, false; off < len(data); off += step {
		want := data[off:min(off+step, len(data))]
		n, err := at.ReadAt(p, int64(off))
		if bad := 40 * format.MinChunk; !failed && off+step > bad {
			if failed = true; n != bad-off || !errors.Is(err, cold.ErrMissing) || !bytes.Equal(p[:n], data[off:bad]) {
				t.Fatalf("at %d: %d, %v", off, n, err)
			}
			v.object("blob", data[bad:bad+format.MinChunk])
			n, err = at.ReadAt(p, int64(off))
		}
		if n != len(want) || err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(p[:n], want) {
			t.Fatalf("at %d: %d, %v", off, n, err)
		}
	}
	// Closing waits for what is being loaded.
	if err := at.Close(); err != nil {
		t.Error(err)
	}
	if k := &at.(*chunksAt).kept; k.mu.loaders != 0 || k.mu.recent != nil {
		t.Errorf("after Close %d goroutines and %d chunks are left", k.mu.loaders, len(k.mu.recent))
	}
}

// Files stored at the same time by many.
func TestStoreChunksConcurrently(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{ChunkThreshold: testThreshold})
	x := v.MustBegin()
	defer x.Abort()
	f := coldtest.NewDir(0o755)
	for i := range 12 {
		f.Text(fmt.Sprint(i), string(coldtest.Noise(uint64(50+i%5), 8*format.MinChunk+i)))
	}
	var wg sync.WaitGroup
	for _, k := range f.Kids {
		wg.Go(func() {
			var base cold.Base
			for range 3 {
				id, err := x.PutFile(t.Context(), coldtest.Content(k.Data), base)
				if err != nil {
					t.Error(err)
				}
				k.ID = id
				base = cold.Base{ID: id, Known: true}
			}
		})
	}
	wg.Wait()
	coldtest.Check(t, coldtest.PutDirs(t.Context(), x, f, true))
	if _, err := x.Commit(t.Context(), cold.CommitOptions{Root: f.Dir()}); err != nil {
		t.Fatal(err)
	}
	coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), f)
	v.CheckGit()
}

// A push sends the chunks that changed.
func TestPushChunks(t *testing.T) {
	t.Parallel()
	remote := filepath.Join(t.TempDir(), "remote.git")
	coldtest.Git(t, ".", "init", "-q", "--bare", "-b", "main", remote)
	v := newVolume(t, Options{ChunkThreshold: testThreshold, Source: remote})
	data := coldtest.Noise(60, 40*format.MinChunk)
	id, _ := v.store(coldtest.Content(data), cold.Base{})
	coldtest.Check(t, v.Push(t.Context()))
	old := v.HeadSnapshot().Info().ID
	data[17*format.MinChunk] ^= 1
	v.store(coldtest.Content(data), cold.Base{ID: id})
	tip := v.HeadSnapshot().Info().ID
	ids, err := v.collect(t.Context(), []cold.ID{tip}, old)
	coldtest.Check(t, err)
	kinds := map[odb.Type]int{}
	for _, id := range ids {
		kind, _, err := v.db.Stat(id)
		coldtest.Check(t, err)
		kinds[kind]++
	}
	// A chunk and the metadata; the root, the chunks' tree, .emberfs and meta.
	if kinds[odb.Blob] != 2 || kinds[odb.Tree] != 4 || kinds[odb.Commit] != 1 {
		t.Errorf("%v are sent", kinds)
	}
	coldtest.Check(t, v.Push(t.Context()))
	again := newVolume(t, Options{Source: remote})
	coldtest.Check(t, again.Fetch(t.Context()))
	again.checkFile(data)
}
