package odb

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// BenchmarkFirstCommit stores 10,000 files of 4 KB and a tree, fsyncs included; BenchmarkGitAdd is what git needs for
// the same.
func BenchmarkFirstCommit(b *testing.B) {
	files := benchFiles(10_000)
	for b.Loop() {
		b.StopTimer()
		_, db := newRepo(b, Options{})
		b.StartTimer()
		mustAdd(b, db, ID{}, 0, files)
	}
}

func benchFiles(n int) map[string][]byte {
	rnd := newSeeded(20)
	files := make(map[string][]byte, n)
	for i := range n {
		files[fmt.Sprintf("file%05d", i)] = rnd.bytes(4096, true)
	}
	return files
}

func BenchmarkGitAdd(b *testing.B) {
	files := benchFiles(10_000)
	for b.Loop() {
		b.StopTimer()
		dir := b.TempDir()
		git(b, dir, "init", "-q")
		for name, data := range files {
			check(b, os.WriteFile(filepath.Join(dir, name), data, 0o644))
		}
		b.StartTimer()
		git(b, dir, "add", "-A")
		git(b, dir, "commit", "-q", "-m", "x")
	}
}

// BenchmarkSmallCommit is one changed file: three objects, a reference, and all the fsyncs.
func BenchmarkSmallCommit(b *testing.B) {
	_, db := newRepo(b, Options{})
	var tip ID
	n := 0
	for b.Loop() {
		n++
		tip = mustAdd(b, db, tip, n, map[string][]byte{"f": fmt.Appendf(nil, "%d", n)})
	}
}

// BenchmarkBigBlob streams 64 MB of text.
func BenchmarkBigBlob(b *testing.B) {
	_, db := newRepo(b, Options{})
	data := newSeeded(21).bytes(64<<20, true)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		w := newWriter(b, db)
		if _, err := w.PutStream(int64(len(data)), &sliceReader{data}, nil); err != nil {
			b.Fatal(err)
		}
		check(b, w.Abort())
	}
}

type sliceReader struct{ b []byte }

func (r *sliceReader) Read(p []byte) (int, error) {
	n := copy(p, r.b)
	r.b = r.b[n:]
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// BenchmarkRead reads 4 KB blobs at random from 64 packs.
func BenchmarkRead(b *testing.B) {
	_, db := newRepo(b, Options{})
	rnd := newSeeded(22)
	var ids []ID
	for range 64 {
		publish(b, db, func(w *Writer) {
			for range 200 {
				ids = append(ids, mustPut(b, w, Blob, rnd.bytes(4096, true)))
			}
		})
	}
	b.Run("found", func(b *testing.B) {
		i := 0
		for b.Loop() {
			i = (i + 7919) % len(ids)
			if _, err := db.Read(ids[i], Blob, 1<<20); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("missing", func(b *testing.B) {
		for b.Loop() {
			if db.Has(ID{1, 2, 3}) {
				b.Fatal("found")
			}
		}
	})
}

// BenchmarkIndexPack takes in a pack with deltas that git made: 300 versions of a 100 KB file.
func BenchmarkIndexPack(b *testing.B) {
	dir := b.TempDir()
	git(b, dir, "init", "-q", "-b", "main")
	doc := newSeeded(23).bytes(100_000, true)
	for i := range 300 {
		copy(doc[(i*331)%90_000:], fmt.Sprintf("version %d", i))
		check(b, os.WriteFile(filepath.Join(dir, "doc"), doc, 0o644))
		git(b, dir, "add", ".")
		git(b, dir, "commit", "-q", "-m", "x")
	}
	c := exec.Command("git", "pack-objects", "--all", "--stdout", "-q", "--delta-base-offset")
	c.Dir = dir
	pack, err := c.Output()
	check(b, err)
	b.SetBytes(int64(len(pack)))
	for b.Loop() {
		b.StopTimer()
		_, db := newRepo(b, Options{})
		b.StartTimer()
		if _, _, err := db.IndexPack(&sliceReader{pack}, 0); err != nil {
			b.Fatal(err)
		}
	}
}
