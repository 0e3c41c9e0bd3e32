package backup

import (
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

// benchCold returns an empty volume.
func benchCold(b *testing.B) *Cold {
	b.Helper()
	c, err := Open(filepath.Join(b.TempDir(), "cold.git"), Options{})
	coldtest.Check(b, err)
	b.Cleanup(func() {
		if err := c.Close(); err != nil {
			b.Error(err)
		}
	})
	return c
}

// benchVolume returns a volume with one directory "big" of n entries.
func benchVolume(b *testing.B, n int) (*Cold, cold.Entry, []cold.Entry) {
	b.Helper()
	c := benchCold(b)
	ctx := context.Background()
	tx, err := c.Begin(ctx)
	coldtest.Check(b, err)
	entries := make([]cold.Entry, n)
	for i := range entries {
		// Each file has its own content, as in practice, so that the ids do not compress.
		id, err := tx.PutFile(ctx, coldtest.Content(fmt.Appendf(nil, "%08d", i)), cold.Base{})
		coldtest.Check(b, err)
		entries[i] = cold.Entry{
			Name: fmt.Sprintf("file-%06d.txt", i), Kind: cold.KindFile, Mode: 0o644, UID: 1000, GID: 1000, Size: 8,
			ID:    id,
			Mtime: cold.Time{Sec: 1700000000 + int64(i), Nsec: uint32(i) * 7919 % 1e9},
		}
	}
	dir := cold.Entry{Name: "big", Kind: cold.KindDir, Mode: 0o755}
	id, err := tx.PutDir(ctx, cold.DirID{}, true, nil, entries, nil)
	coldtest.Check(b, err)
	dir.ID, dir.Meta = id.Tree, id.Meta
	root := cold.Entry{Kind: cold.KindDir, Mode: 0o755}
	id, err = tx.PutDir(ctx, cold.DirID{}, true, &cold.Root{Entry: root}, []cold.Entry{dir}, nil)
	coldtest.Check(b, err)
	if _, err := tx.Commit(ctx, cold.CommitOptions{Root: id}); err != nil {
		b.Fatal(err)
	}
	return c, dir, entries
}

// BenchmarkPutDirDelta changes one file of 100,000. It measures the time of PutDir, and the size of the commit's
// metadata in the pack.
func BenchmarkPutDirDelta(b *testing.B) {
	c, dir, entries := benchVolume(b, 100_000)
	ctx := context.Background()
	tx, err := c.Begin(ctx)
	coldtest.Check(b, err)
	defer tx.Abort()
	i := 0
	for b.Loop() {
		e := entries[i%len(entries)]
		i++
		e.ID, err = tx.PutFile(ctx, coldtest.Content(fmt.Appendf(nil, "x%07d", i)), cold.Base{})
		coldtest.Check(b, err)
		if _, err := tx.PutDir(ctx, dir.Dir(), false, nil, []cold.Entry{e}, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTouchBytes measures the metadata bytes of a commit that touches one file of 100,000 (git's own tree stays).
func BenchmarkTouchBytes(b *testing.B) {
	c, dir, entries := benchVolume(b, 100_000)
	ctx := context.Background()
	var bytes, commits int64
	i := 0
	for b.Loop() {
		s, err := c.Head(ctx)
		coldtest.Check(b, err)
		tx, err := c.Begin(ctx)
		coldtest.Check(b, err)
		i++
		entries[i*97].Mtime.Nsec++
		id, err := tx.PutDir(ctx, dir.Dir(), false, nil, []cold.Entry{entries[i*97]}, nil)
		coldtest.Check(b, err)
		dir.ID, dir.Meta = id.Tree, id.Meta
		root := s.Root()
		id, err = tx.PutDir(ctx, coldtest.RootOf(s), false, &cold.Root{Entry: root}, []cold.Entry{dir}, nil)
		coldtest.Check(b, err)
		before := c.Stats().Bytes
		if _, err := tx.Commit(ctx, cold.CommitOptions{Root: id}); err != nil {
			b.Fatal(err)
		}
		bytes += c.Stats().Bytes - before
		commits++
	}
	b.ReportMetric(float64(bytes)/float64(commits), "B/commit")
}

// A directory of 100,000 entries is stored whole.
func BenchmarkPutDirFull(b *testing.B) {
	c, dir, entries := benchVolume(b, 100_000)
	ctx := context.Background()
	for _, base := range []cold.DirID{{}, dir.Dir()} {
		b.Run(fmt.Sprintf("base=%v", base != cold.DirID{}), func(b *testing.B) {
			for b.Loop() {
				tx, err := c.Begin(ctx)
				coldtest.Check(b, err)
				if _, err := tx.PutDir(ctx, base, true, nil, entries, nil); err != nil {
					b.Fatal(err)
				}
				tx.Abort()
			}
		})
	}
}

// A directory of 100,000 entries is listed.
func BenchmarkReadDir(b *testing.B) {
	c, dir, entries := benchVolume(b, 100_000)
	ctx := context.Background()
	s, err := c.Head(ctx)
	coldtest.Check(b, err)
	for b.Loop() {
		l, err := s.ReadDir(ctx, dir.Dir())
		if err != nil || len(l.Entries) != len(entries) || len(l.Problems) > 0 {
			b.Fatalf("%d entries, %v, %v", len(l.Entries), l.Problems, err)
		}
	}
}

func BenchmarkHashObject(b *testing.B) {
	data := make([]byte, 1<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := odb.HashObject(odb.Tree, data); err != nil {
			b.Fatal(err)
		}
	}
}

// The first commit of 10,000 files of 4 KB in 100 directories, from memory.
func BenchmarkFirstCommit(b *testing.B) {
	ctx := context.Background()
	data := make([]byte, 4096)
	for b.Loop() {
		b.StopTimer()
		c, err := Open(filepath.Join(b.TempDir(), "cold.git"), Options{})
		coldtest.Check(b, err)
		b.StartTimer()
		tx, err := c.Begin(ctx)
		coldtest.Check(b, err)
		var dirs []cold.Entry
		for d := range 100 {
			entries := make([]cold.Entry, 100)
			var g sync.WaitGroup
			for half := range 2 {
				g.Go(func() {
					own := slices.Clone(data)
					for i := half; i < 100; i += 2 {
						for k := 0; k+16 < len(own); k += 16 {
							binary.LittleEndian.PutUint64(own[k:], uint64(d*100+i)*0x9E3779B97F4A7C15+uint64(k))
						}
						id, err := tx.PutFile(ctx, coldtest.Content(own), cold.Base{})
						if err != nil {
							b.Error(err)
						}
						entries[i] = cold.Entry{Name: fmt.Sprintf("f%02d", i), Kind: cold.KindFile, Mode: 0o644,
							Size: 4096, ID: id, Mtime: cold.Time{Sec: int64(i)}}
					}
				})
			}
			g.Wait()
			id, err := tx.PutDir(ctx, cold.DirID{}, true, nil, entries, nil)
			coldtest.Check(b, err)
			dirs = append(dirs, cold.Entry{Name: fmt.Sprintf("d%02d", d), Kind: cold.KindDir, Mode: 0o755, ID: id.Tree,
				Meta: id.Meta})
		}
		id, err := tx.PutDir(ctx, cold.DirID{}, true, &cold.Root{Entry: cold.Entry{Kind: cold.KindDir, Mode: 0o755}},
			dirs, nil)
		coldtest.Check(b, err)
		if _, err := tx.Commit(ctx, cold.CommitOptions{Root: id}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		coldtest.Check(b, c.Close())
		b.StartTimer()
	}
}
