//go:build slow

package integration

import (
	"emberfs/integration/testprog"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stockTree lists what a branch has but for what is EmberFS's own, one line an entry.
func stockTree(t testing.TB, repo string) []string {
	t.Helper()
	var out []string
	for l := range strings.SplitSeq(must(t, "/", "git", "-C", repo, "-c", "core.quotePath=false", "ls-tree", "-r",
		"main"), "\n") {
		if l != "" && !strings.Contains(l, "\t.emberfs/") {
			out = append(out, l)
		}
	}
	return out
}

// TestStockEntriesStay: what a stock client committed and no directory can hold, submodules, names that are too long,
// blobs that are missing, stays in the branch under its name, whatever a mount changes beside it; so do .gitattributes
// and .gitmodules.
func TestStockEntriesStay(t *testing.T) {
	t.Parallel()
	onAndOff(t, "tiering_", 3*time.Minute, func(t *testing.T, tiering string) {
		repo := newBareRepo(t, "remote.git", user{})
		long := strings.Repeat("long name ", 30)
		dir := testDir(t)
		shell(t, dir, `git init -q -b main sub; cd sub; echo 1 >f; git add .; git -c user.name=u -c user.email=u@example.org commit -qm sub
				cd ..; git clone -q remote.git work 2>/dev/null; cd work; git config user.name u; git config user.email u@example.org
				mkdir d; echo '*.bin -text' >.gitattributes; echo '* text' >d/.gitattributes; echo here >f; echo there >d/g; echo lost >d/lost
				git -c protocol.file.allow=always submodule --quiet add ../sub mod
				git add .; blob=$(git hash-object -w f)
				git update-index --add --cacheinfo "100644,$blob,d/`+long+`" --cacheinfo "160000,$(git -C mod rev-parse HEAD),d/inner"
				git commit -qm stock; git push -q origin main`)
		lost := strings.TrimSpace(must(t, "/", "git", "-C", repo, "rev-parse", "main:d/lost"))
		before := stockTree(t, repo)
		shell(t, repo, "git unpack-objects -q </dev/null 2>/dev/null || true; rm -f objects/"+lost[:2]+"/"+lost[2:])

		one := newVolume(t, "one", withSource(repo), withOpts("tiering="+tiering)).mount()
		for _, name := range []string{"mod", "d/inner", "d/lost"} {
			if _, err := os.ReadFile(one.at(name)); !errors.Is(err, unix.EIO) {
				t.Errorf("%s opens with %v, want EIO", name, err)
			}
		}
		wantFile(t, one.at("d/g"), "there\n", "beside it d/g reads")
		stands, err := filepath.Glob(one.at("d/long name*"))
		if err != nil || len(stands) != 1 {
			t.Errorf("the long name shows as %q, %v", stands, err)
		}
		st := one.emberfs("status", one.mnt)
		for _, name := range []string{"mod: it is a submodule", "d/inner: it is a submodule", "d/lost: ",
			"d/long name"} {
			if !strings.Contains(st.stdout, "left out here: "+name) {
				t.Errorf("status does not list %s\n%v", name, st)
			}
		}
		check(t, os.WriteFile(one.at("new"), []byte("new"), 0o644))
		check(t, os.WriteFile(one.at("d/new"), []byte("new"), 0o644))
		check(t, os.WriteFile(one.at("d/.gitattributes"), []byte("* -text\n"), 0o644))
		one.sync()
		one.kill()
		one.mount()
		check(t, os.WriteFile(one.at("d/more"), []byte("more"), 0o644))
		check(t, os.Mkdir(one.at("made"), 0o755))
		check(t, os.WriteFile(one.at("made/.gitattributes"), []byte("* -text\n"), 0o644))
		r := one.emberfs("umount", one.mnt)
		if r.code != 0 {
			t.Errorf("umount: %v", r)
		}
		one.waitGone()
		after := stockTree(t, repo)
		for _, l := range before {
			if !slices.Contains(after, l) && !strings.HasSuffix(l, "\td/.gitattributes") {
				t.Errorf("the branch has lost %q:\n%s", l, strings.Join(after, "\n"))
			}
		}
		equal(t, show(t, repo, "main:d/.gitattributes"), "* -text\n", "d/.gitattributes is")
		if len(after) != len(before)+4 {
			t.Errorf("the branch has\n%s\nbefore\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
		}
		if !slices.ContainsFunc(after, func(l string) bool {
			return strings.HasSuffix(l, "\tmade/.emberfs%.gitattributes")
		}) {
			t.Errorf("a new .gitattributes is not escaped:\n%s", strings.Join(after, "\n"))
		}

		// The next machine sees the same, and can do away with it.
		two := newVolume(t, "two", withSource(repo), withOpts("tiering="+tiering)).mount()
		if st := two.status(); len(st.Errors) > 0 {
			t.Errorf("errors: %q", st.Errors)
		}
		// What is missing moves, on its own and with the directory above, and the remote takes that.
		check(t, os.Rename(two.at("d/lost"), two.at("lost2")))
		two.sync()
		check(t, os.Rename(two.at("lost2"), two.at("d/lost")))
		check(t, os.Rename(two.at("d"), two.at("other")))
		two.sync()
		check(t, os.Rename(two.at("other"), two.at("d")))
		two.sync()
		check(t, os.Rename(two.at("mod"), two.at("d/mod2")))
		check(t, os.Remove(two.at("d/inner")))
		check(t, os.Remove(two.at("d/lost")))
		check(t, os.Remove(two.at("d/"+filepath.Base(stands[0]))))
		check(t, os.Remove(two.at("d/.gitattributes")))
		check(t, os.Rename(two.at("d"), two.at("e")))
		two.umount()
		names := strings.Fields(strings.ReplaceAll(must(t, "/", "git", "-C", repo, "ls-tree", "-r", "--name-only",
			"main", "e"), "\n", " "))
		if want := []string{"e/g", "e/mod2", "e/more", "e/new"}; !slices.Equal(names, want) {
			t.Errorf("after removals e has %q, want %q", names, want)
		}
		if got := must(t, "/", "git", "-C", repo, "ls-tree", "main", "e/mod2"); !strings.HasPrefix(got,
			"160000 commit") {
			t.Errorf("the submodule was moved to %q", got)
		}
		fsckButMissing(t, repo, lost)
		to := filepath.Join(dir, "copy")
		if r := two.emberfs("restore", "--from", repo, "--to", to); r.code != 3 || !strings.Contains(r.stderr, "mod2") {
			t.Errorf("restore: %v", r)
		}
		wantFile(t, to+"/e/g", "there\n", "restore gives")
	})
}

// fsckButMissing is fsck of a repository that lacks one blob.
func fsckButMissing(t testing.TB, repo, lost string) {
	t.Helper()
	r := command{args: []string{"git", "-C", repo, "fsck", "--strict", "--full"}, limit: time.Minute}.run(t)
	for l := range strings.SplitSeq(r.stdout+r.stderr, "\n") {
		if l != "" && !strings.Contains(l, lost) && !strings.HasPrefix(l, "dangling") &&
			!strings.HasPrefix(l, "broken link from") {
			t.Errorf("fsck: %s", l)
		}
	}
}

// TestUntrustedLook: a look through a mount that does not trust its source changes nothing of what it does not show:
// suid bits, owners and attributes stay in the commits until somebody changes them.
func TestUntrustedLook(t *testing.T) {
	t.Parallel()
	onAndOff(t, "tiering_", 2*time.Minute, func(t *testing.T, tiering string) {
		repo := newBareRepo(t, "remote.git", user{})
		one := newVolume(t, "one", withSource(repo)).mount()
		check(t, os.Mkdir(one.at("d"), 0o755))
		for _, name := range []string{"look", "write", "chmod", "chown", "attr", "gone"} {
			at := one.at("d/" + name)
			check(t, testprog.Write(at, name))
			check(t, os.Chown(at, 1000, 1000))
			check(t, unix.Chmod(at, 0o4755))
			check(t, unix.Setxattr(at, "security.test", []byte("v"), 0))
			check(t, unix.Setxattr(at, "security.capability",
				[]byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
		}
		for _, name := range []string{"punch", "copy", "append"} {
			check(t, os.WriteFile(one.at("d/"+name), []byte("text of root"), 0))
			check(t, unix.Chmod(one.at("d/"+name), 0o6777))
		}
		check(t, os.Symlink("look", one.at("d/link")))
		check(t, os.Lchown(one.at("d/link"), 1000, 1000))
		check(t, unix.Chmod(one.at("d"), 0o2775))
		check(t, os.Chown(one.at("d"), 1000, 1000))
		one.umount()

		two := newVolume(t, "two", withSource(repo), withOpts("tiering="+tiering))
		two.mount("--untrusted")
		must(t, two.mnt, "sh", "-c", "ls -lR >/dev/null; cat d/* || { ls -la . d; ls -la . d; stat d; grep . "+
			"/proc/self/mountinfo | grep emberfs; exit 1; }")
		var st unix.Stat_t
		check(t, unix.Lstat(two.at("d/look"), &st))
		if st.Uid != 0 || st.Mode&0o7777 != 0o755 {
			t.Errorf("an untrusted source's file is %d, %o", st.Uid, st.Mode)
		}
		two.sync()
		check(t, os.WriteFile(two.at("d/beside"), []byte("x"), 0o644))
		check(t, os.WriteFile(two.at("d/write"), []byte("written"), 0))
		check(t, unix.Chmod(two.at("d/chmod"), 0o755))
		check(t, os.Chown(two.at("d/chown"), 0, 0))
		check(t, unix.Setxattr(two.at("d/attr"), "security.test", []byte("new"), 0))
		check(t, os.Remove(two.at("d/gone")))
		other := plainUser()
		command{args: []string{"fallocate", "-p", "-o", "0", "-l", "4", two.at("d/punch")}, as: other}.must(t)
		command{args: []string{"sh", "-c", "echo more >>" + two.at("d/append")}, as: other}.must(t)
		command{args: []string{"xfs_io", "-c", "copy_range " + two.at("d/look"), two.at("d/copy")}, as: other}.must(t)
		two.umount()

		three := newVolume(t, "three", withSource(repo)).mount()
		expect := func(name string, uid, mode uint32, test string, caps bool) {
			t.Helper()
			var st unix.Stat_t
			check(t, unix.Lstat(three.at(name), &st))
			buf := make([]byte, 100)
			n, _ := unix.Lgetxattr(three.at(name), "security.test", buf)
			_, err := unix.Lgetxattr(three.at(name), "security.capability", nil)
			if st.Uid != uid || st.Mode&0o7777 != mode || string(buf[:max(n, 0)]) != test || (err == nil) != caps {
				t.Errorf("%s is of %d, mode %o, security.test %q, capabilities %v", name, st.Uid, st.Mode&0o7777,
					buf[:max(n, 0)], err)
			}
		}
		expect("d", 1000, 0o2775, "", false)
		expect("d/link", 1000, 0o777, "", false)
		expect("d/look", 1000, 0o4755, "v", true)
		// Root wrote it: as write(2), which leaves suid then, but no capabilities.
		expect("d/write", 1000, 0o4755, "v", false)
		expect("d/chmod", 1000, 0o755, "v", true)
		expect("d/chown", 0, 0o755, "v", false)
		expect("d/attr", 1000, 0o4755, "new", true)
		expect("d/beside", 0, 0o644, "", false)
		for _, name := range []string{"punch", "copy", "append"} { // another user's bytes are in it
			expect("d/"+name, 0, 0o777, "", false)
		}
		three.umount()
	})
}

// TestMissingContentMoves: a file whose content the repository has lost, which reads as EIO, can be moved and its
// commit be pushed; all else is committed beside it.
func TestMissingContentMoves(t *testing.T) {
	t.Parallel()
	onAndOff(t, "tiering_", 2*time.Minute, func(t *testing.T, tiering string) {
		repo := newBareRepo(t, "remote.git", user{})
		one := newVolume(t, "one", withSource(repo)).mount()
		for _, dir := range []string{"a", "b"} {
			check(t, os.Mkdir(one.at(dir), 0o755))
			check(t, os.WriteFile(one.at(dir+"/f"), []byte("content of "+dir), 0o640))
		}
		one.umount()
		lost := strings.TrimSpace(must(t, "/", "git", "-C", repo, "rev-parse", "main:a/f"))
		shell(t, repo, `mkdir out; mv objects/pack/* out/ 2>/dev/null || true; for p in out/*.pack; do [ -e "$p" ] && git unpack-objects -q <"$p"; done; rm -rf out; rm objects/`+lost[:2]+"/"+lost[2:])

		two := newVolume(t, "two", withSource(repo), withOpts("tiering="+tiering)).mount()
		if _, err := os.ReadFile(two.at("a/f")); !errors.Is(err, unix.EIO) {
			t.Errorf("a/f reads with %v, want EIO", err)
		}
		for i, move := range [][2]string{{"a/f", "b/moved"}, {"b/moved", "b/again"}, {"b", "c"}, {"c/again", "a/f"}} {
			check(t, os.Rename(two.at(move[0]), two.at(move[1])))
			check(t, os.WriteFile(two.at("beside"), []byte{byte(i)}, 0o644))
			two.sync()
			if got := must(t, "/", "git", "-C", repo, "cat-file", "-p", "main:beside"); got != string([]byte{byte(i)}) {
				t.Errorf("after %q the remote has %q", move, got)
			}
			where := move[1]
			if where == "c" {
				where = "c/again"
			}
			if got := strings.TrimSpace(must(t, "/", "git", "-C", repo, "rev-parse", "main:"+where)); got != lost {
				t.Errorf("%s is %s in the branch, want %s", where, got, lost)
			}
		}
		wantFile(t, two.at("c/f"), "content of b", "c/f reads")
		two.umount()
	})
}
