package integration

import (
	"os"

	"golang.org/x/sys/unix"
)

func renameCases() []pcase {
	return []pcase{
		{name: "rename_over_open_file", run: renameOverOpen},
		{name: "rename_directories", run: renameDirs},
		{name: "rename_errors", run: renameErrors},
		{name: "rename_same_inode", run: renameSameInode},
		{name: "rename_noreplace", run: renameNoreplace},
		{name: "rename_exchange", run: renameExchange},
		{name: "rename_keeps_attributes", run: renameKeeps},
		{name: "rename_subtree_with_open_files", run: renameSubtree},
		{name: "rename_moves_ctime", run: renameCtime},
		{name: "exdev", run: exdev},
	}
}

func linkCases() []pcase {
	return []pcase{
		{name: "link_counts", run: linkCounts},
		{name: "link_shares_everything", run: linkShares},
		{name: "link_errors", run: linkErrors},
		{name: "link_of_symlink_and_special", run: linkSpecial},
		{name: "link_many", run: linkMany},
	}
}

func (c *tc) rename2(from, to string, flags uint) error {
	return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, flags)
}

func renameOverOpen(c *tc) {
	a, b := c.file("a", "new"), c.file("b", "old content")
	fd := c.open(b, unix.O_RDWR, 0)
	c.ok(os.Rename(a, b), "rename")
	c.content(b, "new")
	c.equal(string(c.pread(fd, 20, 0)), "old content", "content of the replaced file")
	c.equal(c.fstat(fd).Nlink, uint64(0), "links of the replaced file")
	c.pwrite(fd, "written late", 0)
	c.content(b, "new")
	c.equal(c.names(c.dir), "b", "names")
}

func renameDirs(c *tc) {
	c.mkdir("a")
	c.file("a/f", "x")
	c.mkdir("b")
	c.ok(unix.Rename(c.p("a"), c.p("b")), "rename over an empty directory")
	c.content(c.p("b/f"), "x")
	c.mkdir("a")
	c.want(unix.Rename(c.p("a"), c.p("b")), unix.ENOTEMPTY, "rename over a full directory")
	var st unix.Stat_t
	c.ok(os.Rename(c.p("b"), c.p("a/b")), "rename into another directory")
	c.want(unix.Lstat(c.p("b/f"), &st), unix.ENOENT, "the old path")
	up := c.lstat(c.dir + "/a/b/..")
	c.equal(up.Ino, c.lstat(c.p("a")).Ino, "dot dot after a move")
}

func renameErrors(c *tc) {
	f, d := c.file("f", "x"), c.mkdir("d")
	c.mkdir("d/sub")
	c.want(unix.Rename(c.p("none"), c.p("x")), unix.ENOENT, "nothing")
	c.want(unix.Rename(f, d), unix.EISDIR, "a file over a directory")
	c.want(unix.Rename(d, f), unix.ENOTDIR, "a directory over a file")
	c.want(unix.Rename(d, c.p("d/sub/x")), unix.EINVAL, "a directory into itself")
	c.want(unix.Rename(f, c.p("none/x")), unix.ENOENT, "into nothing")
	c.want(unix.Rename(f, f+"/x"), unix.ENOTDIR, "below a file")
	c.want(unix.Rename(c.dir+"/d/sub/..", c.p("x")), unix.EBUSY, "dot dot")
	c.want(unix.Rename(c.p("d/sub"), d), unix.ENOTEMPTY, "a directory over its parent")
	c.want(unix.Rename(f, c.dir+"/new/"), unix.ENOTDIR, "a file to a name with a slash")
	c.want(c.rename2(f, c.p("x"), 1<<10), unix.EINVAL, "an unknown flag")
	c.want(c.rename2(f, c.p("x"), unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE), unix.EINVAL,
		"flags that exclude each other")
}

func renameSameInode(c *tc) {
	a := c.file("a", "x")
	c.ok(os.Link(a, c.p("b")), "link")
	c.ok(unix.Rename(a, c.p("b")), "rename of one name over the other")
	c.equal(c.names(c.dir), "a b", "both names stay")
	c.ok(unix.Rename(a, a), "rename onto itself")
	c.equal(c.lstat(a).Nlink, uint64(2), "links")
}

func renameNoreplace(c *tc) {
	a, b := c.file("a", "a"), c.file("b", "b")
	c.want(c.rename2(a, b, unix.RENAME_NOREPLACE), unix.EEXIST, "target exists")
	c.content(b, "b")
	c.ok(c.rename2(a, c.p("c"), unix.RENAME_NOREPLACE), "target free")
	c.content(c.p("c"), "a")
	c.ok(os.Symlink("nowhere", c.p("l")), "symlink")
	c.want(c.rename2(b, c.p("l"), unix.RENAME_NOREPLACE), unix.EEXIST, "target is a dangling link")
}

func renameExchange(c *tc) {
	a, d := c.file("a", "a"), c.mkdir("d")
	c.mkdir("e")
	e := c.file("e/f", "e")
	ia, ie := c.lstat(a).Ino, c.lstat(e).Ino
	c.ok(c.rename2(a, e, unix.RENAME_EXCHANGE), "exchange of files")
	c.content(a, "e")
	c.content(e, "a")
	c.equal(c.lstat(a).Ino, ie, "inode number")
	c.equal(c.lstat(e).Ino, ia, "inode number")
	c.ok(c.rename2(a, d, unix.RENAME_EXCHANGE), "exchange of a file and a directory")
	c.content(d, "e")
	c.equal(c.names(a), "", "the directory under the file's name")
	c.equal(c.lstat(c.dir).Nlink, uint64(4), "links of the parent")
	c.ok(c.rename2(c.p("e"), a, unix.RENAME_EXCHANGE), "exchange of directories")
	c.content(c.p("a/f"), "a")
	c.ok(c.rename2(c.p("a/f"), c.p("e"), unix.RENAME_EXCHANGE), "exchange of a file with an empty directory above")
	c.content(c.p("e"), "a")
	c.want(c.rename2(d, c.p("none"), unix.RENAME_EXCHANGE), unix.ENOENT, "exchange with nothing")
	c.want(c.rename2(c.p("a"), c.p("a/f"), unix.RENAME_EXCHANGE), unix.EINVAL, "exchange with one's own child")
}

func renameKeeps(c *tc) {
	f := c.file("f", "x")
	c.ok(unix.Chmod(f, 0o600), "chmod")
	c.ok(unix.Setxattr(f, "user.k", []byte("v"), 0), "setxattr")
	c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, f, []unix.Timespec{ts(1, 2), ts(3, 4)}, 0), "utimens")
	c.mkdir("d")
	c.ok(os.Rename(f, c.p("d/g")), "rename")
	st := c.lstat(c.p("d/g"))
	c.equal(st.Mode&0o7777, uint32(0o600), "mode")
	c.equal(st.Mtim, ts(3, 4), "mtime")
	b := make([]byte, 10)
	n, err := unix.Getxattr(c.p("d/g"), "user.k", b)
	c.ok(err, "getxattr")
	c.equal(string(b[:n]), "v", "xattr")
}

func renameSubtree(c *tc) {
	c.mkdir("a")
	c.mkdir("a/b")
	c.file("a/b/f", "before")
	fd := c.open(c.p("a/b/f"), unix.O_RDWR|unix.O_APPEND, 0)
	dir := c.open(c.p("a/b"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	c.ok(os.Rename(c.p("a"), c.p("z")), "rename")
	_, err := unix.Write(fd, []byte(" after"))
	c.ok(err, "append to a moved file")
	c.content(c.p("z/b/f"), "before after")
	c.ok(unix.Mkdirat(dir, "sub", 0o755), "mkdirat below a moved directory")
	c.equal(c.names(c.p("z/b")), "f sub", "names")
	c.mkdir("a")
	c.equal(c.names(c.p("a")), "", "a new directory under the old name")
}

func renameCtime(c *tc) {
	f := c.file("f", "x")
	before := c.lstat(f)
	c.untilClockMoves()
	c.ok(os.Rename(f, c.p("g")), "rename")
	after := c.lstat(c.p("g"))
	c.truth(later(after.Ctim, before.Ctim), "rename did not move ctime")
	c.equal(after.Mtim, before.Mtim, "mtime")
}

func exdev(c *tc) {
	other, err := os.MkdirTemp("/dev/shm", "emberfs-exdev-")
	c.ok(err, "mkdtemp")
	defer os.RemoveAll(other)
	f := c.file("f", "x")
	c.want(unix.Rename(f, other+"/f"), unix.EXDEV, "rename out")
	c.want(unix.Link(f, other+"/f"), unix.EXDEV, "link out")
	c.ok(os.WriteFile(other+"/g", nil, 0o644), "write")
	c.want(unix.Rename(other+"/g", c.p("g")), unix.EXDEV, "rename in")
}

func linkCounts(c *tc) {
	a := c.file("a", "x")
	c.equal(c.lstat(a).Nlink, uint64(1), "links")
	before := c.lstat(a)
	c.untilClockMoves()
	c.ok(os.Link(a, c.p("b")), "link")
	st := c.lstat(a)
	c.equal(st.Nlink, uint64(2), "links seen by the first name")
	c.truth(later(st.Ctim, before.Ctim), "link did not move ctime")
	c.equal(c.lstat(c.p("b")).Nlink, uint64(2), "links seen by the second name")
	c.ok(os.Remove(a), "remove")
	c.equal(c.lstat(c.p("b")).Nlink, uint64(1), "links after one name went")
	c.file("d", "y")
	c.ok(os.Link(c.p("d"), c.p("e")), "link")
	c.ok(os.Rename(c.p("b"), c.p("e")), "rename over one of two names")
	c.equal(c.lstat(c.p("d")).Nlink, uint64(1), "links of the file whose name was taken")
}

func linkShares(c *tc) {
	a := c.file("a", "x")
	c.mkdir("d")
	b := c.p("d/b")
	c.ok(os.Link(a, b), "link")
	c.ok(os.WriteFile(b, []byte("changed"), 0o644), "write by the second name")
	c.content(a, "changed")
	c.ok(unix.Chmod(b, 0o601), "chmod")
	c.equal(c.perm(a), uint32(0o601), "mode by the first name")
	c.ok(unix.Truncate(a, 2), "truncate")
	c.equal(c.lstat(b).Size, int64(2), "size by the second name")
	c.ok(unix.Setxattr(a, "user.k", []byte("v"), 0), "setxattr")
	_, err := unix.Getxattr(b, "user.k", make([]byte, 10))
	c.ok(err, "xattr by the second name")
	c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, b, []unix.Timespec{ts(1, 2), ts(3, 4)}, 0), "utimens")
	c.equal(c.lstat(a).Mtim, ts(3, 4), "mtime by the first name")
}

func linkErrors(c *tc) {
	a, d := c.file("a", "x"), c.mkdir("d")
	c.want(unix.Link(d, c.p("l")), unix.EPERM, "link of a directory")
	c.want(unix.Link(a, d), unix.EEXIST, "link over a directory")
	c.want(unix.Link(a, a), unix.EEXIST, "link over itself")
	c.want(unix.Link(c.p("none"), c.p("l")), unix.ENOENT, "link of nothing")
	c.want(unix.Link(a, c.p("none/l")), unix.ENOENT, "link into nothing")
	c.want(unix.Link(a, a+"/l"), unix.ENOTDIR, "link below a file")
}

func linkSpecial(c *tc) {
	c.ok(os.Symlink("target", c.p("l")), "symlink")
	c.ok(unix.Linkat(unix.AT_FDCWD, c.p("l"), unix.AT_FDCWD, c.p("l2"), 0), "link of a symlink")
	c.equal(c.lstat(c.p("l2")).Ino, c.lstat(c.p("l")).Ino, "inode number")
	c.equal(c.lstat(c.p("l")).Nlink, uint64(2), "links")
	c.ok(unix.Mkfifo(c.p("p"), 0o644), "mkfifo")
	c.ok(os.Link(c.p("p"), c.p("p2")), "link of a fifo")
	c.equal(c.lstat(c.p("p2")).Nlink, uint64(2), "links of the fifo")
}

func linkMany(c *tc) {
	a := c.file("a", "x")
	const n = 300
	for i := range n {
		c.ok(os.Link(a, c.p("l"+string(rune('A'+i%26))+string(rune('A'+i/26)))), "link")
	}
	c.equal(c.lstat(a).Nlink, uint64(n+1), "links")
	c.ok(os.Remove(a), "remove")
	c.content(c.p("lAA"), "x")
}
