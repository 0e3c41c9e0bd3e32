package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// cold measures what commits of big files and of big directories cost, in time and in the repository.
func (b *bench) cold() error {
	if err := b.besideGit(4, (*subject).bigFile); err != nil {
		return err
	}
	for _, part := range []func(s *subject) error{(*subject).database, (*subject).bigDirectory} {
		if err := b.with("emberfs", 2, "", part); err != nil {
			return err
		}
	}
	return b.coldReads()
}

// fillFile writes megabytes of which every other 64 KiB compress as text does.
func fillFile(path string, megabytes int, seed int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	rnd := rand.New(rand.NewSource(seed))
	block := make([]byte, 1<<20)
	text := bytes.Repeat([]byte("all work and no play "), 4<<10)
	for range megabytes {
		rnd.Read(block)
		for k := 0; k < len(block); k += 128 << 10 {
			copy(block[k:k+64<<10], text[rnd.Intn(1000):])
		}
		if _, err := f.Write(block); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}

// growth runs a commit and gives how many MB the repository's packs grew by it.
func (s *subject) growth(commit func() error) (float64, error) {
	size := func() (int64, error) {
		list, err := filepath.Glob(filepath.Join(s.disk, "state/cold.git/objects/pack/*.pack"))
		var sum int64
		for _, p := range list {
			fi, serr := os.Stat(p)
			if serr != nil {
				return 0, serr
			}
			sum += fi.Size()
		}
		return sum, err
	}
	before, err := size()
	if err != nil {
		return 0, err
	}
	if err := commit(); err != nil {
		return 0, err
	}
	after, err := size()
	return float64(after-before) / 1e6, err
}

func (s *subject) bigFile() error {
	mb, big := s.b.size(1000, 100), filepath.Join(s.mnt, "big")
	if err := fillFile(big, mb, 5); err != nil {
		return err
	}
	if err := s.commit(rowBigCommit); err != nil || s.kind == "native" {
		return err
	}
	if err := s.memory(rowMemoryBig); err != nil {
		return err
	}
	return s.smallEdits(big, mb)
}

// smallEdits changes 4 KB of a big file at a time.
func (s *subject) smallEdits(big string, mb int) error {
	rnd := rand.New(rand.NewSource(6))
	for range 20 {
		f, err := os.OpenFile(big, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		p := make([]byte, 4096)
		rnd.Read(p)
		_, err = f.WriteAt(p, rnd.Int63n(int64(mb)<<20-4096)&^4095)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		grown, err := s.growth(func() error {
			took, err := s.b.command("/", s.b.emberfs, "sync", s.mnt)
			s.b.results.sample(rowBigEdit, float64(took.Microseconds())/1000)
			return err
		})
		if err != nil {
			return err
		}
		s.b.results.sample(rowBigEditSize, grown)
	}
	return nil
}

func (s *subject) database() error {
	b := s.b
	rows := b.size(32_000, 3_000) // of 4 KB: 131 MB
	db := filepath.Join(s.mnt, "base.db")
	sql := func(text string) error {
		_, err := b.command(s.mnt, "sqlite3", db, text)
		return err
	}
	err := sql(fmt.Sprintf(`create table t(id integer primary key, v blob);
		with recursive n(i) as (select 1 union all select i+1 from n where i < %d) insert into t select i, hex(randomblob(1950)) from n;`, rows))
	if err != nil {
		return err
	}
	if _, err := b.commitQuietly(s); err != nil {
		return err
	}
	for range 5 {
		if err := sql(fmt.Sprintf("update t set v = hex(randomblob(1950)) where id in (select abs(random() %% %d) "+
			"from t limit 100);", rows)); err != nil {
			return err
		}
		grown, err := s.growth(func() error { _, err := b.commitQuietly(s); return err })
		if err != nil {
			return err
		}
		b.results.sample(rowDatabase, grown)
	}
	return nil
}

func (s *subject) bigDirectory() error {
	b := s.b
	n := b.size(100_000, 10_000)
	if err := os.Mkdir(filepath.Join(s.mnt, "dir"), 0o755); err != nil {
		return err
	}
	name := func(i int) string { return filepath.Join(s.mnt, fmt.Sprintf("dir/file %06d", i)) }
	for i := range n {
		if err := os.WriteFile(name(i), nil, 0o644); err != nil {
			return err
		}
	}
	if _, err := b.commitQuietly(s); err != nil {
		return err
	}
	for i := range 5 {
		if err := os.WriteFile(name(i*7919%n), fmt.Appendf(nil, "changed %d", i), 0o644); err != nil {
			return err
		}
		took, err := b.commitQuietly(s)
		if err != nil {
			return err
		}
		b.results.sample(rowBigDir, float64(took.Microseconds())/1000)
		size, err := metadataOfTip(filepath.Join(s.disk, "state/cold.git"))
		if err != nil {
			return err
		}
		b.results.sample(rowBigDirSize, float64(size)/1000)
	}
	return nil
}

// coldReads takes over what the benchmarks of package backup measure inside: nothing reads cold through a mount yet.
func (b *bench) coldReads() error {
	cmd := exec.CommandContext(b.ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkCold", "-benchtime", "3x",
		"./backup")
	cmd.Dir = b.module
	big, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go test -bench: %w", err)
	}
	cmd = exec.CommandContext(b.ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkColdFirstByte", "./backup")
	cmd.Dir = b.module
	first, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go test -bench: %w", err)
	}
	if v, ok := metric(string(first), "BenchmarkColdFirstByte", "p99-ms"); ok {
		b.results.sample(rowColdByte, v)
	}
	if v, ok := metric(string(big), "BenchmarkColdBigFile", "of-native"); ok && v > 0 {
		b.results.sample(rowColdBig, 1/v)
	}
	return nil
}

// metric finds a figure in the output of go test -bench.
func metric(out, benchmark, unit string) (float64, bool) {
	for _, line := range strings.Split(out, "\n") {
		f := strings.Fields(line)
		if len(f) == 0 || !strings.HasPrefix(f[0], benchmark) {
			continue
		}
		for i := 1; i < len(f); i++ {
			if f[i] == unit {
				v, err := strconv.ParseFloat(f[i-1], 64)
				return v, err == nil
			}
		}
	}
	return 0, false
}

// metadataOfTip sums the packed sizes of the objects below .emberfs that the last commit added.
func metadataOfTip(repo string) (int64, error) {
	out, err := exec.Command("sh", "-euc",
		`cd "$0"; git rev-list --objects main~1..main | grep " .emberfs" | cut -d " " -f 1 | git cat-file --batch-check='%(objectsize:disk)'`, repo).Output()
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, f := range strings.Fields(string(out)) {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}
