package integration

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func nameCases() []pcase {
	return []pcase{
		{name: "names_of_all_bytes", run: namesAllBytes},
		{name: "name_length", run: nameLength},
		{name: "names_that_git_forbids", run: namesForbidden},
		{name: "names_with_case", run: namesCase},
		{name: "negative_entries", run: negativeEntries},
		{name: "symlink_targets", run: symlinkTargets},
		{name: "symlink_errors", run: symlinkErrors},
		{name: "symlink_chain", run: symlinkChain},
	}
}

func namesAllBytes(c *tc) {
	want := map[string]bool{}
	for b := 1; b < 256; b++ {
		if b == '/' || b == '.' {
			continue
		}
		for _, n := range []string{string([]byte{byte(b)}), string([]byte{'a', byte(b)}),
			string([]byte{byte(b), 'z'})} {
			want[n] = true
		}
	}
	for n := range want {
		c.ok(os.WriteFile(c.dir+"/"+n, []byte(n), 0o644), "create")
	}
	es, err := os.ReadDir(c.dir)
	c.ok(err, "readdir")
	for _, e := range es {
		c.truth(want[e.Name()], "a name nobody made: %q", e.Name())
		c.content(c.dir+"/"+e.Name(), e.Name())
		delete(want, e.Name())
	}
	c.equal(len(want), 0, "names not listed")
}

func nameLength(c *tc) {
	long := strings.Repeat("n", 255)
	c.file(long, "x")
	c.ok(os.Rename(c.p(long), c.p(strings.Repeat("m", 255))), "rename")
	over := c.p(long + "n")
	c.want(errnoOf(over, unix.O_CREAT|unix.O_WRONLY, 0o644), unix.ENAMETOOLONG, "create")
	c.want(unix.Mkdir(over, 0o755), unix.ENAMETOOLONG, "mkdir")
	c.want(unix.Symlink("x", over), unix.ENAMETOOLONG, "symlink")
	c.want(unix.Rename(c.p(strings.Repeat("m", 255)), over), unix.ENAMETOOLONG, "rename")
	var st unix.Stat_t
	c.want(unix.Lstat(over, &st), unix.ENAMETOOLONG, "lstat")
	c.want(unix.Unlink(over), unix.ENAMETOOLONG, "unlink")
	c.want(unix.Lstat(c.dir+strings.Repeat("/.", 2048)+"/x", &st), unix.ENAMETOOLONG, "a path over PATH_MAX")
}

func namesForbidden(c *tc) {
	for _, n := range []string{".git", ".GIT", "git~1", ".gitmodules", ".gitattributes", ".emberfs", ".emberfs%entries",
		".emberfs%25x", ".git ", ".git.", `a\.git`, "%", "%2F"} {
		c.ok(os.Mkdir(c.p("d"), 0o755), "mkdir")
		c.ok(os.Rename(c.p("d"), c.dir+"/"+n), "rename to "+n)
		c.ok(os.WriteFile(c.dir+"/"+n+"/f", []byte(n), 0o644), "write below "+n)
		c.content(c.dir+"/"+n+"/f", n)
		c.ok(os.RemoveAll(c.dir+"/"+n), "remove "+n)
		c.ok(os.WriteFile(c.dir+"/"+n, []byte(n), 0o644), "write "+n)
		c.equal(c.names(c.dir), n, "readdir")
		c.ok(os.Remove(c.dir+"/"+n), "remove")
	}
}

func namesCase(c *tc) {
	c.file("name", "lower")
	c.file("NAME", "upper")
	c.content(c.p("name"), "lower")
	c.content(c.p("NAME"), "upper")
	c.file("\u00e9", "composed")
	c.file("e\u0301", "decomposed")
	c.content(c.p("\u00e9"), "composed")
}

// negativeEntries looks for names first, so that the kernel remembers that they are not there, and then makes them.
func negativeEntries(c *tc) {
	f := c.file("f", "x")
	made := map[string]func(string) error{
		"create":  func(p string) error { return os.WriteFile(p, []byte("x"), 0o644) },
		"link":    func(p string) error { return os.Link(f, p) },
		"symlink": func(p string) error { return os.Symlink("f", p) },
		"mkdir":   func(p string) error { return os.Mkdir(p, 0o755) },
		"fifo":    func(p string) error { return unix.Mkfifo(p, 0o644) },
		"rename":  func(p string) error { return os.Rename(c.file("src", "x"), p) },
	}
	for n, mk := range made {
		p := c.p("new-" + n)
		for range 3 {
			_, err := os.Lstat(p)
			c.truth(os.IsNotExist(err), "%s exists before it is made", n)
		}
		c.ok(mk(p), n)
		c.lstat(p)
		c.ok(os.Remove(p), "remove")
		_, err := os.Lstat(p)
		c.truth(os.IsNotExist(err), "%s exists after it was removed", n)
	}
}

func symlinkTargets(c *tc) {
	for _, target := range []string{"x", "/absolute", "../..", strings.Repeat("t", 4095), "a\nb", "\xff\xfe latin",
		"trailing/", " ", filepath.Join(c.dir, "x")} {
		l := c.p("l")
		c.ok(os.Symlink(target, l), "symlink")
		got, err := os.Readlink(l)
		c.ok(err, "readlink")
		c.equal(got, target, "target")
		st := c.lstat(l)
		c.equal(st.Size, int64(len(target)), "size of the link")
		c.equal(st.Mode, uint32(unix.S_IFLNK|0o777), "mode of the link")
		c.ok(os.Remove(l), "remove")
	}
}

func symlinkErrors(c *tc) {
	f := c.file("f", "x")
	c.want(unix.Symlink("x", f), unix.EEXIST, "symlink over a file")
	c.want(unix.Symlink("", c.p("e")), unix.ENOENT, "empty target")
	c.want(unix.Symlink(strings.Repeat("t", 4096), c.p("e")), unix.ENAMETOOLONG, "target of 4096 bytes")
	_, err := unix.Readlink(f, make([]byte, 10))
	c.want(err, unix.EINVAL, "readlink of a file")
}

func symlinkChain(c *tc) {
	c.file("0", "end")
	prev := "0"
	for i := 1; i <= 40; i++ {
		n := strings.Repeat("l", i)
		c.ok(os.Symlink(prev, c.p(n)), "symlink")
		prev = n
	}
	c.content(c.p(prev), "end")
	c.ok(os.Symlink(prev, c.p("toomany")), "symlink")
	c.want(errnoOf(c.p("toomany"), unix.O_RDONLY, 0), unix.ELOOP, "41 links")
}
