package integration

import (
	"bytes"
	"fmt"
	"io"
	"math/rand"
	"os"

	"golang.org/x/sys/unix"
)

func ioCases() []pcase {
	return []pcase{
		{name: "read_write_random_against_model", run: randomModel},
		{name: "vectored_io", run: vectoredIO},
		{name: "write_beyond_end", run: writeBeyondEnd},
		{name: "large_offsets", run: largeOffsets},
		{name: "read_at_end", run: readAtEnd},
		{name: "write_zero_bytes", run: writeZeroBytes},
		{name: "copy_file_range", run: copyFileRange},
		{name: "sendfile_and_splice", run: sendfileSplice},
		{name: "big_sequential", run: bigSequential},
		{name: "ioctl_unknown_is_enotty", run: ioctlUnknown},
		{name: "ioctl_of_backing_file_is_enotty", mount: true, run: ioctlBacking},
		{name: "advice", run: advice},
	}
}

// randomModel does random reads, writes, truncations and holes and compares with a slice; fsx in small.
func randomModel(c *tc) {
	const most = 300_000
	rnd := rand.New(rand.NewSource(1))
	fd := c.open(c.p("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
	var model []byte
	resize := func(n int) {
		if n <= len(model) {
			model = model[:n:n]
		} else {
			model = append(model, make([]byte, n-len(model))...)
		}
	}
	for step := 0; step < 1500; step++ {
		off, n := rnd.Intn(most), 1+rnd.Intn(70_000)
		if step%3 == 0 {
			n = 1 + rnd.Intn(100)
		}
		switch k := rnd.Intn(10); {
		case k < 4:
			p := make([]byte, n)
			rnd.Read(p)
			w, err := unix.Pwrite(fd, p, int64(off))
			c.ok(err, "pwrite")
			c.equal(w, n, "bytes written")
			if off+n > len(model) {
				resize(off + n)
			}
			copy(model[off:], p)
		case k < 8:
			p := make([]byte, n)
			r, err := unix.Pread(fd, p, int64(off))
			c.ok(err, "pread")
			want := []byte{}
			if off < len(model) {
				want = model[off:min(len(model), off+n)]
			}
			c.same(p[:r], want, fmt.Sprintf("step %d: read of %d at %d", step, n, off))
		case k == 8:
			c.ok(unix.Ftruncate(fd, int64(off)), "ftruncate")
			resize(off)
		default:
			c.ok(unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(n)), "punch")
			for i := off; i < off+n && i < len(model); i++ {
				model[i] = 0
			}
		}
	}
	c.content(c.p("f"), string(model))
}

func vectoredIO(c *tc) {
	fd := c.open(c.p("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
	n, err := unix.Writev(fd, [][]byte{[]byte("one "), []byte("two "), []byte("three")})
	c.ok(err, "writev")
	c.equal(n, 13, "bytes")
	a, b := make([]byte, 5), make([]byte, 20)
	n, err = unix.Preadv(fd, [][]byte{a, b}, 0)
	c.ok(err, "preadv")
	c.equal(string(a)+string(b[:n-5]), "one two three", "content")
	_, err = unix.Pwritev(fd, [][]byte{[]byte("O"), []byte("NE")}, 0)
	c.ok(err, "pwritev")
	c.content(c.p("f"), "ONE two three")
}

func writeBeyondEnd(c *tc) {
	fd := c.open(c.p("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
	c.pwrite(fd, "a", 0)
	c.pwrite(fd, "z", 1<<20)
	b, err := os.ReadFile(c.p("f"))
	c.ok(err, "read")
	want := make([]byte, 1<<20+1)
	want[0], want[1<<20] = 'a', 'z'
	c.same(b, want, "a hole between")
}

func largeOffsets(c *tc) {
	fd := c.open(c.p("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
	for _, off := range []int64{1<<31 - 2, 1<<32 - 2, 1 << 40} {
		c.pwrite(fd, "mark", off)
		b := make([]byte, 8)
		n, err := unix.Pread(fd, b, off)
		c.ok(err, "pread")
		c.same(b[:4], []byte("mark"), fmt.Sprint("at ", off))
		c.truth(n >= 4, "read %d", n)
	}
	c.equal(c.fstat(fd).Size, int64(1<<40+4), "size")
	c.ok(unix.Ftruncate(fd, 0), "ftruncate") // nobody should have to back up 1 TiB of nothing
	_, err := unix.Pwrite(fd, []byte("x"), 1<<62)
	c.want(err, unix.EFBIG, "write far beyond the largest file")
	_, err = unix.Pwrite(fd, []byte("x"), -1)
	c.want(err, unix.EINVAL, "negative offset")
}

func readAtEnd(c *tc) {
	fd := c.open(c.file("f", "12345"), unix.O_RDONLY, 0)
	b := make([]byte, 10)
	for _, at := range []struct {
		off  int64
		want string
	}{{0, "12345"}, {4, "5"}, {5, ""}, {4096, ""}, {1 << 40, ""}} {
		n, err := unix.Pread(fd, b, at.off)
		c.ok(err, "pread")
		c.equal(string(b[:n]), at.want, fmt.Sprint("at ", at.off))
	}
}

func writeZeroBytes(c *tc) {
	f := c.file("f", "12345")
	fd := c.open(f, unix.O_RDWR, 0)
	before := c.fstat(fd)
	n, err := unix.Pwrite(fd, nil, 100)
	c.ok(err, "pwrite of nothing")
	c.equal(n, 0, "bytes")
	c.equal(c.fstat(fd).Size, before.Size, "size")
}

func copyFileRange(c *tc) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	f := c.file("f", string(content))
	in, out := c.open(f, unix.O_RDONLY, 0), c.open(c.p("g"), unix.O_CREAT|unix.O_RDWR, 0o644)
	var done int
	for done < len(content) {
		n, err := unix.CopyFileRange(in, nil, out, nil, len(content), 0)
		c.ok(err, "copy_file_range")
		c.truth(n > 0, "copied nothing at %d", done)
		done += n
	}
	n, err := unix.CopyFileRange(in, nil, out, nil, 10, 0)
	c.ok(err, "copy_file_range at the end")
	c.equal(n, 0, "bytes at the end")
	c.content(c.p("g"), string(content))
	from, to := int64(16), int64(5)
	_, err = unix.CopyFileRange(in, &from, out, &to, 6, 0)
	c.ok(err, "copy_file_range with offsets")
	c.equal(from, int64(22), "offset in")
	c.equal(to, int64(11), "offset out")
	want := append([]byte{}, content...)
	copy(want[5:], content[16:22])
	c.content(c.p("g"), string(want))
	from, to = 0, 8
	_, err = unix.CopyFileRange(out, &from, out, &to, 100, 0)
	c.want(err, unix.EINVAL, "overlapping ranges of one file")
}

func sendfileSplice(c *tc) {
	f := c.file("f", "sent along")
	in, out := c.open(f, unix.O_RDONLY, 0), c.open(c.p("g"), unix.O_CREAT|unix.O_WRONLY, 0o644)
	n, err := unix.Sendfile(out, in, nil, 100)
	c.ok(err, "sendfile")
	c.equal(n, 10, "bytes")
	c.content(c.p("g"), "sent along")
	var p [2]int
	c.ok(unix.Pipe(p[:]), "pipe")
	defer func() { _ = unix.Close(p[0]); _ = unix.Close(p[1]) }()
	off := int64(5)
	_, err = unix.Splice(in, &off, p[1], nil, 5, 0)
	c.ok(err, "splice out of the file")
	off = 0
	_, err = unix.Splice(p[0], nil, out, &off, 5, 0)
	c.ok(err, "splice into the file")
	c.content(c.p("g"), "alongalong")
}

func bigSequential(c *tc) {
	const size = 24 << 20
	block := make([]byte, 1<<20)
	f, err := os.Create(c.p("f"))
	c.ok(err, "create")
	defer f.Close()
	rnd := rand.New(rand.NewSource(2))
	for n := 0; n < size; n += len(block) {
		rnd.Read(block)
		_, err := f.Write(block)
		c.ok(err, "write")
	}
	_, err = f.Seek(0, io.SeekStart)
	c.ok(err, "seek")
	rnd = rand.New(rand.NewSource(2))
	got := make([]byte, len(block))
	for n := 0; n < size; n += len(block) {
		rnd.Read(block)
		_, err := io.ReadFull(f, got)
		c.ok(err, "read")
		c.same(got, block, fmt.Sprint("block at ", n))
	}
}

func ioctlUnknown(c *tc) {
	fd := c.open(c.file("f", "x"), unix.O_RDWR, 0)
	c.want(ioctl(fd, unix.TCGETS), unix.ENOTTY, "TCGETS")
	c.want(ioctl(fd, 0x5a5a), unix.ENOTTY, "an unknown ioctl")
	dir := c.open(c.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	c.want(ioctl(dir, unix.TCGETS), unix.ENOTTY, "TCGETS on a directory")
}

func ioctlBacking(c *tc) {
	fd := c.open(c.file("f", "x"), unix.O_RDWR, 0)
	c.want(ioctl(fd, 0x80087601), unix.ENOTTY, "FS_IOC_GETVERSION")
	c.want(ioctl(fd, 0x8008587d), unix.ENOTTY, "the shutdown ioctl")
}

func advice(c *tc) {
	fd := c.open(c.file("f", "0123456789"), unix.O_RDWR, 0)
	for _, a := range []int{unix.FADV_WILLNEED, unix.FADV_SEQUENTIAL, unix.FADV_DONTNEED} {
		c.ok(unix.Fadvise(fd, 0, 0, a), "posix_fadvise")
	}
	c.ok(unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE), "sync_file_range")
	c.content(c.p("f"), "0123456789")
}
