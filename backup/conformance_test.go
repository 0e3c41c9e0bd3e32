package backup

import (
	"fmt"
	"path"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

// oddTree has everything that git cannot hold or holds in its own way.
func oddTree() (*coldtest.File, map[string][]string) {
	root := coldtest.NewDir(0o1777)
	root.Xattrs = []cold.Xattr{{Name: "user.root", Value: []byte("yes")}}
	root.Text("plain", "hello\n")
	root.Text("empty", "")
	root.Text("dir/sub/deep", "x").Mode = 0o755
	root.Text("suid", "s").Mode = 0o6711
	root.Text("ancient", "a").Mtime = cold.Time{Sec: -1 << 40, Nsec: 999999999}
	root.Text("far", "b").Mtime = cold.Time{Sec: 1 << 40}
	for _, name := range []string{
		".git", ".GIT", "git~1", "GIT~7", ".gitmodules", ".gitattributes", ".gitignore", ".gitattributes .", ".git:x",
		".emberfs", ".EMBERFS",
		".emberfs%entries", ".emberfs%x", ".g\u200cit", "a\\.git\\b", "new\nline", "tab\t", " leading", "trailing ",
		"100%", "%41", "\"quote\"", "\\back",
		"latin\xe9", "\xff\xfe", "\x01\x7f", "\u2028", "e\u0301", "\u00e9", strings.Repeat("n", 255),
		".git:" + strings.Repeat("\x01", 250),
		".git" + strings.Repeat(" ", 251), ".git\ufffe", "CON", "a.c", "a", "a-b", "header", "3f", "-", "~1", "~",
	} {
		root.Text("names/"+name, name)
		root.Text("dirs/"+name+"/in", name)
	}
	for _, name := range []string{"HEAD", "config", "objects/aa/bb", "refs/heads/main"} {
		root.Text("nested/.git/"+name, name)
	}
	root.Symlink("link", "../nowhere")
	root.Symlink("links/latin", "caf\xe9")
	root.Symlink("links/long", strings.Repeat("t", 4095))
	root.Symlink("links/git", ".git/x")
	root.Special("fifo", cold.KindFIFO, 0)
	root.Special("special/socket", cold.KindSocket, 0)
	root.Special("special/char", cold.KindChar, unix.Mkdev(1, 3))
	root.Special("special/block", cold.KindBlock, unix.Mkdev(259, 1<<20-1))
	root.Special("special/.git", cold.KindFIFO, 0)
	root.Mkdir("void").Mode = 0o2750
	root.Mkdir("voids/a/b/c")
	root.Mkdir("voids/.git")
	x := root.Text("xattrs", "x")
	x.Xattrs = []cold.Xattr{
		{Name: "security.capability", Value: []byte{1, 0, 0, 2, 0, 4}},
		{Name: "system.posix_acl_access", Value: []byte("\x02\x00\x00\x00\x01\x00\x06\x00")},
		{Name: "user.empty", Value: []byte{}}, {Name: "user.text", Value: []byte("t\u00e4xt \"q\" <&>")},
		{Name: "user.\xff", Value: []byte{0, 255}},
	}
	root.Mkdir("void").Xattrs = []cold.Xattr{{Name: "system.posix_acl_default", Value: []byte{2, 0}}}
	for _, p := range []string{"hard/a", "hard/b", "names/hard"} {
		root.Text(p, "linked").Link = "g1"
	}
	for _, p := range []string{"hard/c", "hard/d"} {
		root.Text(p, "linked").Link = "g2"
	}
	for _, p := range []string{"hard/f1", "special/f2"} {
		root.Special(p, cold.KindFIFO, 0).Link = "g3"
	}
	deep := "deep"
	for i := range 30 {
		deep = path.Join(deep, fmt.Sprint(i))
	}
	root.Text(deep+"/bottom", "b")
	links := map[string][]string{"g1": {"hard", "names"}, "g3": {"hard", "special"}, "g9": {"", "caf\xe9"}}
	return root, links
}

func TestOddTree(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{VolumeID: "vol-1", MachineID: "m1"})
	want, links := oddTree()
	v.CommitTree(want, links)
	s := v.HeadSnapshot()
	coldtest.CompareTrees(t, v.ReadTree(s), want)
	got, err := s.LinkDirs(t.Context())
	if err != nil || fmt.Sprint(got) != fmt.Sprint(links) {
		t.Errorf("LinkDirs = %v, %v; want %v", got, err, links)
	}
	v.CheckGit()
	coldtest.Check(t, v.Close())
	again := openVolume(t, v.Dir, Options{VolumeID: "other"})
	coldtest.Equal(t, again.VolumeID(), "vol-1", "VolumeID =")
	coldtest.CompareTrees(t, again.ReadTree(again.HeadSnapshot()), want)
}

// Putting an unchanged tree whole yields the ids of the base, and writes only what Commit itself makes.
func TestUnchanged(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{})
	f, links := oddTree()
	for i := range 2000 {
		f.Text(fmt.Sprintf("many/f%04d", i), "x")
	}
	v.CommitTree(f, links)
	base := v.HeadSnapshot()
	dirs := map[string]cold.DirID{}
	v.DirsOf(base, coldtest.RootOf(base), "", dirs)
	tx := v.MustBegin()
	defer tx.Abort()
	coldtest.Check(t, coldtest.Put(t.Context(), tx, f, dirs, "", links))
	if f.Dir() != coldtest.RootOf(base) {
		t.Errorf("root is %v, in the base %v", f.Dir(), coldtest.RootOf(base))
	}
	// What the pack would hold is what has no base to compare with: nothing.
	if n := txLen(t, tx); n != 0 {
		t.Errorf("%d objects were stored again", n)
	}
	id, err := tx.Commit(t.Context(), cold.CommitOptions{Root: f.Dir()})
	coldtest.Check(t, err)
	s, err := v.Snapshot(t.Context(), id)
	coldtest.Check(t, err)
	if coldtest.RootOf(s) != coldtest.RootOf(base) {
		t.Errorf("after the commit root is %v, was %v", coldtest.RootOf(s), coldtest.RootOf(base))
	}
}

func txLen(t *testing.T, x cold.Tx) int {
	t.Helper()
	own, ok := x.(*tx)
	if !ok {
		t.Fatalf("Tx is a %T", x)
	}
	return own.w.Len()
}
