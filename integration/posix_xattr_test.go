package integration

import (
	"bytes"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func xattrCases() []pcase {
	return []pcase{
		{name: "xattr_user", run: xattrUser},
		{name: "xattr_flags_and_errors", run: xattrErrors},
		{name: "xattr_sizes", run: xattrSizes},
		{name: "xattr_list", run: xattrList},
		{name: "xattr_directory_and_symlink", run: xattrKinds},
		{name: "xattr_trusted", root: true, run: xattrTrusted},
		{name: "xattr_security", root: true, run: xattrSecurity},
		{name: "xattr_moves_ctime", run: xattrCtime},
		{name: "xattr_own_names_hidden", root: true, mount: true, run: xattrReserved},
	}
}

func (c *tc) setx(path, name, value string) {
	c.Helper()
	c.ok(unix.Lsetxattr(path, name, []byte(value), 0), "setxattr "+name)
}

func (c *tc) getx(path, name string) string {
	c.Helper()
	b := make([]byte, 65536)
	n, err := unix.Lgetxattr(path, name, b)
	c.ok(err, "getxattr "+name)
	return string(b[:n])
}

func (c *tc) listx(path string) []string {
	c.Helper()
	b := make([]byte, 65536)
	n, err := unix.Llistxattr(path, b)
	c.ok(err, "listxattr")
	var names []string
	for _, s := range strings.Split(strings.TrimSuffix(string(b[:n]), "\x00"), "\x00") {
		if s != "" && s != "security.selinux" {
			names = append(names, s)
		}
	}
	slices.Sort(names)
	return names
}

func xattrUser(c *tc) {
	f := c.file("f", "x")
	c.setx(f, "user.a", "one")
	c.equal(c.getx(f, "user.a"), "one", "value")
	c.setx(f, "user.a", "another, longer")
	c.equal(c.getx(f, "user.a"), "another, longer", "value after a change")
	c.setx(f, "user.empty", "")
	c.equal(c.getx(f, "user.empty"), "", "empty value")
	c.setx(f, "user.\xffbytes\n", "\x00\x01\xff")
	c.equal(c.getx(f, "user.\xffbytes\n"), "\x00\x01\xff", "binary value")
	c.ok(unix.Lremovexattr(f, "user.a"), "removexattr")
	_, err := unix.Lgetxattr(f, "user.a", make([]byte, 10))
	c.want(err, unix.ENODATA, "getxattr after removal")
	c.content(f, "x")
}

func xattrErrors(c *tc) {
	f := c.file("f", "x")
	c.want(unix.Lsetxattr(f, "user.a", nil, unix.XATTR_REPLACE), unix.ENODATA, "replace of nothing")
	c.ok(unix.Lsetxattr(f, "user.a", []byte("v"), unix.XATTR_CREATE), "create")
	c.want(unix.Lsetxattr(f, "user.a", []byte("w"), unix.XATTR_CREATE), unix.EEXIST, "create again")
	c.ok(unix.Lsetxattr(f, "user.a", []byte("w"), unix.XATTR_REPLACE), "replace")
	c.equal(c.getx(f, "user.a"), "w", "value")
	c.want(unix.Lremovexattr(f, "user.none"), unix.ENODATA, "removal of nothing")
	c.want(unix.Lsetxattr(f, "nonsense.a", []byte("v"), 0), unix.EOPNOTSUPP, "unknown namespace")
	c.want(unix.Lsetxattr(f, "", []byte("v"), 0), unix.ERANGE, "empty name")
	c.want(unix.Lsetxattr(f, "user."+strings.Repeat("n", 251), []byte("v"), 0), unix.ERANGE, "name of 256 bytes")
	c.ok(unix.Lsetxattr(f, "user."+strings.Repeat("n", 250), []byte("v"), 0), "name of 255 bytes")
	c.want(unix.Lsetxattr(f, "user.big", make([]byte, 65537), 0), unix.E2BIG, "value over 64 KiB")
	c.want(unix.Lsetxattr(c.p("none"), "user.a", []byte("v"), 0), unix.ENOENT, "no file")
}

func xattrSizes(c *tc) {
	f := c.file("f", "x")
	value := strings.Repeat("v", 2000)
	c.setx(f, "user.a", value)
	n, err := unix.Lgetxattr(f, "user.a", nil)
	c.ok(err, "size query")
	c.equal(n, 2000, "size")
	_, err = unix.Lgetxattr(f, "user.a", make([]byte, 1999))
	c.want(err, unix.ERANGE, "buffer too small")
	b := make([]byte, 2000)
	n, err = unix.Lgetxattr(f, "user.a", b)
	c.ok(err, "buffer of the right size")
	c.same(b[:n], bytes.Repeat([]byte("v"), 2000), "value")
	need, err := unix.Llistxattr(f, nil)
	c.ok(err, "list size query")
	_, err = unix.Llistxattr(f, make([]byte, need-1))
	c.want(err, unix.ERANGE, "list buffer too small")
	n, err = unix.Llistxattr(f, make([]byte, need))
	c.ok(err, "list buffer of the right size")
	c.equal(n, need, "size of the list")
}

func xattrList(c *tc) {
	f := c.file("f", "x")
	c.equal(len(c.listx(f)), 0, "attributes of a new file")
	for _, n := range []string{"user.b", "user.a", "user.c"} {
		c.setx(f, n, n)
	}
	c.ok(unix.Lremovexattr(f, "user.b"), "removexattr")
	c.equal(strings.Join(c.listx(f), " "), "user.a user.c", "attributes")
	fd := c.open(f, unix.O_RDONLY, 0)
	n, err := unix.Flistxattr(fd, make([]byte, 100))
	c.ok(err, "flistxattr")
	c.equal(n, len("user.a\x00user.c\x00"), "size of the list by descriptor")
}

func xattrKinds(c *tc) {
	d := c.mkdir("d")
	c.setx(d, "user.a", "v")
	c.equal(c.getx(d, "user.a"), "v", "of a directory")
	c.ok(os.Symlink("d", c.p("l")), "symlink")
	c.want(unix.Lsetxattr(c.p("l"), "user.a", []byte("v"), 0), unix.EPERM, "user attribute of a symlink")
	c.ok(unix.Mkfifo(c.p("p"), 0o644), "mkfifo")
	c.want(unix.Lsetxattr(c.p("p"), "user.a", []byte("v"), 0), unix.EPERM, "user attribute of a fifo")
	if c.root {
		c.setx(c.p("l"), "trusted.a", "v")
		c.equal(c.getx(c.p("l"), "trusted.a"), "v", "trusted attribute of a symlink")
		c.setx(c.p("p"), "trusted.a", "v")
	}
}

func xattrTrusted(c *tc) {
	f := c.file("f", "x")
	c.setx(f, "trusted.a", "secret")
	c.setx(f, "user.a", "public")
	c.equal(c.getx(f, "trusted.a"), "secret", "value")
	c.ok(unix.Chmod(f, 0o777), "chmod")
	c.ok(unix.Chmod(c.dir, 0o777), "chmod")
	c.ok(asUser(user{uid: 4711, gid: 4711}, func() error {
		if _, err := unix.Lgetxattr(f, "trusted.a", make([]byte, 10)); err != unix.ENODATA {
			c.Errorf("an unprivileged user reads a trusted attribute: %v", err)
		}
		if err := unix.Lsetxattr(f, "trusted.b", []byte("v"), 0); err != unix.EPERM {
			c.Errorf("an unprivileged user sets a trusted attribute: %v", err)
		}
		list := make([]byte, 65536)
		n, err := unix.Llistxattr(f, list)
		if err != nil || strings.Contains(string(list[:max(n, 0)]), "trusted.a") ||
			!strings.Contains(string(list[:max(n, 0)]), "user.a") {
			c.Errorf("an unprivileged user sees %q, %v", list[:max(n, 0)], err)
		}
		if size, err := unix.Llistxattr(f, nil); err != nil || size != n {
			c.Errorf("the list has %d bytes, its size is given as %d, %v", n, size, err)
		}
		return nil
	}), "as another user")
	c.equal(strings.Join(c.listx(f), " "), "trusted.a user.a", "attributes")
}

func xattrSecurity(c *tc) {
	f := c.file("f", "x")
	// cap_net_bind_service, effective.
	caps := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	c.setx(f, "security.capability", caps)
	c.equal(c.getx(f, "security.capability"), caps, "capability")
	// a write takes a capability away, whoever writes
	fd := c.open(f, unix.O_WRONLY, 0)
	c.pwrite(fd, "y", 0)
	_, err := unix.Lgetxattr(f, "security.capability", make([]byte, 100))
	c.want(err, unix.ENODATA, "capability after a write")
	c.setx(f, "security.capability", caps)
	c.ok(os.Chown(f, 7, 7), "chown")
	_, err = unix.Lgetxattr(f, "security.capability", make([]byte, 100))
	c.want(err, unix.ENODATA, "capability after chown")
}

func xattrCtime(c *tc) {
	f := c.file("f", "x")
	before := c.lstat(f)
	c.untilClockMoves()
	c.setx(f, "user.a", "v")
	st := c.lstat(f)
	c.truth(later(st.Ctim, before.Ctim), "setxattr did not move ctime")
	c.equal(st.Mtim, before.Mtim, "mtime")
	c.untilClockMoves()
	c.ok(unix.Lremovexattr(f, "user.a"), "removexattr")
	c.truth(later(c.lstat(f).Ctim, st.Ctim), "removexattr did not move ctime")
}

func xattrReserved(c *tc) {
	f := c.file("f", "x")
	for _, n := range []string{"trusted.emberfs", "user.emberfs"} {
		c.want(unix.Lsetxattr(f, n, []byte("v"), 0), unix.EPERM, "set "+n)
		_, err := unix.Lgetxattr(f, n, make([]byte, 100))
		c.want(err, unix.ENODATA, "get "+n)
	}
	c.equal(len(c.listx(f)), 0, "attributes")
	c.equal(len(c.listx(c.dir)), 0, "attributes of the directory")
	c.setx(f, "user.emberfsish", "v")
	c.equal(strings.Join(c.listx(f), " "), "user.emberfsish", "attributes")
}
