//go:build slow

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// statFields says which fields statTree leaves out.
type statFields struct{ noDev, noAtime bool }

// statTree describes every stat field of everything below dir, and the order of each listing, one entry a path.
func statTree(t testing.TB, dir string, without statFields) map[string]string {
	t.Helper()
	seen := map[string]string{}
	var walk func(rel string)
	walk = func(rel string) {
		path := filepath.Join(dir, rel)
		var st unix.Stat_t
		check(t, unix.Lstat(path, &st))
		kind := st.Mode & unix.S_IFMT
		if without.noDev {
			st.Dev = 0
		}
		if without.noAtime || kind != unix.S_IFREG { // listing and readlink are reads, too
			st.Atim = unix.Timespec{}
		}
		text := fmt.Sprintf("%+v", st)
		if kind == unix.S_IFDIR {
			d, err := os.Open(path)
			check(t, err)
			names, err := d.Readdirnames(-1)
			check(t, err)
			check(t, d.Close())
			text += fmt.Sprintf(" order %q", names)
			for _, n := range names {
				walk(filepath.Join(rel, n))
			}
		}
		seen["/"+rel] = text
	}
	walk("")
	return seen
}

// tieredTree is a volume with everything odd in it, synced, with nothing that moves by itself.
func tieredTree(t *testing.T, options ...volumeOption) *volume {
	t.Helper()
	lookPath(t, "git")
	v := newVolume(t, "v", append(options, onlyByCommand())...).mount()
	makeOddTree(t, v.mnt)
	v.sync()
	return v
}

// TestStatUnchangedByRelease: no stat field and no order of a listing changes because files left warm.
func TestStatUnchangedByRelease(t *testing.T) {
	deadline(t, 3*time.Minute)
	for _, cache := range []string{"on", "off"} {
		t.Run("cache="+cache, func(t *testing.T) {
			v := tieredTree(t, withOpts("kernel_cache="+cache))
			before := statTree(t, v.mnt, statFields{})
			v.release()
			sameTree(t, statTree(t, v.mnt, statFields{}), before, "after the release")
			v.umount()
		})
	}
}

// TestStatUnchangedByRestart: the same after the daemon was stopped, and after it was killed. The device number is the
// kernel's.
func TestStatUnchangedByRestart(t *testing.T) {
	deadline(t, 4*time.Minute)
	v := tieredTree(t)
	before := statTree(t, v.mnt, statFields{noDev: true})
	v.release()
	v.remount()
	sameTree(t, statTree(t, v.mnt, statFields{noDev: true}), before, "after a restart")
	v.kill()
	v.mount()
	sameTree(t, statTree(t, v.mnt, statFields{noDev: true}), before, "after a kill")
	if n := len(v.stubs()); n == 0 {
		t.Error("everything came back to warm")
	}
	v.umount()
}

// TestStatUnchangedByReads: reading stubs brings the right bytes and changes atime alone; the bytes stay in cold.
func TestStatUnchangedByReads(t *testing.T) {
	deadline(t, 4*time.Minute)
	v := tieredTree(t)
	content := scanTree(t, v.mnt)
	before := statTree(t, v.mnt, statFields{noAtime: true, noDev: true})
	v.release()
	stubs := len(v.stubs())
	v.remount()
	sameTree(t, scanTree(t, v.mnt), content, "what stubs hold")
	sameTree(t, statTree(t, v.mnt, statFields{noAtime: true, noDev: true}), before, "after reads")
	if n := len(v.stubs()); stubs == 0 || n != stubs {
		t.Errorf("%d stubs after each was read once, %d before", n, stubs)
	}
	v.umount()
}

// TestStatUnchangedByReturn: a write brings the file back, and only what the write changes changes.
func TestStatUnchangedByReturn(t *testing.T) {
	deadline(t, 2*time.Minute)
	v := newVolume(t, "v", onlyByCommand()).mount()
	content := v.fill("d", 8, 100_001)
	check(t, os.Link(v.at("d/f0"), v.at("d/link")))
	v.sync()
	stable := func(st unix.Stat_t) unix.Stat_t {
		st.Atim, st.Mtim, st.Ctim = unix.Timespec{}, unix.Timespec{}, unix.Timespec{}
		return st
	}
	before := map[string]unix.Stat_t{}
	for name := range content {
		var st unix.Stat_t
		check(t, unix.Lstat(v.at(name), &st))
		before[name] = st
	}
	v.release()
	for name, old := range content {
		f, err := os.OpenFile(v.at(name), os.O_RDWR, 0)
		check(t, err)
		_, err = f.WriteAt([]byte("CHANGED"), 50_000)
		check(t, err)
		check(t, f.Sync())
		check(t, f.Close())
		content[name] = old[:50_000] + "CHANGED" + old[50_007:]
		var st unix.Stat_t
		check(t, unix.Lstat(v.at(name), &st))
		if stable(st) != stable(before[name]) {
			t.Errorf("%s: %+v became %+v", name, before[name], st)
		}
		if !v.inWarm(name) {
			t.Errorf("%s was written and is not in warm", name)
		}
	}
	v.holds(content)
	if st := v.status(); st.Tiers.Warm.Returned != int64(len(content)) {
		t.Errorf("status: %+v", st.Tiers.Warm)
	}
	v.release()
	v.remount()
	v.holds(content)
	v.umount()
}

// TestGitSeesNoChange: a repository on the mount is released, and git need not look at a single file: its index is of
// the same stat data. The git directory lies elsewhere, so that every read that cold answers would be a rehash.
func TestGitSeesNoChange(t *testing.T) {
	deadline(t, 2*time.Minute)
	lookPath(t, "git")
	v := newVolume(t, "v", onlyByCommand()).mount()
	gitDir := filepath.Join(testDir(t), "git")
	git := func(args ...string) string {
		t.Helper()
		return must(t, v.at("work"), append([]string{"git", "--git-dir", gitDir, "--work-tree", v.at("work")},
			args...)...)
	}
	for d := range 10 {
		dir := fmt.Sprintf("work/d%d", d)
		for name := range v.fill(dir, 10, 10_000) {
			// Else the index may be too young to be believed.
			check(t, os.Chtimes(v.at(name), time.Time{}, time.Unix(1e9, 5)))
		}
	}
	must(t, "/", "git", "init", "-q", "--bare", gitDir)
	git("config", "core.bare", "false")
	git("add", "-A")
	git("commit", "-qm", "all")
	unchanged := func(stage string) {
		t.Helper()
		v.fetchesNothing("git diff-files "+stage, func() {
			equal(t, git("diff-files", "--name-only"), "", "%s: the index has other stat data of", stage)
		})
		equal(t, git("status", "--porcelain"), "", "%s: git status says", stage)
	}
	unchanged("before")
	v.release()
	unchanged("after the release")
	v.remount()
	unchanged("after a restart")
	must(t, v.at("work"), "sh", "-c", "cat d*/* >/dev/null")
	unchanged("after reads")
	check(t, os.WriteFile(v.at("work/d3/f3"), []byte("changed"), 0o644))
	equal(t, git("status", "--porcelain"), " M d3/f3\n", "one file is changed, git status says")
	v.umount()
}

// TestGitRepositoryReleased: the same with the git directory on the mount, and a commit there afterwards.
func TestGitRepositoryReleased(t *testing.T) {
	deadline(t, 2*time.Minute)
	lookPath(t, "git")
	v := newVolume(t, "v", onlyByCommand()).mount()
	must(t, v.mnt, "git", "init", "-q", "-b", "main", "repo")
	content := v.fill("repo/src", 50, 20_000)
	must(t, v.at("repo"), "git", "add", "-A")
	must(t, v.at("repo"), "git", "commit", "-qm", "one")
	v.release()
	v.remount()
	equal(t, must(t, v.at("repo"), "git", "status", "--porcelain"), "", "git status says")
	must(t, v.at("repo"), "git", "fsck", "--strict")
	check(t, os.WriteFile(v.at("repo/src/f7"), []byte("changed"), 0o644))
	must(t, v.at("repo"), "git", "commit", "-qam", "two")
	must(t, v.at("repo"), "git", "checkout", "-q", "HEAD~1")
	v.holds(content)
	v.umount()
}
