package backup

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"emberfs/tiers"
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
	a.Xattrs = []tiers.Xattr{{Name: "security.capability", Value: []byte{1}}, {Name: "user.tag", Value: []byte("t")}}
	f.text("b", "bbb").Mode = 0o604
	f.text("x", "xxx").Mode = 0o755
	f.text("d/in", "in").Mode = 0o600
	f.text("d/sub/deep", "deep").Mode = 0o400
	f.text("e/f", "f")
	f.kids["d"].Mode = 0o2770
	f.mkdir("d/void").Mode = 0o700
	f.special("d/fifo", tiers.KindFIFO, 0)
	f.special("fifo", tiers.KindFIFO, 0).Mode = 0o640
	f.mkdir("void").Mode = 0o711
	f.symlink("l", "a")
	f.text("h1", "hard").Link = "g"
	f.text("h2", "hard").Link = "g"
	f.text("d/h3", "hard").Link = "g"
	f.text(".gitattributes", "* text\n").Mode = 0o600
	return f
}

func TestStockClient(t *testing.T) {
	committed := tiers.Time{} // stands for the committer's time
	fresh := func(f *file, path, content string) *file {
		k := f.text(path, content)
		k.UID, k.GID, k.Mtime = 501, 502, committed
		return k
	}
	// touched: a directory that git sees changed.
	touched := func(f *file, paths ...string) {
		for _, p := range paths {
			for name := range strings.SplitSeq(p, "/") {
				f = f.kids[name]
				f.Mtime = committed
			}
		}
	}
	freshDir := func(f *file, path string) *file {
		d := f.mkdir(path)
		d.UID, d.GID, d.Mtime = 501, 502, committed
		return d
	}
	for _, c := range []struct {
		name, script string
		want         func(f *file)
	}{
		{"edit", "echo -n new >a", func(f *file) {
			a := f.text("a", "new")
			a.Mode, a.UID, a.Mtime = 0o640, 42, committed
			a.Xattrs = []tiers.Xattr{{Name: "user.tag", Value: []byte("t")}}
		}},
		{"edit below", "echo -n new >d/sub/deep", func(f *file) {
			touched(f, "d/sub")
			k := f.kids["d"].kids["sub"].kids["deep"]
			k.data, k.Size, k.Mtime = []byte("new"), 3, committed
		}},
		{"add", "mkdir -p n/m; echo -n 1 >n/m/one; echo -n 2 >two; chmod +x two; ln -s a link", func(f *file) {
			fresh(f, "n/m/one", "1")
			freshDir(f, "n/m").Mode = 0o755
			freshDir(f, "n").Mode = 0o755
			fresh(f, "two", "2").Mode = 0o755
			l := f.symlink("link", "a")
			l.UID, l.GID, l.Mtime = 501, 502, committed
		}},
		{"delete", "git rm -q b d/in l", func(f *file) {
			delete(f.kids, "b")
			delete(f.kids, "l")
			delete(f.kids["d"].kids, "in")
			touched(f, "d")
		}},
		{"delete directory", "git rm -qr d", func(f *file) { delete(f.kids, "d") }},
		{"rename file", "git mv b c", func(f *file) {
			delete(f.kids, "b")
			fresh(f, "c", "bbb")
		}},
		{"rename directory", "git mv d new", func(f *file) {
			f.kids["new"] = f.kids["d"]
			f.kids["new"].Name = "new"
			delete(f.kids, "d")
		}},
		{"rename into another", "mkdir -p p/q; git mv d/sub p/q/moved", func(f *file) {
			freshDir(f, "p").Mode = 0o755
			freshDir(f, "p/q").Mode = 0o755
			sub := f.kids["d"].kids["sub"]
			delete(f.kids["d"].kids, "sub")
			f.kids["p"].kids["q"].add("moved", sub)
			touched(f, "d")
		}},
		{"rename and copy", "cp -r d copy1; git mv d copy2", func(f *file) {
			// One of the two inherits, the first by name; the other is new.
			d := f.kids["d"]
			delete(f.kids, "d")
			f.add("copy1", d)
			fresh(f, "copy2/in", "in")
			fresh(f, "copy2/h3", "hard")
			fresh(f, "copy2/sub/deep", "deep")
			freshDir(f, "copy2/sub")
			freshDir(f, "copy2")
		}},
		{"copy", "cp -r d dd", func(f *file) {
			fresh(f, "dd/in", "in")
			fresh(f, "dd/h3", "hard")
			fresh(f, "dd/sub/deep", "deep")
			freshDir(f, "dd/sub")
			freshDir(f, "dd")
		}},
		{"chmod", "chmod +x a b; chmod -x x", func(f *file) {
			f.kids["a"].Mode = 0o6750
			f.kids["b"].Mode = 0o705
			f.kids["x"].Mode = 0o644
		}},
		{"file to symlink", "rm a; ln -s b a", func(f *file) {
			l := f.symlink("a", "b")
			l.UID, l.GID, l.Mtime = 501, 502, committed
		}},
		{"file to directory", "rm b; mkdir b; echo -n 1 >b/one", func(f *file) {
			delete(f.kids, "b")
			fresh(f, "b/one", "1")
			freshDir(f, "b")
		}},
		{"directory to file", "rm -r e; echo -n 1 >e", func(f *file) { fresh(f, "e", "1") }},
		{"symlink edit", "ln -sfn elsewhere l", func(f *file) {
			l := f.symlink("l", "elsewhere")
			l.Mtime = committed
		}},
		{"symlink to file", "rm l; echo -n 1 >l", func(f *file) { fresh(f, "l", "1") }},
		{"special to file", "echo -n 1 >fifo", func(f *file) { fresh(f, "fifo", "1") }},
		{"fill void", "mkdir void; echo -n 1 >void/one", func(f *file) {
			fresh(f, "void/one", "1")
			f.kids["void"].Mtime = committed
		}},
		{"empty directory out", "git rm -q e/f", func(f *file) { delete(f.kids, "e") }},
		{"hard link edit", "echo -n other >h1", func(f *file) {
			k := f.text("h1", "other")
			k.Mtime = committed
		}},
		{"git names", "echo -n '*.x -text' >.gitattributes; echo -n '' >.gitmodules; echo -n x >.gitignore", func(f *file) {
			// The escaped name is there too and counts; the one in the clear is left out.
			fresh(f, ".gitmodules", "")
			fresh(f, ".gitignore", "x")
		}},
		{"git name replaced", "git mv .emberfs%.gitattributes .gitattributes", func(*file) {}},
		{"metadata removed", "rm -r .emberfs/meta/d", func(f *file) {
			// The tree is the same, so the line of d is valid; below it nothing is known any more.
			d := f.kids["d"]
			delete(d.kids, "void")
			delete(d.kids, "fifo")
			fresh(f, "d/in", "in")
			fresh(f, "d/h3", "hard")
			fresh(f, "d/sub/deep", "deep")
			freshDir(f, "d/sub")
		}},
		{"all metadata removed", "rm -r .emberfs; rm -r d e; git rm -q h1 h2 l x a", func(f *file) {
			clear(f.kids)
			fresh(f, "b", "bbb")
			fresh(f, ".gitattributes", "* text\n")
			f.Mode, f.UID, f.GID = 0o755, 501, 502
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newVolume(t, Options{UID: 501, GID: 502})
			links := map[string][]string{"g": {"", "d"}}
			v.commit(stockBase(), links)
			v.stockEdit(c.script)
			s := v.headSnapshot()
			if s.Info().Reason != "" || s.Info().Subject != "by hand" {
				t.Errorf("info %+v", s.Info())
			}
			got := v.readStock(s)
			want := stockBase()
			c.want(want)
			now := tiers.Time{Sec: s.Info().Time.Unix()}
			setTime(want, now)
			if s.Root().Mtime == now {
				want.Mtime = now
			}
			compareTrees(t, got, want)
			if t.Failed() {
				return
			}
			// Our next commit takes it over as it is, and then nothing is left to reconcile.
			v.commit(got, links)
			compareTrees(t, v.read(v.headSnapshot()), want)
			v.checkGit()
		})
	}
}

// setTime replaces the zero time by the committer's.
func setTime(f *file, now tiers.Time) {
	if f.Mtime == (tiers.Time{}) {
		f.Mtime = now
	}
	for _, k := range f.kids {
		setTime(k, now)
	}
}

// readStock reads a snapshot that has directories to reconcile. Problems are logged only.
func (v *testVolume) readStock(s tiers.Snapshot) *file {
	v.t.Helper()
	f := &file{Entry: s.Root()}
	v.readAny(s, f)
	return f
}

func (v *testVolume) readAny(s tiers.Snapshot, f *file) []error {
	v.t.Helper()
	l, err := s.ReadDir(v.t.Context(), f.Dir())
	if err != nil {
		v.t.Fatal(err)
	}
	problems := l.Problems
	f.kids = map[string]*file{}
	for _, e := range l.Entries {
		k := &file{Entry: e}
		f.kids[e.Name] = k
		switch e.Kind {
		case tiers.KindDir:
			problems = append(problems, v.readAny(s, k)...)
		case tiers.KindFile:
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
	dirs := map[string]tiers.DirID{}
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
