package backup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"emberfs/tiers/cold"
)

// stockEdit clones the volume with stock git, runs a shell script in the work tree, commits and pushes what it made.
func (v *testVolume) stockEdit(script string) {
	v.t.Helper()
	clone := filepath.Join(v.t.TempDir(), "clone")
	git(v.t, ".", "clone", "-q", "--no-hardlinks", v.dir, clone)
	if out := git(v.t, clone, "status", "--porcelain"); out != "" {
		v.t.Fatalf("a fresh clone is not clean:\n%s", out)
	}
	cmd := exec.CommandContext(v.t.Context(), "sh", "-euc", script)
	cmd.Dir = clone
	if out, err := cmd.CombinedOutput(); err != nil {
		v.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	git(v.t, clone, "add", "-A")
	git(v.t, clone, "commit", "-q", "-m", "by hand")
	git(v.t, clone, "push", "-q", "origin", "HEAD:main")
}

// stockBase is what the edits start from.
func stockBase() *file {
	f := newDir(0o755)
	a := f.text("a", "aaa")
	a.Mode, a.UID = 0o6640, 42
	a.Xattrs = []cold.Xattr{{Name: "security.capability", Value: []byte{1}}, {Name: "user.tag", Value: []byte("t")}}
	f.text("b", "bbb").Mode = 0o604
	f.text("x", "xxx").Mode = 0o755
	f.text("d/in", "in").Mode = 0o600
	f.text("d/sub/deep", "deep").Mode = 0o400
	f.text("e/f", "f")
	f.kids["d"].Mode = 0o2770
	f.mkdir("d/void").Mode = 0o700
	f.special("d/fifo", cold.KindFIFO, 0)
	f.special("fifo", cold.KindFIFO, 0).Mode = 0o640
	f.mkdir("void").Mode = 0o711
	f.symlink("l", "a")
	f.text("h1", "hard").Link = "g"
	f.text("h2", "hard").Link = "g"
	f.text("d/h3", "hard").Link = "g"
	f.text(".gitattributes", "* text\n").Mode = 0o600
	return f
}

// readStock reads a snapshot that has directories to reconcile. Problems are logged only.
func (v *testVolume) readStock(s cold.Snapshot) *file {
	v.t.Helper()
	f := &file{Entry: s.Root()}
	v.readAny(s, f)
	return f
}

func (v *testVolume) readAny(s cold.Snapshot, f *file) []error {
	v.t.Helper()
	l, err := s.ReadDir(v.t.Context(), f.Dir())
	if err != nil {
		v.t.Fatal(err)
	}
	problems := l.Problems
	f.kids = map[string]*file{}
	for _, e := range l.Entries {
		if e.Kind == cold.KindOther { // no directory can hold it
			problems = append(problems, fmt.Errorf("entry %q: %s", e.Other.Stored, e.Other.Why))
			continue
		}
		k := &file{Entry: e}
		f.kids[e.Name] = k
		switch e.Kind {
		case cold.KindDir:
			problems = append(problems, v.readAny(s, k)...)
		case cold.KindFile:
			k.data = v.content(e.ID, e.Size)
		}
	}
	return problems
}

// Directories that a stock client did not touch are not reconciled.
func TestReconciledOnlyWhereChanged(t *testing.T) {
	v := newVolume(t, Options{})
	v.commit(stockBase(), nil)
	v.stockEdit("echo new >d/sub/deep")
	s := v.headSnapshot()
	dirs := map[string]cold.DirID{}
	v.dirs(s, rootOf(s), "", dirs)
	for at, dir := range dirs {
		l, err := s.ReadDir(t.Context(), dir)
		if err != nil || len(l.Problems) > 0 {
			t.Fatal(err, l.Problems)
		}
		if want := slices.Contains([]string{"", "d", "d/sub"}, at); l.Reconciled != want {
			t.Errorf("%q: Reconciled = %v", at, l.Reconciled)
		}
	}
}

// A directory that a stock client changed is extended by a delta: what it made is reconciled, not forgotten.
func TestDeltaOnReconciled(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{UID: 501, GID: 502})
	f := stockBase()
	for i := range 600 {
		f.text("many-"+strings.Repeat("x", i%7)+string(rune('a'+i%26))+string(rune('a'+i/26)), "m")
	}
	v.commit(f, nil)
	v.stockEdit("echo -n new >b; echo -n added >zz; chmod +x a; git rm -q x")
	f.text("c", "ccc")
	v.commitDelta(f, []string{"c"}, []string{"e"})
	got := v.read(v.headSnapshot())
	if k := got.kids["a"]; k == nil || k.Mode != 0o6750 || k.UID != 42 {
		t.Errorf("a = %+v", k)
	}
	if k := got.kids["zz"]; k == nil || k.UID != 501 || string(k.data) != "added" {
		t.Errorf("zz = %+v", k)
	}
	if k := got.kids["b"]; k == nil || k.Mode != 0o604 || string(k.data) != "new" {
		t.Errorf("b = %+v", k)
	}
	if got.kids["x"] != nil || got.kids["e"] != nil || got.kids["c"] == nil || got.kids["void"] == nil || got.kids["d"].kids["fifo"] == nil {
		t.Errorf("names: %v", got.flat(""))
	}
	v.checkGit()
}

// Link groups follow a renamed directory.
func TestLinkDirsFollowRename(t *testing.T) {
	v := newVolume(t, Options{})
	f := stockBase()
	f.text("d/sub/h4", "hard").Link = "g"
	v.commit(f, map[string][]string{"g": {"", "d", "d/sub"}})
	v.stockEdit("mkdir p; git mv d p/moved")
	links, err := v.headSnapshot().LinkDirs(t.Context())
	if err != nil || !slices.Equal(links["g"], []string{"", "p/moved", "p/moved/sub"}) {
		t.Errorf("LinkDirs = %v, %v", links, err)
	}
}

// A repository that no emberfs has written is a volume too.
func TestStockRepository(t *testing.T) {
	v := newVolume(t, Options{VolumeID: "mine", UID: 501, GID: 502})
	work := filepath.Join(t.TempDir(), "work")
	git(t, ".", "init", "-q", "-b", "main", work)
	writeFile(t, filepath.Join(work, "src/main.go"), "package main\n")
	writeFile(t, filepath.Join(work, ".gitattributes"), "*.go text\n")
	if err := os.Symlink("src", filepath.Join(work, "link")); err != nil {
		t.Fatal(err)
	}
	git(t, work, "add", "-A")
	git(t, work, "commit", "-q", "-m", "plain")
	git(t, work, "push", "-q", v.dir, "main")
	s := v.headSnapshot()
	got := v.readStock(s)
	if e := got.Entry; e.UID != 501 || e.Mode != 0o755 || !e.Meta.IsZero() || v.VolumeID() != "mine" {
		t.Errorf("root %+v, volume %q", e, v.VolumeID())
	}
	if k := got.kids["src"].kids["main.go"]; string(k.data) != "package main\n" || k.GID != 502 || k.Mtime.Sec != s.Info().Time.Unix() {
		t.Errorf("main.go = %+v", k)
	}
	v.commit(got, nil)
	compareTrees(t, v.read(v.headSnapshot()), got)
	v.checkGit()

	ro, err := OpenRepository(work, Options{UID: 501, GID: 502})
	if err != nil {
		t.Fatal(err)
	}
	r := &testVolume{Cold: ro, t: t, dir: work}
	again := r.readStock(r.headSnapshot())
	compareTrees(t, again, got)
	if _, err := ro.Begin(t.Context()); err == nil {
		t.Error("Begin works on a repository opened for reading")
	}
	if err := ro.Close(); err != nil {
		t.Error(err)
	}
}
