package integration

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func lockCases() []pcase {
	return []pcase{
		{name: "flock_between_descriptors", run: flockDescriptors},
		{name: "flock_between_processes", run: flockProcesses},
		{name: "posix_locks_between_processes", run: posixLocks},
		{name: "posix_lock_waits", run: posixLockWaits},
		{name: "posix_lock_ranges", run: posixLockRanges},
		{name: "ofd_locks", run: ofdLocks},
		{name: "lock_dies_with_process", run: lockDies},
	}
}

// holder is another process that holds a lock.
type holder struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	locked chan error
}

func (c *tc) holder(kind, path string) *holder {
	c.Helper()
	h := &holder{cmd: helperCommand("lock", user{}, kind, path), locked: make(chan error, 1)}
	in, err := h.cmd.StdinPipe()
	c.ok(err, "pipe")
	out, err := h.cmd.StdoutPipe()
	c.ok(err, "pipe")
	h.stdin = in
	c.ok(h.cmd.Start(), "start")
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		if line == "locked\n" {
			h.locked <- nil
			return
		}
		h.locked <- fmt.Errorf("the other process says %q", line)
	}()
	c.Cleanup(func() { _ = in.Close(); _ = h.cmd.Process.Kill(); _ = h.cmd.Wait() })
	return h
}

// gets says that the other process has its lock within the time a scheduler may need.
func (h *holder) gets() bool {
	select {
	case err := <-h.locked:
		return err == nil
	case <-time.After(20 * time.Second):
		return false
	}
}

func (h *holder) letGo(c *tc) { c.Helper(); c.ok(h.stdin.Close(), "close"); _ = h.cmd.Wait() }

func flockDescriptors(c *tc) {
	f := c.file("f", "x")
	a, b := c.open(f, unix.O_RDWR, 0), c.open(f, unix.O_RDWR, 0)
	c.ok(unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB), "exclusive lock")
	c.want(unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK, "second exclusive lock")
	c.want(unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK, "shared lock beside an exclusive one")
	c.ok(unix.Flock(a, unix.LOCK_SH|unix.LOCK_NB), "downgrade")
	c.ok(unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB), "two shared locks")
	c.want(unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK, "upgrade beside a shared lock")
	c.ok(unix.Flock(b, unix.LOCK_UN), "unlock")
	c.ok(unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB), "upgrade")
}

func flockProcesses(c *tc) {
	f := c.file("f", "x")
	fd := c.open(f, unix.O_RDWR, 0)
	h := c.holder("flock", f)
	c.truth(h.gets(), "the other process does not get the lock")
	c.want(unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK, "lock held by another process")
	h.letGo(c)
	c.ok(unix.Flock(fd, unix.LOCK_EX), "lock after the other process ended")
	c.truth(!c.holder("flock-nb", f).gets(), "the other process gets a lock that we hold")
}

func posixLocks(c *tc) {
	f := c.file("f", "x")
	fd := c.open(f, unix.O_RDWR, 0)
	h := c.holder("posix", f)
	c.truth(h.gets(), "the other process does not get the lock")
	lk := wholeFile()
	c.ok(unix.FcntlFlock(uintptr(fd), unix.F_GETLK, lk), "F_GETLK")
	c.equal(lk.Type, int16(unix.F_WRLCK), "type of the lock that is in the way")
	c.equal(int(lk.Pid), h.cmd.Process.Pid, "who holds it")
	err := unix.FcntlFlock(uintptr(fd), unix.F_SETLK, wholeFile())
	c.truth(err == unix.EAGAIN || err == unix.EACCES, "F_SETLK: %v", err)
	h.letGo(c)
	c.ok(unix.FcntlFlock(uintptr(fd), unix.F_SETLK, wholeFile()), "F_SETLK after the other process ended")
	c.truth(!c.holder("posix-nb", f).gets(), "the other process gets a lock that we hold")
	// any close of the file by this process drops its locks
	other, err := unix.Open(f, unix.O_RDONLY, 0)
	c.ok(err, "open")
	c.ok(unix.Close(other), "close")
	c.truth(c.holder("posix-nb", f).gets(), "the lock stayed after a close of another descriptor")
}

func posixLockWaits(c *tc) {
	f := c.file("f", "x")
	fd := c.open(f, unix.O_RDWR, 0)
	c.ok(unix.FcntlFlock(uintptr(fd), unix.F_SETLK, wholeFile()), "F_SETLK")
	h := c.holder("posix", f)
	lk := &unix.Flock_t{Type: unix.F_UNLCK}
	c.ok(unix.FcntlFlock(uintptr(fd), unix.F_SETLK, lk), "unlock")
	c.truth(h.gets(), "who waits for a lock does not get it when it is free")
}

func posixLockRanges(c *tc) {
	f := c.file("f", strings.Repeat("x", 1000))
	fd := c.open(f, unix.O_RDWR, 0)
	c.ok(unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_RDLCK, Start: 0, Len: 100}), "read lock")
	c.truth(!c.holder("posix-nb", f).gets(), "a write lock of all beside a read lock of a part")
	c.ok(unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_UNLCK, Start: 0, Len: 50}),
		"unlock of a half")
	c.truth(!c.holder("posix-nb", f).gets(), "a write lock of all beside half a read lock")
	c.ok(unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_UNLCK, Start: 50, Len: 50}),
		"unlock of the rest")
	c.truth(c.holder("posix-nb", f).gets(), "no lock is in the way")
}

func ofdLocks(c *tc) {
	f := c.file("f", "x")
	a, b := c.open(f, unix.O_RDWR, 0), c.open(f, unix.O_RDWR, 0)
	c.ok(unix.FcntlFlock(uintptr(a), unix.F_OFD_SETLK, wholeFile()), "F_OFD_SETLK")
	err := unix.FcntlFlock(uintptr(b), unix.F_OFD_SETLK, wholeFile())
	c.truth(err == unix.EAGAIN || err == unix.EACCES, "second descriptor: %v", err)
	c.truth(!c.holder("ofd-nb", f).gets(), "another process gets the lock")
	c.ok(unix.FcntlFlock(uintptr(a), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK}), "unlock")
	c.ok(unix.FcntlFlock(uintptr(b), unix.F_OFD_SETLK, wholeFile()), "second descriptor after unlock")
}

func lockDies(c *tc) {
	f := c.file("f", "x")
	fd := c.open(f, unix.O_RDWR, 0)
	for _, kind := range []string{"flock", "posix"} {
		h := c.holder(kind, f)
		c.truth(h.gets(), "no lock")
		c.ok(h.cmd.Process.Kill(), "kill")
		_ = h.cmd.Wait()
		if kind == "flock" {
			c.ok(unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), "flock after the holder was killed")
		} else {
			c.ok(unix.FcntlFlock(uintptr(fd), unix.F_SETLK, wholeFile()), "posix lock after the holder was killed")
		}
	}
}
