package integration

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// pcase is one thing that a file system must do. Each is first run on a native directory, which proves the case right.
type pcase struct {
	name    string
	root    bool // needs privileges or several users: not run by a plain user
	fixture bool // works on files that were there before: after a restore they come from the commit
	mount   bool // holds for the mount alone; a native directory differs by right
	run     func(*tc)
}

// tc is what a case gets: a directory of its own, and checks that end it.
type tc struct {
	*testing.T
	dir  string
	root bool
}

func posixCases() []pcase {
	return slices.Concat(attrCases(), openCases(), ioCases(), spaceCases(), dirCases(), nameCases(), renameCases(),
		linkCases(),
		unlinkedCases(), xattrCases(), aclCases(), permissionCases(), privilegeCases(), flagCases(), lockCases(),
		mmapCases(), specialCases(), parallelCases(), fixtureCases())
}

func (c *tc) p(name string) string { return filepath.Join(c.dir, name) }

// pre is a path of the fixture.
func (c *tc) pre(name string) string { return filepath.Join(c.dir, "pre", name) }

func (c *tc) ok(err error, what string) {
	c.Helper()
	if err != nil {
		c.Fatalf("%s: %v", what, err)
	}
}

func (c *tc) want(err error, errno unix.Errno, what string) {
	c.Helper()
	if !errors.Is(err, errno) {
		c.Fatalf("%s: got %v, want %v (%s)", what, err, errno, unix.ErrnoName(errno))
	}
}

func (c *tc) equal(got, want any, what string) {
	c.Helper()
	if got != want {
		c.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func (c *tc) truth(ok bool, what string, args ...any) {
	c.Helper()
	if !ok {
		c.Fatalf(what, args...)
	}
}

// file makes a file with this content and mode 0644 and gives its path.
func (c *tc) file(name, content string) string {
	c.Helper()
	c.ok(os.WriteFile(c.p(name), []byte(content), 0o644), "write "+name)
	return c.p(name)
}

func (c *tc) mkdir(name string) string {
	c.Helper()
	c.ok(os.Mkdir(c.p(name), 0o755), "mkdir "+name)
	return c.p(name)
}

// open gives a raw descriptor that is closed at the end of the case.
func (c *tc) open(path string, flags int, mode uint32) int {
	c.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, mode)
	c.ok(err, "open "+path)
	c.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func (c *tc) lstat(path string) unix.Stat_t {
	c.Helper()
	var st unix.Stat_t
	c.ok(unix.Lstat(path, &st), "lstat "+path)
	return st
}

func (c *tc) fstat(fd int) unix.Stat_t {
	c.Helper()
	var st unix.Stat_t
	c.ok(unix.Fstat(fd, &st), "fstat")
	return st
}

// perm asks for the mode alone, as stat -c %a does: the kernel asks the daemon for no more than it is asked itself.
func (c *tc) perm(path string) uint32 {
	c.Helper()
	var st unix.Statx_t
	c.ok(unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MODE, &st), "statx "+path)
	return uint32(st.Mode) & 0o7777
}

func (c *tc) content(path, want string) {
	c.Helper()
	b, err := os.ReadFile(path)
	c.ok(err, "read "+path)
	c.same(b, []byte(want), path)
}

func (c *tc) same(got, want []byte, what string) {
	c.Helper()
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < len(got) && at < len(want) && got[at] == want[at] {
		at++
	}
	c.Fatalf("%s: got %d bytes, want %d; first difference at %d: %.40q, want %.40q", what, len(got), len(want), at,
		got[at:min(len(got), at+40)], want[at:min(len(want), at+40)])
}

func (c *tc) pwrite(fd int, s string, off int64) {
	c.Helper()
	n, err := unix.Pwrite(fd, []byte(s), off)
	c.ok(err, "pwrite")
	c.equal(n, len(s), "bytes written")
}

// pread reads up to n bytes at an offset.
func (c *tc) pread(fd, n int, off int64) []byte {
	c.Helper()
	b := make([]byte, n)
	n, err := unix.Pread(fd, b, off)
	c.ok(err, "pread")
	return b[:n]
}

// seek moves a descriptor and requires its new position.
func (c *tc) seek(fd int, off int64, whence int, want int64, what string) {
	c.Helper()
	pos, err := unix.Seek(fd, off, whence)
	c.ok(err, what)
	c.equal(pos, want, what)
}

// errnoOf is the error of opening, for calls where success must be undone.
func errnoOf(path string, flags int, mode uint32) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, mode)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

// names lists a directory by readdir, sorted.
func (c *tc) names(dir string) string {
	c.Helper()
	es, err := os.ReadDir(dir)
	c.ok(err, "readdir "+dir)
	var all []string
	for _, e := range es {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func ts(sec int64, nsec int64) unix.Timespec { return unix.Timespec{Sec: sec, Nsec: nsec} }

func later(a, b unix.Timespec) bool { return a.Sec > b.Sec || a.Sec == b.Sec && a.Nsec > b.Nsec }

// untilClockMoves waits until the kernel's coarse clock, which stamps inodes, is past the time that it is now. That the
// coarse clock moved is not enough: since Linux 6.13 an inode that somebody looked at gets the exact time, which a late
// tick leaves behind.
func (c *tc) untilClockMoves() {
	var start, now unix.Timespec
	c.ok(unix.ClockGettime(unix.CLOCK_REALTIME, &start), "clock")
	waitFor(1e9, func() bool {
		return unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now) == nil && later(now, start)
	})
}
