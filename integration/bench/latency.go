package main

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// latencies measures the figures that the design promises in absolute terms, as p50 and p99 in milliseconds.
func (b *bench) latencies() error {
	if err := b.mountTime(); err != nil {
		return err
	}
	return b.with("emberfs", 3, "kernel_cache=off", func(s *subject) error {
		for _, step := range []func() error{s.readLatencies, s.commitLatencies, s.commitBesideWriter} {
			if err := step(); err != nil {
				return err
			}
		}
		return s.memory(rowMemoryBusy)
	})
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (b *bench) mountTime() error {
	for range b.size(10, 3) {
		if err := b.with("native", 1, "", func(s *subject) error {
			mnt := filepath.Join(filepath.Dir(s.disk), "mnt")
			took, err := b.command("/", b.emberfs, "mount", mnt, "--state", filepath.Join(s.disk, "state"))
			if err != nil {
				return err
			}
			b.results.sample(rowMount, milliseconds(took))
			_, err = b.command("/", b.emberfs, "umount", mnt)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// readLatencies reads 4 KiB at random, past the kernel's cache: first from hot, then from warm with the backing pages
// dropped.
func (s *subject) readLatencies() error {
	const files, size = 64, 256 << 10
	name := func(i int) string { return filepath.Join(s.mnt, fmt.Sprintf("data-%02d", i)) }
	content := make([]byte, size)
	rand.New(rand.NewSource(4)).Read(content)
	for i := range files {
		if err := os.WriteFile(name(i), content, 0o644); err != nil {
			return err
		}
	}
	page := make([]byte, 4096)
	read := func(row string, n int) error {
		rnd := rand.New(rand.NewSource(5))
		for range n {
			fd, err := unix.Open(name(rnd.Intn(files)), unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			start := time.Now()
			_, err = unix.Pread(fd, page, int64(rnd.Intn(size/4096))*4096)
			s.b.results.sample(row, milliseconds(time.Since(start)))
			if err != nil {
				return err
			}
			if err := unix.Close(fd); err != nil {
				return err
			}
		}
		return nil
	}
	if err := read(rowHotRead, s.b.size(5000, 500)); err != nil {
		return err
	}
	if err := s.remount(); err != nil { // hot is empty afterwards
		return err
	}
	unix.Sync()
	for i := range files {
		warm := filepath.Join(s.disk, "state", "warm", fmt.Sprintf("data-%02d", i))
		fd, err := unix.Open(warm, unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		if err := unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED); err != nil {
			return err
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	return read(rowWarmRead, files*4)
}

// commitLatencies commits a few changed files again and again.
func (s *subject) commitLatencies() error {
	for round := range s.b.size(50, 10) {
		for i := range 5 {
			if err := os.WriteFile(filepath.Join(s.mnt, fmt.Sprintf("few-%d", i)), fmt.Appendf(nil, "round %d", round),
				0o644); err != nil {
				return err
			}
		}
		took, err := s.b.commitQuietly(s)
		if err != nil {
			return err
		}
		s.b.results.sample(rowCommitFew, milliseconds(took))
	}
	return nil
}

// commitBesideWriter notes how long single writes take while nothing else happens and while a large commit runs.
func (s *subject) commitBesideWriter() error {
	fd, err := unix.Open(filepath.Join(s.mnt, "writer"), unix.O_CREAT|unix.O_WRONLY|unix.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf := make([]byte, 100)
	write := func(row string, until func() bool) error {
		for !until() {
			start := time.Now()
			if _, err := unix.Write(fd, buf); err != nil {
				return err
			}
			s.b.results.sample(row, milliseconds(time.Since(start)))
		}
		return nil
	}
	left := s.b.size(20_000, 2_000)
	if err := write(rowWriteIdle, func() bool { left--; return left < 0 }); err != nil {
		return err
	}
	if err := fill(s.mnt, s.b.size(5_000, 500), 100, 8192, 11); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { _, err := s.b.commitQuietly(s); done <- err }()
	var commitErr error
	if err := write(rowWriteCommit, func() bool {
		select {
		case commitErr = <-done:
			return true
		default:
			return false
		}
	}); err != nil {
		return err
	}
	return commitErr
}

// memory notes the daemon's resident set and, as a row of its own, its peak, in MB.
func (s *subject) memory(row string) error {
	pid, err := s.pid()
	if err != nil {
		return err
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) == 3 && (f[0] == "VmRSS:" || f[0] == "VmHWM:") {
			kb, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				return err
			}
			if f[0] == "VmHWM:" {
				s.b.results.sample(row+peak, kb*1024/1e6)
			} else {
				s.b.results.sample(row, kb*1024/1e6)
			}
		}
	}
	return nil
}
