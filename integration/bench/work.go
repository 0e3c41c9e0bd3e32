package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// realWork measures git clone, tar, rm and go build.
func (b *bench) realWork() error {
	repo, err := b.sampleRepo()
	if err != nil {
		return err
	}
	sources := filepath.Join(b.dir, "sources")
	if _, err := b.command(b.module, "sh", "-euc", `mkdir -p "$1"; git archive HEAD | tar -x -C "$1"`, "sh",
		sources); err != nil {
		return err
	}
	return b.inTurn("work", b.kinds(), 4, func(s *subject, round int) error { return s.realWork(repo, sources, round) })
}

// sampleRepo makes a repository of a thousand files in a hundred directories.
func (b *bench) sampleRepo() (string, error) {
	repo := filepath.Join(b.dir, "sample")
	for i := range 1000 {
		dir := filepath.Join(repo, fmt.Sprintf("pkg%02d", i%100))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
		content := fmt.Appendf(nil, "package p%d\n", i)
		for l := range 50 + i%200 {
			content = fmt.Appendf(content, "// line %d of file %d says %x\n", l, i, l*i*2654435761)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%04d.go", i)), content, 0o644); err != nil {
			return "", err
		}
	}
	_, err := b.command(repo, "sh", "-euc", "git init -q -b main; git add -A; git commit -qm sample; git gc -q")
	return repo, err
}

func (s *subject) timed(row, dir string, args ...string) error {
	took, err := s.b.command(dir, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", row, err)
	}
	s.b.results.add(row, s.kind, float64(took)/float64(time.Millisecond))
	return nil
}

func (s *subject) realWork(repo, sources string, round int) error {
	if err := s.timed(rowClone, s.mnt, "git", "clone", "-q", "--no-local", repo, "clone"); err != nil {
		return err
	}
	if err := s.timed(rowGitStatus, filepath.Join(s.mnt, "clone"), "git", "status", "--porcelain"); err != nil {
		return err
	}
	if err := s.remount(); err != nil {
		return err
	}
	if err := s.timed(rowTar, s.mnt, "sh", "-c", "tar -cf - clone | cat >/dev/null"); err != nil {
		return err
	}
	if err := s.timed(rowRemove, s.mnt, "rm", "-rf", "clone"); err != nil {
		return err
	}
	if s.kind == "rclone" || s.b.quick && s.kind == "loopback" {
		return nil
	}
	// The project's own packages are compiled and linked anew each time; the standard library and the modules come from
	// a cache that is filled once, outside of the subjects.
	src := filepath.Join(s.mnt, "src")
	if _, err := s.b.command("/", "cp", "-r", sources, src); err != nil {
		return err
	}
	cache := filepath.Join(s.b.dir, "gocache")
	build := []string{"env", "GOCACHE=" + cache, "GOFLAGS=-trimpath", "go", "build", "-buildvcs=false", "-o",
		filepath.Join(s.mnt, "emberfs.out"), "./cmd/emberfs"}
	if round == 0 {
		if _, err := s.b.command(src, build...); err != nil {
			return err
		}
	}
	nonce := fmt.Sprintf("\nconst benchNonce = \"%s %d %d\"\n", s.kind, round, time.Now().UnixNano())
	for _, pkg := range []string{"tiers", "fs", "backup", "cmd/emberfs"} {
		f, err := os.OpenFile(filepath.Join(src, pkg, "doc.go"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		if _, err := f.WriteString(nonce); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	if err := s.remount(); err != nil {
		return err
	}
	return s.timed(rowBuild, src, build...)
}
