//go:build slow

package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// attributesOf lists the extended attributes of what is at a path, and its owner and mode.
func attributesOf(t testing.TB, at string) string {
	t.Helper()
	var st unix.Stat_t
	check(t, unix.Lstat(at, &st))
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(at, buf)
	check(t, err)
	out := fmt.Sprintf("%d:%d %o", st.Uid, st.Gid, st.Mode)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if name != "" {
			value := make([]byte, 64<<10)
			n, err := unix.Lgetxattr(at, name, value)
			check(t, err)
			out += fmt.Sprintf(" %s=%d:%.20q", name, n, value[:n])
		}
	}
	return out
}

// TestHeldBackEverywhere: directories, the root among them, symlinks and files whose attributes leave no room for
// EmberFS's own record, with a copy of the state directory on the way.
func TestHeldBackEverywhere(t *testing.T) {
	t.Parallel()
	onAndOff(t, "tiering_", 2*time.Minute, func(t *testing.T, tiering string) {
		repo := newBareRepo(t, "remote.git", user{})
		one := newVolume(t, "one", withSource(repo), inMemory(t, "one")).mount()
		names := []string{".", "d", "d/f", "d/sub", "d/tight", "d/link", "d/empty"}
		check(t, os.MkdirAll(one.at("d/sub/below"), 0o755))
		for _, name := range []string{"d/f", "d/tight", "d/sub/below/f", "d/empty"} {
			check(t, os.WriteFile(one.at(name), []byte(strings.TrimPrefix(name, "d/empty")), 0o644))
		}
		check(t, os.Symlink("f", one.at("d/link")))
		for _, name := range names {
			if name != "d/link" {
				check(t, unix.Setxattr(one.at(name), "user.thumb", bytes.Repeat([]byte("t"), 9000), 0))
				check(t, unix.Setxattr(one.at(name), "user.small", []byte("s"), 0))
			}
			check(t, unix.Lsetxattr(one.at(name), "trusted.big", bytes.Repeat([]byte("b"), 8000), 0))
		}
		// Each alone fits: one into the inode, one into its block, and then there is no room for 64 bytes.
		check(t, unix.Removexattr(one.at("d/tight"), "user.thumb"))
		check(t, unix.Removexattr(one.at("d/tight"), "trusted.big"))
		check(t, unix.Setxattr(one.at("d/tight"), "user.small", bytes.Repeat([]byte("i"), 60), 0))
		check(t, unix.Setxattr(one.at("d/tight"), "user.block", bytes.Repeat([]byte("b"), 4000), 0))
		want := map[string]string{}
		for _, name := range names {
			want[name] = attributesOf(t, one.at(name))
		}
		one.umount()

		disk := smallDisk(t, "ext4", 100)
		two := newVolume(t, "two", withSource(repo), withState(disk+"/state"), withOpts("tiering="+tiering)).mount()
		look := func() {
			t.Helper()
			for _, name := range []string{"d/f", "d/tight", "d/sub/below/f"} {
				wantFile(t, two.at(name), name, "%s reads", name)
			}
			must(t, two.mnt, "find", ".", "-ls")
			if st := two.status(); len(st.Errors) > 0 || len(st.LeftOut) < 6 {
				t.Errorf("errors %q, left out %q", st.Errors, st.LeftOut)
			}
		}
		look()
		check(t, os.WriteFile(two.at("d/new"), []byte("new"), 0o644))
		check(t, os.WriteFile(two.at("d/sub/new"), []byte("new"), 0o644))
		two.sync()
		two.umount()
		must(t, "/", "cp", "-a", disk+"/state", disk+"/copy")
		must(t, "/", "rm", "-rf", disk+"/state")
		two.state = disk + "/copy"
		two.mount()
		look()
		check(t, os.WriteFile(two.at("d/new"), []byte("again"), 0o644))
		must(t, two.mnt, "sh", "-c", "echo x >d/sub/below/new; touch -h d/link; rm d/sub/below/new")
		two.mustBeSound(two.mnt)
		two.umount()

		three := newVolume(t, "three", withSource(repo), inMemory(t, "three")).mount()
		for _, name := range names {
			equal(t, attributesOf(t, three.at(name)), want[name], "%s has", name)
		}
		if st := three.status(); len(st.LeftOut) > 0 {
			t.Errorf("left out: %q", st.LeftOut)
		}
		three.umount()
		fsck(t, repo)
	})
}

// TestHeldBackForPlainUser: a plain user can give nothing away and make no device; what root committed is there again
// for root, wherever the user moved it.
func TestHeldBackForPlainUser(t *testing.T) {
	t.Parallel()
	deadline(t, 2*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	one := newVolume(t, "one", withSource(repo)).mount()
	check(t, os.Mkdir(one.at("d"), 0o755))
	for _, name := range []string{"f", "d/f", "d/g", "d/writes"} {
		check(t, os.WriteFile(one.at(name), []byte(name), 0o644))
		check(t, unix.Setxattr(one.at(name), "security.test", []byte("v"), 0))
	}
	check(t, os.Chown(one.at("d/g"), 4711, 4711))
	check(t, os.Symlink("f", one.at("d/link")))
	check(t, unix.Mknod(one.at("d/null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	want := map[string]string{}
	for _, name := range []string{"d", "f", "d/f", "d/g", "d/link", "d/null", "d/writes"} {
		want[name] = attributesOf(t, one.at(name))
	}
	one.umount()
	must(t, "/", "chown", "-R", "1:1", repo)

	u := plainUser()
	two := newVolume(t, "two", withSource(repo), withUser(u)).mount()
	if st := two.status(); len(st.Errors) > 0 || len(st.LeftOut) == 0 {
		t.Errorf("errors %q, left out %q", st.Errors, st.LeftOut)
	}
	command{args: []string{"sh", "-euc", "cat f d/f; echo x >d/new; mv d e; mv e/g e/h; echo more >>e/writes; rm e/f"},
		dir: two.mnt, as: u}.must(t)
	two.sync()
	two.kill()
	two.mount()
	command{args: []string{"sh", "-euc", "mv e d; mv d/h d/g; echo y >d/new"}, dir: two.mnt, as: u}.must(t)
	two.umount()
	to := filepath.Join(two.dir, "copy")
	if r := two.emberfs("restore", "--from", repo, "--to", to); r.code != 3 ||
		!strings.Contains(r.stderr, "only root may set") {
		t.Errorf("restore as a plain user: %v", r)
	}
	two.must("restore", "--from", repo, "--to", to+"2", "--untrusted") // what a plain user may have
	must(t, "/", "chown", "-R", "0:0", repo)

	three := newVolume(t, "three", withSource(repo)).mount()
	for name, was := range want {
		if name == "d/f" {
			continue
		}
		equal(t, attributesOf(t, three.at(name)), was, "%s has", name)
	}
	if got := attributesOf(t, three.at("d/new")); !strings.HasPrefix(got, "1:1 ") {
		t.Errorf("what the user made is %s", got)
	}
	three.umount()
	fsck(t, repo)
}
