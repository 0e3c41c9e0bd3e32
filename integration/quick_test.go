package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSession is the main job, end to end: mount, work, sync, status, umount, mount on the next machine.
func TestSession(t *testing.T) {
	deadline(t, time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	one := newVolume(t, "one", withSource(repo)).mount()
	check(t, os.MkdirAll(one.at("src/deep"), 0o750))
	check(t, os.WriteFile(one.at("src/deep/hello.txt"), []byte("hello\n"), 0o640))
	check(t, os.Symlink("src/deep", one.at("link")))
	check(t, unix.UtimesNanoAt(unix.AT_FDCWD, one.at("src/deep/hello.txt"),
		[]unix.Timespec{ts(1, 2), ts(1234567890, 987654321)}, 0))

	before := one.status()
	if before.AtRisk.Files == 0 || before.AtRisk.Bytes == 0 {
		t.Errorf("new files are at risk before the first commit, status says %+v", before.AtRisk)
	}
	one.sync()
	after := one.status()
	if after.AtRisk.Files != 0 || after.LastCommit == nil || after.LastPush == nil ||
		after.LastPush.ID != after.LastCommit.ID || len(after.Errors) != 0 {
		t.Errorf("after sync: at risk %+v, commit %+v, push %+v, errors %v", after.AtRisk, after.LastCommit,
			after.LastPush, after.Errors)
	}
	if head := strings.TrimSpace(must(t, "/", "git", "-C", repo, "rev-parse", "main")); after.LastCommit == nil ||
		head != after.LastCommit.ID {
		t.Errorf("the remote's main is %s, status says %+v", head, after.LastCommit)
	}
	equal(t, show(t, repo, "main:src/deep/hello.txt"), "hello\n", "stock git shows")
	check(t, os.WriteFile(one.at("late.txt"), []byte("after sync"), 0o600))
	one.umount()
	fsck(t, repo)
	fsck(t, one.cold())

	two := newVolume(t, "two", withSource(repo)).mount()
	var st unix.Stat_t
	check(t, unix.Stat(two.at("link/hello.txt"), &st))
	if st.Mtim != ts(1234567890, 987654321) || st.Mode&0o7777 != 0o640 || st.Size != 6 {
		t.Errorf("restored file: mtime %v, mode %o, size %d", st.Mtim, st.Mode&0o7777, st.Size)
	}
	for name, want := range map[string]string{"src/deep/hello.txt": "hello\n", "late.txt": "after sync"} {
		wantFile(t, two.at(name), want, "%s:", name)
	}
	if r := two.status(); r.AtRisk.Files != 0 {
		t.Errorf("a fresh restore has files at risk: %+v", r.AtRisk)
	}
	two.umount()
}

// TestStatusContract holds the fields that DESIGN.md section 7 promises to scripts.
func TestStatusContract(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v").mount()
	st := v.status()
	for _, key := range []string{"pid", "volume", "source", "branch", "state", "tiers", "at_risk", "last_commit",
		"last_push", "errors", "rules", "mountpoint"} {
		if _, ok := st.raw[key]; !ok {
			t.Errorf("status --json has no %q", key)
		}
	}
	for _, tier := range []string{"hot", "warm", "cold"} {
		for _, key := range []string{"files", "bytes"} {
			if !strings.Contains(string(st.raw["tiers"]), `"`+tier+`"`) ||
				!strings.Contains(string(st.raw["tiers"]), `"`+key+`"`) {
				t.Errorf("tiers has no %s.%s: %s", tier, key, st.raw["tiers"])
			}
		}
	}
	if st.State != v.state || st.Mountpoint != v.mnt || st.Branch != "main" {
		t.Errorf("status: state %s, mountpoint %s, branch %s", st.State, st.Mountpoint, st.Branch)
	}
	check(t, os.WriteFile(v.at("f"), make([]byte, 200_000), 0o644))
	for range 3 {
		if _, err := os.ReadFile(v.at("f")); err != nil {
			t.Error(err)
		}
	}
	if r := v.emberfs("status"); r.code != 0 || !strings.Contains(r.stdout, v.mnt) {
		t.Errorf("status without a mountpoint does not list the mount\n%v", r)
	}
	for path, mode := range map[string]os.FileMode{v.state: 0o700, filepath.Join(v.state, "control.sock"): 0o600} {
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, want %v (%v)", path, fi.Mode().Perm(), mode, err)
		}
	}
	for _, name := range []string{"volume.json", "lock", "control.sock", "warm", "cold.git"} {
		if _, err := os.Stat(filepath.Join(v.state, name)); err != nil {
			t.Errorf("state directory: %v", err)
		}
	}
	if _, err := os.Stat(filepath.Join(v.state, "warm", "f")); err != nil {
		t.Errorf("warm mirrors the tree: %v", err)
	}
	v.umount()
	if receipts, err := os.ReadDir(filepath.Join(v.state, "receipts")); err != nil || len(receipts) == 0 {
		t.Errorf("no receipt of the unmount: %v", err)
	}
	if r := v.emberfs("status", v.mnt); r.code != 1 {
		t.Errorf("status of what is not mounted: want exit 1\n%v", r)
	}
}

// TestHotCounts: a read that the kernel cannot answer shows in the hit counter.
func TestHotCounts(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v", withOpts("kernel_cache=off")).mount()
	check(t, os.WriteFile(v.at("f"), make([]byte, 1<<20), 0o644))
	before := v.status().Tiers.Hot
	for range 4 {
		if _, err := os.ReadFile(v.at("f")); err != nil {
			t.Fatal(err)
		}
	}
	after := v.status().Tiers.Hot
	if after.Hits <= before.Hits {
		t.Errorf("hits %d -> %d, misses %d -> %d: reads of what was just written do not hit", before.Hits, after.Hits,
			before.Misses, after.Misses)
	}
	if after.Bytes < 1<<20 || after.Limit <= 0 {
		t.Errorf("hot holds %d bytes of at most %d", after.Bytes, after.Limit)
	}
	v.umount()
}

// TestPlainUser: the same for a user without privileges, by fusermount3.
func TestPlainUser(t *testing.T) {
	deadline(t, time.Minute)
	u := plainUser()
	repo := newBareRepo(t, "remote.git", u)
	one := newVolume(t, "one", withUser(u), withSource(repo)).mount()
	check(t, asUser(u, func() error { return os.WriteFile(one.at("f"), []byte("mine"), 0o600) }))
	if st := one.status(); st.Records {
		t.Errorf("a plain user's volume cannot have records, status says it has")
	}
	if _, err := os.ReadFile(one.at("f")); err == nil {
		t.Errorf("another user, even root, gets into a mount without allow_other")
	}
	one.umount()
	two := newVolume(t, "two", withUser(u), withSource(repo)).mount()
	check(t, asUser(u, func() error {
		b, err := os.ReadFile(two.at("f"))
		if err == nil && string(b) != "mine" {
			t.Errorf("restored %q", b)
		}
		return err
	}))
	two.umount()
}

// TestForeground: --foreground serves until SIGTERM and ends with a complete backup and exit 0.
func TestForeground(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v")
	v.startForeground()
	check(t, os.WriteFile(v.at("f"), []byte("x"), 0o644))
	check(t, v.fg.Process.Signal(unix.SIGTERM))
	if code := v.waitForeground(30 * time.Second); code != 0 {
		t.Errorf("exit %d after SIGTERM", code)
	}
	if mountAt(v.mnt) != nil {
		t.Errorf("still mounted")
	}
	equal(t, show(t, v.cold(), "main:f"), "x", "main:f is")
}

// TestKilled: what was acknowledged is there at the next mount, without any sync.
func TestKilled(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v").mount()
	check(t, os.WriteFile(v.at("f"), []byte("acknowledged"), 0o644))
	v.kill()
	v.mount()
	wantFile(t, v.at("f"), "acknowledged", "after SIGKILL:")
	v.umount()
	fsck(t, v.cold())
}
