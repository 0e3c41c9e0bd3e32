package integration

import (
	"bytes"
	"emberfs/integration/testprog"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func mmapCases() []pcase {
	return []pcase{
		{name: "mmap_shared_and_write_see_each_other", run: mmapCoherent},
		{name: "mmap_private", run: mmapPrivate},
		{name: "mmap_after_close", run: mmapAfterClose},
		{name: "mmap_unlinked", run: mmapUnlinked},
		{name: "mmap_between_processes", run: mmapProcesses},
		{name: "mmap_tail_is_zero", run: mmapTail},
		{name: "mmap_grown_file", run: mmapGrown},
		{name: "mmap_moves_mtime", run: mmapMtime},
		{name: "mmap_errors", run: mmapErrors},
		{name: "exec", run: execFile},
	}
}

func (c *tc) mmap(fd, size, prot, flags int) []byte {
	c.Helper()
	m, err := unix.Mmap(fd, 0, size, prot, flags)
	c.ok(err, "mmap")
	c.Cleanup(func() { _ = unix.Munmap(m) })
	return m
}

func mmapCoherent(c *tc) {
	f := c.file("f", strings.Repeat("x", 10000))
	fd := c.open(f, unix.O_RDWR, 0)
	m := c.mmap(fd, 10000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	c.equal(m[9999], byte('x'), "byte by the map")
	c.pwrite(fd, "written", 5000)
	c.equal(string(m[5000:5007]), "written", "a write seen by the map")
	copy(m[100:], "mapped")
	c.equal(string(c.pread(fd, 6, 100)), "mapped", "the map seen by a read")
	c.ok(unix.Msync(m, unix.MS_SYNC), "msync")
	want := []byte(strings.Repeat("x", 10000))
	copy(want[5000:], "written")
	copy(want[100:], "mapped")
	c.content(f, string(want))
}

func mmapPrivate(c *tc) {
	f := c.file("f", strings.Repeat("x", 8192))
	fd := c.open(f, unix.O_RDONLY, 0)
	m := c.mmap(fd, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	copy(m, "private")
	c.content(f, strings.Repeat("x", 8192))
	c.equal(string(m[:8]), "privatex", "the map itself")
}

func mmapAfterClose(c *tc) {
	f := c.file("f", strings.Repeat("x", 8192))
	fd, err := unix.Open(f, unix.O_RDWR, 0)
	c.ok(err, "open")
	m := c.mmap(fd, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	c.ok(unix.Close(fd), "close")
	copy(m[4096:], "late")
	c.ok(unix.Msync(m, unix.MS_SYNC), "msync")
	want := []byte(strings.Repeat("x", 8192))
	copy(want[4096:], "late")
	c.content(f, string(want))
}

func mmapUnlinked(c *tc) {
	f := c.file("f", strings.Repeat("x", 8192))
	fd, err := unix.Open(f, unix.O_RDWR, 0)
	c.ok(err, "open")
	m := c.mmap(fd, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	c.ok(os.Remove(f), "unlink")
	c.ok(unix.Close(fd), "close")
	copy(m, "gone but mapped")
	c.ok(unix.Msync(m, unix.MS_SYNC), "msync")
	c.ok(unix.Madvise(m, unix.MADV_DONTNEED), "madvise")
	c.equal(string(m[:15]), "gone but mapped", "content")
}

func mmapProcesses(c *tc) {
	f := c.file("f", strings.Repeat("x", 8192))
	fd := c.open(f, unix.O_RDWR, 0)
	m := c.mmap(fd, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	c.equal(m[0], byte('x'), "byte before")
	out, err := helperCommand("mmap", user{}, f, "10", "from another process").CombinedOutput()
	c.truth(err == nil, "%v: %s", err, out)
	c.equal(string(m[10:30]), "from another process", "what the other process mapped and wrote")
	c.equal(string(c.pread(fd, 20, 10)), "from another process", "the same by a read")
}

func mmapTail(c *tc) {
	f := c.file("f", "short")
	fd := c.open(f, unix.O_RDWR, 0)
	m := c.mmap(fd, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	c.truth(bytes.Equal(m[5:], make([]byte, 4091)), "the page's tail is not zero")
	copy(m[5:], "beyond the end")
	c.ok(unix.Msync(m, unix.MS_SYNC), "msync")
	c.content(f, "short")
	c.equal(c.lstat(f).Size, int64(5), "size")
	c.ok(unix.Ftruncate(fd, 10), "ftruncate")
	c.content(f, "short\x00\x00\x00\x00\x00")
}

func mmapGrown(c *tc) {
	f := c.file("f", "x")
	fd := c.open(f, unix.O_RDWR, 0)
	m := c.mmap(fd, 3*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	c.ok(unix.Ftruncate(fd, 3*4096), "ftruncate")
	m[2*4096] = 'y'
	c.equal(string(c.pread(fd, 1, 2*4096)), "y", "byte in the grown part")
}

func mmapMtime(c *tc) {
	f := c.file("f", strings.Repeat("x", 4096))
	fd := c.open(f, unix.O_RDWR, 0)
	m := c.mmap(fd, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	before := c.fstat(fd)
	c.untilClockMoves()
	m[0] = 'y'
	c.ok(unix.Msync(m, unix.MS_SYNC), "msync")
	c.ok(unix.Fsync(fd), "fsync")
	c.truth(later(c.fstat(fd).Mtim, before.Mtim), "a write by a map did not move mtime")
}

func mmapErrors(c *tc) {
	f := c.file("f", strings.Repeat("x", 4096))
	ro := c.open(f, unix.O_RDONLY, 0)
	_, err := unix.Mmap(ro, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	c.want(err, unix.EACCES, "shared writable map of a read-only descriptor")
	wo := c.open(f, unix.O_WRONLY, 0)
	_, err = unix.Mmap(wo, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	c.want(err, unix.EACCES, "map of a write-only descriptor")
	dir := c.open(c.dir, unix.O_RDONLY, 0)
	_, err = unix.Mmap(dir, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	c.want(err, unix.ENODEV, "map of a directory")
}

func execFile(c *tc) {
	sleep, err := os.ReadFile("/bin/sleep")
	c.ok(err, "read")
	exe := c.p("sleep")
	c.ok(testprog.Write(exe, sleep), "write")
	cmd := command{args: []string{exe, "60"}, env: nil}.prepare(c.Context())
	c.ok(cmd.Start(), "exec")
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	c.truth(waitFor(10e9, func() bool {
		return errnoOf(exe, unix.O_WRONLY, 0) == unix.ETXTBSY
	}), "a running program can be written")
	c.ok(os.Remove(exe), "unlink of a running program")
	c.ok(testprog.Write(c.p("script"), "#!/bin/sh\necho ran\n"), "write")
	out := command{args: []string{c.p("script")}}.must(c)
	c.equal(out, "ran\n", "output of a script")
	c.ok(os.Chmod(c.p("script"), 0o644), "chmod")
	_, err = command{args: []string{c.p("script")}}.try()
	c.want(err, unix.EACCES, "exec without x")
}
