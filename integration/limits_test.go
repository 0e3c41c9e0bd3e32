//go:build slow

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// deepIn makes directories d/d/d... in dir, so many levels, with a file at the end, as a program does that changes into
// each.
func deepIn(t testing.TB, dir string, levels int) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	for i := 0; err == nil && i < levels; i++ {
		if err = unix.Mkdirat(fd, "d", 0o755); err == nil {
			var sub int
			sub, err = unix.Openat(fd, "d", unix.O_PATH|unix.O_CLOEXEC, 0)
			unix.Close(fd)
			fd = sub
		}
	}
	check(t, err)
	defer unix.Close(fd)
	f, err := unix.Openat(fd, "bottom", unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	check(t, err)
	unix.Close(f)
}

// levels counts those that there are in dir, and says whether the file is at the end.
func levels(t testing.TB, dir string) (n int, bottom bool) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	check(t, err)
	for {
		sub, err := unix.Openat(fd, "d", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			break
		}
		unix.Close(fd)
		fd = sub
		n++
	}
	defer unix.Close(fd)
	return n, unix.Faccessat(fd, "bottom", unix.F_OK, 0) == nil
}

// TestDeepDirectories: what is nested deeper than a commit takes stays out, is named, and hides nothing else; what a
// commit has, all that read commits can read.
func TestDeepDirectories(t *testing.T) {
	t.Parallel()
	deadline(t, 3*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	one := newVolume(t, "one", withSource(repo)).mount()
	check(t, os.Mkdir(one.at("most"), 0o755))
	deepIn(t, one.at("most"), 1999)
	check(t, os.WriteFile(one.at("other"), []byte("x"), 0o644))
	one.sync()
	check(t, os.Mkdir(one.at("more"), 0o755))
	deepIn(t, one.at("more"), 2300)
	check(t, os.WriteFile(one.at("late"), []byte("x"), 0o644))
	r := one.emberfs("sync", one.mnt)
	if r.code != 3 || !strings.Contains(r.stdout+r.stderr, "nested too deep") {
		t.Fatalf("sync of what is too deep: want exit 3 and its name\n%.2000s", r)
	}
	if st := one.status(); st.AtRisk.Files == 0 {
		t.Errorf("status says that nothing is at risk: %+v", st.AtRisk)
	}
	fsck(t, repo)
	equal(t, show(t, repo, "main:late"), "x", "beside what is too deep the commit has")

	two := newVolume(t, "two", withSource(repo), withOpts("tiering=off")).mount()
	if n, bottom := levels(t, two.at("most")); n != 1999 || !bottom {
		t.Errorf("the next machine has %d levels, the file at the end: %v", n, bottom)
	}
	if n, _ := levels(t, two.at("more")); n != 1999 {
		t.Errorf("of what was too deep the next machine has %d levels", n)
	}
	two.mustBeSound(two.mnt, "--deep")
	two.umount()
	to := two.dir + "/copy"
	must(t, "/", env.bin, "restore", "--from", repo, "--to", to)
	if n, bottom := levels(t, to+"/most"); n != 1999 || !bottom {
		t.Errorf("emberfs restore gives %d levels, the file at the end: %v", n, bottom)
	}
	two.mustBeSound(repo, "--deep")
	for _, args := range [][]string{{"log", repo}, {"snapshots", repo}, {"diff", repo, "main~1", "main"},
		{"check", two.state}} {
		if r := two.emberfs(args...); r.code != 0 {
			t.Errorf("%q: %.1000s", args, r)
		}
	}

	must(t, one.mnt, "rm", "-rf", "more")
	one.sync()
	if st := one.status(); st.AtRisk.Files != 0 || len(st.Errors) != 0 {
		t.Errorf("after it is gone: at risk %+v, errors %q", st.AtRisk, st.Errors)
	}
	one.umount()
	fsck(t, repo)
}

// TestDeepStockCommit: what a stock client commits may be nested deeper. It costs at most itself: the rest of the
// volume is there, and the next commits keep it.
func TestDeepStockCommit(t *testing.T) {
	t.Parallel()
	deadline(t, 3*time.Minute)
	for _, c := range []struct{ levels, restored, code int }{{2300, 2300, 0}, {6000, 4000, 3}} {
		t.Run(strconv.Itoa(c.levels), func(t *testing.T) {
			repo := newBareRepo(t, "remote.git", user{})
			command{args: []string{"git", "-C", repo, "fast-import", "--quiet"},
				stdin: "commit refs/heads/main\ncommitter a <a@b> 1700000000 +0000\ndata 1\nx\n" +
					"M 100644 inline a" + strings.Repeat("/d", c.levels) +
					"/bottom\ndata 1\nx\nM 100644 inline other\ndata 1\nx\n"}.must(t)
			tree := func() string { return must(t, "/", "git", "-C", repo, "rev-parse", "main:a") }
			before := tree()
			one := newVolume(t, "one", withSource(repo)).mount()
			if n, bottom := levels(t, one.at("a")); n != c.levels || !bottom {
				t.Errorf("the mount has %d levels, the file at the end: %v", n, bottom)
			}
			check(t, os.WriteFile(one.at("other"), []byte("y"), 0o644))
			check(t, os.WriteFile(one.at("a/new"), []byte("y"), 0o644))
			r := one.emberfs("sync", one.mnt)
			if r.code != 0 && r.code != 3 {
				t.Errorf("%.1000s", r)
			}
			must(t, one.mnt, "rm", "a/new")
			one.emberfs("umount", one.mnt)
			one.waitGone()
			equal(t, show(t, repo, "main:other"), "y", "the remote holds")
			equal(t, tree(), before, "what was not touched went from %s to", before)
			to := one.dir + "/copy"
			if r := one.emberfs("restore", "--from", repo, "--to", to); r.code != c.code {
				t.Errorf("restore: want exit %d\n%.1000s", c.code, r)
			}
			if n, _ := levels(t, to+"/a"); n != c.restored {
				t.Errorf("emberfs restore gives %d levels, want %d", n, c.restored)
			}
			wantFile(t, to+"/other", "y", "beside it restore gives")
			for _, args := range [][]string{{"log", repo}, {"snapshots", repo}, {"status", "--json"}, {"check", repo}} {
				if r := one.emberfs(args...); r.code != 0 && (c.code == 0 || args[0] != "check" || r.code != 3) {
					t.Errorf("%q: %.1000s", args, r)
				}
			}
		})
	}
}

// TestTooMuchForCommit: what a commit cannot hold stays out of it and is named, and hides nothing else. What it can
// hold, though a path is longer than a system call takes, comes back whole.
func TestTooMuchForCommit(t *testing.T) {
	t.Parallel()
	deadline(t, 3*time.Minute)
	lookPath(t, "mkfs.xfs")
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo), withState(smallDisk(t, "disk", 400, "mkfs.xfs", "-q")+"/state")).mount()
	out := []string{"listed", "heavy", "vast", "dir/listed"}
	check(t, os.Mkdir(v.at("dir"), 0o755))
	for _, name := range append(out, "good") {
		check(t, os.WriteFile(v.at(name), []byte("x"), 0o644))
	}
	for _, name := range []string{"listed", "dir/listed"} {
		for i := range 270 { // together longer than listxattr(2) can say
			check(t, unix.Setxattr(v.at(name), fmt.Sprintf("user.%0245d", i), []byte("v"), 0))
		}
	}
	for i := range 43 { // more than a line of metadata has
		check(t, unix.Setxattr(v.at("heavy"), fmt.Sprintf("user.%d", i), bytes.Repeat([]byte{1}, 64<<10), 0))
	}
	check(t, os.Truncate(v.at("vast"), 382<<40)) // more chunks than a file has
	deep := longPath(t, v.mnt)
	check(t, unix.Linkat(unix.AT_FDCWD, v.at("good"), deep, "other", 0))
	check(t, unix.Linkat(deep, "other", deep, "third", 0))
	unix.Close(deep)
	r := v.emberfs("sync", v.mnt)
	if r.code != 3 {
		t.Fatalf("sync: want exit 3\n%.2000s", r)
	}
	for _, name := range out {
		if !strings.Contains(r.stdout+r.stderr, name+": ") {
			t.Errorf("sync does not name %s\n%.2000s", name, r)
		}
	}
	if st := v.status(); st.AtRisk.Files != int64(len(out)) {
		t.Errorf("at risk %+v, errors %q", st.AtRisk, st.Errors)
	}
	fsck(t, repo)
	whole := func(what, root string) {
		t.Helper()
		var st, deep unix.Stat_t
		fd, err := openLong(root)
		check(t, err)
		defer unix.Close(fd)
		check(t, unix.Stat(root+"/good", &st))
		for _, name := range []string{"other", "third"} {
			if err := unix.Fstatat(fd, name, &deep, 0); err != nil || deep.Ino != st.Ino || st.Nlink != 3 {
				t.Errorf("%s: %s is inode %d (%v), good is %d with %d names", what, name, deep.Ino, err, st.Ino,
					st.Nlink)
			}
		}
		if n, err := os.ReadDir(root + "/dir"); err != nil || len(n) != 0 {
			t.Errorf("%s: dir has %v, %v", what, n, err)
		}
	}
	two := newVolume(t, "two", withSource(repo)).mount()
	whole("the next machine", two.mnt)
	two.umount()
	must(t, "/", env.bin, "restore", "--from", repo, "--to", two.dir+"/copy")
	whole("emberfs restore", two.dir+"/copy")
	for _, name := range out {
		check(t, os.Remove(v.at(name)))
	}
	v.sync()
	if st := v.status(); st.AtRisk.Files != 0 || len(st.Errors) != 0 {
		t.Errorf("after they are gone: at risk %+v, errors %q", st.AtRisk, st.Errors)
	}
	v.umount()
}

const longName = "a long name " // and a number: 250 bytes

// longPath makes directories whose path is longer than a system call takes, and opens the last.
func longPath(t testing.TB, root string) (fd int) {
	t.Helper()
	fd, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	for i := 0; err == nil && i < 18; i++ {
		err = unix.Mkdirat(fd, fmt.Sprintf("%s%0238d", longName, i), 0o755)
		fd, err = below(fd, i, err)
	}
	check(t, err)
	return fd
}

// openLong opens what longPath made.
func openLong(root string) (fd int, err error) {
	fd, err = unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	for i := 0; err == nil && i < 18; i++ {
		fd, err = below(fd, i, nil)
	}
	return fd, err
}

func below(fd, i int, err error) (int, error) {
	defer unix.Close(fd)
	if err != nil {
		return -1, err
	}
	return unix.Openat(fd, fmt.Sprintf("%s%0238d", longName, i), unix.O_PATH|unix.O_CLOEXEC, 0)
}

// TestLeftOutStaysAtRisk: what a backup could not read is at risk, and said to be, until one has it; also when nothing
// else changes.
func TestLeftOutStaysAtRisk(t *testing.T) {
	deadline(t, time.Minute)
	lookPath(t, "strace")
	v := newVolume(t, "v", withSource(newBareRepo(t, "remote.git", user{})), withOpts("tier_interval=none")).mount()
	check(t, os.WriteFile(v.at("bad"), []byte("hello"), 0o644))
	check(t, os.WriteFile(v.at("good"), []byte("hello"), 0o644))
	failing := v.failReads(v.state + "/warm/bad")
	for range 2 {
		r := v.emberfs("sync", v.mnt)
		if r.code != 3 || !strings.Contains(r.stdout+r.stderr, "bad: ") {
			t.Errorf("sync of a file that cannot be read: want exit 3 and its name\n%v", r)
		}
		st := v.status()
		if st.AtRisk.Files != 1 || st.AtRisk.Bytes != 5 ||
			!strings.Contains(strings.Join(st.Errors, "\n"), "left out: bad") {
			t.Errorf("status: at risk %+v, errors %q", st.AtRisk, st.Errors)
		}
		check(t, os.WriteFile(v.at("good"), []byte("again"), 0o644))
	}
	failing()
	v.sync()
	if st := v.status(); st.AtRisk.Files != 0 || len(st.Errors) != 0 {
		t.Errorf("after it could be read: at risk %+v, errors %q", st.AtRisk, st.Errors)
	}
	equal(t, show(t, v.source, "main:bad"), "hello", "the remote holds")
	v.umount()
}

// failReads lets the daemon's reads of one file fail by EIO until the function that it returns is called.
func (v *volume) failReads(file string) (end func()) {
	v.t.Helper()
	const calls = "pread64,read,mmap,copy_file_range"
	tracer := v.attach(v.daemon(), "-P", file, "-e", "trace="+calls, "-e", "inject="+calls+":error=EIO")
	end = sync.OnceFunc(func() { endTracer(tracer) })
	v.t.Cleanup(end)
	return end
}

// TestAttributeTooBig: an attribute that is too big for a file of warm's file system is no full disk: ENOSPC at once,
// and nothing leaves warm.
func TestAttributeTooBig(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v", withSource(newBareRepo(t, "remote.git", user{})),
		withState(smallDisk(t, "disk", 64)+"/state"), onlyByCommand(),
		withOpts("warm_reserve=none")) // its default is all of the disk, so that files leave warm anyway
	v.mount()
	for i := range 100 {
		check(t, os.WriteFile(v.at(fmt.Sprint(i)), bytes.Repeat([]byte{1}, 8<<10), 0o644))
	}
	v.sync()
	before := v.status()
	for range 3 {
		if err := unix.Setxattr(v.at("1"), "user.big", make([]byte, 10_000), 0); !errors.Is(err, unix.ENOSPC) &&
			!errors.Is(err, unix.E2BIG) {
			t.Errorf("an attribute of 10,000 bytes on ext4: %v", err)
		}
	}
	after := v.status()
	if after.Tiers.Warm.Released != before.Tiers.Warm.Released || after.LastCommit.ID != before.LastCommit.ID {
		t.Errorf("files left warm for it: %+v, before %+v", after.Tiers.Warm, before.Tiers.Warm)
	}
	if b, err := os.ReadFile(v.at("1")); err != nil || len(b) != 8<<10 {
		t.Errorf("the file has %d bytes, %v", len(b), err)
	}
	v.umount()
}

// TestRestoreLeavesPartsOut: what the file system that is restored to does not take is left out by itself and named;
// all else comes back.
func TestRestoreLeavesPartsOut(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	// Takes larger attributes than ext4.
	v := newVolume(t, "v", withSource(repo), withState(smallDisk(t, "disk", 400, "mkfs.xfs", "-q")+"/state")).mount()
	check(t, os.Mkdir(v.at("d"), 0o700))
	for _, n := range []string{"a", "b", "c"} {
		check(t, os.WriteFile(v.at("d/"+n), []byte(n), 0o640))
	}
	check(t, unix.Setxattr(v.at("d/b"), "user.thumb", make([]byte, 9000), 0))
	check(t, unix.Setxattr(v.at("d/b"), "user.small", []byte("kept"), 0))
	check(t, unix.Setxattr(v.at("d"), "user.thumb", make([]byte, 9000), 0))
	v.umount()
	to := smallDisk(t, "target", 64) + "/to"
	r := v.emberfs("restore", "--from", repo, "--to", to)
	if r.code != 3 || !strings.Contains(r.stderr, "left out here") || !strings.Contains(r.stderr, "d/b") ||
		strings.Contains(r.stderr, "d/a") {
		t.Errorf("want exit 3 and what was left out\n%v", r)
	}
	for _, n := range []string{"a", "b", "c"} {
		b, err := os.ReadFile(to + "/d/" + n)
		st, serr := os.Stat(to + "/d/" + n)
		if err != nil || string(b) != n || serr != nil || st.Mode().Perm() != 0o640 {
			t.Errorf("%s: %q, %v, %v, %v", n, b, err, st, serr)
		}
	}
	value := make([]byte, 10)
	if n, err := unix.Getxattr(to+"/d/b", "user.small", value); err != nil || string(value[:n]) != "kept" {
		t.Errorf("its other attribute: %q, %v", value[:max(n, 0)], err)
	}
	if st, err := os.Stat(to + "/d"); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v", st, err)
	}
}
