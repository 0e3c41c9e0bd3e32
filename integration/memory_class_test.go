package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tmpfsBelow lists the tmpfs mounts below a directory.
func tmpfsBelow(dir string) []mountEntry {
	return slices.DeleteFunc(mountsBelow(dir), func(m mountEntry) bool { return m.fstype != "tmpfs" })
}

// names lists a directory by readdir, sorted.
func names(t testing.TB, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	check(t, err)
	var all []string
	for _, e := range list {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	check(t, err)
	return string(b)
}

func wantErrno(t testing.TB, err error, errno unix.Errno, what string) {
	t.Helper()
	if !errors.Is(err, errno) {
		t.Errorf("%s: got %v, want %v (%s)", what, err, errno, unix.ErrnoName(errno))
	}
}

// TestMemoryClassLimit fills a memory directory: ENOSPC there, and the rest of the volume goes on.
func TestMemoryClassLimit(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v", withOpts("memory_class_limit=4MiB"), withMemory("mem", "mem2")).mount()
	check(t, os.Mkdir(v.at("mem"), 0o755))
	wantErrno(t, os.WriteFile(v.at("mem/big"), make([]byte, 5<<20), 0o644), unix.ENOSPC, "5 MiB of 4")
	st := v.status().Memory
	if !st.Available || st.Limit != 4<<20 || st.Bytes < 3<<20 || st.Bytes > st.Limit {
		t.Errorf("status says %+v", st)
	}
	check(t, os.WriteFile(v.at("disk"), make([]byte, 6<<20), 0o644))
	var fs unix.Statfs_t
	check(t, unix.Statfs(v.at("mem"), &fs))
	if free, size := int64(fs.Bavail)*fs.Bsize, int64(fs.Blocks)*fs.Bsize; free != 0 || size != 4<<20 {
		t.Errorf("statfs of the memory directory: %d of %d bytes are free", free, size)
	}
	for i := range 5 { // what was removed makes room at once
		check(t, os.Remove(v.at("mem/big")))
		if err := os.WriteFile(v.at("mem/big"), make([]byte, 3<<20), 0o644); err != nil {
			t.Fatalf("after a removal, %d: %v", i, err)
		}
	}
	for i := 0; ; i++ { // inodes are bounded too
		if err := os.WriteFile(v.at(fmt.Sprintf("mem/%d", i)), nil, 0o644); err != nil {
			wantErrno(t, err, unix.ENOSPC, "an empty file")
			break
		}
		if i > 10_000 {
			t.Fatal("10000 files in 4 MiB: there is no bound")
		}
	}
	wantErrno(t, os.Mkdir(v.at("mem2"), 0o755), unix.ENOSPC, "another memory directory")
	equal(t, names(t, v.mnt), "disk mem", "after a mkdir that failed:")
	check(t, os.WriteFile(v.at("disk2"), []byte("x"), 0o644))
	v.umount()
}

// TestMemoryBorder moves across the border of a memory directory: the system calls say EXDEV, mv and cp work.
func TestMemoryBorder(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v", withMemory("mem", "d/deep")).mount()
	check(t, os.MkdirAll(v.at("mem/sub"), 0o755))
	check(t, os.Mkdir(v.at("disk"), 0o755))
	check(t, os.WriteFile(v.at("mem/m"), []byte("in memory"), 0o644))
	check(t, os.WriteFile(v.at("disk/f"), []byte("on disk"), 0o644))
	for _, c := range [][2]string{{"mem/m", "disk/m"}, {"disk/f", "mem/f"}, {"mem/sub", "disk/sub"},
		{"disk", "mem/disk"}, {"mem", "moved"}, {"disk", "d"}, {"mem", "disk/mem"}} {
		want := unix.EXDEV
		if c[1] == "d" { // no border: only d/deep is of class memory
			continue
		}
		wantErrno(t, unix.Rename(v.at(c[0]), v.at(c[1])), want, fmt.Sprint("rename ", c))
	}
	wantErrno(t, unix.Renameat2(unix.AT_FDCWD, v.at("mem/m"), unix.AT_FDCWD, v.at("disk/f"), unix.RENAME_EXCHANGE),
		unix.EXDEV, "exchange")
	wantErrno(t, os.Link(v.at("mem/m"), v.at("disk/l")), unix.EXDEV, "link out")
	wantErrno(t, os.Link(v.at("disk/f"), v.at("mem/l")), unix.EXDEV, "link in")
	check(t, os.Mkdir(v.at("empty"), 0o755))
	wantErrno(t, unix.Rename(v.at("empty"), v.at("mem")), unix.EXDEV, "rename over a memory directory")
	check(t, os.MkdirAll(v.at("d/x"), 0o755))
	wantErrno(t, unix.Rename(v.at("d/x"), v.at("d/deep")), unix.EXDEV, "rename to where a memory directory is to be")

	must(t, "/", "mv", v.at("mem/m"), v.at("disk/m"))
	must(t, "/", "mv", v.at("disk/f"), v.at("mem/f"))
	must(t, "/", "mv", v.at("disk"), v.at("mem/disk"))
	if a, b := read(t, v.at("mem/disk/m")), read(t, v.at("mem/f")); a != "in memory" || b != "on disk" {
		t.Errorf("after mv: %q and %q", a, b)
	}
	must(t, "/", "mv", v.at("mem"), v.at("was"))
	if _, err := os.Stat(v.at("mem")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("mem after mv: %v", err)
	}
	if b := read(t, filepath.Join(v.state, "warm/was/disk/m")); b != "in memory" {
		t.Errorf("moved out of memory: %q in warm", b)
	}
	in, err := os.Open(v.at("was/f"))
	check(t, err)
	defer in.Close()
	check(t, os.Mkdir(v.at("mem"), 0o755))
	out, err := os.Create(v.at("mem/copy"))
	check(t, err)
	defer out.Close()
	if n, err := unix.CopyFileRange(int(in.Fd()), nil, int(out.Fd()), nil, 7, 0); n != 7 || err != nil {
		t.Errorf("copy_file_range across the border: %d, %v", n, err)
	}
	in.Close()
	out.Close()

	// A directory that moves takes the memory directories in it along, as it would a mount.
	check(t, os.Mkdir(v.at("d/deep"), 0o755))
	check(t, os.WriteFile(v.at("d/deep/f"), []byte("deep"), 0o644))
	check(t, os.Rename(v.at("d"), v.at("e")))
	equal(t, read(t, v.at("e/deep/f")), "deep", "after the rename of the parent:")
	equal(t, names(t, filepath.Join(v.state, "warm/e/deep")), "", "warm holds")
	check(t, os.RemoveAll(v.at("mem")))
	check(t, os.RemoveAll(v.at("e")))
	if st := v.status().Memory; st.Files != 0 || st.Bytes != 0 || st.Directories != 0 {
		t.Errorf("all was removed, status says %+v", st)
	}
	v.umount()
}

// TestMemoryNumbers compares the inode numbers that listings and stat show, at the border as well.
func TestMemoryNumbers(t *testing.T) {
	deadline(t, time.Minute)
	for _, cache := range []string{"on", "off"} {
		v := newVolume(t, "v"+cache, withOpts("kernel_cache="+cache), withMemory("mem")).mount()
		check(t, os.MkdirAll(v.at("mem/sub/leaf"), 0o755))
		check(t, os.WriteFile(v.at("mem/f"), nil, 0o644))
		check(t, os.WriteFile(v.at("disk"), nil, 0o644))
		var all []uint64
		for _, dir := range []string{"", "mem", "mem/sub", "mem/sub/leaf"} {
			for name, ino := range direntNumbers(t, v.at(dir)) {
				if dir == "" && name == ".." {
					continue
				}
				var st unix.Stat_t
				check(t, unix.Lstat(v.at(dir)+"/"+name, &st))
				if st.Ino != ino {
					t.Errorf("%s/%s: readdir says %d, stat %d", dir, name, ino, st.Ino)
				}
				if name != "." && name != ".." {
					all = append(all, ino)
				}
			}
		}
		slices.Sort(all)
		if len(slices.Compact(all)) != 5 {
			t.Errorf("inode numbers of 5 files: %v", all)
		}
		v.umount()
	}
}

// direntNumbers gives d_ino by name.
func direntNumbers(t testing.TB, dir string) map[string]uint64 {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	check(t, err)
	defer unix.Close(fd)
	buf, out := make([]byte, 8192), map[string]uint64{}
	for {
		n, err := unix.Getdents(fd, buf)
		check(t, err)
		if n == 0 {
			return out
		}
		for b := buf[:n]; len(b) > 0; {
			length := int(b[16]) | int(b[17])<<8
			name, _, _ := bytes.Cut(b[19:length], []byte{0})
			var ino uint64
			for i := 7; i >= 0; i-- {
				ino = ino<<8 | uint64(b[i])
			}
			out[string(name)] = ino
			b = b[length:]
		}
	}
}

// secret is what must not be found outside of memory; its halves are joined at run time, so that no core of this file
// has it.
func secret() string { return "top" + "-secret-" + strings.Repeat("0123456789", 3) }

// TestMemoryStaysInMemory looks for contents and names of a memory directory in everything that is on the disk.
func TestMemoryStaysInMemory(t *testing.T) {
	deadline(t, 2*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo), withMemory("mem"), withOpts("memory_class_limit=1MiB")).mount()
	check(t, os.Mkdir(v.at("mem"), 0o700))
	check(t, unix.Chmod(v.at("mem"), 0o1777))
	check(t, os.Chown(v.at("mem"), 3, 4))
	f, hidden := v.at("mem/name-"+secret()), strings.ToUpper(secret())
	check(t, os.WriteFile(f, []byte(strings.Repeat(hidden+"\n", 1000)), 0o644))
	check(t, os.WriteFile(v.at("disk"), []byte("on disk"), 0o644))
	_ = read(t, f)
	_ = os.WriteFile(f+"full", make([]byte, 2<<20), 0o644) // an error that somebody might log
	_ = os.Remove(f + "full")
	_ = os.Link(f, v.at("link"))
	if r := v.emberfs("status", f); r.code != 0 || !strings.Contains(r.stdout, "class memory") {
		t.Errorf("status of a file: %v", r)
	}
	v.sync()
	if r := v.emberfs("diff", v.mnt); r.code != 0 || strings.Contains(r.stdout, "mem/") {
		t.Errorf("diff: %v", r)
	}
	v.must("check", v.state)
	if st := v.status(); st.AtRisk.Files != 0 {
		t.Errorf("after a sync: at risk %+v", st.AtRisk)
	}
	v.must("tier", v.mnt, "mem")
	look := func(when string) {
		t.Helper()
		for _, repo := range []string{repo, v.cold()} { // objects are compressed: all of them in the open
			out := must(t, "/", "sh", "-c", "git -C '"+repo+
				"' cat-file --batch --batch-all-objects --buffer | cat -v; git -C '"+repo+"' log --all --format=%B")
			for _, s := range []string{secret(), hidden} {
				if strings.Contains(out, s) {
					t.Errorf("%s: %q is in an object of %s", when, s, repo)
				}
			}
		}
		memory := filepath.Join(v.state, "memory")
		check(t, filepath.WalkDir(v.dir, func(path string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil:
				return err
			case d.IsDir() && (path == memory || path == v.mnt):
				return filepath.SkipDir
			case strings.Contains(d.Name(), secret()):
				t.Errorf("%s: the name is on disk: %s", when, path)
			case d.Type().IsRegular():
				b, err := os.ReadFile(path)
				if err != nil {
					return nil
				}
				if bytes.Contains(b, []byte(hidden)) || bytes.Contains(b, []byte(secret())) {
					t.Errorf("%s: it is in %s", when, path)
				}
			}
			return nil
		}))
	}
	look("mounted")
	v.umount()
	look("unmounted")
	if len(tmpfsBelow(v.dir)) > 0 {
		t.Errorf("umount leaves %+v", tmpfsBelow(v.dir))
	}
	fsck(t, repo)

	next := newVolume(t, "next", withSource(repo), withMemory("mem")).mount()
	var st unix.Stat_t
	check(t, unix.Stat(next.at("mem"), &st))
	if got := names(t, next.at("mem")); got != "" || st.Mode&0o7777 != 0o1777 || st.Uid != 3 || st.Gid != 4 {
		t.Errorf("on the next machine the directory has mode %o, owner %d:%d and holds %q", st.Mode&0o7777, st.Uid,
			st.Gid, got)
	}
	check(t, os.WriteFile(next.at("mem/f"), []byte("x"), 0o644))
	next.umount()
	plain := newVolume(t, "plain", withSource(repo)).mount()
	equal(t, names(t, plain.at("mem")), "", "without the rule:")
	check(t, os.WriteFile(plain.at("mem/f"), []byte("kept"), 0o644))
	plain.umount()
	// What is on disk now stays there, and status says so.
	again := newVolume(t, "again", withSource(repo), withMemory("mem")).mount()
	equal(t, read(t, again.at("mem/f")), "kept", "a directory with entries:")
	check(t, os.WriteFile(again.at("mem/g"), []byte("too"), 0o644))
	equal(t, names(t, filepath.Join(again.state, "warm/mem")), "f g", "a directory with entries on disk: warm holds")
	if n := again.status().Notes; !slices.ContainsFunc(n, func(s string) bool { return strings.Contains(s, "mem ") }) {
		t.Errorf("status notes %q", n)
	}
	check(t, os.Remove(again.at("mem/f")))
	check(t, os.Remove(again.at("mem/g")))
	check(t, os.WriteFile(again.at("mem/h"), []byte("x"), 0o644)) // empty, it is what the rule says
	equal(t, names(t, filepath.Join(again.state, "warm/mem")), "", "once it was empty: warm holds")
	if n := again.status().Notes; len(n) != 0 {
		t.Errorf("status notes %q", n)
	}
	again.umount()
}
