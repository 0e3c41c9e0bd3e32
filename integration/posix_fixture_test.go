package integration

import (
	"emberfs/integration/testprog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fixtureSize is the size of the fixture's data files: over one block of the hot tier, not a whole number of pages.
const fixtureSize = 150_001

func fixtureContent() string {
	return strings.Repeat("The quick brown fox jumps over the lazy dog.\n", fixtureSize/45+1)[:fixtureSize]
}

// makeFixture makes dir/pre, which a case finds as it was made or, after a restore, as it came from the commit.
func makeFixture(t testing.TB, dir string) {
	t.Helper()
	pre := filepath.Join(dir, "pre")
	check(t, os.MkdirAll(pre+"/dir/sub", 0o755))
	check(t, os.MkdirAll(pre+"/empty", 0o755))
	for _, n := range []string{"file", "hard1", "dir/inner", "dir/sub/leaf"} {
		check(t, os.WriteFile(filepath.Join(pre, n), []byte(fixtureContent()), 0o644))
	}
	check(t, os.Link(pre+"/hard1", pre+"/dir/hard2"))
	check(t, os.Symlink("file", pre+"/link"))
	check(t, unix.Mkfifo(pre+"/fifo", 0o644))
	check(t, testprog.Write(pre+"/script", "#!/bin/sh\necho ran\n"))
	f, err := os.Create(pre + "/sparse")
	check(t, err)
	defer f.Close()
	check(t, f.Truncate(10<<20))
	_, err = f.WriteAt([]byte(fixtureContent()), 1<<20)
	check(t, err)
	check(t, unix.Setxattr(pre+"/file", "user.k", []byte("v"), 0))
	check(t, unix.UtimesNanoAt(unix.AT_FDCWD, pre+"/file", []unix.Timespec{ts(1, 2), ts(-3, 4)}, 0))
}

func fixtureCases() []pcase {
	steps := map[string]func(*tc){
		"as_made":          fixtureAsMade,
		"read_in_parts":    func(c *tc) { c.preRead("file", 64<<10-10, 100); c.preRead("file", fixtureSize-5, 100) },
		"overwrite_middle": func(c *tc) { c.preChange("file", unix.O_RDWR, 70_000, "CHANGED") },
		"append":           func(c *tc) { c.preChange("file", unix.O_RDWR|unix.O_APPEND, fixtureSize, "MORE") },
		"truncate_short": func(c *tc) {
			c.ok(unix.Truncate(c.pre("file"), 100), "truncate")
			c.content(c.pre("file"), fixtureContent()[:100])
		},
		"truncate_grow": func(c *tc) {
			c.ok(unix.Truncate(c.pre("file"), fixtureSize+10), "truncate")
			c.content(c.pre("file"), fixtureContent()+strings.Repeat("\x00", 10))
		},
		"o_trunc": func(c *tc) {
			c.ok(os.WriteFile(c.pre("file"), []byte("new"), 0o644), "write")
			c.content(c.pre("file"), "new")
			c.equal(c.getx(c.pre("file"), "user.k"), "v", "xattr")
		},
		"chmod_then_read": func(c *tc) {
			c.ok(unix.Chmod(c.pre("file"), 0o600), "chmod")
			c.equal(c.lstat(c.pre("file")).Mtim, ts(-3, 4), "mtime after chmod")
			c.content(c.pre("file"), fixtureContent())
		},
		"write_by_one_hard_link": func(c *tc) {
			c.preChange("hard1", unix.O_RDWR, 10, "CHANGED")
			want := []byte(fixtureContent())
			copy(want[10:], "CHANGED")
			c.content(c.pre("dir/hard2"), string(want))
		},
		"punch_and_seek":         fixturePunch,
		"sparse":                 fixtureSparse,
		"map_and_write":          fixtureMap,
		"copy_file_range":        fixtureCopy,
		"rename_and_replace":     fixtureRename,
		"unlink_while_open":      fixtureUnlink,
		"new_entries_in_old_dir": fixtureNewEntries,
		"remove_tree": func(c *tc) {
			c.ok(os.RemoveAll(c.pre("")), "rm -r")
			c.equal(c.names(c.dir), "", "names")
		},
		"exec": func(c *tc) {
			c.equal(command{args: []string{c.pre("script")}}.must(c), "ran\n", "output")
		},
		"readdir_before_lookup": func(c *tc) { c.equal(c.names(c.pre("dir")), "hard2 inner sub", "names") },
		"create_exclusive_refused": func(c *tc) {
			c.want(errnoOf(c.pre("dir/inner"), unix.O_CREAT|unix.O_EXCL, 0o644), unix.EEXIST, "O_EXCL")
		},
	}
	var all []pcase
	for n, f := range steps {
		all = append(all, pcase{name: "existing_" + n, fixture: true, run: f})
	}
	slices.SortFunc(all, func(a, b pcase) int { return strings.Compare(a.name, b.name) })
	return all
}

func (c *tc) preRead(name string, off int64, n int) {
	c.Helper()
	fd := c.open(c.pre(name), unix.O_RDONLY, 0)
	c.same(c.pread(fd, n, off), []byte(fixtureContent())[off:min(int64(fixtureSize), off+int64(n))], name)
}

func (c *tc) preChange(name string, flags int, off int64, text string) {
	c.Helper()
	fd := c.open(c.pre(name), flags, 0)
	c.pwrite(fd, text, off)
	want := []byte(fixtureContent())
	want = append(want[:off], append([]byte(text), want[min(len(want), int(off)+len(text)):]...)...)
	c.content(c.pre(name), string(want))
	c.equal(c.fstat(fd).Size, int64(len(want)), "size")
}

func fixtureAsMade(c *tc) {
	st := c.lstat(c.pre("file"))
	c.equal(st.Size, int64(fixtureSize), "size")
	c.equal(st.Mtim, ts(-3, 4), "mtime")
	c.truth(st.Blocks*512 >= fixtureSize/2, "%d blocks for %d bytes", st.Blocks, st.Size)
	c.equal(c.getx(c.pre("file"), "user.k"), "v", "xattr")
	c.content(c.pre("link"), fixtureContent())
	c.equal(c.lstat(c.pre("hard1")).Ino, c.lstat(c.pre("dir/hard2")).Ino, "inode numbers of two names")
	c.equal(c.lstat(c.pre("hard1")).Nlink, uint64(2), "links")
	c.equal(c.lstat(c.pre("fifo")).Mode&unix.S_IFMT, uint32(unix.S_IFIFO), "type of fifo")
	c.equal(c.names(c.pre("empty")), "", "the empty directory")
	c.equal(c.lstat(c.pre("dir")).Nlink, uint64(3), "links of a directory")
}

func fixturePunch(c *tc) {
	fd := c.open(c.pre("file"), unix.O_RDWR, 0)
	c.ok(unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 8192, 65536), "punch")
	want := []byte(fixtureContent())
	copy(want[8192:], make([]byte, 65536))
	c.content(c.pre("file"), string(want))
	c.seek(fd, 0, unix.SEEK_HOLE, 8192, "SEEK_HOLE")
}

func fixtureSparse(c *tc) {
	st := c.lstat(c.pre("sparse"))
	c.equal(st.Size, int64(10<<20), "size")
	c.truth(st.Blocks*512 < 1<<20, "%d blocks: the holes are gone", st.Blocks)
	fd := c.open(c.pre("sparse"), unix.O_RDONLY, 0)
	c.seek(fd, 0, unix.SEEK_DATA, 1<<20, "SEEK_DATA")
	c.same(c.pread(fd, fixtureSize, 1<<20), []byte(fixtureContent()), "data of the sparse file")
}

func fixtureMap(c *tc) {
	fd := c.open(c.pre("dir/inner"), unix.O_RDWR, 0)
	m := c.mmap(fd, fixtureSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	c.same(m, []byte(fixtureContent()), "map")
	copy(m[100_000:], "CHANGED")
	c.ok(unix.Msync(m, unix.MS_SYNC), "msync")
	want := []byte(fixtureContent())
	copy(want[100_000:], "CHANGED")
	c.content(c.pre("dir/inner"), string(want))
}

func fixtureCopy(c *tc) {
	in, out := c.open(c.pre("dir/sub/leaf"), unix.O_RDONLY, 0), c.open(c.pre("copy"), unix.O_CREAT|unix.O_RDWR, 0o644)
	for done := 0; done < fixtureSize; {
		n, err := unix.CopyFileRange(in, nil, out, nil, fixtureSize, 0)
		c.ok(err, "copy_file_range")
		c.truth(n > 0, "copied nothing")
		done += n
	}
	c.content(c.pre("copy"), fixtureContent())
}

func fixtureRename(c *tc) {
	c.ok(os.Rename(c.pre("dir"), c.pre("moved")), "rename of a directory")
	c.content(c.pre("moved/sub/leaf"), fixtureContent())
	c.ok(os.WriteFile(c.pre("new"), []byte("new"), 0o644), "write")
	c.ok(os.Rename(c.pre("new"), c.pre("file")), "rename over a file")
	c.content(c.pre("file"), "new")
	c.ok(os.Rename(c.pre("moved/inner"), c.pre("moved/hard2")), "rename over a hard link")
	c.equal(c.lstat(c.pre("hard1")).Nlink, uint64(1), "links")
	c.content(c.pre("hard1"), fixtureContent())
}

func fixtureUnlink(c *tc) {
	fd := c.open(c.pre("file"), unix.O_RDWR, 0)
	c.ok(os.Remove(c.pre("file")), "unlink")
	c.same(c.pread(fd, fixtureSize, 0), []byte(fixtureContent()), "an unlinked file")
	c.pwrite(fd, "x", 0)
	c.ok(unix.Ftruncate(fd, 5), "ftruncate")
}

func fixtureNewEntries(c *tc) {
	c.ok(os.WriteFile(c.pre("dir/new"), []byte("x"), 0o644), "create")
	c.ok(os.Mkdir(c.pre("empty/new"), 0o755), "mkdir")
	c.ok(os.Link(c.pre("file"), c.pre("dir/sub/third")), "link")
	c.equal(c.names(c.pre("dir")), "hard2 inner new sub", "names")
	c.equal(c.names(c.pre("dir/sub")), "leaf third", "names")
	c.content(c.pre("dir/sub/third"), fixtureContent())
	c.equal(c.lstat(c.pre("file")).Nlink, uint64(2), "links")
}
