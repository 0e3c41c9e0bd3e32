//go:build slow

package backup

import (
	"strings"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

func TestStockClient(t *testing.T) {
	t.Parallel()
	committed := cold.Time{} // stands for the committer's time
	fresh := func(f *coldtest.File, path, content string) *coldtest.File {
		k := f.Text(path, content)
		k.UID, k.GID, k.Mtime = 501, 502, committed
		return k
	}
	// touched: a directory that git sees changed.
	touched := func(f *coldtest.File, paths ...string) {
		for _, p := range paths {
			for name := range strings.SplitSeq(p, "/") {
				f = f.Kids[name]
				f.Mtime = committed
			}
		}
	}
	freshDir := func(f *coldtest.File, path string) *coldtest.File {
		d := f.Mkdir(path)
		d.UID, d.GID, d.Mtime = 501, 502, committed
		return d
	}
	for _, c := range []struct {
		name, script string
		want         func(f *coldtest.File)
	}{
		{"edit", "echo -n new >a", func(f *coldtest.File) {
			a := f.Text("a", "new")
			a.Mode, a.UID, a.Mtime = 0o640, 42, committed
			a.Xattrs = []cold.Xattr{{Name: "user.tag", Value: []byte("t")}}
		}},
		{"edit below", "echo -n new >d/sub/deep", func(f *coldtest.File) {
			touched(f, "d/sub")
			k := f.Kids["d"].Kids["sub"].Kids["deep"]
			k.Data, k.Size, k.Mtime = []byte("new"), 3, committed
		}},
		{"add", "mkdir -p n/m; echo -n 1 >n/m/one; echo -n 2 >two; chmod +x two; ln -s a link", func(f *coldtest.File) {
			fresh(f, "n/m/one", "1")
			freshDir(f, "n/m").Mode = 0o755
			freshDir(f, "n").Mode = 0o755
			fresh(f, "two", "2").Mode = 0o755
			l := f.Symlink("link", "a")
			l.UID, l.GID, l.Mtime = 501, 502, committed
		}},
		{"delete", "git rm -q b d/in l", func(f *coldtest.File) {
			delete(f.Kids, "b")
			delete(f.Kids, "l")
			delete(f.Kids["d"].Kids, "in")
			touched(f, "d")
		}},
		{"delete directory", "git rm -qr d", func(f *coldtest.File) { delete(f.Kids, "d") }},
		{"rename file", "git mv b c", func(f *coldtest.File) {
			delete(f.Kids, "b")
			fresh(f, "c", "bbb")
		}},
		{"rename directory", "git mv d new", func(f *coldtest.File) {
			f.Kids["new"] = f.Kids["d"]
			f.Kids["new"].Name = "new"
			delete(f.Kids, "d")
		}},
		{"rename into another", "mkdir -p p/q; git mv d/sub p/q/moved", func(f *coldtest.File) {
			freshDir(f, "p").Mode = 0o755
			freshDir(f, "p/q").Mode = 0o755
			sub := f.Kids["d"].Kids["sub"]
			delete(f.Kids["d"].Kids, "sub")
			f.Kids["p"].Kids["q"].Add("moved", sub)
			touched(f, "d")
		}},
		{"rename and copy", "cp -r d copy1; git mv d copy2", func(f *coldtest.File) {
			// One of the two inherits, the first by name; the other is new.
			d := f.Kids["d"]
			delete(f.Kids, "d")
			f.Add("copy1", d)
			fresh(f, "copy2/in", "in")
			fresh(f, "copy2/h3", "hard")
			fresh(f, "copy2/sub/deep", "deep")
			freshDir(f, "copy2/sub")
			freshDir(f, "copy2")
		}},
		{"copy", "cp -r d dd", func(f *coldtest.File) {
			fresh(f, "dd/in", "in")
			fresh(f, "dd/h3", "hard")
			fresh(f, "dd/sub/deep", "deep")
			freshDir(f, "dd/sub")
			freshDir(f, "dd")
		}},
		{"chmod", "chmod +x a b; chmod -x x", func(f *coldtest.File) {
			f.Kids["a"].Mode = 0o6750
			f.Kids["b"].Mode = 0o705
			f.Kids["x"].Mode = 0o644
		}},
		{"file to symlink", "rm a; ln -s b a", func(f *coldtest.File) {
			l := f.Symlink("a", "b")
			l.UID, l.GID, l.Mtime = 501, 502, committed
		}},
		{"file to directory", "rm b; mkdir b; echo -n 1 >b/one", func(f *coldtest.File) {
			delete(f.Kids, "b")
			fresh(f, "b/one", "1")
			freshDir(f, "b")
		}},
		{"directory to file", "rm -r e; echo -n 1 >e", func(f *coldtest.File) { fresh(f, "e", "1") }},
		{"symlink edit", "ln -sfn elsewhere l", func(f *coldtest.File) {
			l := f.Symlink("l", "elsewhere")
			l.Mtime = committed
		}},
		{"symlink to file", "rm l; echo -n 1 >l", func(f *coldtest.File) { fresh(f, "l", "1") }},
		{"special to file", "echo -n 1 >fifo", func(f *coldtest.File) { fresh(f, "fifo", "1") }},
		{"fill void", "mkdir void; echo -n 1 >void/one", func(f *coldtest.File) {
			fresh(f, "void/one", "1")
			f.Kids["void"].Mtime = committed
		}},
		{"empty directory out", "git rm -q e/f", func(f *coldtest.File) { delete(f.Kids, "e") }},
		{"hard link edit", "echo -n other >h1", func(f *coldtest.File) {
			k := f.Text("h1", "other")
			k.Mtime = committed
		}},
		{"git names", "echo -n '*.x -text' >.gitattributes; echo -n '' >.gitmodules; echo -n x >.gitignore",
			func(f *coldtest.File) {
				// The escaped name is there too and counts; the one in the clear is left out.
				fresh(f, ".gitmodules", "")
				fresh(f, ".gitignore", "x")
			}},
		{"git name replaced", "git mv .emberfs%.gitattributes .gitattributes", func(*coldtest.File) {}},
		{"metadata removed", "rm -r .emberfs/meta/d", func(f *coldtest.File) {
			// The tree is the same, so the line of d is valid; below it nothing is known any more.
			d := f.Kids["d"]
			delete(d.Kids, "void")
			delete(d.Kids, "fifo")
			fresh(f, "d/in", "in")
			fresh(f, "d/h3", "hard")
			fresh(f, "d/sub/deep", "deep")
			freshDir(f, "d/sub")
		}},
		{"all metadata removed", "rm -r .emberfs; rm -r d e; git rm -q h1 h2 l x a", func(f *coldtest.File) {
			clear(f.Kids)
			fresh(f, "b", "bbb")
			fresh(f, ".gitattributes", "* text\n")
			f.Mode, f.UID, f.GID = 0o755, 501, 502
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := newVolume(t, Options{UID: 501, GID: 502})
			links := map[string][]string{"g": {"", "d"}}
			v.CommitTree(coldtest.StockBase(), links)
			v.StockEdit(c.script)
			s := v.HeadSnapshot()
			if s.Info().Reason != "" || s.Info().Subject != "by hand" {
				t.Errorf("info %+v", s.Info())
			}
			got := v.ReadStock(s)
			want := coldtest.StockBase()
			c.want(want)
			now := cold.Time{Sec: s.Info().Time.Unix()}
			setTime(want, now)
			if s.Root().Mtime == now {
				want.Mtime = now
			}
			coldtest.CompareTrees(t, got, want)
			if t.Failed() {
				return
			}
			// Our next commit takes it over as it is, and then nothing is left to reconcile.
			v.CommitTree(got, links)
			coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), want)
			v.CheckGit()
		})
	}
}

// setTime replaces the zero time by the committer's.
func setTime(f *coldtest.File, now cold.Time) {
	if f.Mtime == (cold.Time{}) {
		f.Mtime = now
	}
	for _, k := range f.Kids {
		setTime(k, now)
	}
}
