package integration

import (
	"os"

	"golang.org/x/sys/unix"
)

func attrCases() []pcase {
	return []pcase{
		{name: "chmod_all_bits", run: chmodAllBits},
		{name: "chmod_moves_ctime_only", run: chmodCtime},
		{name: "chown_each_field", root: true, run: chownFields},
		{name: "lchown_symlink", root: true, run: lchownSymlink},
		{name: "truncate_grow_shrink", run: truncateGrowShrink},
		{name: "truncate_errors", run: truncateErrors},
		{name: "truncate_times", run: truncateTimes},
		{name: "utimens_exact", run: utimensExact},
		{name: "utimens_now_omit", run: utimensNowOmit},
		{name: "utimens_symlink", run: utimensSymlink},
		{name: "utimens_directory_and_fd", run: utimensDirFd},
		{name: "statx_btime", run: statxBtime},
		{name: "write_times", run: writeTimes},
		{name: "entry_changes_move_directory_times", run: dirTimes},
		{name: "inode_numbers_stay", run: inodeNumbers},
		{name: "statfs", run: statfs},
		{name: "size_seen_by_all_descriptors", run: sizeSeen},
	}
}

func chmodAllBits(c *tc) {
	f, d := c.file("f", "x"), c.mkdir("d")
	for _, m := range []uint32{0, 0o400, 0o644, 0o777, 0o1755, 0o2755, 0o4755, 0o7777, 0o111} {
		c.ok(unix.Chmod(f, m), "chmod file")
		c.equal(c.perm(f), m, "mode of file")
		c.ok(unix.Chmod(d, m|0o700), "chmod dir")
		c.equal(c.perm(d), m|0o700, "mode of dir")
	}
	fd := c.open(d, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	c.ok(unix.Fchmod(fd, 0o750), "fchmod")
	c.equal(c.perm(d), uint32(0o750), "fchmod of dir")
	c.want(unix.Chmod(c.p("none"), 0o600), unix.ENOENT, "chmod of nothing")
}

func chmodCtime(c *tc) {
	f := c.file("f", "x")
	before := c.lstat(f)
	c.untilClockMoves()
	c.ok(unix.Chmod(f, 0o600), "chmod")
	after := c.lstat(f)
	c.truth(later(after.Ctim, before.Ctim), "ctime did not move: %v, %v", before.Ctim, after.Ctim)
	c.equal(after.Mtim, before.Mtim, "mtime")
}

func chownFields(c *tc) {
	f := c.file("f", "x")
	c.ok(os.Chown(f, 1234, 4321), "chown")
	c.ok(os.Chown(f, -1, 55), "chgrp")
	st := c.lstat(f)
	c.equal(st.Uid, uint32(1234), "uid")
	c.equal(st.Gid, uint32(55), "gid")
	c.ok(os.Chown(f, 77, -1), "chown uid")
	st = c.lstat(f)
	c.equal(st.Uid, uint32(77), "uid")
	c.equal(st.Gid, uint32(55), "gid")
	c.ok(os.Chown(f, 1<<31, 1<<31+1), "chown to big ids")
	st = c.lstat(f)
	c.equal(st.Uid, uint32(1<<31), "uid")
	c.equal(st.Gid, uint32(1<<31+1), "gid")
}

func lchownSymlink(c *tc) {
	f := c.file("f", "x")
	c.ok(os.Symlink("f", c.p("l")), "symlink")
	c.ok(os.Lchown(c.p("l"), 12, 13), "lchown")
	c.equal(c.lstat(c.p("l")).Uid, uint32(12), "uid of link")
	c.equal(c.lstat(f).Uid, uint32(0), "uid of target")
}

func truncateGrowShrink(c *tc) {
	f := c.file("f", "hello world")
	c.ok(unix.Truncate(f, 5), "truncate")
	c.content(f, "hello")
	c.ok(unix.Truncate(f, 8), "truncate up")
	c.content(f, "hello\x00\x00\x00")
	c.ok(unix.Truncate(f, 0), "truncate to 0")
	c.content(f, "")
	c.ok(unix.Truncate(f, 5<<30), "truncate to 5 GiB")
	st := c.lstat(f)
	c.equal(st.Size, int64(5<<30), "size")
	c.truth(st.Blocks < 2048, "a hole of 5 GiB takes %d blocks", st.Blocks)
	fd := c.open(f, unix.O_RDWR, 0)
	c.pwrite(fd, "end", 5<<30-3)
	c.ok(unix.Ftruncate(fd, 5<<30-1), "ftruncate")
	c.same(c.pread(fd, 10, 5<<30-5), []byte("\x00\x00en"), "end of file")
	// shrink and grow again: what was cut off must not come back
	c.ok(unix.Ftruncate(fd, 5<<30-2), "shrink")
	c.ok(unix.Ftruncate(fd, 5<<30), "grow")
	c.same(c.pread(fd, 10, 5<<30-5), []byte("\x00\x00e\x00\x00"), "end of file after shrinking and growing")
	c.ok(unix.Ftruncate(fd, 1), "ftruncate")
}

func truncateErrors(c *tc) {
	f, d := c.file("f", "x"), c.mkdir("d")
	c.want(unix.Truncate(f, -1), unix.EINVAL, "negative size")
	c.want(unix.Truncate(d, 0), unix.EISDIR, "directory")
	c.want(unix.Truncate(c.p("f/x"), 0), unix.ENOTDIR, "below a file")
	fd := c.open(f, unix.O_RDONLY, 0)
	c.want(unix.Ftruncate(fd, 0), unix.EINVAL, "read-only descriptor")
}

func truncateTimes(c *tc) {
	f := c.file("f", "hello")
	before := c.lstat(f)
	c.untilClockMoves()
	c.ok(unix.Truncate(f, 3), "truncate")
	after := c.lstat(f)
	c.truth(later(after.Mtim, before.Mtim) && later(after.Ctim, before.Ctim),
		"truncate moved mtime %v->%v, ctime %v->%v", before.Mtim, after.Mtim, before.Ctim, after.Ctim)
	c.untilClockMoves()
	fd := c.open(f, unix.O_WRONLY|unix.O_TRUNC, 0)
	st := c.fstat(fd)
	c.equal(st.Size, int64(0), "size after O_TRUNC")
	c.truth(later(st.Mtim, after.Mtim), "O_TRUNC did not move mtime")
}

func utimensExact(c *tc) {
	f := c.file("f", "x")
	for _, m := range []unix.Timespec{ts(0, 0), ts(1, 999999999), ts(-1, 1), ts(-2000000000, 123456789), ts(1e9, 7),
		ts(4102444800, 999)} {
		c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, f, []unix.Timespec{ts(12345, 6789), m}, 0), "utimensat")
		st := c.lstat(f)
		c.equal(st.Mtim, m, "mtime")
		c.equal(st.Atim, ts(12345, 6789), "atime")
	}
	c.want(unix.UtimesNanoAt(unix.AT_FDCWD, f, []unix.Timespec{ts(1, 1e9), ts(1, 0)}, 0), unix.EINVAL,
		"nanoseconds out of range")
}

func utimensNowOmit(c *tc) {
	f := c.file("f", "x")
	now, omit := ts(0, unix.UTIME_NOW), ts(0, unix.UTIME_OMIT)
	set := func(a, m unix.Timespec) unix.Stat_t {
		c.Helper()
		c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, f, []unix.Timespec{a, m}, 0), "utimensat")
		return c.lstat(f)
	}
	set(ts(10, 1), ts(20, 2))
	st := set(omit, ts(30, 3))
	c.equal(st.Atim, ts(10, 1), "atime left alone")
	c.equal(st.Mtim, ts(30, 3), "mtime set")
	st = set(ts(40, 4), omit)
	c.equal(st.Atim, ts(40, 4), "atime set")
	c.equal(st.Mtim, ts(30, 3), "mtime left alone")
	st = set(omit, now)
	c.equal(st.Atim, ts(40, 4), "atime left alone beside now")
	c.truth(st.Mtim.Sec > 1e9, "UTIME_NOW gave mtime %v", st.Mtim)
	st = set(now, ts(5, 5))
	c.truth(st.Atim.Sec > 1e9, "UTIME_NOW gave atime %v", st.Atim)
	c.equal(st.Mtim, ts(5, 5), "mtime beside now")
	ctime := st.Ctim
	c.untilClockMoves()
	st = set(omit, omit)
	c.equal(st.Ctim, ctime, "ctime after two UTIME_OMIT")
	st = set(now, now)
	c.equal(st.Atim, st.Mtim, "atime and mtime by one UTIME_NOW")
}

func utimensSymlink(c *tc) {
	f := c.file("f", "x")
	c.ok(os.Symlink("f", c.p("l")), "symlink")
	before := c.lstat(f)
	c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.p("l"), []unix.Timespec{ts(1, 2), ts(3, 4)}, unix.AT_SYMLINK_NOFOLLOW),
		"utimensat")
	c.equal(c.lstat(c.p("l")).Mtim, ts(3, 4), "mtime of link")
	c.equal(c.lstat(f).Mtim, before.Mtim, "mtime of target")
	c.ok(os.Symlink("nowhere", c.p("dangling")), "symlink")
	c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.p("dangling"), []unix.Timespec{ts(1, 2), ts(3, 4)},
		unix.AT_SYMLINK_NOFOLLOW), "dangling")
	c.want(unix.UtimesNanoAt(unix.AT_FDCWD, c.p("dangling"), []unix.Timespec{ts(1, 2), ts(3, 4)}, 0), unix.ENOENT,
		"dangling, followed")
}

func utimensDirFd(c *tc) {
	d := c.mkdir("d")
	c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, d, []unix.Timespec{ts(1, 2), ts(-3, 4)}, 0), "utimensat")
	c.equal(c.lstat(d).Mtim, ts(-3, 4), "mtime of directory")
	fd := c.open(c.file("f", ""), unix.O_RDONLY, 0)
	c.ok(futimens(fd, ts(7, 8), ts(9, 10)), "futimens on a read-only descriptor")
	c.equal(c.fstat(fd).Mtim, ts(9, 10), "mtime by descriptor")
}

func statxBtime(c *tc) {
	f := c.file("f", "x")
	var stx, again unix.Statx_t
	c.ok(unix.Statx(unix.AT_FDCWD, f, 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &stx), "statx")
	c.truth(stx.Mask&unix.STATX_BTIME != 0, "no birth time")
	c.truth(stx.Btime.Sec > 1e9, "birth time %v", stx.Btime)
	c.untilClockMoves()
	c.file("f", "again")
	c.ok(unix.Statx(unix.AT_FDCWD, f, 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &again), "statx")
	c.equal(again.Btime, stx.Btime, "birth time after a write")
}

func writeTimes(c *tc) {
	fd := c.open(c.p("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
	before := c.fstat(fd)
	c.untilClockMoves()
	c.pwrite(fd, "x", 0)
	after := c.fstat(fd)
	c.truth(later(after.Mtim, before.Mtim) && later(after.Ctim, before.Ctim), "write: mtime %v->%v, ctime %v->%v",
		before.Mtim, after.Mtim, before.Ctim, after.Ctim)
	c.equal(c.lstat(c.p("f")).Mtim, after.Mtim, "mtime by path and by descriptor")
	c.untilClockMoves()
	_, err := unix.Pread(fd, make([]byte, 1), 0)
	c.ok(err, "pread")
	c.equal(c.fstat(fd).Mtim, after.Mtim, "mtime after a read")
}

func dirTimes(c *tc) {
	d, e := c.mkdir("d"), c.mkdir("e")
	f := c.file("x", "x")
	steps := []struct {
		what string
		dirs []string
		do   func() error
	}{
		{"create", []string{d}, func() error { return os.WriteFile(d+"/f", nil, 0o644) }},
		{"link", []string{d}, func() error { return os.Link(f, d+"/l") }},
		{"symlink", []string{d}, func() error { return os.Symlink("q", d+"/s") }},
		{"mkdir", []string{d}, func() error { return os.Mkdir(d+"/m", 0o755) }},
		{"mkfifo", []string{d}, func() error { return unix.Mkfifo(d+"/p", 0o644) }},
		{"rename in place", []string{d}, func() error { return os.Rename(d+"/s", d+"/t") }},
		{"rename across", []string{d, e}, func() error { return os.Rename(d+"/f", e+"/f") }},
		{"unlink", []string{d}, func() error { return os.Remove(d + "/l") }},
		{"rmdir", []string{d}, func() error { return unix.Rmdir(d + "/m") }},
	}
	for _, s := range steps {
		before := map[string]unix.Stat_t{}
		for _, dir := range s.dirs {
			before[dir] = c.lstat(dir)
		}
		c.untilClockMoves()
		c.ok(s.do(), s.what)
		for _, dir := range s.dirs {
			st := c.lstat(dir)
			c.truth(later(st.Mtim, before[dir].Mtim) && later(st.Ctim, before[dir].Ctim),
				"%s: mtime or ctime of the directory did not move", s.what)
		}
	}
}

func inodeNumbers(c *tc) {
	f := c.file("f", "x")
	st := c.lstat(f)
	c.ok(os.Rename(f, c.p("g")), "rename")
	c.equal(c.lstat(c.p("g")).Ino, st.Ino, "inode number after rename")
	c.ok(os.Link(c.p("g"), c.p("h")), "link")
	c.equal(c.lstat(c.p("h")).Ino, st.Ino, "inode number of the other name")
	fd := c.open(c.p("h"), unix.O_RDONLY, 0)
	c.equal(c.fstat(fd).Ino, st.Ino, "inode number by descriptor")
	c.truth(c.lstat(c.file("other", "x")).Ino != st.Ino, "two files have one inode number")
	es, err := os.ReadDir(c.dir)
	c.ok(err, "readdir")
	c.equal(len(es), 3, "entries")
}

func statfs(c *tc) {
	var a, b unix.Statfs_t
	c.ok(unix.Statfs(c.dir, &a), "statfs")
	c.truth(a.Blocks > 0 && a.Bavail <= a.Bfree && a.Bfree <= a.Blocks && a.Bsize >= 512 && a.Files > 0, "statfs %+v",
		a)
	c.equal(a.Namelen, int64(255), "longest name")
	fd := c.open(c.file("f", "x"), unix.O_RDONLY, 0)
	c.ok(unix.Fstatfs(fd, &b), "fstatfs")
	c.equal(a.Blocks, b.Blocks, "blocks by path and by descriptor")
}

func sizeSeen(c *tc) {
	a := c.open(c.p("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
	b := c.open(c.p("f"), unix.O_RDWR, 0)
	c.pwrite(a, "hello", 0)
	c.equal(c.fstat(b).Size, int64(5), "size by the other descriptor")
	c.pwrite(b, "world", 5)
	c.equal(c.fstat(a).Size, int64(10), "size")
	c.ok(unix.Ftruncate(a, 3), "ftruncate")
	c.same(c.pread(b, 10, 0), []byte("hel"), "content by the other descriptor")
	c.equal(c.lstat(c.p("f")).Size, int64(3), "size by path")
}
