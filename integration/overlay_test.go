//go:build slow

package integration

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOverlayUpper: the mount serves as the upper directory of an overlayfs, as containers use it: what is changed,
// removed and replaced above a lower tree is so on the next machine.
func TestOverlayUpper(t *testing.T) {
	t.Parallel()
	deadline(t, 2*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	lower := mkdir(t, filepath.Join(testDir(t), "lower"), user{})
	shell(t, lower, "mkdir -p etc usr/bin opt/old; echo one >etc/conf; echo gone >etc/gone; cp /bin/true usr/bin/; "+
		"echo x >opt/old/x; ln -s conf etc/link")
	merged := mkdir(t, filepath.Join(testDir(t), "merged"), user{})
	over := func(v *volume) {
		t.Helper()
		must(t, "/", "mount", "-t", "overlay", "overlay", "-o", "lowerdir="+lower+",upperdir="+v.at("upper")+
			",workdir="+v.at("work"), merged)
		t.Cleanup(func() { _ = unix.Unmount(merged, unix.MNT_DETACH) })
	}
	off := func() {
		t.Helper()
		if !waitFor(10*time.Second, func() bool { return unix.Unmount(merged, 0) == nil }) {
			t.Fatal("the overlay stays busy")
		}
	}
	one := newVolume(t, "one", withSource(repo)).mount()
	check(t, os.Mkdir(one.at("upper"), 0o755))
	check(t, os.Mkdir(one.at("work"), 0o755))
	over(one)
	shell(t, merged, `usr/bin/true; echo two >>etc/conf; rm etc/gone; rm -r opt/old; mkdir opt/old; echo y >opt/old/y; mv etc/link etc/moved
		mkdir -p var/lib; cp usr/bin/true var/lib/prog; var/lib/prog; chmod 700 var; chown 5:6 var/lib/prog; ln var/lib/prog var/lib/again
		mv usr/bin/true usr/bin/false`)
	before := scanTree(t, merged)
	off()
	one.umount()
	fsck(t, repo)
	two := newVolume(t, "two", withSource(repo)).mount()
	over(two)
	after := scanTree(t, merged)
	sameTree(t, after, before, "the overlay on the next machine")
	shell(t, merged, "test ! -e etc/gone; test ! -e opt/old/x; test ! -e etc/link; usr/bin/false; rm -r usr opt; ls "+
		"-lR >/dev/null")
	// (Of a file with two names Linux 6.18 lets an overlay that was mounted anew remove only one, over any FUSE file
	// system.)
	off()
	two.umount()
	// The parts by themselves: a whiteout is a character device 0:0, a replaced directory is opaque.
	two.mount()
	var st unix.Stat_t
	check(t, unix.Lstat(two.at("upper/etc/gone"), &st))
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("the whiteout is mode %o, device %d", st.Mode, st.Rdev)
	}
	two.umount()
}
