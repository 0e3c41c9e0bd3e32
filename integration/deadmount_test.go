//go:build slow

package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMountOverDeadMount: mounting a volume whose daemon was killed takes its dead mount away, also where a program
// still has a file open there, says so, and goes on with all that was acknowledged, in memory too.
func TestMountOverDeadMount(t *testing.T) {
	deadline(t, 2*time.Minute)
	installHelpers(t)
	for name, u := range map[string]user{"root": {}, "user": plainUser()} {
		v := newVolume(t, name, withUser(u))
		v.config = "rules:\n  - match: tmp/\n    class: memory\n"
		v.mount()
		check(t, asUser(u, func() error { return os.Mkdir(v.at("tmp"), 0o755) }))
		f := ""
		for round, how := range []string{"emberfs", "mount8"} {
			if how == "mount8" && !u.isRoot() {
				continue
			}
			f += how
			check(t, asUser(u, func() error { return os.WriteFile(v.at("f"), []byte(f), 0o644) }))
			if u.isRoot() { // a plain user has no memory class
				check(t, os.WriteFile(v.at("tmp/m"), []byte(f), 0o644))
			}
			open, err := os.Open(v.mnt)
			if err == nil {
				defer open.Close()
			}
			check(t, killProcess(v.daemon()))
			var r result
			if how == "emberfs" {
				r = v.tryMount()
			} else {
				r = mount8(t, "/bin/mount", "-t", "fuse.emberfs", "none", v.mnt, "-o", "state="+v.state+",config="+
					filepath.Join(v.dir, "config.yaml"))
			}
			if r.code != 0 || strings.Count(r.stderr, "the dead mount is taken away") != 1 {
				t.Fatalf("%s, round %d: want exit 0 and a word about the dead mount\n%v", name, round, r)
			}
			v.mustBeMounted()
			check(t, asUser(u, func() error {
				wantFile(t, v.at("f"), f, "after the death of the daemon:")
				return nil
			}))
			if u.isRoot() {
				wantFile(t, v.at("tmp/m"), f, "in memory, after the death of the daemon:")
			}
			if n := len(slices.DeleteFunc(mounts(), func(m mountEntry) bool { return m.dir != v.mnt })); n != 1 {
				t.Errorf("there are %d mounts at the mountpoint", n)
			}
		}
		v.umount()
		equal(t, show(t, v.cold(), "main:f"), f, "cold holds")
	}
}

// TestMountOverOthers: the dead mount of another volume stays, because what it did not back up is elsewhere; so does
// that of a daemon which only hangs.
func TestMountOverOthers(t *testing.T) {
	deadline(t, 2*time.Minute)
	v := newVolume(t, "v").mount()
	check(t, os.WriteFile(v.at("f"), []byte("x"), 0o644))
	pid := v.daemon()
	check(t, unix.Kill(pid, unix.SIGSTOP))
	r := v.tryMount()
	check(t, unix.Kill(pid, unix.SIGCONT))
	if r.code != 32 || !strings.Contains(r.stderr, "already mounted") || mountAt(v.mnt) == nil {
		t.Errorf("over a daemon that hangs: %v", r)
	}
	check(t, killProcess(pid))
	r = v.emberfs("mount", v.mnt, "--state", filepath.Join(v.dir, "other"))
	if r.code != 32 || !strings.Contains(r.stderr, v.state) || mountAt(v.mnt) == nil {
		t.Errorf("another volume over the dead mount: want exit 32 and where its state is\n%v", r)
	}
	if _, err := os.Stat(filepath.Join(v.dir, "other")); err == nil {
		t.Error("the refused mount left a state directory")
	}
	v.mount()
	wantFile(t, v.at("f"), "x", "the volume itself has")
	v.umount()
}

// TestMountOverDeadMountInUse: what is alive and mounted in a dead mount is not taken away with it, neither by a mount
// nor by an unmount.
func TestMountOverDeadMountInUse(t *testing.T) {
	deadline(t, 2*time.Minute)
	installHelpers(t)
	v := newVolume(t, "v").mount()
	inner := v.at("inner")
	check(t, os.Mkdir(inner, 0o755))
	check(t, unix.Mount("tmpfs", inner, "tmpfs", 0, ""))
	defer func() { _ = unix.Unmount(inner, unix.MNT_DETACH) }()
	check(t, os.WriteFile(filepath.Join(inner, "alive"), []byte("x"), 0o644))
	check(t, killProcess(v.daemon()))
	for name, f := range map[string]func() result{
		"mount":          func() result { return v.tryMount() },
		"emberfs umount": func() result { return v.emberfs("umount", v.mnt) },
		"umount(8)":      func() result { return mount8(t, "/bin/umount", v.mnt) },
	} {
		if r := f(); r.code == 0 || name == "mount" && (r.code != 32 || !strings.Contains(r.stderr, inner)) {
			t.Errorf("%s of a dead mount with something in it: %v", name, r)
		}
		if mountAt(inner) == nil {
			t.Fatalf("%s has taken away what is mounted in the dead mount", name)
		}
	}
	check(t, unix.Unmount(inner, 0))
	v.mount()
	v.umount()
}
