//go:build slow

package integration

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAtime: access times move as the mount's options say, for files, directories and symlinks, and whatever the daemon
// reads for itself moves none.
func TestAtime(t *testing.T) {
	t.Parallel()
	deadline(t, 2*time.Minute)
	v := newVolume(t, "v", withOpts("noatime", "kernel_cache=off")) // what the kernel answers itself is no read here
	v.mount()
	check(t, os.Mkdir(v.at("d"), 0o755))
	check(t, os.WriteFile(v.at("d/f"), []byte("text"), 0o644))
	check(t, os.Symlink("f", v.at("d/l")))
	names := []string{"d/f", "d/l", "d"} // nothing reads a directory on the way
	atime := func(name string) int64 {
		t.Helper()
		var st unix.Stat_t
		check(t, unix.Lstat(v.at(name), &st))
		return st.Atim.Nano()
	}
	ctime := func(name string) int64 {
		t.Helper()
		var st unix.Stat_t
		check(t, unix.Lstat(v.at(name), &st))
		return st.Ctim.Nano()
	}
	// reset gives everything an access time: long ago, where relatime moves it, or later than its other times.
	reset := func(ago time.Duration) map[string]int64 {
		t.Helper()
		out := map[string]int64{}
		for _, name := range names {
			at := unix.NsecToTimespec(time.Now().Add(-ago).UnixNano())
			check(t, unix.UtimesNanoAt(unix.AT_FDCWD, v.at(name),
				[]unix.Timespec{at, unix.NsecToTimespec(time.Now().Add(-48 * time.Hour).UnixNano())},
				unix.AT_SYMLINK_NOFOLLOW))
			out[name] = atime(name)
		}
		return out
	}
	read := func() {
		t.Helper()
		for _, name := range []string{"d/f"} {
			_, err := os.ReadFile(v.at(name))
			check(t, err)
		}
		_, err := os.Readlink(v.at("d/l"))
		check(t, err)
		_, err = os.ReadDir(v.at("d"))
		check(t, err)
	}
	remount := func(opts string) {
		t.Helper()
		v.must("mount", v.mnt, "-o", "remount,"+opts)
	}
	expect := func(what string, was map[string]int64, moved ...string) {
		t.Helper()
		for _, name := range names {
			want := false
			for _, m := range moved {
				want = want || m == name
			}
			if got := atime(name) != was[name]; got != want {
				t.Errorf("%s: the access time of %s moved: %v, want %v", what, name, got, want)
			}
		}
	}
	old := 50 * time.Hour
	was := reset(old)
	read()
	expect("mounted with noatime", was)

	remount("relatime")
	was = reset(old)
	read()
	expect("relatime, long ago", was, names...)
	was = reset(-time.Hour) // later than anything else
	read()
	expect("relatime, just now", was)

	remount("relatime,nodiratime")
	was = reset(old)
	read()
	expect("nodiratime", was, "d/f", "d/l")

	remount("strictatime,diratime")
	was = reset(-time.Hour)
	before := map[string]int64{}
	for _, name := range names {
		before[name] = ctime(name)
	}
	read()
	expect("strictatime", was, names...)
	for _, name := range names {
		if ctime(name) != before[name] {
			t.Errorf("strictatime: the ctime of %s moved", name)
		}
	}

	remount("noatime")
	was = reset(old)
	read()
	expect("noatime", was)

	// What the daemon does by itself.
	remount("relatime")
	was = reset(old)
	v.sync()
	expect("a backup", was)
	v.mustBeSound(v.mnt, "--deep")
	expect("check --deep", was)
	check(t, os.WriteFile(v.at("d/g"), []byte("more"), 0o644))
	v.sync()
	v.emberfs("status", v.mnt)
	v.emberfs("diff", v.mnt)
	expect("another backup, status and diff", was)
	v.kill()
	v.mount()
	check(t, os.WriteFile(v.at("d/h"), []byte("more"), 0o644))
	v.sync()
	expect("a backup after a kill", was)
	v.umount()
}
