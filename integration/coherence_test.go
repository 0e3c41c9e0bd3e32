//go:build slow

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// coherent is a file that is written in one way and read in all.
type coherent struct {
	path  string
	plain int    // descriptors that stay open
	raw   int    // O_DIRECT
	mem   []byte // a shared mapping that stays
	want  []byte
}

const coherentSize = 192 << 10

// waysToWrite each write p at off, which are multiples of 4 KiB, and return when the write has.
var waysToWrite = map[string]func(f *coherent, p []byte, off int64) error{
	"pwrite": func(f *coherent, p []byte, off int64) error { return whole(unix.Pwrite(f.plain, p, off)) },
	"pwritev2 dsync": func(f *coherent, p []byte, off int64) error {
		return whole(unix.Pwritev2(f.plain, [][]byte{p[:1000], p[1000:]}, off, unix.RWF_DSYNC))
	},
	"O_DIRECT":        func(f *coherent, p []byte, off int64) error { return whole(unix.Pwrite(f.raw, p, off)) },
	"libaio":          func(f *coherent, p []byte, off int64) error { return libaio(true, f.plain, p, off) },
	"libaio direct":   func(f *coherent, p []byte, off int64) error { return libaio(true, f.raw, p, off) },
	"io_uring":        func(f *coherent, p []byte, off int64) error { return ioUring(true, f.plain, p, off) },
	"io_uring direct": func(f *coherent, p []byte, off int64) error { return ioUring(true, f.raw, p, off) },
	"mmap and msync": func(f *coherent, p []byte, off int64) error {
		copy(f.mem[off:], p)
		return unix.Msync(f.mem[off:off+int64(len(p))], unix.MS_SYNC)
	},
	"splice": func(f *coherent, p []byte, off int64) error {
		return viaPipe(p, func(r int, n int) (int, error) {
			m, err := unix.Splice(r, nil, f.plain, &off, n, 0)
			return int(m), err
		})
	},
	"sendfile": func(f *coherent, p []byte, off int64) error {
		return fromFile(f, p, func(src int) error {
			if _, err := unix.Seek(f.plain, off, unix.SEEK_SET); err != nil {
				return err
			}
			for done := 0; done < len(p); { // a signal, such as the Go runtime's own, ends it early
				n, err := unix.Sendfile(f.plain, src, nil, len(p)-done)
				if err := whole(n, err); err != nil && !errors.Is(err, unix.EINTR) {
					return err
				}
				done += max(n, 0)
			}
			return nil
		})
	},
	"copy_file_range": func(f *coherent, p []byte, off int64) error {
		return fromFile(f, p, func(src int) error {
			for done := 0; done < len(p); {
				n, err := unix.CopyFileRange(src, nil, f.plain, &off, len(p)-done, 0)
				if err != nil || n == 0 {
					return fmt.Errorf("%d bytes: %w", n, err)
				}
				done += n
			}
			return nil
		})
	},
	"fallocate punch": func(f *coherent, p []byte, off int64) error {
		clear(p)
		return unix.Fallocate(f.plain, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, int64(len(p)))
	},
	"fallocate zero": func(f *coherent, p []byte, off int64) error {
		clear(p)
		return unix.Fallocate(f.plain, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, int64(len(p)))
	},
	"truncate": func(f *coherent, _ []byte, off int64) error {
		clear(f.want[off:])
		if err := unix.Ftruncate(f.plain, off); err != nil {
			return err
		}
		return unix.Truncate(f.path, coherentSize)
	},
	"O_TRUNC": func(f *coherent, p []byte, off int64) error {
		clear(f.want)
		fd, err := unix.Open(f.path, unix.O_WRONLY|unix.O_TRUNC|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Ftruncate(fd, coherentSize); err != nil {
			return err
		}
		return whole(unix.Pwrite(fd, p, off))
	},
}

// waysToRead each read all of the file.
var waysToRead = map[string]func(f *coherent, p []byte) error{
	"pread":           func(f *coherent, p []byte) error { return whole(unix.Pread(f.plain, p, 0)) },
	"O_DIRECT":        func(f *coherent, p []byte) error { return whole(unix.Pread(f.raw, p, 0)) },
	"libaio direct":   func(f *coherent, p []byte) error { return libaio(false, f.raw, p, 0) },
	"io_uring":        func(f *coherent, p []byte) error { return ioUring(false, f.plain, p, 0) },
	"io_uring direct": func(f *coherent, p []byte) error { return ioUring(false, f.raw, p, 0) },
	"the mapping":     func(f *coherent, p []byte) error { copy(p, f.mem); return nil },
	"a new mapping": func(f *coherent, p []byte) error {
		m, err := unix.Mmap(f.plain, 0, coherentSize, unix.PROT_READ, unix.MAP_PRIVATE)
		if err == nil {
			copy(p, m)
			err = unix.Munmap(m)
		}
		return err
	},
	"open and read": func(f *coherent, p []byte) error {
		b, err := os.ReadFile(f.path)
		copy(p, b)
		if err == nil && len(b) != coherentSize {
			err = fmt.Errorf("%d bytes", len(b))
		}
		return err
	},
	"splice": func(f *coherent, p []byte) error {
		var off int64
		return toPipe(p, func(w, n int) (int, error) {
			m, err := unix.Splice(f.plain, &off, w, nil, n, 0)
			return int(m), err
		})
	},
	"sendfile": func(f *coherent, p []byte) error {
		var off int64
		return toPipe(p, func(w, n int) (int, error) { return unix.Sendfile(w, f.plain, &off, n) })
	},
	"copy_file_range": func(f *coherent, p []byte) error {
		to, err := os.Create(f.path + ".copy")
		if err != nil {
			return err
		}
		defer to.Close()
		var off int64
		for off < coherentSize {
			n, err := unix.CopyFileRange(f.plain, &off, int(to.Fd()), nil, coherentSize-int(off), 0)
			if err != nil || n == 0 {
				return fmt.Errorf("%d bytes: %w", n, err)
			}
		}
		_, err = to.ReadAt(p, 0)
		return err
	},
}

// whole is an error where a call did not take all; tests ask for no more than files have.
func whole(n int, err error) error {
	if err == nil && n == 0 {
		err = unix.EIO
	}
	return err
}

// viaPipe hands p to move in pieces that fit into a pipe.
func viaPipe(p []byte, move func(r, n int) (int, error)) error {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	for len(p) > 0 {
		n, err := unix.Write(fds[1], p[:min(len(p), 16<<10)])
		for left := n; err == nil && left > 0; {
			var m int
			if m, err = move(fds[0], left); m == 0 && err == nil {
				err = unix.EIO
			}
			left -= m
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// toPipe fills p with what move puts into a pipe.
func toPipe(p []byte, move func(w, n int) (int, error)) error {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	for len(p) > 0 {
		n, err := move(fds[1], min(len(p), 16<<10))
		if err != nil || n == 0 {
			return fmt.Errorf("%d bytes: %w", n, err)
		}
		for n > 0 {
			m, err := unix.Read(fds[0], p[:n])
			if err != nil {
				return err
			}
			p, n = p[m:], n-m
		}
	}
	return nil
}

// fromFile hands move another file that holds p.
func fromFile(f *coherent, p []byte, move func(src int) error) error {
	if err := os.WriteFile(f.path+".src", p, 0o644); err != nil {
		return err
	}
	src, err := os.Open(f.path + ".src")
	if err != nil {
		return err
	}
	defer src.Close()
	return move(int(src.Fd()))
}

// TestCoherence: once a write has returned, in whichever way it was made, every reader sees it, in whichever way it
// reads and whatever it had read before; also while others read all the time. A native directory proves the test right.
func TestCoherence(t *testing.T) {
	t.Parallel()
	deadline(t, 4*time.Minute)
	v := newVolume(t, "v").mount()
	check(t, os.Mkdir(v.at("passed"), 0o755))
	v.rules("- {match: passed/, ignore: true, io: passthrough}\n")
	uncached := newVolume(t, "uncached", withOpts("kernel_cache=off")).mount()
	for name, dir := range map[string]string{"native": mkdir(t, filepath.Join(testDir(t), "native"), user{}),
		"mount": v.mnt, "passthrough": v.at("passed"), "uncached": uncached.mnt} {
		for how := range waysToWrite {
			t.Run(name+"/"+how, func(t *testing.T) { coherence(t, filepath.Join(dir, "f"), how) })
		}
	}
	v.umount()
	uncached.umount()
}

func coherence(t *testing.T, path, how string) {
	f := &coherent{path: path, want: noise(coherentSize, how)}
	check(t, os.WriteFile(path, f.want, 0o644))
	defer func() { check(t, os.Remove(path)) }()
	var err error
	f.plain, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	check(t, err)
	defer unix.Close(f.plain)
	f.raw, err = unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	check(t, err)
	defer unix.Close(f.raw)
	f.mem, err = unix.Mmap(f.plain, 0, coherentSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	check(t, err)
	defer func() { check(t, unix.Munmap(f.mem)) }()
	defer keepReading(path)()
	got := aligned(coherentSize)
	for round := range 10 {
		pages := 1 + rand.IntN(16)
		if round%2 == 1 {
			pages = coherentSize / 4096
		}
		p := aligned(pages * 4096)
		copy(p, noise(len(p), fmt.Sprint(how, round)))
		off := int64(rand.IntN(coherentSize/4096-pages+1)) * 4096
		if err := waysToWrite[how](f, p, off); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		copy(f.want[off:], p)
		if how == "truncate" {
			clear(f.want[off:])
		}
		names := make([]string, 0, len(waysToRead))
		for name := range waysToRead { // in another order each time
			names = append(names, name)
		}
		for _, name := range names {
			clear(got)
			if err := waysToRead[name](f, got); err != nil {
				t.Fatalf("round %d: read by %s: %v", round, name, err)
			}
			if !bytes.Equal(got, f.want) {
				at := 0
				for got[at] == f.want[at] {
					at++
				}
				t.Fatalf("round %d: %d pages were written at %d; read by %s it differs from byte %d on", round, pages,
					off, name, at)
			}
		}
	}
}

// keepReading reads a file all the time, until what it gives is called.
func keepReading(path string) (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-end:
				return
			default:
				_, _ = os.ReadFile(path)
			}
		}
	}()
	return func() { close(end); <-done }
}
