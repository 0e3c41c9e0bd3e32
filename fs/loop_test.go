package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLoopServes(t *testing.T) {
	for _, cache := range []string{"on", "off"} {
		for _, asUser := range []bool{false, true} {
			t.Run(fmt.Sprintf("cache %s user %v", cache, asUser), func(t *testing.T) {
				d := startDaemon(t, asUser, "EMBERFS_TEST_CACHE="+cache)
				if asUser { // the mount is private: another process of that user looks at it
					out, err := userCommand("cat", d.path("a")).CombinedOutput()
					if err != nil || string(out) != "content of a" {
						t.Fatalf("%s %v", out, err)
					}
					d.unmount()
					return
				}
				d.answers()
				big := bytes.Repeat([]byte("0123456789abcdef"), 3<<16)
				check(t, os.WriteFile(d.path("big"), big, 0o644))
				if got := d.read("big"); got != string(big) {
					t.Fatal("a big file comes back changed")
				}
				names, err := os.ReadDir(d.dir)
				if err != nil || len(names) != 7 {
					t.Fatalf("%v %v", names, err)
				}
				if _, err := os.Stat(d.path("none")); !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
				d.unmount()
			})
		}
	}
}

func userCommand(name string, arg ...string) *exec.Cmd {
	c := exec.Command(name, arg...)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	return c
}

// TestBlockedRequests makes more requests block than there are threads at first, and even more than there can be.
// Others must go on as long as there are threads, all must come back, and the additional threads must end.
func TestBlockedRequests(t *testing.T) {
	d := startDaemon(t, false)
	base := d.read("stats")
	for _, count := range []int{1, 8, maxWorkers - 8} {
		var wg sync.WaitGroup
		readers := make([]*exec.Cmd, 0, count)
		for range count {
			c := exec.Command("cat", d.path("block0"))
			check(t, c.Start())
			readers = append(readers, c)
		}
		until(t, "all readers block", func() bool { return d.read("blocked") == fmt.Sprint(count) })
		d.answers()
		for _, c := range readers { // interrupts reach the handlers
			_ = c.Process.Signal(syscall.SIGINT)
			wg.Go(func() { _ = c.Wait() })
		}
		wg.Wait()
		until(t, "no reader blocks", func() bool { return d.read("blocked") == "0" })
		until(t, "surplus threads end", func() bool {
			time.Sleep(window + tick) // on a busy machine a question may count as one that blocks
			return d.read("stats") == base
		})
	}
}

func TestBlockedBeyondTheCap(t *testing.T) {
	d := startDaemon(t, false)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range maxWorkers + 20 {
		wg.Go(func() {
			if out, err := exec.CommandContext(ctx, "cat", d.path("block1")).CombinedOutput(); err != nil ||
				string(out) != "content of block1" {
				t.Errorf("%s %v", out, err)
			}
		})
	}
	// One below the cap is what a reader of "blocked" needs.
	until(t, "readers block", func() bool {
		b, err := exec.CommandContext(ctx, "timeout", "1", "cat", d.path("blocked")).Output()
		return err != nil || string(b) == fmt.Sprint(maxWorkers-1)
	})
	d.say("go")
	wg.Wait()
	d.answers()
}

func TestPanicIsEIO(t *testing.T) {
	d := startDaemon(t, false)
	if _, err := os.Stat(d.path("panic")); !errors.Is(err, unix.EIO) {
		t.Fatalf("stat: %v", err)
	}
	d.answers()
}

func TestNotifications(t *testing.T) {
	d := startDaemon(t, false)
	d.answers() // now in the kernel's cache
	ctl, err := os.OpenFile(d.path("ctl"), os.O_WRONLY, 0)
	check(t, err)
	defer ctl.Close()
	if _, err := ctl.WriteString("set a other"); err != nil {
		t.Fatal(err)
	}
	until(t, "the new content shows", func() bool { return d.read("a") == "other" })
	if _, err := os.Stat(d.path("new")); !errors.Is(err, os.ErrNotExist) { // now negative in the kernel's cache
		t.Fatal(err)
	}
	if _, err := ctl.WriteString("set new text"); err != nil {
		t.Fatal(err)
	}
	until(t, "the new name shows", func() bool { _, err := os.Stat(d.path("new")); return err == nil })
}

func TestEndings(t *testing.T) {
	t.Run("busy, then free", func(t *testing.T) {
		d := startDaemon(t, false)
		f, err := os.Open(d.path("a"))
		check(t, err)
		d.say("unmount")
		d.expect(unix.EBUSY.Error())
		d.answers()
		f.Close()
		d.unmount()
	})
	t.Run("busy for a user", func(t *testing.T) {
		d := startDaemon(t, true)
		c := userCommand("sleep", "60")
		c.Dir = d.dir
		// The shell changes directory as the user: the test, being root, may not enter.
		c = userCommand("sh", "-c", `cd "$1" && echo in && exec sleep 60`, "sh", d.dir)
		out, err := c.StdoutPipe()
		check(t, err)
		check(t, c.Start())
		if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
			t.Fatal(err)
		}
		d.say("unmount")
		d.expect(unix.EBUSY.Error())
		d.say("lazy")
		d.expect("ok")
		_ = c.Process.Kill()
		_ = c.Wait()
		d.wait()
	})
	t.Run("lazy", func(t *testing.T) {
		d := startDaemon(t, false)
		f, err := os.Open(d.path("a"))
		check(t, err)
		d.say("lazy")
		d.expect("ok")
		if b, err := io.ReadAll(f); err != nil || string(b) != "content of a" {
			t.Fatalf("%s %v", b, err)
		}
		f.Close()
		d.wait()
	})
	t.Run("unmounted by somebody else", func(t *testing.T) {
		d := startDaemon(t, false)
		check(t, unix.Unmount(d.dir, 0))
		d.wait()
	})
	t.Run("abort while in use", func(t *testing.T) {
		d := startDaemon(t, false)
		f, err := os.Open(d.path("a"))
		check(t, err)
		defer f.Close()
		d.say("abort")
		d.expect("ok")
		if _, err := os.Stat(d.path("none")); !errors.Is(err, unix.ENOTCONN) {
			t.Fatalf("stat after the end: %v", err)
		}
		d.wait()
	})
}

func TestHackNameIsOrdinary(t *testing.T) {
	d := startDaemon(t, false)
	if _, err := os.Stat(d.path(hackName)); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	check(t, os.WriteFile(d.path(hackName), []byte("mine"), 0o644))
	if got := d.read(hackName); got != "mine" {
		t.Fatalf("it is %q", got)
	}
}

func TestMountMistakes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	check(t, os.WriteFile(file, nil, 0o600))
	for path, want := range map[string]error{file: unix.ENOTDIR, filepath.Join(dir, "none"): unix.ENOENT} {
		_, _, err := attach(&mountSpec{mountpoint: path})
		var me *MountError
		if !errors.Is(err, want) || !errors.As(err, &me) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
