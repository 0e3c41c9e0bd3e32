package log

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"emberfs/backup"
	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

// commitAt is commit at a given time, with figures.
func (v *testVolume) commitAt(f *coldtest.File, when time.Time) cold.ID {
	v.T.Helper()
	ctx := v.T.Context()
	tx, err := v.Begin(ctx)
	coldtest.Check(v.T, err)
	defer tx.Abort()
	coldtest.Check(v.T, coldtest.Put(ctx, tx, f, map[string]cold.DirID{}, "", nil))
	id, err := tx.Commit(ctx, cold.CommitOptions{Reason: "interval", Machine: "m1", Files: 3, Bytes: 44, AtRisk: 2,
		Root: f.Dir(), When: when})
	coldtest.Check(v.T, err)
	return id
}

// log lists commits; errors fail the test.
func (v *testVolume) log(tip cold.ID, paths ...string) []Commit {
	v.T.Helper()
	var list []Commit
	for c, err := range v.Log(v.T.Context(), []cold.ID{tip}, paths) {
		coldtest.Check(v.T, err)
		list = append(list, c)
	}
	return list
}

func ids(list []Commit) []cold.ID {
	var out []cold.ID
	for _, c := range list {
		out = append(out, c.ID)
	}
	return out
}

func TestLogFigures(t *testing.T) {
	v := newVolume(t, backup.Options{UserName: "someone", UserEmail: "s@example.com"})
	when := time.Unix(1_700_000_000, 0)
	f := coldtest.NewDir(0o755)
	f.Text("a", "1")
	first := v.commitAt(f, when)
	v.StockEdit("echo 2 >a")
	tip, err := v.Resolve(t.Context(), "HEAD", time.Now())
	coldtest.Check(t, err)
	list := v.log(tip)
	if len(list) != 2 || list[0].ID != tip || list[1].ID != first {
		t.Fatalf("got %v", ids(list))
	}
	if c := list[0]; c.Ours || c.Author != "stock" || c.Email != "stock@example.com" || c.Subject != "by hand" ||
		c.Files != 0 || !slices.Equal(c.Parents, []cold.ID{first}) {
		t.Errorf("a stock client's commit: %+v", c)
	}
	c := list[1]
	if !c.Ours || c.Reason != "interval" || c.Machine != "m1" || c.Files != 3 || c.Bytes != 44 || c.AtRisk != 2 ||
		c.Author != "someone" || !c.Time.Equal(when) {
		t.Errorf("our commit: %+v", c)
	}
}

// TestLogPaths: a path's log has the commits that changed it: content, metadata, what is below, its coming and going,
// and nothing else; whether its directory's metadata is one blob or a trie.
func TestLogPaths(t *testing.T) {
	t.Parallel()
	v := newVolume(t, backup.Options{})
	f := coldtest.NewDir(0o755)
	odd := "odd\n\xe9"
	f.Text("d/a", "a")
	f.Text("d/b", "b")
	f.Text("d/.git", "forbidden")
	f.Text(odd, "x")
	f.Mkdir("void")
	f.Special("fifo", cold.KindFIFO, 0)
	for i := range 600 {
		f.Text(fmt.Sprintf("many/%d", i), "")
	}
	names := map[cold.ID]string{}
	when := int64(1_600_000_000)
	commit := func(name string, change func()) {
		t.Helper()
		change()
		when += 10
		names[v.commitAt(f, time.Unix(when, 0))] = name
	}
	stock := func(name, script string) {
		t.Helper()
		v.StockEdit(script)
		names[v.HeadSnapshot().Info().ID] = name
		// What the daemon would find in warm after it brought the stock client's commit there.
		f = v.readMerged()
	}
	commit("first", func() {})
	commit("content of a", func() { f.Text("d/a", "A") })
	commit("mode of b", func() { f.Kids["d"].Kids["b"].Mode = 0o600 })
	commit("odd", func() { f.Text(odd, "y") })
	commit("no fifo, no .git", func() { delete(f.Kids, "fifo"); delete(f.Kids["d"].Kids, ".git") })
	commit("one of many", func() { f.Kids["many"].Kids["77"].Mode = 0o400 })
	commit("void", func() { f.Kids["void"].Mode = 0o700 })
	commit("b is a directory", func() { delete(f.Kids["d"].Kids, "b"); f.Text("d/b/c", "") })
	stock("stock", "echo stock >d/a; mkdir new; echo >new/file")
	commit("after stock", func() { f.Text("other", "") })
	tip := v.HeadSnapshot().Info().ID
	for _, c := range []struct {
		paths string
		want  []string
	}{
		{"d/a", []string{"stock", "content of a", "first"}},
		{"/d/a/", []string{"stock", "content of a", "first"}},
		{"d/b", []string{"b is a directory", "mode of b", "first"}},
		{"d/b/c", []string{"b is a directory"}},
		{"d/.git", []string{"no fifo, no .git", "first"}},
		{"fifo", []string{"no fifo, no .git", "first"}},
		{odd, []string{"odd", "first"}},
		{"void", []string{"void", "first"}},
		{"many/77", []string{"one of many", "first"}},
		{"many/78", []string{"first"}},
		{"many", []string{"one of many", "first"}},
		{"new/file", []string{"stock"}},
		{"d", []string{"stock", "b is a directory", "no fifo, no .git", "mode of b", "content of a", "first"}},
		{"nothing", nil},
		{"void|odd\n\xe9", []string{"void", "odd", "first"}},
	} {
		var got []string
		for _, commit := range v.log(tip, strings.Split(c.paths, "|")...) {
			got = append(got, names[commit.ID])
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, want %q", c.paths, got, c.want)
		}
	}
	if got := v.log(tip, "."); len(got) != len(names) {
		t.Errorf("the root: %d commits, want all %d", len(got), len(names))
	}
}

// readMerged reads the head as a daemon would restore it.
func (v *testVolume) readMerged() *coldtest.File {
	v.T.Helper()
	s := v.HeadSnapshot()
	root := &coldtest.File{Entry: s.Root()}
	v.ReadDirTree(s, root, "", true)
	return root
}

// TestLogMerges: all parents are walked by date; a commit changed a path if it differs from all of them.
func TestLogMerges(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "repo")
	coldtest.Git(t, ".", "init", "-q", "-b", "main", dir)
	at := func(n int, args ...string) {
		t.Helper()
		t.Setenv("GIT_AUTHOR_DATE", fmt.Sprintf("%d +0000", 1_600_000_000+n))
		t.Setenv("GIT_COMMITTER_DATE", fmt.Sprintf("%d +0000", 1_600_000_000+n))
		coldtest.Git(t, dir, args...)
	}
	write := func(name, content string) {
		t.Helper()
		coldtest.PutFile(t, filepath.Join(dir, name), content)
		coldtest.Git(t, dir, "add", "-A")
	}
	write("f", "1")
	at(1, "commit", "-qm", "one")
	coldtest.Git(t, dir, "checkout", "-qb", "side")
	write("s", "1")
	at(3, "commit", "-qm", "side")
	coldtest.Git(t, dir, "checkout", "-q", "main")
	write("f", "2")
	at(2, "commit", "-qm", "two")
	at(4, "merge", "-q", "--no-ff", "-m", "merge", "side")
	c, err := backup.OpenRepository(dir, backup.Options{Log: coldtest.Quiet()})
	coldtest.Check(t, err)
	v := testVolumeOf(t, c, "")
	defer c.Close()
	tip, err := Of(c).Resolve(t.Context(), "main", time.Now())
	coldtest.Check(t, err)
	subjects := func(paths ...string) string {
		var s []string
		for _, c := range v.log(tip, paths...) {
			s = append(s, c.Subject)
		}
		return strings.Join(s, " ")
	}
	for paths, want := range map[string]string{"": "merge side two one", "f": "two one", "s": "side"} {
		coldtest.Equal(t, subjects(strings.Fields(paths)...), want, "%q:", paths)
	}
	shallow := filepath.Join(t.TempDir(), "shallow")
	coldtest.Git(t, ".", "clone", "-q", "--depth", "2", "file://"+dir, shallow)
	sc, err := backup.OpenRepository(shallow, backup.Options{Log: coldtest.Quiet()})
	coldtest.Check(t, err)
	defer sc.Close()
	v = testVolumeOf(t, sc, "")
	coldtest.Equal(t, subjects(), "merge side two", "a shallow clone:")
	if _, err := Of(sc).Resolve(t.Context(), "HEAD~5", time.Now()); err == nil ||
		!strings.Contains(err.Error(), "shallow") {
		t.Errorf("HEAD~5 of a shallow clone: %v", err)
	}
}

// TestLogReadsWhatItShows: a commit that lies far back is not even looked for; who goes there is told what is missing.
func TestLogReadsWhatItShows(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "repo.git")
	coldtest.Git(t, ".", "init", "-q", "--bare", "-b", "main", dir)
	var in strings.Builder
	for i := range 50 {
		fmt.Fprintf(&in, "commit refs/heads/main\ncommitter c <c@d> %d +0000\ndata 1\nm\nM 644 inline f\ndata 2\n%02d\n", 1_600_000_000+i, i)
	}
	if out, err := coldtest.GitTry(t, dir, []byte(in.String()), "-c", "fastimport.unpackLimit=1000", "fast-import",
		"--quiet"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	gone := coldtest.Git(t, dir, "rev-parse", "main~20")
	coldtest.Check(t, os.Remove(filepath.Join(dir, "objects", gone[:2], gone[2:])))
	c, err := backup.OpenRepository(dir, backup.Options{Log: coldtest.Quiet()})
	coldtest.Check(t, err)
	defer c.Close()
	tip, err := Of(c).Resolve(t.Context(), "main", time.Now())
	coldtest.Check(t, err)
	n := 0
	for _, err := range Of(c).Log(t.Context(), []cold.ID{tip}, nil) {
		coldtest.Check(t, err)
		if n++; n == 10 {
			break
		}
	}
	n = 0
	var last error
	for _, err := range Of(c).Log(t.Context(), []cold.ID{tip}, nil) {
		if last = err; err == nil {
			n++
		}
	}
	if n != 20 || !errors.Is(last, cold.ErrMissing) || !strings.Contains(fmt.Sprint(last), gone) {
		t.Errorf("%d commits, then %v", n, last)
	}
}
