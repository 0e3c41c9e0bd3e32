package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// tiering measures the next machine, which mounts a repository, and what leaves warm.
func (b *bench) tiering() error {
	if err := b.with("native", 6, "", (*subject).nextMachine); err != nil {
		return err
	}
	for round := range max(b.rounds, 3) {
		if err := b.with("emberfs", 2, "", func(s *subject) error { return s.releases(int64(round)) }); err != nil {
			return err
		}
	}
	return nil
}

// source makes the subject mount a bare repository on its own disk.
func (s *subject) source() string { return filepath.Join(s.disk, "repo.git") }

// nextMachine fills a repository, then mounts it with fresh state directories beside clones of it.
func (s *subject) nextMachine() error {
	b, n := s.b, s.b.size(100_000, 10_000)
	if _, err := b.command("/", "git", "init", "-q", "--bare", "-b", "main", s.source()); err != nil {
		return err
	}
	at := func(name string) (mnt, state string) {
		return filepath.Join(filepath.Dir(s.disk), name), filepath.Join(s.disk, name)
	}
	mount := func(name string) (mnt string, took time.Duration, err error) {
		mnt, state := at(name)
		if err := os.MkdirAll(mnt, 0o755); err != nil {
			return "", 0, err
		}
		took, err = b.command("/", b.emberfs, "mount", s.source(), mnt, "--state", state, "-o", "prefetch=off")
		return mnt, took, err
	}
	umount := func(mnt string) error {
		_, err := b.command("/", b.emberfs, "umount", mnt, "--deadline", "5m")
		return err
	}
	first, _, err := mount("first")
	if err != nil {
		return err
	}
	err = fill(first, n, 100, 200, 11)
	if err == nil {
		err = os.Mkdir(filepath.Join(first, "thousand"), 0o755)
	}
	for i := 0; i < 1000 && err == nil; i++ {
		err = os.WriteFile(filepath.Join(first, "thousand", fmt.Sprintf("file %d", i)),
			fmt.Appendf(nil, "file %d of a thousand", i), 0o644)
	}
	if err = errors.Join(err, umount(first)); err != nil {
		return err
	}
	for round := range max(b.rounds, 3) {
		clone := filepath.Join(s.disk, fmt.Sprintf("clone%d", round))
		if err := s.timed(rowMountMany, s.disk, "git", "clone", "-q", s.source(), clone); err != nil {
			return err
		}
		mnt, took, err := mount(fmt.Sprintf("next%d", round))
		if err != nil {
			return err
		}
		b.results.add(rowMountMany, "emberfs", float64(took.Microseconds())/1000)
		b.results.sample(rowMountTime, float64(took.Microseconds())/1000)
		if err := errors.Join(b.looks(s, mnt, clone, n, int64(round)), umount(mnt)); err != nil {
			return err
		}
		if err := errors.Join(os.RemoveAll(clone),
			os.RemoveAll(filepath.Join(s.disk, fmt.Sprintf("next%d", round)))); err != nil {
			return err
		}
	}
	return nil
}

// looks measures first looks at a fresh mount.
func (b *bench) looks(s *subject, mnt, clone string, n int, seed int64) error {
	// The root is listed, which holds 1,000 directories.
	if _, err := os.Lstat(filepath.Join(mnt, "thousand")); err != nil {
		return err
	}
	took, err := b.command(mnt, "ls", "-l", "thousand")
	if err != nil {
		return err
	}
	b.results.sample(rowListLazy, float64(took.Microseconds())/1000)
	rnd := rand.New(rand.NewSource(seed))
	for range 50 {
		k := rnd.Intn(n)
		name := filepath.Join(mnt, fmt.Sprintf("d%04d/f%05d", k/100, k))
		if _, err := os.Lstat(name); err != nil { // the directory is listed
			return err
		}
		start := time.Now()
		if _, err := os.ReadFile(name); err != nil {
			return err
		}
		b.results.sample(rowReadCold, float64(time.Since(start).Microseconds())/1000)
	}
	took, err = b.command(mnt, "find", ".")
	if err != nil {
		return err
	}
	b.results.add(rowFindFirst, "emberfs", float64(took.Microseconds())/1000)
	for _, w := range []struct{ kind, dir string }{{"native", clone}, {"emberfs", mnt}} {
		took, err := b.command(w.dir, "find", ".")
		if err != nil {
			return err
		}
		b.results.add(rowFind, w.kind, float64(took.Microseconds())/1000)
		if w.kind == "native" {
			b.results.add(rowFindFirst, w.kind, float64(took.Microseconds())/1000)
		}
	}
	if _, err := b.command(mnt, "du", "-s", "."); err != nil {
		return err
	}
	e := &subject{b: b, kind: "emberfs", mnt: mnt, disk: s.disk}
	return e.memory(rowMemoryWalk)
}

// releases measures how fast files leave warm, and what is left of them.
func (s *subject) releases(seed int64) error {
	b, n := s.b, s.b.size(10_000, 2_000)
	if err := fill(s.mnt, n, 100, 4096, seed); err != nil {
		return err
	}
	if _, err := b.commitQuietly(s); err != nil {
		return err
	}
	out, err := exec.CommandContext(b.ctx, b.emberfs, "tier", "--json", s.mnt).Output()
	if err != nil {
		return fmt.Errorf("emberfs tier: %w", err)
	}
	var r struct {
		Files int
		Took  time.Duration `json:"took_ns"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return err
	}
	if r.Files != n {
		return fmt.Errorf("emberfs tier released %d files of %d", r.Files, n)
	}
	b.results.sample(rowRelease, r.Took.Seconds()*1000*10_000/float64(n))
	left, err := allocated(filepath.Join(s.disk, "state/warm"))
	if err != nil {
		return err
	}
	b.results.sample(rowReleaseLeft, float64(left)*100/float64(n*4096))
	return nil
}

// allocated sums the bytes that regular files have on disk.
func allocated(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		var st unix.Stat_t
		err = unix.Lstat(path, &st)
		sum += st.Blocks * 512
		return err
	})
	return sum, err
}
