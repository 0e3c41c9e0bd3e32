package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// volume is one state directory and the mountpoint it is mounted at.
type volume struct {
	t      testing.TB
	dir    string // working directory of this volume: state, mnt, log
	state  string
	mnt    string
	source string // "" for none
	as     user
	bin    string   // env.bin but for binaries built for one test
	opts   []string // for -o
	config string   // text of a settings file
	env    []string // for the daemon
	fg     *exec.Cmd
	fgDone chan error // receives what Wait gave of the foreground daemon
	pids   []int      // daemons ever seen
}

type volumeOption func(*volume)

func withSource(repo string) volumeOption { return func(v *volume) { v.source = repo } }
func withUser(u user) volumeOption        { return func(v *volume) { v.as = u } }
func withEnv(e ...string) volumeOption    { return func(v *volume) { v.env = append(v.env, e...) } }
func withOpts(o ...string) volumeOption   { return func(v *volume) { v.opts = append(v.opts, o...) } }

// newVolume prepares directories below the test's own; nothing is mounted yet. What is still mounted at the end of the
// test is killed and cleared away; when the test failed, the daemon's log is shown.
func newVolume(t testing.TB, name string, options ...volumeOption) *volume {
	t.Helper()
	dir := filepath.Join(testDir(t), name)
	v := &volume{t: t, dir: dir, state: filepath.Join(dir, "state"), mnt: filepath.Join(dir, "mnt"), bin: env.bin}
	for _, o := range options {
		o(v)
	}
	mkdir(t, v.dir, v.as)
	mkdir(t, v.mnt, v.as)
	if !v.as.isRoot() {
		mkdir(t, filepath.Join(v.dir, "run"), v.as)
		openFuseDevice(t)
	}
	t.Cleanup(v.cleanUp)
	return v
}

// testDir is a directory of the test below the working directory, open to other users, removed with it.
func testDir(t testing.TB) string {
	dir := filepath.Join(env.base, strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' {
			return '_'
		}
		return r
	}, t.Name()))
	if _, err := os.Stat(dir); err != nil {
		check(t, os.MkdirAll(dir, 0o755))
		t.Cleanup(func() {
			if os.Getenv("EMBERFS_KEEP") == "" {
				check(t, os.RemoveAll(dir))
			}
		})
	}
	return dir
}

func (v *volume) logFile() string { return filepath.Join(v.dir, "daemon.log") }

func (v *volume) userEnv() []string {
	if v.as.isRoot() {
		return v.env
	}
	return append([]string{"XDG_RUNTIME_DIR=" + filepath.Join(v.dir, "run"), "XDG_STATE_HOME=" +
		filepath.Join(v.dir, "xdg"), "HOME=" + v.dir}, v.env...)
}

func (v *volume) mountArgs(more ...string) []string {
	args := []string{v.bin, "mount"}
	if v.source != "" {
		args = append(args, v.source)
	}
	args = append(args, v.mnt, "--state", v.state, "--log-file", v.logFile())
	if v.config != "" {
		file := filepath.Join(v.dir, "config.yaml")
		check(v.t, os.WriteFile(file, []byte(v.config), 0o644))
		args = append(args, "--config", file)
	}
	if len(v.opts) > 0 {
		args = append(args, "-o", strings.Join(v.opts, ","))
	}
	return append(args, more...)
}

// emberfs runs the binary as the volume's user.
func (v *volume) emberfs(args ...string) result {
	v.t.Helper()
	return command{args: append([]string{v.bin}, args...), as: v.as, env: v.userEnv(), limit: 3 * time.Minute}.run(v.t)
}

// tryMount runs `emberfs mount` as a user would and gives its result.
func (v *volume) tryMount(more ...string) result {
	v.t.Helper()
	return command{args: v.mountArgs(more...), as: v.as, env: v.userEnv(), limit: 4 * time.Minute}.run(v.t)
}

// mount mounts in the background; the mount is usable when it returns.
func (v *volume) mount(more ...string) *volume {
	v.t.Helper()
	if r := v.tryMount(more...); r.code != 0 {
		v.t.Fatalf("%v", r)
	}
	v.mustBeMounted()
	return v
}

func (v *volume) mustBeMounted() {
	v.t.Helper()
	m := mountAt(v.mnt)
	if m == nil || m.fstype != "fuse.emberfs" {
		v.t.Fatalf("%s: emberfs mount came back with success, but there is %+v", v.mnt, m)
	}
	v.remember(v.daemon())
}

func (v *volume) remember(pid int) { v.pids = append(v.pids, pid) }

// startForeground runs the daemon as our child and waits until the mount is there.
func (v *volume) startForeground(more ...string) *volume {
	v.t.Helper()
	cmd := command{args: v.mountArgs(append(more, "--foreground")...), as: v.as, env: v.userEnv()}.prepare(
		context.Background())
	logTo, err := os.OpenFile(filepath.Join(v.dir, "stderr.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	check(v.t, err)
	defer logTo.Close()
	cmd.Stdout, cmd.Stderr = logTo, logTo
	check(v.t, cmd.Start())
	v.fg, v.fgDone = cmd, make(chan error, 1)
	v.remember(cmd.Process.Pid)
	done := v.fgDone
	go func() { done <- cmd.Wait() }()
	pid := cmd.Process.Pid
	if !waitFor(time.Minute, func() bool {
		m := mountAt(v.mnt)
		return m != nil && m.fstype == "fuse.emberfs" && v.usable() || !alive(pid)
	}) || !alive(pid) {
		v.t.Fatalf("emberfs mount --foreground did not mount %s", v.mnt)
	}
	return v
}

// usable says that the mount answers; a mountpoint is visible a moment before its daemon has answered INIT.
func (v *volume) usable() bool {
	return command{args: []string{"stat", "-f", v.mnt}, as: v.as, limit: 20 * time.Second}.succeeds()
}

func (c command) succeeds() bool {
	r, err := c.try()
	return err == nil && r.code == 0
}

// waitForeground waits for the daemon that startForeground began and gives its exit code (-1: killed).
func (v *volume) waitForeground(limit time.Duration) int {
	v.t.Helper()
	select {
	case <-v.fgDone:
	case <-time.After(limit):
		v.t.Fatalf("the daemon did not end within %v", limit)
	}
	code := v.fg.ProcessState.ExitCode()
	v.fg = nil
	return code
}

// kill ends the daemon by SIGKILL and takes the dead mount away, as a supervisor would. Programs that work in the mount
// meanwhile must have ended before it goes, or their next file would be made in the directory under it: that is what to
// wait for.
func (v *volume) kill(programs ...func()) {
	v.t.Helper()
	if v.fg != nil {
		_ = v.fg.Process.Signal(syscall.SIGKILL)
		v.waitForeground(20 * time.Second)
	} else {
		check(v.t, killProcess(v.daemon()))
	}
	for _, wait := range programs {
		wait()
	}
	v.clearDeadMount()
}

func (v *volume) clearDeadMount() {
	v.t.Helper()
	if mountAt(v.mnt) != nil {
		check(v.t, unix.Unmount(v.mnt, unix.MNT_DETACH))
	}
}

// umount runs `emberfs umount` and requires a complete backup.
func (v *volume) umount() {
	v.t.Helper()
	// A raced daemon on a busy machine may take longer for a big backup than a user would wait by default.
	c := command{args: []string{env.bin, "umount", v.mnt, "--deadline", "5m"}, as: v.as, env: v.userEnv(),
		limit: 6 * time.Minute}
	if r := c.run(v.t); r.code != 0 || !strings.Contains(r.stdout, "COMPLETE") {
		v.t.Fatalf("want exit 0 and COMPLETE\n%v", r)
	}
	if m := mountAt(v.mnt); m != nil {
		v.t.Fatalf("still mounted after emberfs umount: %+v", *m)
	}
	v.waitGone()
}

// waitGone waits until the volume's daemons have ended: the next mount of the state directory needs their lock.
func (v *volume) waitGone() {
	v.t.Helper()
	for _, pid := range v.pids {
		if !waitFor(30*time.Second, func() bool { return !alive(pid) }) {
			v.t.Fatalf("daemon %d is still there", pid)
		}
	}
	if v.fg != nil {
		v.waitForeground(30 * time.Second)
	}
}

// must runs the binary as the volume's user, requires success and returns the standard output.
func (v *volume) must(args ...string) string {
	v.t.Helper()
	r := v.emberfs(args...)
	if r.code != 0 {
		v.t.Fatalf("%v", r)
	}
	return r.stdout
}

// sync runs `emberfs sync` and requires success.
func (v *volume) sync() {
	v.t.Helper()
	v.must("sync", v.mnt)
}

// at is a path in the mount.
func (v *volume) at(name string) string { return filepath.Join(v.mnt, name) }

func (v *volume) cold() string { return filepath.Join(v.state, "cold.git") }

func (v *volume) cleanUp() {
	if v.t.Failed() {
		for _, name := range []string{"daemon.log", "stderr.log"} {
			if b, err := os.ReadFile(filepath.Join(v.dir, name)); err == nil && len(b) > 0 {
				v.t.Logf("%s of %s:\n%s", name, v.dir, clip(string(b)))
			}
		}
	}
	for _, pid := range ourProcesses() {
		if slices.Contains(v.pids, pid) || v.serves(pid) {
			_ = killProcess(pid)
		}
	}
	for _, m := range mountsBelow(v.dir) {
		m.clear()
	}
	races, _ := filepath.Glob(env.base + "/race.*")
	for _, r := range races {
		b, _ := os.ReadFile(r)
		v.t.Errorf("data race:\n%s", clip(string(b)))
		_ = os.Remove(r)
	}
}

// serves says that a process was started with this volume's directory in its arguments, as also a daemon is that should
// never have come up.
func (v *volume) serves(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && bytes.Contains(b, []byte(v.dir+"/"))
}

// deadline fails the test when it takes longer: the daemon's goroutines go to its log, its mounts are aborted, so that
// whoever hangs in them comes back and the test ends.
func deadline(t testing.TB, limit time.Duration) {
	timer := time.AfterFunc(limit, func() {
		t.Errorf("not finished within %v: the mounts are aborted", limit)
		below := mountsBelow(env.base)
		for _, pid := range ourProcesses() {
			if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/2", pid)); err == nil &&
				strings.HasSuffix(to, "stderr.log") {
				_ = unix.Kill(pid, unix.SIGQUIT)
			}
		}
		for _, m := range below {
			m.clear()
		}
	})
	t.Cleanup(func() { timer.Stop() })
}

// newBareRepo makes an empty repository that a volume can have as its SOURCE.
func newBareRepo(t testing.TB, name string, u user) string {
	t.Helper()
	dir := filepath.Join(testDir(t), name)
	must(t, "/", "git", "init", "-q", "--bare", "-b", "main", dir)
	if !u.isRoot() {
		must(t, "/", "chown", "-R", fmt.Sprintf("%d:%d", u.uid, u.gid), dir)
	}
	return dir
}

// show gives what a commit of a repository has, as "main:path".
func show(t testing.TB, repo, what string) string {
	t.Helper()
	return must(t, "/", "git", "-C", repo, "show", what)
}

// fsck requires that a repository is sound to the letter.
func fsck(t testing.TB, repo string) {
	t.Helper()
	r := command{args: []string{"git", "-C", repo, "fsck", "--strict", "--full"}, limit: 5 * time.Minute}.run(t)
	if r.code != 0 || strings.Contains(r.stderr, "error") || strings.Contains(r.stderr, "warning") {
		t.Fatalf("%v", r)
	}
}
