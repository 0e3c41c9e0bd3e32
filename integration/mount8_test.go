//go:build slow

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// installHelpers puts the binary where mount(8) and umount(8) look for helpers, and takes it away after the test. What
// a package or a person installed there comes back.
func installHelpers(t *testing.T) {
	t.Helper()
	for _, n := range []string{"mount.fuse.emberfs", "umount.fuse.emberfs", "mount.emberfs", "umount.emberfs"} {
		p := filepath.Join("/sbin", n)
		saved := filepath.Join(env.base, "saved-"+n)
		had := false
		if to, err := os.Readlink(p); err == nil {
			had = true
			check(t, os.Symlink(to, saved))
			check(t, os.Remove(p))
		} else if !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s is in the way: %v", p, err)
		}
		check(t, os.Symlink(env.bin, p))
		t.Cleanup(func() {
			check(t, os.Remove(p))
			if had {
				to, err := os.Readlink(saved)
				check(t, err)
				check(t, os.Symlink(to, p))
				check(t, os.Remove(saved))
			}
		})
	}
}

// mount8 runs mount(8) or umount(8) as boot does: without PATH and HOME.
func mount8(t *testing.T, args ...string) result {
	t.Helper()
	return command{args: append([]string{"env", "-i"}, args...), limit: 2 * time.Minute}.run(t)
}

func mustMount8(t *testing.T, args ...string) {
	t.Helper()
	if r := mount8(t, args...); r.code != 0 {
		t.Fatalf("%v", r)
	}
}

// TestMount8: mount -t fuse.emberfs, with options of mount(8) among ours, and umount, which comes back when the backup
// is durable on the remote.
func TestMount8(t *testing.T) {
	deadline(t, 2*time.Minute)
	installHelpers(t)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo))
	options := "_netdev,nosuid,noatime,x-test.thing=1,memoryLimit=64MB,backupInterval=10m,state=" + v.state
	mustMount8(t, "/bin/mount", "-t", "fuse.emberfs", repo, v.mnt, "-o", options)
	v.mustBeMounted()
	m := mountAt(v.mnt)
	if !strings.Contains(m.options, "nosuid") || !strings.Contains(m.options, "noatime") || m.source != repo {
		t.Errorf("mounted as %+v", *m)
	}
	check(t, os.WriteFile(v.at("f"), []byte("x"), 0o644))
	mustMount8(t, "/bin/umount", v.mnt)
	equal(t, show(t, repo, "main:f"), "x", "umount came back before the backup was on the remote:")
	v.waitGone()
	if r := mount8(t, "/bin/umount", v.mnt); r.code == 0 {
		t.Errorf("umount of what is not mounted\n%v", r)
	}
	// mount.emberfs, the short type
	mustMount8(t, "/bin/mount", "-t", "emberfs", repo, v.mnt, "-o", "x-test,state="+v.state)
	v.mustBeMounted()
	mustMount8(t, "/bin/umount", v.mnt)
	v.waitGone()
}

// TestMount8Failures: exit 32 with a message, and no mount.
func TestMount8Failures(t *testing.T) {
	deadline(t, 2*time.Minute)
	installHelpers(t)
	v := newVolume(t, "v")
	for name, args := range map[string][]string{
		"no source":  {filepath.Join(v.dir, "nowhere.git"), v.mnt, "-o", "state=" + v.state},
		"bad option": {"none", v.mnt, "-o", "nonsense=1,state=" + v.state},
		"bad size":   {"none", v.mnt, "-o", "memory_limit=lots,state=" + v.state},
	} {
		r := mount8(t, append([]string{"/bin/mount", "-t", "fuse.emberfs"}, args...)...)
		if r.code == 0 || !strings.Contains(r.stderr, "emberfs: ") {
			t.Errorf("%s: want a failure with a message\n%v", name, r)
		}
		if name == "no source" && r.code != 32 {
			t.Errorf("%s: want exit 32\n%v", name, r)
		}
		if mountAt(v.mnt) != nil {
			t.Errorf("%s: mounted", name)
		}
	}
}

// TestMount8Busy: umount of a busy mount fails with 32 at once, the mount stays usable, later writes are backed up.
func TestMount8Busy(t *testing.T) {
	deadline(t, 2*time.Minute)
	installHelpers(t)
	v := newVolume(t, "v")
	mustMount8(t, "/bin/mount", "-t", "fuse.emberfs", "none", v.mnt, "-o", "_netdev,state="+v.state)
	v.mustBeMounted()
	f, err := os.Create(v.at("f"))
	check(t, err)
	defer f.Close()
	r := mount8(t, "/bin/umount", v.mnt)
	if r.code != 32 || r.took > 5*time.Second || !strings.Contains(r.stderr, "busy") {
		t.Errorf("want exit 32 at once and a word about it\n%v", r)
	}
	_, err = f.WriteString("later")
	check(t, err)
	check(t, f.Close())
	mustMount8(t, "/bin/umount", v.mnt)
	v.waitGone()
	equal(t, show(t, v.cold(), "main:f"), "later", "cold holds")
}

// TestFstab: a line of fstab, mount by directory, umount, and the variants that go by or around the helper.
func TestFstab(t *testing.T) {
	deadline(t, 3*time.Minute)
	installHelpers(t)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo))
	fstab := filepath.Join(v.dir, "fstab")
	check(t, os.WriteFile(fstab, fmt.Appendf(nil,
		"%s %s fuse.emberfs _netdev,nofail,x-systemd.mount-timeout=infinity,state=%s 0 0\n", repo, v.mnt, v.state),
		0o644))
	for i, way := range [][]string{{"/bin/umount", v.mnt}, {"/bin/umount", "-c", v.mnt}, {"/bin/umount", "-R", v.mnt},
		{"/bin/umount", "-l", v.mnt}, {"/bin/umount", "-i", v.mnt}, {"/usr/bin/fusermount3", "-u", v.mnt}} {
		mustMount8(t, "/bin/mount", "-T", fstab, v.mnt)
		v.mustBeMounted()
		name := fmt.Sprint("f", i)
		check(t, os.WriteFile(v.at(name), []byte(name), 0o644))
		mustMount8(t, way...)
		if i >= 4 { // the helper is not asked: the daemon finishes by itself
			v.waitGone()
		}
		equal(t, show(t, repo, "main:"+name), name, "%v: the remote holds", way)
		v.waitGone()
	}
}

// TestMount8Remount: a remount, and umount -r of a busy mount, change the flags that they are about and keep the rest;
// a volume that was mounted read-only becomes writable; settings may be repeated, not changed.
func TestMount8Remount(t *testing.T) {
	deadline(t, 2*time.Minute)
	installHelpers(t)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo))
	settings := "backupInterval=10m,state=" + v.state
	has := func(what, flags string) {
		t.Helper()
		m := mountAt(v.mnt)
		if m == nil {
			t.Fatalf("%s: not mounted", what)
		}
		have := strings.Split(m.options, ",")
		for _, f := range strings.Fields(flags) {
			if bare, not := strings.CutPrefix(f, "!"); slices.Contains(have, bare) == not {
				t.Errorf("%s: want %s, the mount has %s", what, flags, m.options)
			}
		}
	}
	mustMount8(t, "/bin/mount", "-t", "fuse.emberfs", repo, v.mnt, "-o", "nosuid,nodev,noexec,noatime,"+settings)
	v.mustBeMounted()
	check(t, os.WriteFile(v.at("f"), []byte("x"), 0o644))
	f, err := os.Open(v.at("f")) // one open for writing would keep it from becoming read-only
	check(t, err)
	defer f.Close()
	r := mount8(t, "/sbin/umount.fuse.emberfs", "-r", v.mnt) // umount(8) may not ask the helper for it
	if r.code != 0 || r.took > 30*time.Second {
		t.Errorf("umount -r of a busy mount: %v", r)
	}
	has("umount -r", "ro nosuid nodev noexec noatime")
	equal(t, show(t, repo, "main:f"), "x", "umount -r came back before the backup was on the remote:")
	mustMount8(t, "/bin/mount", "-o", "remount,rw", v.mnt)
	has("remount,rw", "!ro nosuid nodev noexec noatime")
	mustMount8(t, "/bin/mount", "-o", "remount,exec,relatime", v.mnt)
	has("remount,exec,relatime", "!ro nosuid nodev !noexec !noatime relatime")
	mustMount8(t, "/sbin/mount.fuse.emberfs", repo, v.mnt, "-o", "remount,ro")
	has("the helper alone", "ro nosuid nodev relatime")
	mustMount8(t, "/bin/mount", "-t", "fuse.emberfs", repo, v.mnt, "-o", "remount,rw,"+settings)
	has("with the same settings", "!ro")
	if r := mount8(t, "/bin/mount", "-t", "fuse.emberfs", repo, v.mnt, "-o", "remount,ro,state="+v.state+
		",backupInterval=11m"); r.code != 32 || !strings.Contains(r.stderr, "backup_interval") {
		t.Errorf("a remount that changes a setting: %v", r)
	}
	has("a refused remount", "!ro")
	f.Close()
	mustMount8(t, "/bin/umount", v.mnt)
	v.waitGone()

	mustMount8(t, "/bin/mount", "-t", "fuse.emberfs", repo, v.mnt, "-o", "ro,nosuid,"+settings)
	v.mustBeMounted()
	if err := os.WriteFile(v.at("g"), []byte("y"), 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to a read-only mount: %v", err)
	}
	mustMount8(t, "/bin/mount", "-o", "remount,rw", v.mnt)
	check(t, os.WriteFile(v.at("g"), []byte("y"), 0o644))
	has("ro, then remount,rw", "!ro nosuid")
	mustMount8(t, "/bin/umount", v.mnt)
	v.waitGone()
	equal(t, show(t, repo, "main:g"), "y", "the remote holds")
}

// TestMount8Bound: umount(8) of a place that the mount, or a file in it, is bound to comes back, and so does that of
// the mount itself while it is bound somewhere.
func TestMount8Bound(t *testing.T) {
	deadline(t, 2*time.Minute)
	installHelpers(t)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo)).mount()
	check(t, os.WriteFile(v.at("f"), []byte("one"), 0o644))
	bound := mkdir(t, v.dir+"/bound", user{})
	file := v.dir + "/file"
	check(t, os.WriteFile(file, nil, 0o644))
	must(t, "/", "mount", "--bind", v.mnt, bound)
	must(t, "/", "mount", "--bind", v.at("f"), file)
	for _, place := range []string{file, bound} {
		if r := mount8(t, "/sbin/umount.fuse.emberfs", place); r.code != 0 || r.took > 20*time.Second {
			t.Errorf("umount %s: %v", place, r)
		}
	}
	must(t, "/", "mount", "--bind", v.mnt, bound)
	check(t, os.WriteFile(v.at("f"), []byte("two"), 0o644))
	if r := mount8(t, "/sbin/umount.fuse.emberfs", v.mnt); r.code != 3 || !strings.Contains(r.stderr, bound) ||
		r.took > 20*time.Second {
		t.Errorf("umount while it is bound: want exit 3 and where\n%v", r)
	}
	equal(t, show(t, repo, "main:f"), "two", "the remote holds")
	check(t, os.WriteFile(bound+"/f", []byte("three"), 0o644))
	mustMount8(t, "/sbin/umount.fuse.emberfs", bound)
	v.waitGone()
	equal(t, show(t, repo, "main:f"), "three", "the remote holds")
}
