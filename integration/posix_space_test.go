package integration

import (
	"bytes"
	"os"

	"golang.org/x/sys/unix"
)

func spaceCases() []pcase {
	return []pcase{
		{name: "fallocate_default", run: fallocateDefault},
		{name: "fallocate_keep_size", run: fallocateKeepSize},
		{name: "fallocate_punch", run: fallocatePunch},
		{name: "fallocate_zero_range", run: fallocateZeroRange},
		{name: "fallocate_errors", run: fallocateErrors},
		{name: "fallocate_unsupported_modes", mount: true, run: fallocateUnsupported},
		{name: "seek_hole_data", run: seekHoleData},
		{name: "lseek_whence", run: lseekWhence},
		{name: "sparse_blocks", run: sparseBlocks},
	}
}

func fallocateDefault(c *tc) {
	fd := c.open(c.p("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
	c.ok(unix.Fallocate(fd, 0, 0, 1<<20), "fallocate")
	st := c.fstat(fd)
	c.equal(st.Size, int64(1<<20), "size")
	c.truth(st.Blocks >= 2048, "only %d blocks allocated", st.Blocks)
	c.content(c.p("f"), string(make([]byte, 1<<20)))
	c.pwrite(fd, "x", 10)
	c.ok(unix.Fallocate(fd, 0, 0, 100), "fallocate inside")
	c.equal(c.fstat(fd).Size, int64(1<<20), "size after a smaller fallocate")
	c.equal(string(c.pread(fd, 1, 10)), "x", "content after fallocate")
}

func fallocateKeepSize(c *tc) {
	fd := c.open(c.p("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
	c.pwrite(fd, "hello", 0)
	c.ok(unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, 1<<20), "fallocate")
	st := c.fstat(fd)
	c.equal(st.Size, int64(5), "size")
	c.truth(st.Blocks >= 2048, "only %d blocks allocated", st.Blocks)
	c.content(c.p("f"), "hello")
}

func fallocatePunch(c *tc) {
	content := bytes.Repeat([]byte("x"), 256<<10)
	f := c.file("f", string(content))
	fd := c.open(f, unix.O_RDWR, 0)
	b := make([]byte, len(content))
	_, err := unix.Pread(fd, b, 0) // so that caches hold what is about to go
	c.ok(err, "pread")
	c.ok(unix.Fsync(fd), "fsync")
	before := c.fstat(fd)
	c.ok(unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096+100, 128<<10), "punch")
	after := c.fstat(fd)
	c.equal(after.Size, before.Size, "size")
	c.truth(after.Blocks < before.Blocks, "blocks %d, before %d", after.Blocks, before.Blocks)
	copy(content[4096+100:], make([]byte, 128<<10))
	c.content(f, string(content))
	c.want(unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE, 0, 4096), unix.EOPNOTSUPP, "punch without KEEP_SIZE")
}

func fallocateZeroRange(c *tc) {
	content := bytes.Repeat([]byte("x"), 64<<10)
	f := c.file("f", string(content))
	fd := c.open(f, unix.O_RDWR, 0)
	c.ok(unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 100, 32<<10), "zero range")
	copy(content[100:], make([]byte, 32<<10))
	c.content(f, string(content))
	c.ok(unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 60<<10, 8<<10), "zero range over the end")
	c.equal(c.fstat(fd).Size, int64(68<<10), "size")
	content = append(content[:60<<10], make([]byte, 8<<10)...)
	c.content(f, string(content))
	c.ok(unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, 66<<10, 8<<10), "zero range, size kept")
	c.equal(c.fstat(fd).Size, int64(68<<10), "size kept")
}

func fallocateErrors(c *tc) {
	fd := c.open(c.file("f", "x"), unix.O_RDWR, 0)
	c.want(unix.Fallocate(fd, 0, 0, 0), unix.EINVAL, "length 0")
	c.want(unix.Fallocate(fd, 0, -1, 10), unix.EINVAL, "negative offset")
	ro := c.open(c.p("f"), unix.O_RDONLY, 0)
	c.want(unix.Fallocate(ro, 0, 0, 10), unix.EBADF, "read-only descriptor")
	c.want(unix.Fallocate(fd, 0, 1<<62, 1<<62), unix.EFBIG, "beyond the largest file")
}

func fallocateUnsupported(c *tc) {
	fd := c.open(c.file("f", string(make([]byte, 16384))), unix.O_RDWR, 0)
	c.want(unix.Fallocate(fd, unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096), unix.EOPNOTSUPP, "collapse")
	c.want(unix.Fallocate(fd, unix.FALLOC_FL_INSERT_RANGE, 0, 4096), unix.EOPNOTSUPP, "insert")
	c.equal(c.fstat(fd).Size, int64(16384), "size")
}

func seekHoleData(c *tc) {
	fd := c.open(c.p("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
	c.ok(unix.Ftruncate(fd, 1<<20), "ftruncate")
	block := string(bytes.Repeat([]byte("d"), 64<<10))
	c.pwrite(fd, block, 256<<10)
	c.pwrite(fd, block, 768<<10)
	seek := func(off int64, whence int, want int64) {
		c.Helper()
		c.seek(fd, off, whence, want, "lseek")
	}
	seek(0, unix.SEEK_DATA, 256<<10)
	seek(0, unix.SEEK_HOLE, 0)
	seek(256<<10, unix.SEEK_HOLE, 320<<10)
	seek(300<<10, unix.SEEK_DATA, 300<<10)
	seek(330<<10, unix.SEEK_DATA, 768<<10)
	seek(800<<10, unix.SEEK_HOLE, 832<<10)
	_, err := unix.Seek(fd, 900<<10, unix.SEEK_DATA)
	c.want(err, unix.ENXIO, "SEEK_DATA in the last hole")
	_, err = unix.Seek(fd, 1<<20, unix.SEEK_HOLE)
	c.want(err, unix.ENXIO, "SEEK_HOLE at the end")
	_, err = unix.Seek(fd, 2<<20, unix.SEEK_DATA)
	c.want(err, unix.ENXIO, "SEEK_DATA beyond the end")
}

func lseekWhence(c *tc) {
	fd := c.open(c.file("f", "12345"), unix.O_RDWR, 0)
	c.seek(fd, -2, unix.SEEK_END, 3, "SEEK_END")
	b := make([]byte, 1)
	_, err := unix.Read(fd, b)
	c.ok(err, "read")
	c.equal(string(b), "4", "byte")
	c.seek(fd, -1, unix.SEEK_CUR, 3, "SEEK_CUR")
	_, err = unix.Seek(fd, -1, unix.SEEK_SET)
	c.want(err, unix.EINVAL, "negative position")
	// the end is where another descriptor has just put it
	other := c.open(c.p("f"), unix.O_WRONLY, 0)
	c.pwrite(other, "x", 99)
	c.seek(fd, 0, unix.SEEK_END, 100, "SEEK_END")
}

func sparseBlocks(c *tc) {
	f, err := os.Create(c.p("f"))
	c.ok(err, "create")
	defer f.Close()
	c.ok(f.Truncate(100<<20), "truncate")
	_, err = f.WriteAt(make([]byte, 4096), 50<<20)
	c.ok(err, "write")
	c.ok(f.Sync(), "fsync")
	st := c.lstat(c.p("f"))
	c.truth(st.Blocks >= 8 && st.Blocks < 256, "%d blocks for 4 KiB in 100 MiB", st.Blocks)
}
