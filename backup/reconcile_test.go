package backup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

// Directories that a stock client did not touch are not reconciled.
func TestReconciledOnlyWhereChanged(t *testing.T) {
	v := newVolume(t, Options{})
	v.CommitTree(coldtest.StockBase(), nil)
	v.StockEdit("echo new >d/sub/deep")
	s := v.HeadSnapshot()
	dirs := map[string]cold.DirID{}
	v.DirsOf(s, coldtest.RootOf(s), "", dirs)
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
	f := coldtest.StockBase()
	for i := range 600 {
		f.Text("many-"+strings.Repeat("x", i%7)+string(rune('a'+i%26))+string(rune('a'+i/26)), "m")
	}
	v.CommitTree(f, nil)
	v.StockEdit("echo -n new >b; echo -n added >zz; chmod +x a; git rm -q x")
	f.Text("c", "ccc")
	v.commitDelta(f, []string{"c"}, []string{"e"})
	got := v.ReadTree(v.HeadSnapshot())
	if k := got.Kids["a"]; k == nil || k.Mode != 0o6750 || k.UID != 42 {
		t.Errorf("a = %+v", k)
	}
	if k := got.Kids["zz"]; k == nil || k.UID != 501 || string(k.Data) != "added" {
		t.Errorf("zz = %+v", k)
	}
	if k := got.Kids["b"]; k == nil || k.Mode != 0o604 || string(k.Data) != "new" {
		t.Errorf("b = %+v", k)
	}
	if got.Kids["x"] != nil || got.Kids["e"] != nil || got.Kids["c"] == nil || got.Kids["void"] == nil ||
		got.Kids["d"].Kids["fifo"] == nil {
		t.Errorf("names: %v", got.Flat(""))
	}
	v.CheckGit()
}

// Link groups follow a renamed directory.
func TestLinkDirsFollowRename(t *testing.T) {
	v := newVolume(t, Options{})
	f := coldtest.StockBase()
	f.Text("d/sub/h4", "hard").Link = "g"
	v.CommitTree(f, map[string][]string{"g": {"", "d", "d/sub"}})
	v.StockEdit("mkdir p; git mv d p/moved")
	links, err := v.HeadSnapshot().LinkDirs(t.Context())
	if err != nil || !slices.Equal(links["g"], []string{"", "p/moved", "p/moved/sub"}) {
		t.Errorf("LinkDirs = %v, %v", links, err)
	}
}

// A repository that no emberfs has written is a volume too.
func TestStockRepository(t *testing.T) {
	v := newVolume(t, Options{VolumeID: "mine", UID: 501, GID: 502})
	work := filepath.Join(t.TempDir(), "work")
	coldtest.Git(t, ".", "init", "-q", "-b", "main", work)
	coldtest.PutFile(t, filepath.Join(work, "src/main.go"), "package main\n")
	coldtest.PutFile(t, filepath.Join(work, ".gitattributes"), "*.go text\n")
	coldtest.Check(t, os.Symlink("src", filepath.Join(work, "link")))
	coldtest.Git(t, work, "add", "-A")
	coldtest.Git(t, work, "commit", "-q", "-m", "plain")
	coldtest.Git(t, work, "push", "-q", v.Dir, "main")
	s := v.HeadSnapshot()
	got := v.ReadStock(s)
	if e := got.Entry; e.UID != 501 || e.Mode != 0o755 || !e.Meta.IsZero() || v.VolumeID() != "mine" {
		t.Errorf("root %+v, volume %q", e, v.VolumeID())
	}
	if k := got.Kids["src"].Kids["main.go"]; string(k.Data) != "package main\n" || k.GID != 502 ||
		k.Mtime.Sec != s.Info().Time.Unix() {
		t.Errorf("main.go = %+v", k)
	}
	v.CommitTree(got, nil)
	coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), got)
	v.CheckGit()

	ro, err := OpenRepository(work, Options{UID: 501, GID: 502})
	coldtest.Check(t, err)
	r := testVolumeOf(t, ro, work)
	again := r.ReadStock(r.HeadSnapshot())
	coldtest.CompareTrees(t, again, got)
	if _, err := ro.Begin(t.Context()); err == nil {
		t.Error("Begin works on a repository opened for reading")
	}
	if err := ro.Close(); err != nil {
		t.Error(err)
	}
}
