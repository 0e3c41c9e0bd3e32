package main

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// operations measures single system calls and short sequences of them.
func (b *bench) operations() error {
	return b.inTurn("ops", b.kinds(), 3, func(s *subject, _ int) error { return s.operations() })
}

// micro runs f n times and notes microseconds an operation.
func (s *subject) micro(row string, n int, f func(i int) error) error {
	runtime.GC()
	start := time.Now()
	for i := range n {
		if err := f(i); err != nil {
			return fmt.Errorf("%s: %w", row, err)
		}
	}
	s.b.results.add(row, s.kind, float64(time.Since(start).Microseconds())/float64(n))
	return nil
}

func (s *subject) operations() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	n := s.b.size(1000, 300)
	dir := filepath.Join(s.mnt, "files")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	name := func(i int) string { return fmt.Sprintf("%s/file-%05d", dir, i) }
	buf := make([]byte, 4096)
	rand.New(rand.NewSource(1)).Read(buf)
	create := func(i int) error {
		fd, err := unix.Open(name(i), unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC, 0o644)
		if err != nil {
			return err
		}
		if _, err := unix.Write(fd, buf); err != nil {
			return err
		}
		return unix.Close(fd)
	}
	read := func(i int) error {
		fd, err := unix.Open(name(i), unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		if _, err := unix.Read(fd, buf); err != nil {
			return err
		}
		return unix.Close(fd)
	}
	var st unix.Stat_t
	stat := func(i int) error { return unix.Lstat(name(i), &st) }
	list := func(int) error {
		es, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range es {
			if err := unix.Lstat(dir+"/"+e.Name(), &st); err != nil {
				return err
			}
		}
		return nil
	}
	for _, step := range []struct {
		row    string
		n      int
		before bool // remount first
		f      func(int) error
	}{
		{rowCreate, n, false, create},
		{rowStatFirst, n, true, stat},
		{rowStatAgain, n, false, stat},
		{rowReadFirst, n, false, read},
		{rowReadAgain, n, false, read},
		{rowListFirst, 1, true, list},
		{rowListAgain, 5, false, list},
		{rowRename, n, false, func(i int) error { return unix.Rename(name(i), name(i)+".r") }},
		{rowUnlink, n, false, func(i int) error { return unix.Unlink(name(i) + ".r") }},
	} {
		if step.before {
			if err := s.remount(); err != nil {
				return err
			}
			if err := unix.Lstat(dir, &st); err != nil {
				return err
			}
		}
		if err := s.micro(step.row, step.n, step.f); err != nil {
			return err
		}
	}
	return s.bulk()
}

// bulk measures appends, random writes and sequential I/O of one file.
func (s *subject) bulk() error {
	open := func(name string, flags int) (int, error) {
		return unix.Open(filepath.Join(s.mnt, name), flags|unix.O_CREAT, 0o644)
	}
	fd, err := open("append", unix.O_WRONLY|unix.O_APPEND)
	if err != nil {
		return err
	}
	small, page, block := make([]byte, 100), make([]byte, 4096), make([]byte, 1<<20)
	if err := s.micro(rowAppend, s.b.size(5000, 500), func(int) error {
		_, err := unix.Write(fd, small)
		return err
	}); err != nil {
		return err
	}
	if err := unix.Close(fd); err != nil {
		return err
	}
	mib := s.b.size(256, 32)
	if fd, err = open("big", unix.O_RDWR); err != nil {
		return err
	}
	stream := func(row string, f func(off int64) error) error {
		start := time.Now()
		for i := range mib {
			if err := f(int64(i) << 20); err != nil {
				return fmt.Errorf("%s: %w", row, err)
			}
		}
		s.b.results.add(row, s.kind, float64(mib)/time.Since(start).Seconds())
		return nil
	}
	rand.New(rand.NewSource(2)).Read(block)
	write := func(off int64) error { _, err := unix.Pwrite(fd, block, off); return err }
	read := func(off int64) error { _, err := unix.Pread(fd, block, off); return err }
	if err := stream(rowSeqWrite, write); err != nil {
		return err
	}
	rnd := rand.New(rand.NewSource(3))
	if err := s.micro(rowRandomWrite, s.b.size(5000, 500), func(int) error {
		_, err := unix.Pwrite(fd, page, int64(rnd.Intn(mib*256))*4096)
		return err
	}); err != nil {
		return err
	}
	if err := unix.Fsync(fd); err != nil {
		return err
	}
	if err := s.micro(rowFsync, s.b.size(200, 20), func(i int) error {
		if _, err := unix.Pwrite(fd, page, int64(i)*4096); err != nil {
			return err
		}
		return unix.Fsync(fd)
	}); err != nil {
		return err
	}
	if err := unix.Close(fd); err != nil {
		return err
	}
	if err := s.remount(); err != nil {
		return err
	}
	if fd, err = open("big", unix.O_RDONLY); err != nil {
		return err
	}
	if err := stream(rowSeqReadFirst, read); err != nil {
		return err
	}
	if err := stream(rowSeqReadAgain, read); err != nil {
		return err
	}
	return unix.Close(fd)
}
