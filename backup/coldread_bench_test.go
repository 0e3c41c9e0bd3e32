package backup

import (
	"context"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

// coldFile is a file in cold.
type coldFile struct {
	id   cold.ID
	size int64
}

// putFiles commits files of the given contents and gives their ids.
func putFiles(b *testing.B, c *Cold, contents []cold.Content) []coldFile {
	b.Helper()
	ctx := context.Background()
	tx, err := c.Begin(ctx)
	coldtest.Check(b, err)
	defer tx.Abort()
	var base cold.DirID
	if s := tx.Base(); s != nil {
		root := s.Root()
		base = root.Dir()
	}
	var entries []cold.Entry
	var files []coldFile
	for i, content := range contents {
		id, err := tx.PutFile(ctx, content, cold.Base{})
		coldtest.Check(b, err)
		files = append(files, coldFile{id, content.Size()})
		entries = append(entries, cold.Entry{Name: fmt.Sprintf("%d-%d", time.Now().UnixNano(), i), Kind: cold.KindFile,
			Mode: 0o644, Size: content.Size(), ID: id})
	}
	root := cold.Entry{Kind: cold.KindDir, Mode: 0o755}
	id, err := tx.PutDir(ctx, base, base == cold.DirID{}, &cold.Root{Entry: root}, entries, nil)
	coldtest.Check(b, err)
	if _, err := tx.Commit(ctx, cold.CommitOptions{Root: id}); err != nil {
		b.Fatal(err)
	}
	return files
}

// BenchmarkColdFirstByte reads the first byte of random files out of 200 packs.
func BenchmarkColdFirstByte(b *testing.B) {
	c := benchCold(b)
	rnd := rand.New(rand.NewSource(1))
	var files []coldFile
	for range 200 {
		var contents []cold.Content
		for range 20 {
			p := make([]byte, 1000+rnd.Intn(60_000))
			rnd.Read(p[:len(p)/2])
			contents = append(contents, coldtest.Content(p))
		}
		files = append(files, putFiles(b, c, contents)...)
	}
	if n := c.Stats().Packs; n < 200 {
		b.Fatalf("only %d packs", n)
	}
	var took []time.Duration
	p := make([]byte, 1)
	b.ResetTimer()
	for b.Loop() {
		f := files[rnd.Intn(len(files))]
		start := time.Now()
		blob, err := c.OpenAt(context.Background(), f.id, f.size)
		coldtest.Check(b, err)
		if _, err := blob.ReadAt(p, 0); err != nil && err != io.EOF {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
		coldtest.Check(b, blob.Close())
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// BenchmarkColdBigFile reads a file of 1 GB from cold and, for comparison, the same bytes from a plain file in the page
// cache.
func BenchmarkColdBigFile(b *testing.B) { benchBigFile(b, 1<<20) }

// BenchmarkColdBlocks reads the same in hot's blocks.
func BenchmarkColdBlocks(b *testing.B) { benchBigFile(b, 64<<10) }

// benchBigFile reads so many bytes at once.
func benchBigFile(b *testing.B, request int) {
	const size = 1 << 30
	dir := b.TempDir()
	f, err := os.Create(filepath.Join(dir, "plain"))
	coldtest.Check(b, err)
	defer f.Close()
	rnd := rand.New(rand.NewSource(2))
	block := make([]byte, 1<<20)
	for range size >> 20 {
		rnd.Read(block[:512<<10]) // the other half repeats
		if _, err := f.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	c := benchCold(b)
	file := putFiles(b, c, []cold.Content{plainFile{f, size}})[0]
	read := func(r io.ReaderAt) time.Duration {
		start := time.Now()
		for off := int64(0); off < size; off += int64(request) {
			if _, err := r.ReadAt(block[:request], off); err != nil && err != io.EOF {
				b.Fatal(err)
			}
		}
		return time.Since(start)
	}
	read(f)
	var native, cold time.Duration
	b.SetBytes(size)
	b.ResetTimer()
	for b.Loop() {
		native += read(f)
		blob, err := c.OpenAt(context.Background(), file.id, file.size)
		coldtest.Check(b, err)
		cold += read(blob)
		coldtest.Check(b, blob.Close())
	}
	b.ReportMetric(native.Seconds()/cold.Seconds(), "of-native")
	b.ReportMetric(size/1e6*float64(b.N)/cold.Seconds(), "cold-MB/s")
}

// plainFile is a file without holes.
type plainFile struct {
	*os.File
	size int64
}

func (f plainFile) Size() int64 { return f.size }
func (f plainFile) Data(off int64) (cold.Range, bool, error) {
	return cold.Range{Off: off, End: f.size}, off < f.size, nil
}
