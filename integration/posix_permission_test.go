package integration

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func permissionCases() []pcase {
	return []pcase{
		{name: "access_of_other_users", root: true, run: accessOthers},
		{name: "permission_errors", root: true, run: permissionErrors},
		{name: "sticky_directory", root: true, run: stickyDir},
		{name: "setgid_directory", root: true, run: setgidDir},
		{name: "utimens_permissions", root: true, run: utimensPermissions},
		{name: "chown_permissions", root: true, run: chownPermissions},
		{name: "supplementary_groups", root: true, run: supplementaryGroups},
		{name: "permissions_of_a_plain_user", run: plainPermissions},
		{name: "open_descriptor_outlives_permission", root: true, run: descriptorOutlives},
	}
}

func stranger() user { return user{uid: 4711, gid: 4711} }

// as gives the error that f has for another user.
func (c *tc) as(u user, f func() error) error {
	c.Helper()
	var err error
	c.ok(asUser(u, func() error { err = f(); return nil }), "become another user")
	return err
}

func accessOthers(c *tc) {
	f := c.file("f", "x")
	for _, t := range []struct {
		mode, ask uint32
		u         user
		ok        bool
	}{
		{0o600, unix.R_OK, stranger(), false}, {0o604, unix.R_OK, stranger(), true},
		{0o604, unix.W_OK, stranger(), false},
		{0o606, unix.W_OK, stranger(), true}, {0o601, unix.X_OK, stranger(), true},
		{0o600, unix.F_OK, stranger(), true},
		{0o640, unix.R_OK, user{uid: 4711, gid: 0}, true}, {0o604, unix.R_OK, user{uid: 4711, gid: 0}, false},
	} {
		c.ok(unix.Chmod(f, t.mode), "chmod")
		err := c.as(t.u, func() error { return unix.Faccessat(unix.AT_FDCWD, f, t.ask, 0) })
		c.equal(err == nil, t.ok, fmt.Sprintf("access(%o) of mode %o by gid %d: %v", t.ask, t.mode, t.u.gid, err))
	}
	c.ok(unix.Chmod(f, 0o644), "chmod")
	c.want(unix.Access(f, unix.X_OK), unix.EACCES, "root may not execute what nobody may")
	c.ok(unix.Chmod(f, 0o010), "chmod")
	c.ok(unix.Access(f, unix.X_OK), "root may execute what somebody may")
}

func permissionErrors(c *tc) {
	f, d := c.file("f", "x"), c.mkdir("d")
	c.file("d/in", "x")
	c.ok(unix.Chmod(f, 0o600), "chmod")
	for what, f := range map[string]func() error{
		"open":        func() error { return errnoOf(f, unix.O_RDONLY, 0) },
		"create":      func() error { return errnoOf(d+"/new", unix.O_CREAT|unix.O_WRONLY, 0o644) },
		"mkdir":       func() error { return unix.Mkdir(d+"/new", 0o755) },
		"symlink":     func() error { return unix.Symlink("x", d+"/new") },
		"mkfifo":      func() error { return unix.Mkfifo(d+"/new", 0o644) },
		"unlink":      func() error { return unix.Unlink(d + "/in") },
		"rename away": func() error { return unix.Rename(d+"/in", d+"/out") },
		"rmdir":       func() error { return unix.Rmdir(d) },
		"truncate":    func() error { return unix.Truncate(f, 0) },
		"tmpfile":     func() error { return errnoOf(d, unix.O_TMPFILE|unix.O_WRONLY, 0o600) },
		"setxattr":    func() error { return unix.Setxattr(f, "user.a", []byte("v"), 0) },
		"getxattr":    func() error { _, err := unix.Getxattr(f, "user.a", make([]byte, 1)); return err },
	} {
		c.want(c.as(stranger(), f), unix.EACCES, what)
	}
	c.want(c.as(stranger(), func() error { return unix.Chmod(f, 0o777) }), unix.EPERM, "chmod")
	c.want(c.as(stranger(), func() error { return unix.Chown(f, 4711, -1) }), unix.EPERM, "chown")
	c.ok(unix.Chmod(c.mkdir("open"), 0o777), "chmod")
	c.want(c.as(stranger(), func() error {
		return unix.Mknod(c.p("open/dev"), unix.S_IFCHR|0o644, 259)
	}), unix.EPERM, "mknod of a device")
	// search permission on the way
	c.ok(unix.Chmod(d, 0o744), "chmod")
	c.want(c.as(stranger(), func() error {
		return errnoOf(d+"/in", unix.O_RDONLY, 0)
	}), unix.EACCES, "open below a directory without x")
	c.ok(c.as(stranger(), func() error {
		return errnoOf(d, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	}), "list a directory with r")
	c.ok(unix.Chmod(d, 0o711), "chmod")
	c.want(c.as(stranger(), func() error {
		return errnoOf(d, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	}), unix.EACCES, "list a directory without r")
	c.ok(c.as(stranger(), func() error { return errnoOf(d+"/in", unix.O_RDONLY, 0) }), "open below a directory with x")
}

func stickyDir(c *tc) {
	d := c.mkdir("d")
	c.ok(unix.Chmod(d, 0o1777), "chmod")
	f := c.file("d/f", "x")
	c.ok(unix.Chmod(f, 0o666), "chmod")
	c.want(c.as(stranger(), func() error { return unix.Unlink(f) }), unix.EPERM, "unlink of another's file")
	c.want(c.as(stranger(), func() error { return unix.Rename(f, d+"/g") }), unix.EPERM, "rename of another's file")
	c.ok(c.as(stranger(), func() error { return os.WriteFile(d+"/mine", nil, 0o644) }), "create")
	c.want(c.as(stranger(), func() error {
		return unix.Rename(d+"/mine", f)
	}), unix.EPERM, "rename over another's file")
	c.ok(c.as(stranger(), func() error { return unix.Rename(d+"/mine", d+"/mine2") }), "rename of one's own file")
	c.ok(c.as(stranger(), func() error { return unix.Unlink(d + "/mine2") }), "unlink of one's own file")
}

func setgidDir(c *tc) {
	d := c.mkdir("d")
	c.ok(os.Chown(d, -1, 4800), "chgrp")
	c.ok(unix.Chmod(d, 0o2777), "chmod")
	u := stranger()
	c.ok(c.as(u, func() error {
		for _, err := range []error{
			os.WriteFile(d+"/f", nil, 0o644), unix.Mkdir(d+"/sub", 0o755), unix.Symlink("x", d+"/l"),
			unix.Mkfifo(d+"/p", 0o644),
		} {
			if err != nil {
				return err
			}
		}
		return nil
	}), "create")
	for _, n := range []string{"f", "sub", "l", "p"} {
		st := c.lstat(d + "/" + n)
		c.equal(st.Gid, uint32(4800), "group of "+n)
		c.equal(st.Uid, u.uid, "owner of "+n)
	}
	c.equal(c.perm(d+"/sub"), uint32(0o2755), "mode of the directory below")
	c.equal(c.perm(d+"/f"), uint32(0o644), "mode of the file below")
	// one who is not in the group gets no setgid file there
	c.ok(c.as(u, func() error { return errnoOf(d+"/sg", unix.O_CREAT|unix.O_WRONLY, 0o2775) }), "create setgid")
	c.equal(c.perm(d+"/sg")&unix.S_ISGID, uint32(0), "setgid bit of a file made by a non-member")
	in := user{uid: 4711, gid: 4711, groups: []uint32{4800}}
	c.ok(c.as(in, func() error {
		return errnoOf(d+"/sg2", unix.O_CREAT|unix.O_WRONLY, 0o2755)
	}), "create setgid as a member")
	c.equal(c.perm(d+"/sg2"), uint32(0o2755), "mode of a file made by a member")
}

func utimensPermissions(c *tc) {
	f := c.file("f", "x")
	c.ok(unix.Chmod(f, 0o666), "chmod")
	now := []unix.Timespec{ts(0, unix.UTIME_NOW), ts(0, unix.UTIME_NOW)}
	set := func(t []unix.Timespec) error {
		return c.as(stranger(), func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, f, t, 0) })
	}
	c.ok(set(now), "one who may write sets both times to now")
	c.want(set([]unix.Timespec{ts(1, 0), ts(1, 0)}), unix.EPERM, "one who may write sets other times")
	c.want(set([]unix.Timespec{ts(0, unix.UTIME_NOW), ts(0, unix.UTIME_OMIT)}), unix.EPERM,
		"one who may write sets one time")
	c.ok(unix.Chmod(f, 0o644), "chmod")
	c.want(set(now), unix.EACCES, "one who may not write sets both times to now")
}

func chownPermissions(c *tc) {
	u := user{uid: 4711, gid: 4711, groups: []uint32{4800}}
	f := c.file("f", "x")
	c.ok(os.Chown(f, 4711, 4711), "chown")
	c.ok(c.as(u, func() error { return unix.Chown(f, -1, 4800) }), "owner gives the file to a group of his")
	c.want(c.as(u, func() error {
		return unix.Chown(f, -1, 4900)
	}), unix.EPERM, "owner gives the file to a foreign group")
	c.want(c.as(u, func() error { return unix.Chown(f, 4712, -1) }), unix.EPERM, "owner gives the file away")
	c.ok(os.Chown(f, -1, 4900), "chgrp")
	c.ok(c.as(u, func() error { return unix.Chmod(f, 0o2755) }), "owner sets setgid without being in the group")
	c.equal(c.perm(f), uint32(0o755), "setgid is dropped silently")
}

func supplementaryGroups(c *tc) {
	d := c.mkdir("d")
	c.ok(os.Chown(d, 0, 4800), "chgrp")
	c.ok(unix.Chmod(d, 0o770), "chmod")
	in, out := user{uid: 4711, gid: 1, groups: []uint32{4799, 4800}}, user{uid: 4711, gid: 1}
	c.ok(c.as(in, func() error { return os.WriteFile(d+"/f", []byte("x"), 0o640) }), "create as a member")
	c.want(c.as(out, func() error { return errnoOf(d+"/f", unix.O_RDONLY, 0) }), unix.EACCES, "read as no member")
	c.equal(c.lstat(d+"/f").Gid, uint32(1), "group of the file")
}

func plainPermissions(c *tc) {
	f := c.file("f", "x")
	c.ok(unix.Chmod(f, 0o400), "chmod")
	c.ok(errnoOf(f, unix.O_RDONLY, 0), "owner reads")
	c.ok(unix.Chmod(f, 0), "chmod")
	if !c.root {
		c.want(errnoOf(f, unix.O_RDONLY, 0), unix.EACCES, "owner reads mode 0")
		c.want(unix.Chown(f, 0, 0), unix.EPERM, "chown to root")
		c.want(unix.Mknod(c.p("dev"), unix.S_IFCHR|0o600, 259), unix.EPERM, "mknod of a device")
		c.want(unix.Setxattr(f, "trusted.a", []byte("v"), 0), unix.EPERM, "trusted attribute")
	}
	c.ok(unix.Chmod(f, 0o600), "chmod")
	c.ok(errnoOf(f, unix.O_RDWR, 0), "owner reads and writes")
}

func descriptorOutlives(c *tc) {
	f := c.file("f", "content")
	c.ok(unix.Chmod(f, 0o666), "chmod")
	c.ok(c.as(stranger(), func() error {
		fd, err := unix.Open(f, unix.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := os.WriteFile(fmt.Sprintf("/proc/self/fd/%d", fd), []byte("x"), 0); err != nil {
			return err
		}
		_, err = unix.Pwrite(fd, []byte("y"), 0)
		return err
	}), "write")
	fd := c.open(f, unix.O_RDWR, 0)
	c.ok(unix.Chmod(f, 0), "chmod")
	c.pwrite(fd, "z", 0)
	c.content(f, "z")
}
