//go:build slow

package integration

import (
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
)

// TestKillDuringRestore kills the mount of the next machine while it restores, again and again. The mount after that
// has the whole tree, and no commit ever takes a half-restored tree for a deletion.
func TestKillDuringRestore(t *testing.T) {
	t.Parallel()
	deadline(t, 10*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	one := newVolume(t, "one", withSource(repo)).mount()
	for i := range 3000 {
		check(t, os.MkdirAll(one.at(fmt.Sprintf("d%d/e", i%50)), 0o755))
		check(t, os.WriteFile(one.at(fmt.Sprintf("d%d/e/f%d", i%50, i)), fmt.Appendf(nil, "content %d", i), 0o640))
	}
	check(t, os.Link(one.at("d1/e/f1"), one.at("d2/linked")))
	want := scanTree(t, one.mnt)
	one.umount()
	tip := revision(t, repo)
	start := time.Now()
	full := newVolume(t, "full", withSource(repo)).mount()
	took := time.Since(start)
	full.umount()
	rnd := rand.New(rand.NewSource(effort.Seed(t)))
	for round := range effort.Count(t, 6, 60) {
		v := newVolume(t, fmt.Sprint("two", round), withSource(repo))
		for range 2 {
			cmd := command{args: v.mountArgs("--foreground")}.prepare(t.Context())
			check(t, cmd.Start())
			timer := time.AfterFunc(time.Duration(rnd.Int63n(int64(took))), func() { _ = cmd.Process.Kill() })
			_ = cmd.Wait()
			timer.Stop()
			v.clearDeadMount()
		}
		v.mount()
		sameTree(t, scanTree(t, v.mnt), want, "after a killed restore")
		v.umount()
		if got := revision(t, repo); got != tip {
			t.Fatalf("round %d: a killed restore led to the commit %s:\n%s", round, got,
				must(t, "/", "git", "-C", repo, "diff", "--stat", tip, got))
		}
	}
}

// TestConcurrentUmount: of two umounts at once both end well: gone is success.
func TestConcurrentUmount(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v").mount()
	for i := range 500 {
		check(t, os.WriteFile(v.at(fmt.Sprint("f", i)), []byte("x"), 0o644))
	}
	results := make(chan result, 2)
	for range 2 {
		go func() {
			r, err := command{args: []string{env.bin, "umount", v.mnt}}.try()
			if err != nil {
				r.code = -1
			}
			results <- r
		}()
	}
	complete := 0
	for range 2 {
		r := <-results
		if r.code == 0 && strings.Contains(r.stdout, "COMPLETE") {
			complete++
		} else if r.code != 0 && r.code != 1 {
			t.Errorf("%v", r)
		}
	}
	if complete == 0 || mountAt(v.mnt) != nil {
		t.Errorf("%d of 2 umounts report a complete backup; mounted: %v", complete, mountAt(v.mnt))
	}
	v.waitGone()
	fsck(t, v.cold())
}

// TestReadOnly: -o ro refuses every change with EROFS and makes no commit.
func TestReadOnly(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v").mount()
	check(t, os.WriteFile(v.at("f"), []byte("x"), 0o644))
	v.umount()
	tip := revision(t, v.cold())
	v.opts = []string{"ro"}
	v.mount()
	for what, err := range map[string]error{
		"create": errnoOf(v.at("g"), unix.O_CREAT|unix.O_WRONLY, 0o644), "open": errnoOf(v.at("f"), unix.O_WRONLY, 0),
		"unlink": unix.Unlink(v.at("f")),
		"mkdir":  unix.Mkdir(v.at("d"), 0o755), "chmod": unix.Chmod(v.at("f"), 0o600),
		"setxattr": unix.Setxattr(v.at("f"), "user.a", nil, 0),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s on a read-only mount: %v", what, err)
		}
	}
	wantFile(t, v.at("f"), "x", "f:")
	v.umount()
	equal(t, revision(t, v.cold()), tip, "a read-only mount made the commit")
}

// TestMemoryLimit: the daemon stays within memory_limit under many files and much data.
func TestMemoryLimit(t *testing.T) {
	deadline(t, 5*time.Minute)
	v := newVolume(t, "v", withOpts("memory_limit=100MB")).mount()
	for i := range effort.Count(t, 20_000, 100_000) {
		if i%200 == 0 {
			check(t, os.Mkdir(v.at(fmt.Sprint("d", i/200)), 0o755))
		}
		check(t, unix.Mknod(v.at(fmt.Sprintf("d%d/f%d", i/200, i)), unix.S_IFREG|0o644, 0))
	}
	big := 150 // MiB, over the limit
	if effort.Soaking() {
		big = 300
	}
	must(t, v.mnt, "sh", "-c", fmt.Sprintf("dd if=/dev/urandom of=big bs=1M count=%d 2>/dev/null", big)+
		"; cat big >/dev/null; find . -type f -size +1k | wc -l")
	v.sync()
	must(t, v.mnt, "find", ".", "-newer", "big")
	if raced {
		return // the race detector takes a multiple
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.daemon()))
	check(t, err)
	for _, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "VmHWM:" {
			kb, err := strconv.Atoi(f[1])
			check(t, err)
			if kb*1024 > 110_000_000 {
				t.Errorf("the daemon's memory peaked at %d MB, memory_limit is 100MB", kb*1024/1_000_000)
			}
			t.Logf("peak %d MB", kb*1024/1_000_000)
		}
	}
	v.umount()
}

// TestUmountDeadline: what is not safe at the deadline is said, by exit 3 and the receipt, and is there at the next
// mount.
func TestUmountDeadline(t *testing.T) {
	deadline(t, 2*time.Minute)
	v := newVolume(t, "v", withOpts("chunk_threshold=2TiB")) // as one blob: a hole of a file in chunks takes no time
	v.mount()
	check(t, os.WriteFile(v.at("small"), []byte("x"), 0o644))
	check(t, os.WriteFile(v.at("vast"), nil, 0o644))
	check(t, unix.Truncate(v.at("vast"), 1<<40)) // takes hours to hash
	r := v.emberfs("umount", v.mnt, "--deadline", "2s")
	if r.code != 3 || r.took > 30*time.Second || !strings.Contains(r.stdout, "INCOMPLETE") ||
		!strings.Contains(r.stdout, "vast") {
		t.Errorf("want exit 3 soon after 2 s, and a receipt that names the file\n%v", r)
	}
	v.waitGone()
	v.mount()
	check(t, os.Remove(v.at("vast")))
	v.umount()
	equal(t, show(t, v.cold(), "main:small"), "x", "cold holds")
}

// TestForegroundAnswersAtOnce: whoever sees the mount of a daemon that is just coming up gets an answer from it. strace
// makes the time between the two long, whichever of them comes first.
func TestForegroundAnswersAtOnce(t *testing.T) {
	deadline(t, time.Minute)
	lookPath(t, "strace")
	v := newVolume(t, "v")
	args := []string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=bind,listen", "-e",
		"inject=bind,listen:delay_enter=300ms"}
	cmd := command{args: append(args, v.mountArgs("--foreground")...)}.prepare(t.Context())
	check(t, cmd.Start())
	if !waitFor(20*time.Second, func() bool { return mountAt(v.mnt) != nil }) {
		t.Fatal("it does not mount")
	}
	if r := v.emberfs("sync", v.mnt); r.code != 0 {
		t.Errorf("the mount is there: %v", r)
	}
	v.umount()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the daemon: %v", err)
	}
}

// TestKilledBeforeMount: a daemon that dies when it has its control socket and registration, and no mount yet, leaves
// nothing that the next one or a command takes for a living one.
func TestKilledBeforeMount(t *testing.T) {
	deadline(t, time.Minute)
	lookPath(t, "strace")
	v := newVolume(t, "v").mount()
	check(t, os.WriteFile(v.at("f"), []byte("text"), 0o644))
	v.umount()
	args := []string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=mount", "-e", "inject=mount:signal=SIGKILL"}
	r := command{args: append(args, v.mountArgs("--foreground")...)}.run(t)
	if _, err := os.Lstat(filepath.Join(v.state, "control.sock")); r.code == 0 || err != nil || mountAt(v.mnt) != nil {
		t.Fatalf("it was to die between its socket and its mount: %v, mounted %+v\n%v", err, mountAt(v.mnt), r)
	}
	if r := v.emberfs("sync", v.mnt); r.code != 1 {
		t.Errorf("sync of what is not mounted: %v", r)
	}
	if r := v.emberfs("status"); r.code != 0 || strings.Contains(r.stdout, v.mnt) {
		t.Errorf("status lists a dead daemon: %v", r)
	}
	v.mount()
	wantFile(t, v.at("f"), "text", "the next one:")
	v.umount()
}

// TestFailedMountLeavesNothing: a mount that the kernel refuses takes its control socket and registration back.
func TestFailedMountLeavesNothing(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v")
	if r := v.tryMount("-o", "context=no_such:context"); r.code != 32 { // mount(2) refuses it
		t.Fatalf("want exit 32: %v", r)
	}
	if _, err := os.Lstat(filepath.Join(v.state, "control.sock")); !os.IsNotExist(err) {
		t.Errorf("the control socket is left: %v", err)
	}
	entries, err := filepath.Glob("/run/emberfs/*")
	check(t, err)
	for _, e := range entries {
		if b, err := os.ReadFile(e); err == nil && strings.Contains(string(b), v.mnt) {
			t.Errorf("the registration is left: %s", b)
		}
	}
	v.mount()
	v.umount()
}
