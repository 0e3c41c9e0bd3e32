package main

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"time"
)

// commits measures `emberfs sync` against `git add -A && git commit` of the same files on a native directory.
func (b *bench) commits() error {
	rounds := min(b.rounds, 3)
	for round := range rounds {
		fmt.Fprintf(os.Stderr, "bench: commit round %d\n", round+1)
		if err := b.firstCommit(round); err != nil {
			return err
		}
	}
	fmt.Fprintln(os.Stderr, "bench: commit of few in many")
	return b.smallCommit()
}

// commit makes a commit of what is in a subject and notes milliseconds.
func (s *subject) commit(row string) error {
	if s.kind == "emberfs" {
		return s.timed(row, "/", s.b.emberfs, "sync", s.mnt)
	}
	return s.timed(row, s.mnt, "sh", "-euc", "git add -A; git commit -qm x")
}

func (b *bench) firstCommit(seed int) error {
	return b.besideGit(2, func(s *subject) error {
		if err := fill(s.mnt, b.size(10_000, 2_000), 100, 4096, int64(seed)); err != nil {
			return err
		}
		return s.commit(rowFirstCommit)
	})
}

// fill makes n files of some size, so many a directory, of words that compress as text does.
func fill(dir string, n, each, size int, seed int64) error {
	rnd := rand.New(rand.NewSource(seed))
	buf := make([]byte, size)
	for i := range n {
		sub := filepath.Join(dir, fmt.Sprintf("d%04d", i/each))
		if i%each == 0 {
			if err := os.Mkdir(sub, 0o755); err != nil {
				return err
			}
		}
		for k := range buf {
			buf[k] = "abcdefghijklmnop \n"[rnd.Intn(18)]
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%05d", i)), buf, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) smallCommit() error {
	n := b.size(100_000, 10_000)
	return b.besideGit(3, func(s *subject) error {
		if err := fill(s.mnt, n, 100, 200, 7); err != nil {
			return err
		}
		if _, err := b.commitQuietly(s); err != nil {
			return err
		}
		for round := range max(b.rounds, 3) {
			for i := range 10 {
				k := (i*9973 + round*31) % n
				name := filepath.Join(s.mnt, fmt.Sprintf("d%04d/f%05d", k/100, k))
				text := fmt.Appendf(nil, "changed in round %d, file %d", round, i)
				if err := os.WriteFile(name, text, 0o644); err != nil {
					return err
				}
			}
			if err := s.commit(rowSmallCommit); err != nil {
				return err
			}
		}
		if s.kind == "native" {
			return nil
		}
		return s.memory(rowMemoryMany)
	})
}

func (b *bench) commitQuietly(s *subject) (time.Duration, error) {
	if s.kind == "emberfs" {
		return b.command("/", b.emberfs, "sync", s.mnt)
	}
	return b.command(s.mnt, "sh", "-euc", "git add -A; git commit -qm x")
}
