package integration

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
)

func dirCases() []pcase {
	return []pcase{
		{name: "readdir_types_and_inodes", run: readdirTypes},
		{name: "readdir_many", run: readdirMany},
		{name: "readdir_while_entries_come_and_go", run: readdirChanging},
		{name: "readdir_sees_changes_after_rewind", run: readdirRewind},
		{name: "telldir_seekdir", run: telldir},
		{name: "readdir_deleting_all", run: readdirDeleting},
		{name: "mkdir_rmdir_errors", run: mkdirErrors},
		{name: "directory_link_count", run: dirLinks},
		{name: "rmdir_of_working_directory", run: rmdirCwd},
		{name: "removed_directory_is_dead", run: removedDir},
		{name: "deep_tree", run: deepTree},
		{name: "getcwd", run: getcwd},
	}
}

type dirent struct {
	ino  uint64
	off  int64
	typ  byte
	name string
}

// readDirents makes one getdents64 call with a buffer of this size.
func (c *tc) readDirents(fd, size int) []dirent {
	c.Helper()
	buf := make([]byte, size)
	n, err := unix.ReadDirent(fd, buf)
	c.ok(err, "getdents64")
	var all []dirent
	for b := buf[:n]; len(b) > 0; {
		l := binary.NativeEndian.Uint16(b[16:])
		name := string(b[19:l])
		all = append(all, dirent{
			ino: binary.NativeEndian.Uint64(b), off: int64(binary.NativeEndian.Uint64(b[8:])), typ: b[18],
			name: name[:strings.IndexByte(name, 0)],
		})
		b = b[l:]
	}
	return all
}

func (c *tc) allDirents(fd, size int) []dirent {
	c.Helper()
	var all []dirent
	for {
		some := c.readDirents(fd, size)
		if len(some) == 0 {
			return all
		}
		all = append(all, some...)
	}
}

func readdirTypes(c *tc) {
	c.file("file", "x")
	c.mkdir("dir")
	c.ok(os.Symlink("x", c.p("link")), "symlink")
	c.ok(unix.Mkfifo(c.p("fifo"), 0o644), "mkfifo")
	fd := c.open(c.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	want := map[string]byte{"file": unix.DT_REG, "dir": unix.DT_DIR, "link": unix.DT_LNK, "fifo": unix.DT_FIFO,
		".": unix.DT_DIR, "..": unix.DT_DIR}
	for _, e := range c.allDirents(fd, 4096) {
		c.equal(e.typ, want[e.name], "type of "+e.name)
		if e.name != ".." {
			c.equal(e.ino, c.lstat(c.p(e.name)).Ino, "inode number of "+e.name)
		}
		delete(want, e.name)
	}
	c.equal(len(want), 0, "entries not listed")
}

func readdirMany(c *tc) {
	n := effort.Count(c, 4_000, 10_000) // many buffers of the kernel
	for i := range n {
		c.ok(unix.Mknod(c.p(fmt.Sprintf("entry-with-a-name-of-some-length-%05d", i)), unix.S_IFREG|0o644, 0), "mknod")
	}
	for _, size := range []int{512, 4096, 1 << 20} {
		fd := c.open(c.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		seen := map[string]bool{}
		for _, e := range c.allDirents(fd, size) {
			c.truth(!seen[e.name], "%s is listed twice", e.name)
			seen[e.name] = true
		}
		c.equal(len(seen), n+2, fmt.Sprintf("entries with a buffer of %d", size))
	}
	es, err := os.ReadDir(c.dir)
	c.ok(err, "readdir")
	for _, e := range es[:100] {
		fi, err := e.Info()
		c.ok(err, "stat")
		c.equal(fi.Size(), int64(0), "size")
	}
}

// readdirChanging holds POSIX to its word: what is there all the time is listed exactly once.
func readdirChanging(c *tc) {
	const keep = 500
	for i := range keep {
		c.file(fmt.Sprintf("keep-%04d", i), "")
		c.file(fmt.Sprintf("drop-%04d", i), "")
	}
	fd := c.open(c.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	seen := map[string]int{}
	for round := 0; ; round++ {
		some := c.readDirents(fd, 2048)
		if len(some) == 0 {
			break
		}
		for _, e := range some {
			seen[e.name]++
		}
		for i := round * 8; i < round*8+8 && i < keep; i++ {
			_ = os.Remove(c.p(fmt.Sprintf("drop-%04d", i)))
			c.file(fmt.Sprintf("new-%04d", i), "")
		}
	}
	for i := range keep {
		n := fmt.Sprintf("keep-%04d", i)
		c.equal(seen[n], 1, "times that "+n+" was listed")
	}
	for n, times := range seen {
		c.truth(times == 1, "%s was listed %d times", n, times)
	}
}

func readdirRewind(c *tc) {
	c.file("a", "")
	fd := c.open(c.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	c.equal(len(c.allDirents(fd, 4096)), 3, "entries")
	c.file("b", "")
	c.ok(os.Remove(c.p("a")), "remove")
	_, err := unix.Seek(fd, 0, unix.SEEK_SET)
	c.ok(err, "rewind")
	var names []string
	for _, e := range c.allDirents(fd, 4096) {
		if e.name != "." && e.name != ".." {
			names = append(names, e.name)
		}
	}
	c.equal(strings.Join(names, " "), "b", "entries after rewinding")
	c.equal(c.names(c.dir), "b", "entries of a new stream")
}

func telldir(c *tc) {
	for i := range 300 {
		c.file(fmt.Sprintf("f%03d", i), "")
	}
	fd := c.open(c.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	all := c.allDirents(fd, 1024)
	for _, i := range []int{150, 10, 299, 0, 200} {
		_, err := unix.Seek(fd, all[i].off, unix.SEEK_SET)
		c.ok(err, "seek")
		next := c.readDirents(fd, 1024)
		c.truth(len(next) > 0, "nothing after entry %d of %d", i, len(all))
		c.equal(next[0].name, all[i+1].name, fmt.Sprint("entry after ", i))
	}
	// positions stay good when other entries go
	gone := 20
	for strings.HasPrefix(all[gone].name, ".") { // a file system puts . and .. where their hashes are
		gone++
	}
	c.ok(os.Remove(c.p(all[gone].name)), "remove")
	_, err := unix.Seek(fd, all[100].off, unix.SEEK_SET)
	c.ok(err, "seek")
	c.equal(c.readDirents(fd, 1024)[0].name, all[101].name, "entry at a position taken before a removal")
}

func readdirDeleting(c *tc) {
	for i := range 2000 {
		c.file(fmt.Sprintf("f%04d", i), "")
	}
	fd := c.open(c.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	for {
		some := c.readDirents(fd, 4096)
		if len(some) == 0 {
			break
		}
		for _, e := range some {
			if e.name != "." && e.name != ".." {
				c.ok(unix.Unlink(c.p(e.name)), "unlink")
			}
		}
	}
	c.equal(c.names(c.dir), "", "what rm -r would have left")
	c.ok(os.Remove(c.dir), "rmdir")
}

func mkdirErrors(c *tc) {
	f, d := c.file("f", ""), c.mkdir("d")
	c.want(unix.Mkdir(d, 0o755), unix.EEXIST, "mkdir over a directory")
	c.want(unix.Mkdir(f, 0o755), unix.EEXIST, "mkdir over a file")
	c.want(unix.Mkdir(f+"/x", 0o755), unix.ENOTDIR, "mkdir below a file")
	c.want(unix.Mkdir(c.p("n/x"), 0o755), unix.ENOENT, "mkdir below nothing")
	c.want(unix.Rmdir(f), unix.ENOTDIR, "rmdir of a file")
	c.want(unix.Rmdir(c.p("n")), unix.ENOENT, "rmdir of nothing")
	c.want(unix.Rmdir(d+"/."), unix.EINVAL, "rmdir of dot")
	c.want(unix.Unlink(d), unix.EISDIR, "unlink of a directory")
	c.file("d/x", "")
	c.want(unix.Rmdir(d), unix.ENOTEMPTY, "rmdir of a full directory")
	c.want(unix.Rmdir(d+"/.."), unix.ENOTEMPTY, "rmdir of dot dot")
	c.ok(unix.Mkdir(c.dir+"/slash/", 0o755), "mkdir with a slash")
}

func dirLinks(c *tc) {
	d := c.mkdir("d")
	c.equal(c.lstat(d).Nlink, uint64(2), "links of an empty directory")
	c.mkdir("d/a")
	c.mkdir("d/b")
	c.file("d/f", "")
	c.equal(c.lstat(d).Nlink, uint64(4), "links with two directories")
	c.ok(os.Rename(c.p("d/a"), c.p("a")), "rename")
	c.equal(c.lstat(d).Nlink, uint64(3), "links after one moved out")
	c.ok(unix.Rmdir(c.p("d/b")), "rmdir")
	c.equal(c.lstat(d).Nlink, uint64(2), "links after one was removed")
}

func rmdirCwd(c *tc) {
	d := c.mkdir("d")
	c.ok(isolated(func() error {
		if err := unix.Chdir(d); err != nil {
			return err
		}
		if err := unix.Rmdir(d); err != nil {
			return err
		}
		if _, err := unix.Getwd(); err != unix.ENOENT {
			return fmt.Errorf("getcwd in a removed directory: %v", err)
		}
		if err := errnoOf("x", unix.O_CREAT|unix.O_WRONLY, 0o644); err != unix.ENOENT {
			return fmt.Errorf("create in a removed directory: %v", err)
		}
		var st unix.Stat_t
		if err := unix.Stat(".", &st); err != nil || st.Nlink != 0 {
			return fmt.Errorf("stat of a removed working directory: %v, %d links", err, st.Nlink)
		}
		return nil
	}), "rmdir of the working directory")
}

func removedDir(c *tc) {
	d := c.mkdir("d")
	fd := c.open(d, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	c.ok(unix.Rmdir(d), "rmdir")
	c.want(unix.Mkdirat(fd, "x", 0o755), unix.ENOENT, "mkdir in a removed directory")
	c.want(unix.Symlinkat("x", fd, "y"), unix.ENOENT, "symlink in a removed directory")
	c.equal(c.fstat(fd).Nlink, uint64(0), "links")
	_, err := unix.ReadDirent(fd, make([]byte, 4096))
	c.want(err, unix.ENOENT, "listing a removed directory")
	c.mkdir("d")
	c.equal(c.names(d), "", "entries of a directory made anew")
}

func deepTree(c *tc) {
	name := strings.Repeat("d", 60)
	const depth = 120 // 7,300 bytes, longer than PATH_MAX
	fds := []int{c.open(c.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)}
	for i := range depth {
		c.ok(unix.Mkdirat(fds[i], name, 0o755), "mkdirat")
		fd, err := unix.Openat(fds[i], name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		c.ok(err, "openat")
		fds = append(fds, fd)
	}
	f, err := unix.Openat(fds[depth], "bottom", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	c.ok(err, "create at the bottom")
	_, err = unix.Write(f, []byte("deep"))
	c.ok(err, "write")
	c.ok(unix.Close(f), "close")
	c.ok(unix.Unlinkat(fds[depth], "bottom", 0), "unlinkat")
	for i := depth; i > 0; i-- {
		c.ok(unix.Close(fds[i]), "close")
		c.ok(unix.Unlinkat(fds[i-1], name, unix.AT_REMOVEDIR), "rmdir")
	}
}

func getcwd(c *tc) {
	d := c.mkdir("d")
	c.ok(isolated(func() error {
		if err := unix.Chdir(d); err != nil {
			return err
		}
		if err := os.Rename(d, c.p("e")); err != nil {
			return err
		}
		var buf [4096]byte
		n, err := unix.Getcwd(buf[:])
		if err != nil {
			return err
		}
		if got := string(buf[:n-1]); got != c.p("e") {
			return fmt.Errorf("working directory after a rename: %s", got)
		}
		return nil
	}), "getcwd")
}
