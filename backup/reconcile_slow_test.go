//go:build slow

package backup

import (
	"strings"
	"testing"

	"emberfs/tiers/cold"
)

func TestStockClient(t *testing.T) {
	t.Parallel()
	committed := cold.Time{} // stands for the committer's time
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
			a.Xattrs = []cold.Xattr{{Name: "user.tag", Value: []byte("t")}}
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
			t.Parallel()
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
			now := cold.Time{Sec: s.Info().Time.Unix()}
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
func setTime(f *file, now cold.Time) {
	if f.Mtime == (cold.Time{}) {
		f.Mtime = now
	}
	for _, k := range f.kids {
		setTime(k, now)
	}
}
