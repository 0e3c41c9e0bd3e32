package integration

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func privilegeCases() []pcase {
	var all []pcase
	for name, change := range privilegeChanges() {
		all = append(all, pcase{name: "privileges_cleared_by_" + name, root: true, run: func(c *tc) {
			privilegesCleared(c, change)
		}},
			pcase{name: "setgid_without_group_execute_cleared_by_a_strangers_" + name, root: true, run: func(c *tc) {
				privilegesForeign(c, change)
			}},
			pcase{name: "privileges_kept_beside_capabilities_by_roots_" + name, root: true, run: func(c *tc) {
				privilegesBesideCaps(c, change)
			}})
	}
	return append(all,
		pcase{name: "privileges_kept_by_root", root: true, run: privilegesByRoot},
		pcase{name: "privileges_cleared_by_chown", root: true, run: privilegesChown},
		pcase{name: "setgid_without_group_execute_stays", root: true, run: privilegesLocking},
	)
}

// privilegeChanges are the ways in which an unprivileged writer changes a file that is suid and sgid.
func privilegeChanges() map[string]func(path string) error {
	withFD := func(flags int, f func(fd int) error) func(string) error {
		return func(path string) error {
			fd, err := unix.Open(path, flags, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return f(fd)
		}
	}
	return map[string]func(string) error{
		"write": withFD(unix.O_WRONLY, func(fd int) error { _, err := unix.Write(fd, []byte("x")); return err }),
		"append": withFD(unix.O_WRONLY|unix.O_APPEND, func(fd int) error {
			_, err := unix.Write(fd, []byte("x"))
			return err
		}),
		"truncate":  func(path string) error { return unix.Truncate(path, 1) },
		"ftruncate": withFD(unix.O_WRONLY, func(fd int) error { return unix.Ftruncate(fd, 1) }),
		"o_trunc":   withFD(unix.O_WRONLY|unix.O_TRUNC, func(int) error { return nil }),
		"fallocate": withFD(unix.O_WRONLY, func(fd int) error { return unix.Fallocate(fd, 0, 0, 8192) }),
		"punch": withFD(unix.O_WRONLY, func(fd int) error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 2)
		}),
		"direct_write": withFD(unix.O_WRONLY|unix.O_DIRECT, func(fd int) error {
			_, err := unix.Pwrite(fd, aligned(4096), 0)
			return err
		}),
		"copy_file_range": withFD(unix.O_RDWR, func(fd int) error {
			in, out := int64(0), int64(2)
			_, err := unix.CopyFileRange(fd, &in, fd, &out, 2, 0)
			return err
		}),
	}
}

func privilegesCleared(c *tc, change func(string) error) {
	for _, mode := range []uint32{0o4777, 0o2777, 0o6777} {
		f := c.p(fmt.Sprintf("%o", mode))
		c.ok(os.WriteFile(f, []byte("content"), 0o644), "write")
		c.ok(unix.Chmod(f, mode), "chmod")
		c.equal(c.perm(f), mode, "mode")
		c.ok(c.as(stranger(), func() error { return change(f) }), "change")
		c.equal(c.perm(f), uint32(0o777), fmt.Sprintf("mode after a change, before it was %o", mode))
	}
}

func privilegesForeign(c *tc, change func(string) error) {
	f := c.file("f", "content")
	c.ok(os.Chown(f, 0, 4800), "chgrp")
	c.ok(unix.Chmod(f, 0o2766), "chmod")
	c.equal(c.perm(f), uint32(0o2766), "mode")
	c.ok(c.as(stranger(), func() error { return change(f) }), "change")
	c.equal(c.perm(f), uint32(0o766), "mode after the change of somebody outside the group")
}

func privilegesBesideCaps(c *tc, change func(string) error) {
	f := c.file("f", "content")
	c.ok(unix.Chmod(f, 0o6755), "chmod")
	if err := unix.Setxattr(f, "security.capability",
		[]byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0); err != nil {
		c.ok(err, "set capabilities")
	}
	c.ok(change(f), "change")
	c.equal(c.perm(f), uint32(0o6755), "mode after root's change")
	_, err := unix.Getxattr(f, "security.capability", nil)
	c.equal(err, error(unix.ENODATA), "capabilities after root's change")
}

func privilegesByRoot(c *tc) {
	f := c.file("f", "content")
	c.ok(unix.Chmod(f, 0o6777), "chmod")
	fd := c.open(f, unix.O_RDWR, 0)
	c.pwrite(fd, "x", 0)
	c.ok(unix.Ftruncate(fd, 3), "ftruncate")
	c.equal(c.perm(f), uint32(0o6777), "mode after root wrote")
}

func privilegesChown(c *tc) {
	f := c.file("f", "x")
	c.ok(os.Chown(f, 4711, 4711), "chown")
	c.ok(unix.Chmod(f, 0o6755), "chmod")
	u := user{uid: 4711, gid: 4711, groups: []uint32{4800}}
	c.ok(c.as(u, func() error { return unix.Chown(f, -1, 4800) }), "chgrp")
	c.equal(c.perm(f), uint32(0o755), "mode after the owner changed the group")
	c.ok(unix.Chmod(f, 0o6755), "chmod")
	c.ok(os.Chown(f, 0, 0), "chown by root")
	c.equal(c.perm(f), uint32(0o755), "mode after root changed the owner")
	d := c.mkdir("d")
	c.ok(unix.Chmod(d, 0o6755), "chmod")
	c.ok(os.Chown(d, 4711, 4711), "chown of a directory")
	c.equal(c.perm(d), uint32(0o6755), "mode of the directory")
}

// privilegesLocking: sgid without group execute once meant mandatory locking; a member's write leaves it alone.
func privilegesLocking(c *tc) {
	f := c.file("f", "content")
	c.ok(os.Chown(f, 0, 4800), "chgrp")
	c.ok(unix.Chmod(f, 0o2766), "chmod")
	u := user{uid: 4711, gid: 4711, groups: []uint32{4800}}
	c.ok(c.as(u, func() error {
		fd, err := unix.Open(f, unix.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_, err = unix.Write(fd, []byte("x"))
		return err
	}), "write")
	c.equal(c.perm(f), uint32(0o2766), "mode")
}
