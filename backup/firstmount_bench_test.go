package backup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

// BenchmarkFirstMount is what a mount asks of cold before it can show a directory: on a machine that has nothing yet,
// and on one that has the repository already. It should not depend on the number of files; EMBERFS_BENCH_BIG=1 has a
// million of them too.
func BenchmarkFirstMount(b *testing.B) {
	sizes := []int{1_000, 100_000}
	if os.Getenv("EMBERFS_BENCH_BIG") != "" {
		sizes = append(sizes, 1_000_000)
	}
	for _, n := range sizes {
		b.Run(fmt.Sprintf("files=%d", n), func(b *testing.B) {
			remote := filepath.Join(b.TempDir(), "remote.git")
			fillRemote(b, remote, n)
			b.Run("first", func(b *testing.B) {
				dir := b.TempDir()
				var open, fetch, list time.Duration
				for i := 0; b.Loop(); i++ {
					o, f, l := mountOnce(b, filepath.Join(dir, fmt.Sprint(i)), remote)
					open, fetch, list = open+o, fetch+f, list+l
				}
				b.ReportMetric(float64(open.Microseconds())/float64(b.N), "open-us/op")
				b.ReportMetric(float64(fetch.Microseconds())/float64(b.N), "fetch-us/op")
				b.ReportMetric(float64(list.Microseconds())/float64(b.N), "list-us/op")
			})
			b.Run("again", func(b *testing.B) {
				dir := filepath.Join(b.TempDir(), "cold.git")
				mountOnce(b, dir, remote)
				for b.Loop() {
					mountOnce(b, dir, remote)
				}
			})
		})
	}
}

// mountOnce opens, fetches, and lists the root directory.
func mountOnce(b *testing.B, dir, remote string) (open, fetch, list time.Duration) {
	b.Helper()
	start := time.Now()
	c, err := Open(dir, Options{Source: remote})
	coldtest.Check(b, err)
	open = time.Since(start)
	coldtest.Check(b, c.Fetch(b.Context()))
	fetch = time.Since(start) - open
	s, err := c.Head(b.Context())
	coldtest.Check(b, err)
	root := s.Root()
	if l, err := s.ReadDir(b.Context(), root.Dir()); err != nil || len(l.Entries) == 0 {
		b.Fatal(l, err)
	}
	list = time.Since(start) - open - fetch
	coldtest.Check(b, c.Close())
	return open, fetch, list
}

// fillRemote makes a repository of n small files, 250 a directory.
func fillRemote(b *testing.B, dir string, n int) {
	b.Helper()
	c, err := Open(dir, Options{})
	coldtest.Check(b, err)
	ctx := context.Background()
	x, err := c.Begin(ctx)
	coldtest.Check(b, err)
	const perDir, fan = 250, 100
	made := 0
	entry := func(name string, kind cold.Kind) cold.Entry {
		return cold.Entry{Name: name, Kind: kind, Mode: 0o755, Mtime: cold.Time{Sec: 1e9}}
	}
	var fill func(count int, root *cold.Root) cold.DirID
	fill = func(count int, root *cold.Root) cold.DirID {
		var put []cold.Entry
		if count <= perDir {
			for i := range count {
				e := entry(fmt.Sprint("file", i), cold.KindFile)
				data := fmt.Appendf(nil, "the content of file number %d\n", made)
				made++
				e.ID, err = x.PutFile(ctx, coldtest.Content(data), cold.Base{})
				coldtest.Check(b, err)
				e.Size = int64(len(data))
				put = append(put, e)
			}
		} else {
			part := max(perDir, (count+fan-1)/fan)
			for i := 0; count > 0; i++ {
				e := entry(fmt.Sprint("dir", i), cold.KindDir)
				d := fill(min(part, count), nil)
				e.ID, e.Meta = d.Tree, d.Meta
				put = append(put, e)
				count -= part
			}
		}
		id, err := x.PutDir(ctx, cold.DirID{}, true, root, put, nil)
		coldtest.Check(b, err)
		return id
	}
	root := fill(n, &cold.Root{Entry: entry("", cold.KindDir)})
	if _, err := x.Commit(ctx, cold.CommitOptions{Root: root}); err != nil {
		b.Fatal(err)
	}
	coldtest.Check(b, c.Close())
}
