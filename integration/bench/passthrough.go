package main

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// passthrough measures small writes in a directory whose files the kernel reads and writes itself, beside a native
// directory.
func (b *bench) passthrough() error {
	path := filepath.Join(b.dir, "rules.yaml")
	if err := os.WriteFile(path, []byte("rules:\n- {match: build/, ignore: true, io: passthrough}\n"),
		0o600); err != nil {
		return err
	}
	if err := os.Setenv("EMBERFS_CONFIG", path); err != nil {
		return err
	}
	defer os.Unsetenv("EMBERFS_CONFIG")
	return b.inTurn("passthrough", []string{"native", "emberfs"}, 2, func(s *subject, _ int) error {
		return s.smallWrites(filepath.Join(s.mnt, "build"))
	})
}

func (s *subject) smallWrites(dir string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	fd, err := unix.Open(filepath.Join(dir, "append"), unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT, 0o644)
	if err != nil {
		return err
	}
	small := make([]byte, 100)
	if err := s.micro(rowPassAppend, s.b.size(100_000, 20_000), func(int) error {
		_, err := unix.Write(fd, small)
		return err
	}); err != nil {
		return err
	}
	if err := unix.Close(fd); err != nil {
		return err
	}
	if fd, err = unix.Open(filepath.Join(dir, "big"), unix.O_RDWR|unix.O_CREAT, 0o644); err != nil {
		return err
	}
	const mib = 64
	block := make([]byte, 1<<20)
	rand.New(rand.NewSource(2)).Read(block)
	for i := range int64(mib) {
		if _, err := unix.Pwrite(fd, block, i<<20); err != nil {
			return err
		}
	}
	if err := unix.Fsync(fd); err != nil { // what the disk does later is not to count
		return err
	}
	rnd := rand.New(rand.NewSource(3))
	page := block[:4096]
	if err := s.micro(rowPassRandom, s.b.size(100_000, 20_000), func(int) error {
		_, err := unix.Pwrite(fd, page, int64(rnd.Intn(mib*256))*4096)
		return err
	}); err != nil {
		return err
	}
	if err := unix.Close(fd); err != nil {
		return err
	}
	// A build's way of writing: many small files, each made, written and closed.
	return s.micro(rowPassCreate, s.b.size(2000, 500), func(i int) error {
		fd, err := unix.Open(fmt.Sprintf("%s/file-%05d", dir, i), unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC, 0o644)
		if err != nil {
			return err
		}
		if _, err := unix.Write(fd, page); err != nil {
			return err
		}
		return unix.Close(fd)
	})
}
