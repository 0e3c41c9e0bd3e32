package integration

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

func specialCases() []pcase {
	return []pcase{
		{name: "fifo", run: fifo},
		{name: "socket", run: socket},
		{name: "mknod_regular", run: mknodRegular},
		{name: "mknod_devices", root: true, run: mknodDevices},
		{name: "inotify", run: inotify},
		{name: "directory_sync_and_lseek_on_fifo", run: fifoSeek},
	}
}

func parallelCases() []pcase {
	return []pcase{
		{name: "parallel_exclusive_create", run: parallelExclusive},
		{name: "parallel_create_and_unlink", run: parallelChurn},
		{name: "parallel_rename", run: parallelRename},
		{name: "parallel_writers_of_one_file", run: parallelWriters},
		{name: "parallel_readers_and_truncate", run: parallelTruncate},
	}
}

func fifo(c *tc) {
	p := c.p("p")
	c.ok(unix.Mkfifo(p, 0o640), "mkfifo")
	c.equal(c.lstat(p).Mode, uint32(unix.S_IFIFO|0o640), "mode")
	c.want(unix.Mkfifo(p, 0o640), unix.EEXIST, "mkfifo again")
	c.want(errnoOf(p, unix.O_WRONLY|unix.O_NONBLOCK, 0), unix.ENXIO, "writing with no reader")
	r := c.open(p, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	w := c.open(p, unix.O_WRONLY, 0)
	_, err := unix.Write(w, []byte("through"))
	c.ok(err, "write")
	b := make([]byte, 20)
	n, err := unix.Read(r, b)
	c.ok(err, "read")
	c.equal(string(b[:n]), "through", "content")
}

func fifoSeek(c *tc) {
	p := c.p("p")
	c.ok(unix.Mkfifo(p, 0o600), "mkfifo")
	fd := c.open(p, unix.O_RDWR|unix.O_NONBLOCK, 0)
	_, err := unix.Seek(fd, 0, unix.SEEK_SET)
	c.want(err, unix.ESPIPE, "lseek of a fifo")
}

func socket(c *tc) {
	c.ok(isolated(func() error {
		// the path of a socket is at most 107 bytes: go there
		if err := unix.Chdir(c.dir); err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "s"}); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
		if err := unix.Listen(fd, 1); err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		cl, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(cl)
		return unix.Connect(cl, &unix.SockaddrUnix{Name: "s"})
	}), "socket")
	c.equal(c.lstat(c.p("s")).Mode&unix.S_IFMT, uint32(unix.S_IFSOCK), "type")
	c.want(errnoOf(c.p("s"), unix.O_RDONLY, 0), unix.ENXIO, "open of a socket")
}

func mknodRegular(c *tc) {
	c.ok(unix.Mknod(c.p("f"), unix.S_IFREG|0o604, 0), "mknod")
	st := c.lstat(c.p("f"))
	c.equal(st.Mode, uint32(unix.S_IFREG|0o604), "mode")
	c.content(c.p("f"), "")
	c.want(unix.Mknod(c.p("f"), unix.S_IFREG|0o604, 0), unix.EEXIST, "mknod again")
	c.ok(unix.Mknod(c.p("s"), unix.S_IFSOCK|0o600, 0), "mknod of a socket")
	c.equal(c.lstat(c.p("s")).Mode&unix.S_IFMT, uint32(unix.S_IFSOCK), "type")
}

func mknodDevices(c *tc) {
	for _, d := range []struct {
		mode         uint32
		major, minor uint32
	}{{unix.S_IFCHR | 0o666, 1, 3}, {unix.S_IFBLK | 0o600, 259, 70000}, {unix.S_IFCHR | 0o600, 4095, 1048575}} {
		p := c.p(fmt.Sprintf("dev-%d-%d", d.major, d.minor))
		c.ok(unix.Mknod(p, d.mode, int(unix.Mkdev(d.major, d.minor))), "mknod")
		st := c.lstat(p)
		c.equal(st.Mode&unix.S_IFMT, d.mode&unix.S_IFMT, "type")
		c.equal(unix.Major(st.Rdev), d.major, "major")
		c.equal(unix.Minor(st.Rdev), d.minor, "minor")
	}
	c.ok(os.WriteFile(c.p("dev-1-3"), []byte("to null"), 0), "write to a null device")
}

func inotify(c *tc) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	c.ok(err, "inotify_init")
	defer unix.Close(fd)
	_, err = unix.InotifyAddWatch(fd, c.dir, unix.IN_CREATE|unix.IN_MODIFY|unix.IN_DELETE|unix.IN_MOVED_TO)
	c.ok(err, "inotify_add_watch")
	f := c.file("f", "x")
	c.ok(os.Rename(f, c.p("g")), "rename")
	c.ok(os.Remove(c.p("g")), "remove")
	b := make([]byte, 4096)
	n, err := unix.Read(fd, b)
	c.ok(err, "read")
	events := string(b[:n])
	c.truth(strings.Contains(events, "f\x00") && strings.Contains(events, "g\x00"), "events %q", events)
}

// inParallel runs f n times at once and fails with the first error.
func (c *tc) inParallel(n int, f func(i int) error) {
	c.Helper()
	errs := make(chan error, n)
	for i := range n {
		go func() { errs <- f(i) }()
	}
	var first error
	for range n {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	c.ok(first, "in parallel")
}

func parallelExclusive(c *tc) {
	for round := range 50 {
		var made atomic.Int32
		p := c.p(fmt.Sprint("f", round))
		c.inParallel(8, func(int) error {
			switch err := errnoOf(p, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644); err {
			case nil:
				made.Add(1)
				return nil
			case unix.EEXIST:
				return nil
			default:
				return err
			}
		})
		c.equal(made.Load(), int32(1), "processes that made the file")
		made.Store(0)
		c.inParallel(8, func(int) error {
			switch err := unix.Mkdir(p+".d", 0o755); err {
			case nil:
				made.Add(1)
				return nil
			case unix.EEXIST:
				return nil
			default:
				return err
			}
		})
		c.equal(made.Load(), int32(1), "processes that made the directory")
	}
}

func parallelChurn(c *tc) {
	c.inParallel(8, func(i int) error {
		for k := range 100 {
			p := c.p(fmt.Sprintf("%d-%d", i, k))
			if err := os.WriteFile(p, []byte(p), 0o644); err != nil {
				return err
			}
			if b, err := os.ReadFile(p); err != nil || string(b) != p {
				return fmt.Errorf("%s holds %q: %v", p, b, err)
			}
			if k%2 == 0 {
				if err := os.Remove(p); err != nil {
					return err
				}
			}
		}
		return nil
	})
	es, err := os.ReadDir(c.dir)
	c.ok(err, "readdir")
	c.equal(len(es), 400, "files left")
}

// parallelRename replaces one file again and again while others read it: a reader sees one whole version or another.
func parallelRename(c *tc) {
	p := c.p("f")
	version := func(i, k int) string { return strings.Repeat(fmt.Sprintf("%03d.%03d\n", i, k), 500) }
	c.ok(os.WriteFile(p, []byte(version(0, 0)), 0o644), "write")
	var writers sync.WaitGroup
	stop := make(chan struct{})
	errs := make(chan error, 8)
	for i := range 3 {
		writers.Add(1)
		go func() {
			defer writers.Done()
			for k := range 60 {
				tmp := fmt.Sprint(p, ".", i)
				if err := os.WriteFile(tmp, []byte(version(i, k)), 0o644); err != nil {
					errs <- err
					return
				}
				if err := os.Rename(tmp, p); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	var readers sync.WaitGroup
	for range 3 {
		readers.Add(1)
		go func() {
			defer readers.Done()
			for {
				b, err := os.ReadFile(p)
				if err != nil || len(b) != 4000 || string(b) != strings.Repeat(string(b[:8]), 500) {
					errs <- fmt.Errorf("a reader saw %d bytes, %.20q: %v", len(b), b, err)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	close(errs)
	for err := range errs {
		c.Error(err)
	}
}

func parallelWriters(c *tc) {
	const block, rounds = 5000, 40
	fd := c.open(c.p("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
	c.inParallel(8, func(i int) error {
		for k := range rounds {
			b := []byte(strings.Repeat(string(rune('a'+i)), block))
			if _, err := unix.Pwrite(fd, b, int64((k*8+i)*block)); err != nil {
				return err
			}
		}
		return nil
	})
	b, err := os.ReadFile(c.p("f"))
	c.ok(err, "read")
	c.equal(len(b), block*8*rounds, "bytes")
	for i := 0; i < len(b); i += block {
		want := strings.Repeat(string(rune('a'+i/block%8)), block)
		c.same(b[i:i+block], []byte(want), fmt.Sprint("block at ", i))
	}
}

// parallelTruncate: what was cut off and never written again reads as zero or not at all, whatever races.
func parallelTruncate(c *tc) {
	fd := c.open(c.p("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
	full := strings.Repeat("d", 200_000)
	for range 30 {
		c.pwrite(fd, full, 0)
		c.inParallel(4, func(i int) error {
			if i == 0 {
				if err := unix.Ftruncate(fd, 1000); err != nil {
					return err
				}
				return unix.Ftruncate(fd, 200_000)
			}
			b := make([]byte, 200_000)
			_, err := unix.Pread(fd, b, 0)
			return err
		})
		b := make([]byte, 200_000)
		n, err := unix.Pread(fd, b, 0)
		c.ok(err, "pread")
		c.equal(n, 200_000, "bytes")
		c.equal(strings.Trim(string(b[1000:]), "\x00"), "", "what was cut off")
	}
}
