//go:build slow

package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
)

// makeOddTree fills dir with everything that a tree may hold and that a backup may lose.
func makeOddTree(t testing.TB, dir string) {
	t.Helper()
	at := func(name string) string { return dir + "/" + name }
	write := func(name, content string) string {
		t.Helper()
		check(t, os.MkdirAll(filepath.Dir(at(name)), 0o755))
		check(t, os.WriteFile(at(name), []byte(content), 0o644))
		return at(name)
	}
	for _, n := range oddNames() {
		write("names/"+n, "file "+n)
		check(t, os.Mkdir(at("dirs-"+fmt.Sprintf("%x", n)[:min(40, 2*len(n))]), 0o755))
		check(t, os.MkdirAll(at("under")+"/"+n, 0o755))
		check(t, os.WriteFile(at("under")+"/"+n+"/f", []byte(n), 0o644))
	}
	// nested repositories, with and without a working tree
	must(t, "/", "git", "init", "-q", "-b", "main", at("nested"))
	write("nested/file", "x")
	must(t, at("nested"), "git", "add", "-A")
	must(t, at("nested"), "git", "commit", "-qm", "x")
	must(t, "/", "git", "clone", "-q", "--bare", at("nested"), at("bare.git"))
	// every kind of node
	check(t, unix.Mkfifo(at("fifo"), 0o640))
	check(t, unix.Mknod(at("socket"), unix.S_IFSOCK|0o755, 0))
	check(t, unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	check(t, unix.Mknod(at("block"), unix.S_IFBLK|0o600, int(unix.Mkdev(259, 70000))))
	check(t, os.Symlink("nowhere/at all", at("dangling")))
	check(t, os.Symlink(strings.Repeat("t", 4095), at("long-link")))
	check(t, os.Symlink("/etc/passwd", at("absolute")))
	check(t, os.Symlink("\xff\xfe", at("latin-link")))
	check(t, os.Lchown(at("dangling"), 1001, 1002))
	check(t, os.MkdirAll(at("empty/a/b"), 0o755))
	check(t, os.Mkdir(at("only-fifo"), 0o755))
	check(t, unix.Mkfifo(at("only-fifo/p"), 0o600))
	// hard links in one directory, across directories, of a symlink and of a fifo, and of an empty file
	write("hard/one", "linked")
	check(t, os.Link(at("hard/one"), at("hard/two")))
	check(t, os.MkdirAll(at("other/deep"), 0o755))
	check(t, os.Link(at("hard/one"), at("other/deep/three")))
	check(t, unix.Linkat(unix.AT_FDCWD, at("dangling"), unix.AT_FDCWD, at("other/dangling2"), 0))
	check(t, os.Link(at("fifo"), at("other/fifo2")))
	check(t, os.Link(write("empty-file", ""), at("other/empty2")))
	write("same-content", "linked") // equal bytes, but no link
	// modes, owners, attributes
	for i, mode := range []uint32{0, 0o100, 0o400, 0o444, 0o4755, 0o2755, 0o1777, 0o6711, 0o7777, 0o666} {
		f := write(fmt.Sprintf("modes/f%d", i), "x")
		check(t, os.Chown(f, i*1000, i*7))
		check(t, unix.Chmod(f, mode))
		d := at(fmt.Sprintf("modes/d%d", i))
		check(t, os.Mkdir(d, 0o755))
		check(t, unix.Chmod(d, mode))
	}
	check(t, os.Lchown(write("big-ids", "x"), 1<<31+5, 1<<32-3))
	x := write("xattrs/f", "x")
	for n, v := range map[string]string{"user.plain": "v", "user.empty": "", "user.bytes": "\x00\xff\n",
		"trusted.t": "t", "security.test": "s", "user.\xfflatin": "v", "user.long": strings.Repeat("v", 1500)} {
		check(t, unix.Lsetxattr(x, n, []byte(v), 0))
	}
	check(t, unix.Lsetxattr(write("xattrs/cap", "x"), "security.capability",
		[]byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	check(t, unix.Lsetxattr(at("absolute"), "trusted.link", []byte("of a link"), 0))
	check(t, unix.Lsetxattr(at("xattrs"), "user.dir", []byte("of a directory"), 0))
	check(t, unix.Lsetxattr(dir, "user.root", []byte("of the root"), 0))
	check(t, unix.Lsetxattr(write("acl/f", "x"), aclAccessName,
		[]byte(acl("u::rw- u:1234:rwx g::r-- g:77:-w- m::rwx o::---")), 0))
	check(t, unix.Lsetxattr(at("acl"), aclDefaultName, []byte(acl("u::rwx u:1234:r-x g::r-x m::rwx o::---")), 0))
	write("acl/inherited", "x")
	check(t, os.Mkdir(at("acl/sub"), 0o755))
	oddSizes(t, dir)
	// depth, length and number
	write(strings.Repeat("level/", 30)+"bottom", "deep")
	write("long/"+strings.Repeat("n", 255)+"/"+strings.Repeat("\xc3\xa9", 127)+"/f", "x")
	check(t, os.MkdirAll(at("many"), 0o755))
	many := 700 // the metadata of more than 512 is split up
	if effort.Soaking() {
		many = 10_000
	}
	for i := range many {
		check(t, os.WriteFile(at(fmt.Sprintf("many/entry %05d", i)), fmt.Appendf(nil, "%d", i%97), 0o644))
	}
	oddTimes(t, dir)
}

func oddNames() []string {
	return []string{
		"new\nline", "tab\there", " leading", "trailing ", "caf\xe9 latin-1", "\xff\xfe\xfd", "%", "100%25", "%2F",
		"quote\"'`", `back\slash`, `a\.git`,
		".git", ".GIT", ".Git", "git~1", "GIT~1", "git~2", ".git ", ".git.", ".git::$INDEX_ALLOCATION", ".g\u200cit",
		".gitmodules", ".GITMODULES", "gitmod~1",
		".gitignore", ".gitattributes", ".gitattributes ", "gi7eba~1", ".emberfs", ".emberfs%entries", ".emberfs%25",
		".emberfsx", ".EMBERFS", "-rf", "--", "~", "#", ":",
		"con", "aux.txt", "\x01control", "\x7f", "e\u0301", "\u00e9", "\U0001f525", strings.Repeat("x", 255),
		".emberfs" + strings.Repeat("\x01", 247), "HEAD", "refs", "...", "..a",
	}
}

func oddSizes(t testing.TB, dir string) {
	rnd := rand.New(rand.NewSource(3))
	for _, size := range []int{0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20, 9 << 20} {
		b := make([]byte, size)
		rnd.Read(b)
		check(t, os.WriteFile(fmt.Sprintf("%s/size-%d", dir, size), b, 0o644))
	}
	for name, at := range map[string][]int64{"sparse-empty": nil, "sparse-middle": {8 << 20},
		"sparse-ends": {0, 31<<20 - 10}, "sparse-comb": {1 << 20, 3 << 20, 5 << 20, 7 << 20}} {
		f, err := os.Create(dir + "/" + name)
		check(t, err)
		check(t, f.Truncate(32<<20))
		for _, off := range at {
			_, err = f.WriteAt([]byte(strings.Repeat("data", 5000)), off)
			check(t, err)
		}
		check(t, f.Close())
	}
}

func oddTimes(t testing.TB, dir string) {
	set := func(name string, m unix.Timespec) {
		check(t, unix.UtimesNanoAt(unix.AT_FDCWD, dir+"/"+name, []unix.Timespec{ts(1e9, 0), m},
			unix.AT_SYMLINK_NOFOLLOW))
	}
	check(t, os.Mkdir(dir+"/times", 0o755))
	for i, m := range []unix.Timespec{ts(-1, 999999999), ts(-2000000000, 1), ts(0, 0), ts(0, 1), ts(1e9, 123456789),
		ts(4102444800, 5), ts(2147483648, 0)} {
		n := fmt.Sprintf("times/t%d", i)
		check(t, os.WriteFile(dir+"/"+n, nil, 0o644))
		set(n, m)
	}
	set("dangling", ts(-5, 6))
	set("fifo", ts(7, 8))
	set("null", ts(9, 10))
	set("empty/a", ts(-11, 12))
	set("times", ts(13, 14))
	set("many", ts(15, 16))
	set("", ts(1111111111, 222222222))
}

// scanTree describes everything below dir that a restore must bring back, one entry a path.
func scanTree(t testing.TB, dir string) map[string]string {
	t.Helper()
	seen := map[string]string{}
	groups := map[uint64][]string{}
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return &fs.PathError{Op: "lstat", Path: p, Err: err}
		}
		rel := strings.TrimPrefix(p, dir)
		size := st.Size
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			size = 0
		} else if st.Nlink > 1 {
			groups[st.Ino] = append(groups[st.Ino], rel)
		}
		what, err := contentOf(p, st)
		if err != nil {
			return err
		}
		seen[rel] = fmt.Sprintf("mode %o uid %d gid %d mtime %d.%09d size %d rdev %d xattrs %s content %s", st.Mode,
			st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, size, st.Rdev, xattrsOf(p), what)
		return nil
	})
	check(t, err)
	for _, names := range groups {
		slices.Sort(names)
		for _, n := range names {
			seen[n] += fmt.Sprintf(" links %q", names)
		}
	}
	return seen
}

func contentOf(p string, st unix.Stat_t) (string, error) {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return os.Readlink(p)
	case unix.S_IFREG:
		f, err := os.Open(p)
		if err != nil {
			return "", err
		}
		defer f.Close()
		h := sha256.New()
		_, err = io.Copy(h, f)
		what := hex.EncodeToString(h.Sum(nil)[:8])
		if st.Blocks*512 < st.Size/2 {
			what += " sparse"
		}
		return what, err
	}
	return "", nil
}

func xattrsOf(p string) string {
	b := make([]byte, 65536)
	n, err := unix.Llistxattr(p, b)
	if err != nil {
		return err.Error()
	}
	var all []string
	v := make([]byte, 65536)
	for _, name := range strings.Split(string(b[:n]), "\x00") {
		if name == "" {
			continue
		}
		m, err := unix.Lgetxattr(p, name, v)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		all = append(all, fmt.Sprintf("%q=%q", name, v[:max(m, 0)]))
	}
	sort.Strings(all)
	return strings.Join(all, ",")
}

// sameTree requires that two scans agree, and shows the first differences.
func sameTree(t testing.TB, got, want map[string]string, what string) {
	t.Helper()
	shown := 0
	for p, w := range want {
		if g, ok := got[p]; !ok || g != w {
			if shown++; shown <= 10 {
				t.Errorf("%s: %q\n\tgot  %s\n\twant %s", what, p, got[p], w)
			}
		}
	}
	for p, g := range got {
		if _, ok := want[p]; !ok {
			if shown++; shown <= 10 {
				t.Errorf("%s: %q should not be there: %s", what, p, g)
			}
		}
	}
	if shown > 10 {
		t.Errorf("%s: %d differences in all", what, shown)
	}
}

// rsync copies the tree from, with everything that it has, to the directory to.
func rsync(t testing.TB, from, to string) {
	t.Helper()
	must(t, "/", rsyncArgs("--sparse", from+"/", to+"/")...)
}

// rsyncClean requires that rsync sees no difference at all between two trees.
func rsyncClean(t testing.TB, from, to string) {
	t.Helper()
	out := must(t, "/", rsyncArgs("--dry-run", "--checksum", "--delete", "--itemize-changes", from+"/", to+"/")...)
	if out != "" {
		t.Errorf("rsync between %s and %s:\n%s", from, to, clip(out))
	}
}

// rsyncArgs returns the command of rsync that takes everything there is. Without the window of -1 it compares times by
// the second, and leaves alone those of a directory that it made within the second of its source.
func rsyncArgs(args ...string) []string {
	return append([]string{"rsync", "-aHAX", "--numeric-ids", "--modify-window=-1"}, args...)
}
