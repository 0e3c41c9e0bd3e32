package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

func TestChunkSize(t *testing.T) {
	for _, c := range []struct{ size, want int64 }{
		{1, 64 << 10}, {8<<20 + 1, 64 << 10}, {256 << 20, 64 << 10}, {256<<20 + 1, 128 << 10}, {512 << 20, 128 << 10},
		{1 << 30, 256 << 10},
		{16 << 30, 4 << 20}, {16<<30 + 1, 4 << 20}, {1 << 40, 4 << 20}, {1<<63 - 1, 4 << 20},
	} {
		coldtest.Equal(t, format.ChunkSizeOf(c.size), c.want, "chunkSizeOf(%d) =", c.size)
	}
	const half, whole = 4 << 20, 8 << 20
	old := func(chunk int64) *format.ChunkTree { return &format.ChunkTree{Chunk: chunk} }
	for _, c := range []struct {
		size int64
		old  *format.ChunkTree
		want int64
	}{
		{whole, nil, 0}, {whole + 1, nil, format.MinChunk}, {half, nil, 0},
		{half, old(format.MinChunk), format.MinChunk}, {half - 1, old(format.MinChunk), 0}, {0, nil, 0},
		{8 * 4096 * format.MinChunk, old(format.MinChunk), format.MinChunk},
		{8*4096*format.MinChunk + 1, old(format.MinChunk), 1 << 20}, {whole, old(format.MaxChunk), format.MaxChunk},
		{1 << 45, old(format.MaxChunk), format.MaxChunk},
	} {
		coldtest.Equal(t, format.ChunkSizeFor(c.size, whole, c.old), c.want, "chunkSizeFor(%d, %+v) =", c.size, c.old)
	}
}

// Round trips at the borders; each size follows the one before as a change of the same file.
func TestChunkBorders(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{ChunkThreshold: testThreshold})
	data := coldtest.Noise(1, 9*format.MinChunk)
	var base cold.ID
	for _, c := range []struct {
		size  int
		chunk bool
	}{
		{0, false}, {1, false}, {format.MinChunk, false}, {testThreshold, false}, {testThreshold + 1, true},
		{testThreshold, true}, {testThreshold - 1, true},
		{testThreshold / 2, true}, {testThreshold/2 - 1, false}, {testThreshold/2 + 1, false},
		{6 * format.MinChunk, true}, {6*format.MinChunk + 1, true},
		{6*format.MinChunk - 1, true}, {9 * format.MinChunk, true}, {1, false},
	} {
		id, _ := v.store(coldtest.Content(data[:c.size]), cold.Base{ID: base})
		kind, _, err := v.db.Stat(id)
		if err != nil || (kind == odb.Tree) != c.chunk {
			t.Errorf("%d bytes: a %v, %v", c.size, kind, err)
		}
		v.checkFile(data[:c.size])
		base = id
	}
	v.CheckGit()
}

// A file that grew eightfold is cut anew.
func TestChunkGrowth(t *testing.T) {
	v := newVolume(t, Options{ChunkThreshold: testThreshold})
	const small = format.MaxGrowth * format.WantChunks * format.MinChunk // 2 GiB, of which nearly all is a hole
	part := coldtest.Noise(2, 100)
	h := holed{size: small, parts: map[int64][]byte{0: part, small - 100: part}}
	id, _ := v.store(holed{size: 1 << 20, parts: map[int64][]byte{0: part}}, cold.Base{})
	for _, c := range []struct{ size, chunk int64 }{{small, format.MinChunk}, {small + 1, 1 << 20}} {
		h.size = c.size
		id, _ = v.store(h, cold.Base{ID: id})
		tree, err := format.LoadChunks(v.db, id)
		if err != nil || tree.Chunk != c.chunk || tree.Size != c.size {
			t.Errorf("%d bytes: %+v, %v", c.size, tree, err)
		}
	}
}

func TestChunkHoles(t *testing.T) {
	t.Parallel()
	const c = format.MinChunk
	some := coldtest.Noise(3, 3*c)
	for _, h := range []holed{
		{size: 8 * c, parts: map[int64][]byte{}},
		{size: 8*c + 1, parts: map[int64][]byte{}},
		{size: 8 * c, parts: map[int64][]byte{4 * c: some}},
		{size: 8 * c, parts: map[int64][]byte{0: some[:1], 8*c - 1: some[:1]}},
		{size: 8*c + 5, parts: map[int64][]byte{c - 1: some[:2], 5 * c: some[:c]}},
		{size: 8*c + 5, parts: map[int64][]byte{8 * c: some[:5]}},
		{size: 8*c + 5, parts: map[int64][]byte{2*c + 7: some}},
	} {
		v := newVolume(t, Options{ChunkThreshold: testThreshold})
		var reads readLog
		h.reads = &reads
		id, _ := v.store(h, cold.Base{})
		var want []cold.Range
		full := make(map[int64]bool)
		for at, p := range h.parts {
			for n := at / c; n*c < at+int64(len(p)); n++ {
				full[n] = true
			}
		}
		for n := int64(0); n*c < h.size; n++ {
			switch k := len(want) - 1; {
			case full[n]:
			case k >= 0 && want[k].End == n*c:
				want[k].End = min((n+1)*c, h.size)
			default:
				want = append(want, cold.Range{Off: n * c, End: min((n+1)*c, h.size)})
			}
		}
		for _, r := range reads.list {
			if !full[r.Off/c] && r.End < h.size {
				t.Errorf("%v: a hole was read: %v", h.parts, r)
			}
		}
		tree, err := format.LoadChunks(v.db, id)
		if err != nil || len(tree.Refs) != len(full) {
			t.Errorf("%d chunks, want %d, %v", len(tree.Refs), len(full), err)
		}
		if got, _ := v.holes(v.entry("f")); !slices.Equal(got, want) {
			t.Errorf("holes %v, want %v", got, want)
		}
		v.checkFile(h.bytes())
	}
}

// cat puts a file together again in a checkout of stock git.
func TestChunkCat(t *testing.T) {
	v := newVolume(t, Options{ChunkThreshold: testThreshold})
	data := coldtest.Noise(5, 20*format.MinChunk+17)
	v.store(coldtest.Content(data), cold.Base{})
	clone := filepath.Join(t.TempDir(), "clone")
	coldtest.Git(t, ".", "clone", "-q", v.Dir, clone)
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "cat f/*")
	cmd.Dir = clone
	out, err := cmd.Output()
	if err != nil || !bytes.Equal(out, data) {
		t.Errorf("cat gives %d bytes of %d, %v", len(out), len(data), err)
	}
	info, err := os.ReadFile(filepath.Join(clone, "f", format.ChunksName))
	if want := fmt.Sprintf(`{"size":%d,"chunk":%d}`+"\n", len(data), format.MinChunk); err != nil ||
		string(info) != want {
		t.Errorf("%s holds %q, %v", format.ChunksName, info, err)
	}
}

// The metadata of a file in chunks change without its content, also after the threshold was changed.
func TestChunkedChmod(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cold.git")
	v := openVolume(t, dir, Options{ChunkThreshold: testThreshold})
	data := coldtest.Noise(6, 6*format.MinChunk)
	id, _ := v.store(coldtest.Content(data), cold.Base{})
	coldtest.Check(t, v.Close())
	v = openVolume(t, dir, Options{})
	for i, full := range []bool{false, true, false} {
		x := v.MustBegin()
		defer x.Abort()
		base := coldtest.RootOf(x.Base())
		if i == 2 {
			base = cold.DirID{} // nothing to find the tree's type in
		}
		name := []string{"f", "f", "g"}[i]
		e := cold.Entry{Name: name, Kind: cold.KindFile, Mode: 0o640 + uint32(i), Size: int64(len(data)), ID: id}
		root, err := x.PutDir(t.Context(), base, full, &cold.Root{Entry: coldtest.NewDir(0o755).Entry}, []cold.Entry{e},
			nil)
		coldtest.Check(t, err)
		if _, err := x.Commit(t.Context(), cold.CommitOptions{Root: root}); err != nil {
			t.Fatal(err)
		}
		if got := v.entry(name); got.Mode != e.Mode || got.ID != id || got.Size != e.Size {
			t.Errorf("entry %+v", got)
		}
		if s := coldtest.Git(t, dir, "ls-tree", "main", name); !strings.HasPrefix(s, "040000 tree "+id.String()) {
			t.Errorf("git has %s", s)
		}
	}
	// Between half of the new threshold and the whole it would stay in chunks; it is far below.
	if now, _ := v.store(coldtest.Content(data), cold.Base{ID: id, Known: true}); now != coldtest.BlobID(t,
		string(data)) {
		t.Errorf("stored as %s", now)
	}
}

// A volume from before there were chunks: one big blob, until it changes.
func TestChunksOfOldVolume(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cold.git")
	data := coldtest.Noise(7, 30*format.MinChunk)
	v := openVolume(t, dir, Options{})
	id, _ := v.store(coldtest.Content(data), cold.Base{})
	coldtest.Check(t, v.Close())
	v = openVolume(t, dir, Options{ChunkThreshold: testThreshold})
	v.checkFile(data)
	data[5] ^= 1
	now, n := v.store(coldtest.Content(data), cold.Base{ID: id, Known: true, Changed: []cold.Range{{Off: 5, End: 6}}})
	if kind, _, err := v.db.Stat(now); err != nil || kind != odb.Tree || n != 32 {
		t.Errorf("%d objects, a %v, %v", n, kind, err)
	}
	v.checkFile(data)
}

// A file that is stored again in the same transaction builds on what was stored the first time.
func TestChunksTwiceInOneTx(t *testing.T) {
	v := newVolume(t, Options{ChunkThreshold: testThreshold})
	x := v.MustBegin()
	defer x.Abort()
	data := coldtest.Noise(8, 16*format.MinChunk)
	id, err := x.PutFile(t.Context(), coldtest.Content(data), cold.Base{})
	coldtest.Check(t, err)
	n := txLen(t, x)
	data[3*format.MinChunk] ^= 1
	var reads readLog
	h := holed{size: int64(len(data)), parts: map[int64][]byte{0: data}, reads: &reads}
	again, err := x.PutFile(t.Context(), h, cold.Base{
		ID: id, Known: true, Changed: []cold.Range{{Off: 3 * format.MinChunk, End: 3*format.MinChunk + 1}}})
	if err != nil || again == id || txLen(t, x) != n+2 || len(reads.list) != 2 {
		t.Errorf("%v, %d more objects, %d reads", err, txLen(t, x)-n, len(reads.list))
	}
}

// What the base lost is stored again, wherever it is known not to have changed.
func TestChunksOfDamagedBase(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{ChunkThreshold: testThreshold})
	data := coldtest.Noise(9, 16*format.MinChunk)
	id, tree := v.storeLoose(data)
	coldtest.RemoveLoose(t, v.Dir, tree.Refs[7].ID)
	coldtest.Check(t, v.db.Refresh())
	if now, n := v.store(coldtest.Content(data), cold.Base{ID: id, Known: true}); now != id || n != 1 {
		t.Errorf("%d objects stored of one that is missing", n)
	}
	v.checkFile(data)
	coldtest.Explode(t, v.Dir)
	coldtest.RemoveLoose(t, v.Dir, id)
	coldtest.Check(t, v.db.Refresh())
	if now, _ := v.store(coldtest.Content(data), cold.Base{ID: id, Known: true}); now != id {
		t.Errorf("stored as %s", now)
	}
	v.checkFile(data)
}

func TestChunkedSizeChanges(t *testing.T) {
	v := newVolume(t, Options{ChunkThreshold: testThreshold})
	x := v.MustBegin()
	defer x.Abort()
	data := coldtest.Noise(10, 8*format.MinChunk+10)
	id, err := x.PutFile(t.Context(), coldtest.Content(data), cold.Base{})
	coldtest.Check(t, err)
	for _, size := range []int64{8*format.MinChunk + 9, 8*format.MinChunk + 11, 8 * format.MinChunk, 9*format.MinChunk +
		1, 20 * format.MinChunk} {
		for _, c := range []cold.Content{coldtest.Content(data),
			holed{size: int64(len(data)), parts: map[int64][]byte{0: data}}} {
			for _, base := range []cold.Base{{}, {ID: id}, {ID: id, Known: true}} {
				if _, err := x.PutFile(t.Context(), coldtest.Sized{Content: c, Bytes: size}, base); !errors.Is(err,
					cold.ErrSizeChanged) {
					t.Errorf("%d bytes as %d: %v", len(data), size, err)
				}
			}
		}
	}
	bad := errors.New("disk on fire")
	if _, err := x.PutFile(t.Context(), failing{coldtest.Content(data), bad}, cold.Base{}); !errors.Is(err, bad) {
		t.Errorf("PutFile = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := x.PutFile(ctx, coldtest.Content(data), cold.Base{}); !errors.Is(err, context.Canceled) {
		t.Errorf("PutFile = %v", err)
	}
	var much *cold.TooMuchError
	if _, err := x.PutFile(t.Context(), holed{size: 1 << 60}, cold.Base{}); !errors.As(err, &much) {
		t.Errorf("PutFile of an exabyte = %v", err)
	}
}

// failing is content whose third chunk cannot be read.
type failing struct {
	cold.Content
	err error
}

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off == 2*format.MinChunk {
		return 0, f.err
	}
	return f.Content.ReadAt(p, off)
}
