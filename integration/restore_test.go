//go:build slow

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRestoreOddTree: a tree with everything odd comes back exactly on the next machine, again after changes there, and
// by `emberfs restore` without a mount; the repository is sound for the strictest of receivers.
func TestRestoreOddTree(t *testing.T) {
	t.Parallel()
	deadline(t, 12*time.Minute)
	lookPath(t, "rsync", "git")
	repo := newBareRepo(t, "remote.git", user{})
	must(t, repo, "git", "config", "receive.fsckObjects", "true")
	native := mkdir(t, filepath.Join(testDir(t), "native"), user{})
	proveOddTree(t, native)

	one := newVolume(t, "one", withSource(repo)).mount()
	makeOddTree(t, one.mnt)
	before := scanTree(t, one.mnt)
	must(t, "/", "rm", "-rf", native)
	rsync(t, one.mnt, native)
	rsyncClean(t, one.mnt, native)
	one.sync()
	sameTree(t, scanTree(t, one.mnt), before, "after sync, still mounted")
	one.umount()
	fsck(t, one.cold())
	fsck(t, repo)
	strictReceiver(t, one.cold())

	one.mount()
	sameTree(t, scanTree(t, one.mnt), before, "the same state directory again")
	one.umount()

	two := newVolume(t, "two", withSource(repo)).mount()
	sameTree(t, scanTree(t, two.mnt), before, "next machine")
	rsyncClean(t, two.mnt, native)
	if st := two.status(); st.AtRisk.Files != 0 || len(st.Errors) != 0 {
		t.Errorf("after a restore: at risk %+v, errors %q", st.AtRisk, st.Errors)
	}
	two.sync()
	if got, want := revision(t, repo), revision(t, one.cold()); got != want {
		t.Errorf("a restore without changes made a commit: %s, before %s", got, want)
	}
	changeOddTree(t, two.mnt)
	changed := scanTree(t, two.mnt)
	two.umount()
	fsck(t, repo)

	three := newVolume(t, "three", withSource(repo)).mount()
	sameTree(t, scanTree(t, three.mnt), changed, "next machine after changes")
	three.umount()

	restored := func(name string, args ...string) string {
		t.Helper()
		to := filepath.Join(testDir(t), name)
		r := three.emberfs(append([]string{"restore", "--to", to}, args...)...)
		if r.code != 0 {
			t.Fatalf("%v", r)
		}
		return to
	}
	first := revision(t, one.cold())
	sameTree(t, scanTree(t, restored("r1", "--from", repo)), changed, "restore --from REPO")
	sameTree(t, scanTree(t, restored("r2", "--from", three.state)), changed, "restore --from STATE")
	sameTree(t, scanTree(t, restored("r3", "--from", repo, "--commit", first)), before, "restore --commit")
	part := scanTree(t, restored("r4", "--from", repo, "hard", "times/t1"))
	for _, p := range []string{"/hard/one", "/times/t1"} {
		if want := changed[p]; !sameButLinks(part[p], want) {
			t.Errorf("restore of a part: %s\n\tgot  %s\n\twant %s", p, part[p], want)
		}
	}
	if _, ok := part["/names"]; ok {
		t.Errorf("restore of a part brought more than was asked for")
	}
	if r := three.emberfs("restore", "--from", repo, "--to", native); r.code == 0 {
		t.Errorf("restore into a directory that is not empty\n%v", r)
	}
	rsyncClean(t, native, native)
}

// proveOddTree makes the tree on a native file system and copies it there by rsync: both must come out the same, else
// the tree is not one that can be compared.
func proveOddTree(t testing.TB, dir string) {
	t.Helper()
	made := mkdir(t, dir+".made", user{})
	makeOddTree(t, made)
	rsync(t, made, dir)
	sameTree(t, scanTree(t, dir), scanTree(t, made), "a native copy")
	rsyncClean(t, made, dir)
}

func sameButLinks(got, want string) bool {
	got, _, _ = strings.Cut(got, " links ")
	want, _, _ = strings.Cut(want, " links ")
	return got == want && got != ""
}

func revision(t testing.TB, repo string) string {
	t.Helper()
	return strings.TrimSpace(must(t, "/", "git", "-C", repo, "rev-parse", "main"))
}

// strictReceiver pushes a repository by stock git to one that checks every object.
func strictReceiver(t testing.TB, from string) {
	t.Helper()
	to := newBareRepo(t, "strict.git", user{})
	must(t, to, "git", "config", "receive.fsckObjects", "true")
	must(t, to, "git", "config", "transfer.fsckObjects", "true")
	must(t, from, "git", "push", "-q", to, "main:main")
	clone := filepath.Join(testDir(t), "clone")
	must(t, "/", "git", "clone", "-q", to, clone)
	equal(t, must(t, clone, "git", "status", "--porcelain"), "", "a fresh clone is not clean:")
}

// changeOddTree makes changes of every kind to a restored tree.
func changeOddTree(t testing.TB, dir string) {
	t.Helper()
	at := func(n string) string { return dir + "/" + n }
	check(t, os.Rename(at("many"), at("renamed many")))
	check(t, os.WriteFile(at("renamed many/entry 00500"), []byte("changed"), 0o644))
	check(t, os.Remove(at("renamed many/entry 00501")))
	check(t, os.WriteFile(at("renamed many/entry new"), []byte("new"), 0o644))
	check(t, os.Remove(at("hard/two")))
	check(t, os.Link(at("same-content"), at("hard/four")))
	check(t, os.Link(at("other/deep/three"), at("empty/a/b/five")))
	check(t, os.Remove(at("modes/d9")))
	check(t, os.WriteFile(at("modes/d9"), []byte("a file now"), 0o600)) // directory -> file
	check(t, os.Remove(at("size-1")))
	check(t, os.MkdirAll(at("size-1/sub"), 0o755)) // file -> directory
	check(t, os.Remove(at("size-4095")))
	check(t, os.Symlink("size-4096", at("size-4095"))) // file -> symlink
	check(t, os.Remove(at("fifo")))
	check(t, os.WriteFile(at("fifo"), []byte("regular"), 0o644)) // fifo -> file
	check(t, unix.Chmod(at("size-4097"), 0o4711))
	check(t, unix.Removexattr(at("xattrs/f"), "user.plain"))
	check(t, unix.Setxattr(at("xattrs/f"), "user.added", []byte("v"), 0))
	check(t, unix.Removexattr(at("acl/f"), aclAccessName))
	check(t, os.Chown(at("size-65535"), 5, 6))
	f, err := os.OpenFile(at("sparse-middle"), os.O_RDWR, 0)
	check(t, err)
	_, err = f.WriteAt([]byte("more"), 20<<20)
	check(t, err)
	check(t, f.Truncate(30<<20))
	check(t, f.Close())
	check(t, os.RemoveAll(at("names/.git")))
	check(t, os.Rename(at("names/.gitmodules"), at("names/plain name")))
	check(t, os.Rename(at("names/con"), at("names/.git")))
	check(t, unix.Setxattr(dir, "user.root", []byte("changed"), 0))
	check(t, unix.UtimesNanoAt(unix.AT_FDCWD, at("size-0"), []unix.Timespec{ts(1, 0), ts(-77, 77)}, 0))
	check(t, unix.UtimesNanoAt(unix.AT_FDCWD, at("long"), []unix.Timespec{ts(1, 0), ts(5, 5)}, 0))
}

// TestNextMachineFromColdRepository: cold.git itself can be the SOURCE of another state directory.
func TestNextMachineFromColdRepository(t *testing.T) {
	deadline(t, time.Minute)
	one := newVolume(t, "one").mount()
	check(t, os.MkdirAll(one.at("a/b"), 0o755))
	check(t, os.WriteFile(one.at("a/b/f"), []byte("x"), 0o644))
	want := scanTree(t, one.mnt)
	one.umount()
	two := newVolume(t, "two", withSource(one.cold())).mount()
	sameTree(t, scanTree(t, two.mnt), want, "mounted from cold.git")
	two.umount()
}
