package integration

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func unlinkedCases() []pcase {
	return []pcase{
		{name: "unlinked_io", run: unlinkedIO},
		{name: "unlinked_attributes", run: unlinkedAttributes},
		{name: "unlinked_reopened_by_proc", run: unlinkedReopen},
		{name: "unlinked_name_reused", run: unlinkedReused},
		{name: "unlink_errors", run: unlinkErrors},
		{name: "unlink_one_of_two_names", run: unlinkOneName},
	}
}

func unlinkedIO(c *tc) {
	f := c.file("f", "content")
	fd := c.open(f, unix.O_RDWR, 0)
	ro := c.open(f, unix.O_RDONLY, 0)
	c.ok(os.Remove(f), "unlink")
	c.equal(c.names(c.dir), "", "names: a file that is open and unlinked shows under no name")
	c.pwrite(fd, "CONTENT and more", 0)
	c.equal(string(c.pread(ro, 30, 0)), "CONTENT and more", "content by another descriptor")
	c.ok(unix.Ftruncate(fd, 3), "ftruncate")
	c.equal(c.fstat(ro).Size, int64(3), "size")
	c.ok(unix.Fallocate(fd, 0, 0, 8192), "fallocate")
	c.equal(c.fstat(fd).Size, int64(8192), "size after fallocate")
	c.ok(unix.Fsync(fd), "fsync")
	c.seek(fd, 0, unix.SEEK_END, 8192, "lseek")
	c.ok(os.Remove(c.dir), "rmdir of the directory with an open, unlinked file")
}

func unlinkedAttributes(c *tc) {
	f := c.file("f", "x")
	fd := c.open(f, unix.O_RDWR, 0)
	before := c.fstat(fd)
	c.ok(os.Remove(f), "unlink")
	st := c.fstat(fd)
	c.equal(st.Nlink, uint64(0), "links")
	c.equal(st.Ino, before.Ino, "inode number")
	c.ok(unix.Fchmod(fd, 0o600), "fchmod")
	c.equal(c.fstat(fd).Mode&0o7777, uint32(0o600), "mode")
	c.ok(futimens(fd, ts(1, 2), ts(3, 4)), "futimens")
	c.equal(c.fstat(fd).Mtim, ts(3, 4), "mtime")
	c.ok(unix.Fsetxattr(fd, "user.k", []byte("v"), 0), "fsetxattr")
	b := make([]byte, 10)
	n, err := unix.Fgetxattr(fd, "user.k", b)
	c.ok(err, "fgetxattr")
	c.equal(string(b[:n]), "v", "xattr")
	c.ok(unix.Fremovexattr(fd, "user.k"), "fremovexattr")
	if c.root {
		c.ok(unix.Fchown(fd, 5, 6), "fchown")
		c.equal(c.fstat(fd).Uid, uint32(5), "uid")
	}
}

func unlinkedReopen(c *tc) {
	f := c.file("f", "content")
	fd := c.open(f, unix.O_RDONLY, 0)
	c.ok(os.Remove(f), "unlink")
	again := c.open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDWR, 0)
	c.pwrite(again, "C", 0)
	c.equal(string(c.pread(fd, 10, 0)), "Content", "content")
	err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, f, unix.AT_SYMLINK_FOLLOW)
	c.want(err, unix.ENOENT, "a file without names gets no new one")
}

func unlinkedReused(c *tc) {
	f := c.file("f", "first")
	fd := c.open(f, unix.O_RDWR, 0)
	c.ok(os.Remove(f), "unlink")
	c.file("f", "second")
	c.pwrite(fd, "FIRST", 0)
	c.content(f, "second")
	st, now := c.fstat(fd), c.lstat(f)
	c.truth(st.Ino != now.Ino, "the new file has the inode number of the old one, which is open")
	c.equal(now.Nlink, uint64(1), "links of the new file")
}

func unlinkErrors(c *tc) {
	f, d := c.file("f", "x"), c.mkdir("d")
	c.want(unix.Unlink(c.p("none")), unix.ENOENT, "nothing")
	c.want(unix.Unlink(d), unix.EISDIR, "a directory")
	c.want(unix.Unlink(f+"/x"), unix.ENOTDIR, "below a file")
	c.want(unix.Unlink(f+"/"), unix.ENOTDIR, "a file with a slash")
	c.ok(os.Symlink("d", c.p("l")), "symlink")
	c.ok(unix.Unlink(c.p("l")), "unlink of a link to a directory")
	c.lstat(d)
}

func unlinkOneName(c *tc) {
	a := c.file("a", "x")
	c.ok(os.Link(a, c.p("b")), "link")
	fd := c.open(a, unix.O_RDWR, 0)
	before := c.fstat(fd)
	c.untilClockMoves()
	c.ok(os.Remove(a), "unlink")
	st := c.fstat(fd)
	c.equal(st.Nlink, uint64(1), "links")
	c.truth(later(st.Ctim, before.Ctim), "unlink did not move ctime")
	c.pwrite(fd, "y", 0)
	c.content(c.p("b"), "y")
}
