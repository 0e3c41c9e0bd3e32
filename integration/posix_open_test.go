package integration

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func openCases() []pcase {
	return []pcase{
		{name: "create_umask", run: createUmask},
		{name: "create_exclusive", run: createExclusive},
		{name: "create_mode_readonly_is_writable_at_once", run: createReadonlyMode},
		{name: "open_errors", run: openErrors},
		{name: "open_nofollow", run: openNofollow},
		{name: "open_path", run: openPath},
		{name: "open_trunc", run: openTrunc},
		{name: "open_append", run: openAppend},
		{name: "append_switched_by_fcntl", run: appendSwitch},
		{name: "append_by_two_processes", run: appendTwoProcesses},
		{name: "open_direct", run: openDirect},
		{name: "open_sync", run: openSync},
		{name: "tmpfile_linked", run: tmpfileLinked},
		{name: "tmpfile_exclusive_never_linked", run: tmpfileExclusive},
		{name: "create_owner_is_caller", root: true, run: createOwner},
		{name: "create_through_symlink", run: createThroughSymlink},
		{name: "openat_descriptors", run: openatDescriptors},
	}
}

func createUmask(c *tc) {
	err := isolated(func() error {
		unix.Umask(0o027)
		fd, err := unix.Open(c.p("f"), unix.O_CREAT|unix.O_WRONLY, 0o666)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Mkdir(c.p("d"), 0o777); err != nil {
			return err
		}
		if err := unix.Mkfifo(c.p("p"), 0o666); err != nil {
			return err
		}
		unix.Umask(0)
		return unix.Mkdir(c.p("open"), 0o777)
	})
	c.ok(err, "create")
	c.equal(c.perm(c.p("f")), uint32(0o640), "mode of file")
	c.equal(c.perm(c.p("d")), uint32(0o750), "mode of directory")
	c.equal(c.perm(c.p("p")), uint32(0o640), "mode of fifo")
	c.equal(c.perm(c.p("open")), uint32(0o777), "mode of directory without umask")
	fd := c.open(c.p("special"), unix.O_CREAT|unix.O_WRONLY, 0o4751)
	c.equal(c.fstat(fd).Mode&0o7777, uint32(0o4751)&^uint32(0o022), "suid given at create")
	c.ok(unix.Mkdir(c.p("sticky"), 0o1755), "mkdir with sticky")
	c.equal(c.perm(c.p("sticky")), uint32(0o1755), "sticky given at mkdir")
}

func createExclusive(c *tc) {
	c.ok(os.Symlink("nowhere", c.p("l")), "symlink")
	f := c.file("f", "x")
	for _, p := range []string{f, c.p("l"), c.dir} {
		c.want(errnoOf(p, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644), unix.EEXIST, "O_EXCL on "+filepath.Base(p))
	}
	_, err := os.Lstat(c.p("nowhere"))
	c.truth(os.IsNotExist(err), "O_EXCL went through a dangling link")
}

func createReadonlyMode(c *tc) {
	fd := c.open(c.p("f"), unix.O_CREAT|unix.O_RDWR, 0o400)
	c.pwrite(fd, "written", 0)
	c.content(c.p("f"), "written")
	fd = c.open(c.p("g"), unix.O_CREAT|unix.O_RDWR, 0)
	c.pwrite(fd, "written", 0)
}

func openErrors(c *tc) {
	f, d := c.file("f", "x"), c.mkdir("d")
	c.want(errnoOf(c.p("none"), unix.O_RDONLY, 0), unix.ENOENT, "nothing there")
	c.want(errnoOf(f+"/x", unix.O_RDONLY, 0), unix.ENOTDIR, "below a file")
	c.want(errnoOf(f, unix.O_RDONLY|unix.O_DIRECTORY, 0), unix.ENOTDIR, "O_DIRECTORY on a file")
	c.want(errnoOf(d, unix.O_WRONLY, 0), unix.EISDIR, "a directory for writing")
	c.want(errnoOf(d, unix.O_RDWR|unix.O_CREAT, 0o644), unix.EISDIR, "a directory with O_CREAT")
	c.want(errnoOf(c.p("none/x"), unix.O_CREAT|unix.O_WRONLY, 0o644), unix.ENOENT, "create below nothing")
	c.want(errnoOf(f+"/", unix.O_RDONLY, 0), unix.ENOTDIR, "a file with a slash")
	c.want(errnoOf("", unix.O_RDONLY, 0), unix.ENOENT, "empty path")
	c.ok(os.Symlink("loop", c.p("loop")), "symlink")
	c.want(errnoOf(c.p("loop"), unix.O_RDONLY, 0), unix.ELOOP, "a loop")
	fd := c.open(f, unix.O_WRONLY, 0)
	_, err := unix.Read(fd, make([]byte, 1))
	c.want(err, unix.EBADF, "read of a write-only descriptor")
	fd = c.open(f, unix.O_RDONLY, 0)
	_, err = unix.Write(fd, []byte("x"))
	c.want(err, unix.EBADF, "write to a read-only descriptor")
	fd = c.open(d, unix.O_RDONLY, 0)
	_, err = unix.Read(fd, make([]byte, 1))
	c.want(err, unix.EISDIR, "read of a directory")
}

func openNofollow(c *tc) {
	c.file("f", "x")
	c.ok(os.Symlink("f", c.p("l")), "symlink")
	c.want(errnoOf(c.p("l"), unix.O_RDONLY|unix.O_NOFOLLOW, 0), unix.ELOOP, "O_NOFOLLOW on a link")
	c.want(errnoOf(c.p("l"), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0), unix.ENOTDIR,
		"O_NOFOLLOW|O_DIRECTORY on a link")
	c.ok(errnoOf(c.p("f"), unix.O_RDONLY|unix.O_NOFOLLOW, 0), "O_NOFOLLOW on a file")
	c.content(c.p("l"), "x")
}

func openPath(c *tc) {
	c.file("f", "x")
	c.ok(os.Symlink("f", c.p("l")), "symlink")
	fd := c.open(c.p("l"), unix.O_PATH|unix.O_NOFOLLOW, 0)
	c.equal(c.fstat(fd).Mode&unix.S_IFMT, uint32(unix.S_IFLNK), "type by O_PATH|O_NOFOLLOW")
	b := make([]byte, 10)
	n, err := unix.Readlinkat(fd, "", b)
	c.ok(err, "readlinkat of the descriptor")
	c.equal(string(b[:n]), "f", "target")
	fd = c.open(c.p("f"), unix.O_PATH, 0)
	_, err = unix.Read(fd, b)
	c.want(err, unix.EBADF, "read by O_PATH")
	again := c.open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY, 0)
	n, err = unix.Read(again, b)
	c.ok(err, "read after reopening")
	c.equal(string(b[:n]), "x", "content")
	dir := c.open(c.dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	c.ok(unix.Mkdirat(dir, "sub", 0o755), "mkdirat below O_PATH")
}

func openTrunc(c *tc) {
	f := c.file("f", "content")
	a := c.open(f, unix.O_RDONLY, 0)
	fd := c.open(f, unix.O_WRONLY|unix.O_TRUNC, 0)
	c.equal(c.fstat(fd).Size, int64(0), "size")
	n, err := unix.Pread(a, make([]byte, 10), 0)
	c.ok(err, "pread")
	c.equal(n, 0, "bytes left for the reader")
	c.file("f", "more")
	c.ok(errnoOf(f, unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC, 0o600), "O_CREAT|O_TRUNC")
	c.content(f, "")
	c.equal(c.perm(f), uint32(0o644), "mode is that of the old file")
}

func openAppend(c *tc) {
	f := c.file("f", "one")
	a, b := c.open(f, unix.O_WRONLY|unix.O_APPEND, 0), c.open(f, unix.O_RDWR|unix.O_APPEND, 0)
	for i, fd := range []int{a, b, a, b} {
		_, err := unix.Write(fd, []byte{byte('0' + i)})
		c.ok(err, "append")
	}
	_, err := unix.Pwrite(a, []byte("P"), 0)
	c.ok(err, "pwrite")
	c.content(f, "one0123P")
	c.ok(unix.Truncate(f, 1), "truncate")
	_, err = unix.Write(b, []byte("!"))
	c.ok(err, "append after truncate")
	c.content(f, "o!")
}

func appendSwitch(c *tc) {
	f := c.file("f", "12345")
	fd := c.open(f, unix.O_RDWR, 0)
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_APPEND)
	c.ok(err, "F_SETFL")
	_, err = unix.Write(fd, []byte("6"))
	c.ok(err, "write")
	c.content(f, "123456")
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, 0)
	c.ok(err, "F_SETFL")
	c.pwrite(fd, "x", 0)
	c.content(f, "x23456")
}

func appendTwoProcesses(c *tc) {
	const records = 2000
	f := c.file("log", "")
	var cmds []func() error
	for _, id := range []string{"a", "b"} {
		cmd := helperCommand("append", user{}, f, id, fmt.Sprint(records))
		c.ok(cmd.Start(), "start")
		cmds = append(cmds, cmd.Wait)
	}
	for _, wait := range cmds {
		c.ok(wait(), "writer")
	}
	b, err := os.ReadFile(f)
	c.ok(err, "read")
	next := map[string]int{}
	c.equal(len(b), 2*records*appendRecord, "bytes")
	for i := 0; i < len(b); i += appendRecord {
		var id string
		var n int
		_, err := fmt.Sscanf(string(b[i:i+appendRecord]), "%s %d", &id, &n)
		c.ok(err, "a torn record")
		c.equal(n, next[id], "order of "+id)
		next[id]++
	}
}

func openDirect(c *tc) {
	fd := c.open(c.p("f"), unix.O_CREAT|unix.O_RDWR|unix.O_DIRECT, 0o644)
	block := aligned(8192)
	for i := range block {
		block[i] = byte(i % 251)
	}
	n, err := unix.Pwrite(fd, block, 4096)
	c.ok(err, "direct write")
	c.equal(n, len(block), "bytes")
	c.equal(c.fstat(fd).Size, int64(12288), "size")
	// the page cache and direct I/O see the same bytes, both ways
	buffered := c.open(c.p("f"), unix.O_RDWR, 0)
	c.same(c.pread(buffered, 8192, 4096), block, "buffered read after direct write")
	c.pwrite(buffered, "buffered", 4096)
	back := aligned(4096)
	_, err = unix.Pread(fd, back, 4096)
	c.ok(err, "direct read")
	c.same(back[:8], []byte("buffered"), "direct read after buffered write")
	n, err = unix.Pread(fd, back, 12288)
	c.ok(err, "direct read at the end")
	c.equal(n, 0, "bytes at the end")
	m, err := unix.Mmap(fd, 0, 12288, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	c.ok(err, "mmap of an O_DIRECT file")
	defer func() { _ = unix.Munmap(m) }()
	copy(m[5000:], "mapped")
	c.ok(unix.Msync(m, unix.MS_SYNC), "msync")
	_, err = unix.Pread(fd, back, 4096)
	c.ok(err, "direct read")
	c.same(back[904:910], []byte("mapped"), "direct read after msync")
}

func openSync(c *tc) {
	for i, flag := range []int{unix.O_SYNC, unix.O_DSYNC} {
		f := c.p(fmt.Sprint("f", i))
		fd := c.open(f, unix.O_CREAT|unix.O_WRONLY|flag, 0o644)
		c.pwrite(fd, "safe", 0)
		c.ok(unix.Fsync(fd), "fsync")
		c.ok(unix.Fdatasync(fd), "fdatasync")
		c.content(f, "safe")
	}
	fd := c.open(c.p("f0"), unix.O_RDONLY, 0)
	c.ok(unix.Fsync(fd), "fsync of a read-only descriptor")
	dir := c.open(c.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	c.ok(unix.Fsync(dir), "fsync of a directory")
	c.ok(unix.Fdatasync(dir), "fdatasync of a directory")
	c.ok(unix.Syncfs(dir), "syncfs")
}

func tmpfileLinked(c *tc) {
	fd := c.open(c.dir, unix.O_TMPFILE|unix.O_RDWR, 0o640)
	c.pwrite(fd, "unnamed", 0)
	st := c.fstat(fd)
	c.equal(st.Nlink, uint64(0), "links")
	c.equal(c.names(c.dir), "", "names before linking")
	c.ok(unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, c.p("named"),
		unix.AT_SYMLINK_FOLLOW), "linkat")
	c.equal(c.fstat(fd).Nlink, uint64(1), "links after linkat")
	c.content(c.p("named"), "unnamed")
	c.equal(c.perm(c.p("named")), uint32(0o640), "mode")
	c.equal(c.lstat(c.p("named")).Ino, st.Ino, "inode number")
	c.pwrite(fd, "U", 0)
	c.content(c.p("named"), "Unnamed")
	if c.root {
		fd = c.open(c.dir, unix.O_TMPFILE|unix.O_WRONLY, 0o600)
		c.ok(unix.Linkat(fd, "", unix.AT_FDCWD, c.p("named2"), unix.AT_EMPTY_PATH), "linkat with AT_EMPTY_PATH")
	}
}

func tmpfileExclusive(c *tc) {
	fd := c.open(c.dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL, 0o600)
	c.pwrite(fd, "x", 0)
	err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, c.p("named"),
		unix.AT_SYMLINK_FOLLOW)
	c.want(err, unix.ENOENT, "linkat of an exclusive O_TMPFILE")
	c.want(errnoOf(c.dir, unix.O_TMPFILE|unix.O_RDONLY, 0o600), unix.EINVAL, "O_TMPFILE read-only")
}

func createOwner(c *tc) {
	c.ok(unix.Chmod(c.dir, 0o777), "chmod")
	u := user{uid: 4711, gid: 4712}
	c.ok(asUser(u, func() error {
		fd, err := unix.Open(c.p("f"), unix.O_CREAT|unix.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, err := range []error{unix.Mkdir(c.p("d"), 0o755), unix.Symlink("x", c.p("l")),
			unix.Mkfifo(c.p("p"), 0o644)} {
			if err != nil {
				return err
			}
		}
		return nil
	}), "create as another user")
	for _, n := range []string{"f", "d", "l", "p"} {
		st := c.lstat(c.p(n))
		c.equal(st.Uid, u.uid, "uid of "+n)
		c.equal(st.Gid, u.gid, "gid of "+n)
	}
}

func createThroughSymlink(c *tc) {
	c.mkdir("d")
	c.ok(os.Symlink("d/target", c.p("l")), "symlink")
	c.ok(os.WriteFile(c.p("l"), []byte("x"), 0o644), "write through a dangling link")
	c.content(c.p("d/target"), "x")
}

func openatDescriptors(c *tc) {
	d := c.mkdir("d")
	dir := c.open(d, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	c.ok(os.Rename(d, c.p("moved")), "rename")
	fd, err := unix.Openat(dir, "f", unix.O_CREAT|unix.O_WRONLY, 0o644)
	c.ok(err, "openat below a moved directory")
	_ = unix.Close(fd)
	c.content(c.p("moved/f"), "")
	var st unix.Stat_t
	c.ok(unix.Fstatat(dir, "f", &st, unix.AT_SYMLINK_NOFOLLOW), "fstatat")
	c.ok(unix.Unlinkat(dir, "f", 0), "unlinkat")
	c.equal(c.names(c.p("moved")), "", "names")
}
