package fs

import (
	"bufio"
	"bytes"
	"emberfs/integration/testprog"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The daemon runs in a process of its own, because a process that uses its own mount can deadlock.

const daemonEnv = "EMBERFS_TEST_DAEMON"

func TestMain(m *testing.M) {
	if mp := os.Getenv(daemonEnv); mp != "" {
		if err := daemonMain(mp); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// daemon is a running memfs.
type daemon struct {
	t     *testing.T
	dir   string
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	log   *bytes.Buffer
	ended chan error
}

// user is a plain user.
const user = 65534

func startDaemon(t *testing.T, asUser bool, env ...string) *daemon {
	t.Helper()
	base, err := os.MkdirTemp("", "emberfs-loop")
	check(t, err)
	d := &daemon{t: t, dir: filepath.Join(base, "mount point"), log: new(bytes.Buffer), lines: make(chan string, 16),
		ended: make(chan error, 1)}
	check(t, errors.Join(os.Chmod(base, 0o755), os.Mkdir(d.dir, 0o755)))
	self, err := os.Executable()
	check(t, err)
	if asUser {
		// Only root may open the device on some images; where there is a udev everybody can.
		check(t, os.Chmod(devFuse, 0o666))
		// The directory that the test binary lies in is closed to others.
		bin, err := os.ReadFile(self)
		check(t, err)
		self = filepath.Join(base, "daemon")
		check(t, errors.Join(testprog.Write(self, bin), os.Chown(d.dir, user, user)))
	}
	d.cmd = exec.Command(self)
	d.cmd.Env = append(append(os.Environ(), daemonEnv+"="+d.dir), env...)
	d.cmd.Stderr = d.log
	if asUser {
		d.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	}
	d.in, err = d.cmd.StdinPipe()
	check(t, err)
	out, err := d.cmd.StdoutPipe()
	check(t, err)
	check(t, d.cmd.Start())
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			d.lines <- s.Text()
		}
		d.ended <- d.cmd.Wait()
		close(d.lines)
	}()
	t.Cleanup(func() {
		_ = unix.Unmount(d.dir, unix.MNT_DETACH) // gone already where the test took it away
		_ = d.cmd.Process.Kill()
		for range d.lines {
		}
		if t.Failed() {
			t.Log(d.log.String())
		}
		if err := os.RemoveAll(base); err != nil {
			t.Error(err)
		}
	})
	d.expect("ready")
	return d
}

func (d *daemon) expect(want string) {
	d.t.Helper()
	select {
	case got := <-d.lines:
		if got != want {
			d.t.Fatalf("daemon says %q, want %q\n%s", got, want, d.log)
		}
	case <-time.After(20 * time.Second):
		d.t.Fatalf("daemon does not say %q", want)
	}
}

func (d *daemon) say(line string) {
	d.t.Helper()
	if _, err := fmt.Fprintln(d.in, line); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) wait() {
	d.t.Helper()
	select {
	case err := <-d.ended:
		if err != nil {
			d.t.Fatalf("daemon: %v\n%s", err, d.log)
		}
	case <-time.After(20 * time.Second):
		d.t.Fatal("daemon does not end")
	}
}

func (d *daemon) path(name string) string { return filepath.Join(d.dir, name) }

func (d *daemon) read(name string) string {
	d.t.Helper()
	b, err := os.ReadFile(d.path(name))
	check(d.t, err)
	return string(b)
}

// answers fails the test unless a file reads as it should.
func (d *daemon) answers() {
	d.t.Helper()
	if got := d.read("a"); got != "content of a" {
		d.t.Fatalf("a is %q", got)
	}
}

// unmount has the daemon unmount what nobody uses, and end.
func (d *daemon) unmount() {
	d.t.Helper()
	d.say("unmount")
	d.expect("ok")
	d.wait()
}

// until waits for a condition.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	pause := time.NewTicker(10 * time.Millisecond) // the test must not take the CPU from the daemon
	defer pause.Stop()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-pause.C {
		if cond() {
			return
		}
	}
	t.Fatalf("not within 20 s: %s", what)
}
