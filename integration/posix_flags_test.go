package integration

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func flagCases() []pcase {
	return []pcase{
		{name: "flags_immutable_file", root: true, run: func(c *tc) { flaggedFile(c, flagImmutable) }},
		{name: "flags_append_only_file", root: true, run: func(c *tc) { flaggedFile(c, flagAppend) }},
		{name: "flags_immutable_directory", root: true, run: func(c *tc) { flaggedDir(c, flagImmutable) }},
		{name: "flags_append_only_directory", root: true, run: func(c *tc) { flaggedDir(c, flagAppend) }},
		{name: "flags_of_a_plain_user", root: true, run: flagsOfOthers},
		{name: "flags_unknown", root: true, mount: true, run: func(c *tc) {
			c.want(setFlags(c.file("f", "x"), 0x1), unix.EOPNOTSUPP, "secure deletion")
			c.equal(getFlags(c, c.p("f")), 0, "flags")
		}},
		{name: "flags_move_ctime", root: true, run: func(c *tc) {
			f := c.file("f", "x")
			before := c.lstat(f).Ctim
			time.Sleep(20 * time.Millisecond)
			c.ok(setFlags(f, flagNodump), "chattr +d")
			c.truth(c.lstat(f).Ctim != before, "the ctime stays")
			c.equal(getFlags(c, f), flagNodump, "flags")
			c.ok(os.Rename(f, c.p("g")), "rename")
			c.equal(getFlags(c, c.p("g")), flagNodump, "flags after a rename")
			c.ok(setFlags(c.p("g"), 0), "chattr -d")
			c.equal(getFlags(c, c.p("g")), 0, "flags after chattr -d")
		}},
	}
}

const (
	flagImmutable = 0x10
	flagAppend    = 0x20
	flagNodump    = 0x40
	flagNoatime   = 0x80
)

// getFlags gives those of a path that EmberFS keeps: a native file system has others besides.
func getFlags(c *tc, path string) int {
	c.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	c.ok(err, "open "+path)
	defer unix.Close(fd)
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	c.ok(err, "get the flags of "+path)
	return flags & (flagImmutable | flagAppend | flagNodump | flagNoatime)
}

// setFlags sets those flags and leaves the others of a native file system.
func setFlags(path string, flags int) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	old, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS,
		old&^(flagImmutable|flagAppend|flagNodump|flagNoatime)|flags)
}

// flaggedFile goes through what may be done to a file that has a flag, and after it went.
func flaggedFile(c *tc, flag int) {
	f := c.file("f", "content")
	c.ok(unix.Setxattr(f, "user.k", []byte("v"), 0), "setxattr")
	c.ok(setFlags(f, flag), "set the flag")
	c.Cleanup(func() { _ = setFlags(f, 0) })
	open := func(flags int) error {
		fd, err := unix.Open(f, flags|unix.O_CLOEXEC, 0)
		if err == nil {
			if flags&unix.O_APPEND != 0 {
				_, err = unix.Write(fd, []byte("+"))
			}
			_ = unix.Close(fd)
		}
		return err
	}
	now := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
	type step struct {
		what string
		err  error
	}
	steps := func() []step {
		return []step{
			{"open for writing", open(unix.O_WRONLY)},
			{"open for appending", open(unix.O_WRONLY | unix.O_APPEND)},
			{"open and empty", open(unix.O_WRONLY | unix.O_APPEND | unix.O_TRUNC)},
			{"truncate", unix.Truncate(f, 1)},
			{"chmod", unix.Chmod(f, 0o640)},
			{"chown", os.Chown(f, 1, 1)},
			{"set the times", unix.UtimesNanoAt(unix.AT_FDCWD, f, []unix.Timespec{{Sec: 1}, {Sec: 1}}, 0)},
			{"touch", unix.UtimesNanoAt(unix.AT_FDCWD, f, now, 0)},
			{"setxattr", unix.Setxattr(f, "user.k", []byte("w"), 0)},
			{"removexattr", unix.Removexattr(f, "user.k")},
			{"link", os.Link(f, c.p("l"))},
			{"rename", os.Rename(f, c.p("g"))},
			{"rename over it", os.Rename(c.file("other", "x"), f)},
			{"remove", unix.Unlink(f)},
		}
	}
	may := map[string]bool{}
	if flag == flagAppend {
		may["open for appending"], may["touch"] = true, true
	}
	for _, s := range steps() {
		if may[s.what] {
			c.ok(s.err, s.what)
		} else {
			c.want(s.err, unix.EPERM, s.what)
		}
	}
	want := "content"
	if flag == flagAppend {
		want += "+"
	}
	c.content(f, want)
	c.equal(c.perm(f), uint32(0o644), "mode")
	c.ok(setFlags(f, 0), "take the flag away")
	c.ok(unix.Chmod(f, 0o600), "chmod without the flag")
	c.ok(unix.Unlink(f), "remove without the flag")
}

// flaggedDir is flaggedFile for a directory.
func flaggedDir(c *tc, flag int) {
	d := c.mkdir("d")
	c.ok(os.WriteFile(c.p("d/in"), []byte("x"), 0o644), "write")
	c.ok(os.Mkdir(c.p("d/sub"), 0o755), "mkdir")
	c.ok(setFlags(d, flag), "set the flag")
	c.Cleanup(func() { _ = setFlags(d, 0) })
	add := unix.Errno(unix.EPERM)
	if flag == flagAppend {
		add = 0
	}
	adds := func(err error, what string) {
		c.Helper()
		if add == 0 {
			c.ok(err, what)
		} else {
			c.want(err, add, what)
		}
	}
	adds(os.WriteFile(c.p("d/new"), nil, 0o644), "create")
	adds(os.Mkdir(c.p("d/dir"), 0o755), "mkdir")
	adds(os.Symlink("x", c.p("d/link")), "symlink")
	adds(unix.Mknod(c.p("d/fifo"), unix.S_IFIFO|0o600, 0), "mknod")
	adds(os.Link(c.file("f", "x"), c.p("d/hard")), "link")
	adds(os.Rename(c.p("f"), c.p("d/moved")), "rename into it")
	c.want(unix.Unlink(c.p("d/in")), unix.EPERM, "unlink")
	c.want(unix.Rmdir(c.p("d/sub")), unix.EPERM, "rmdir")
	c.want(os.Rename(c.p("d/in"), c.p("out")), unix.EPERM, "rename out of it")
	c.want(os.Rename(c.p("d/in"), c.p("d/in2")), unix.EPERM, "rename in it")
	c.want(unix.Rmdir(d), unix.EPERM, "rmdir of itself")
	c.want(os.Rename(d, c.p("e")), unix.EPERM, "rename of itself")
	c.ok(os.WriteFile(c.p("d/in"), []byte("changed"), 0o644), "write a file in it")
	c.ok(os.WriteFile(c.p("d/sub/below"), []byte("x"), 0o644), "create below it")
	c.ok(setFlags(d, 0), "take the flag away")
	c.ok(os.RemoveAll(d), "remove all")
}

func flagsOfOthers(c *tc) {
	f := c.file("f", "x")
	c.ok(os.Chown(f, 4711, 4711), "chown")
	owner := user{uid: 4711, gid: 4711}
	for _, flag := range []int{flagImmutable, flagAppend} {
		c.want(c.as(owner, func() error {
			return setFlags(f, flag)
		}), unix.EPERM, fmt.Sprintf("flag %#x by the owner", flag))
	}
	c.ok(c.as(owner, func() error { return setFlags(f, flagNodump) }), "nodump by the owner")
	if err := c.as(user{uid: 4712, gid: 4712}, func() error {
		return setFlags(f, 0)
	}); err != unix.EPERM && err != unix.EACCES {
		c.Fatalf("another user takes a flag away: %v", err)
	}
	c.equal(getFlags(c, f), flagNodump, "flags")
}
