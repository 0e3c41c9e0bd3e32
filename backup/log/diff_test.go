package log

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"emberfs/backup"
	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

// counted counts what a Diff asks of a side.
type counted struct {
	Side
	lists, opens int
}

func (c *counted) List(ctx context.Context, at string, dir *cold.Entry) (cold.Listing, error) {
	c.lists++
	return c.Side.List(ctx, at, dir)
}

func (c *counted) Open(ctx context.Context, at string, e *cold.Entry) (io.ReadCloser, error) {
	c.opens++
	return c.Side.Open(ctx, at, e)
}

// Diff gives the differences, a line each; errors and problems fail the test.
func (v *testVolume) diff(from, to Side, paths ...string) []string {
	v.T.Helper()
	var out []string
	o := DiffOptions{Paths: paths, Problem: func(at string, err error) { v.T.Errorf("%q: %v", at, err) }}
	err := Diff(v.T.Context(), from, to, o, func(c Change) error {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%c %s %s", c.Status, c.Path, strings.Join(c.Fields, ","))))
		return nil
	})
	coldtest.Check(v.T, err)
	return out
}

func sameLines(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\ngot\n\t%s\nwant\n\t%s", what, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// TestDiff: each kind of change is told as what it is, nothing else is told, and only directories that differ are
// listed.
func TestDiff(t *testing.T) {
	v := newVolume(t, backup.Options{})
	f := coldtest.StockBase()
	f.Text("odd\n\xe9", "x")
	f.Text(".git/config", "c")
	f.Special("dev", cold.KindChar, 0x103)
	f.Text("same/deep/file", "s")
	f.Text("same2/file", "s")
	f.Text("t1", "file")
	f.Text("t2/below", "file")
	v.CommitTree(f, nil)
	before := v.HeadSnapshot()
	sameLines(t, "the same", v.diff(v.Side(before), v.Side(before)), nil)

	d := f.Kids["d"].Kids
	f.Text("b", "BBB")
	f.Kids["a"].Mode = 0o644
	f.Kids["x"].UID = 5
	f.Kids["odd\n\xe9"].Mtime.Nsec++
	f.Kids[".git"].Kids["config"].Xattrs = []cold.Xattr{{Name: "user.x"}}
	f.Kids["l"].Target, f.Kids["l"].Size = "b", 1
	f.Kids["h2"].Link = ""
	f.Kids["dev"].Rdev = 0x104
	f.Kids["void"].Mode = 0o755
	f.Kids["same2"].Mtime.Nsec++
	delete(d, "fifo")
	f.Text("d/sub/more", "longer")
	f.Text("d/sub/deep", "deeper")
	f.Kids["d"].Mtime.Nsec++ // as removing a name does
	d["sub"].Mtime.Nsec++
	delete(f.Kids, "e")
	f.Mkdir("new/empty")
	delete(f.Kids, "t1")
	f.Text("t1/inside", "")
	delete(f.Kids, "t2")
	f.Symlink("t2", "x")
	f.Mode = 0o700
	f.Mtime.Nsec++
	v.CommitTree(f, nil)
	after := v.HeadSnapshot()
	x, y := &counted{Side: v.Side(before)}, &counted{Side: v.Side(after)}
	want := []string{
		"m  mode",
		"m .git/config xattrs",
		"m a mode",
		"M b content,mode",
		"D d/fifo",
		"M d/sub/deep content,size,mode",
		"A d/sub/more",
		"M dev rdev",
		"D e",
		"D e/f",
		"m h2 link",
		"M l target",
		"A new",
		"A new/empty",
		"m odd\n\xe9 mtime",
		"m same2 mtime",
		"T t1 type,mode,owner,mtime",
		"A t1/inside",
		"T t2 type,mode,owner,mtime",
		"D t2/below",
		"m void mode",
		"m x owner",
	}
	sameLines(t, "all", v.diff(x, y), want)
	// The root, d, d/sub, e, .git and t2 of the old; the root, d, d/sub, .git, new, new/empty and t1 of the new; not
	// same.
	if x.lists != 6 || y.lists != 7 || x.opens+y.opens > 0 {
		t.Errorf("%d and %d directories listed, %d files opened", x.lists, y.lists, x.opens+y.opens)
	}
	back := v.diff(v.Side(after), v.Side(before))
	if len(back) != len(want) || !slices.Contains(back, "A e/f") || !slices.Contains(back, "D new/empty") {
		t.Errorf("the other way round: %q", back)
	}
	sameLines(t, "paths", v.diff(v.Side(before), v.Side(after), "d/sub", "t1/inside", "e/f", "x/y", "void"), []string{
		"M d/sub/deep content,size,mode", "A d/sub/more", "D e/f", "A t1/inside", "m void mode",
	})
	all := v.diff(v.Side(nil), v.Side(before))
	if len(all) != 30 || slices.ContainsFunc(all, func(l string) bool { return l[0] != 'A' }) {
		t.Errorf("against nothing: %d: %q", len(all), all)
	}
	stop := errors.New("stop")
	if err := Diff(t.Context(), v.Side(nil), v.Side(before), DiffOptions{}, func(Change) error {
		return stop
	}); !errors.Is(err, stop) {
		t.Errorf("visit's error: %v", err)
	}
}

// TestDiffStockClient: what a stock client left alone has not changed, although its commit says nothing of times and
// owners.
func TestDiffStockClient(t *testing.T) {
	t.Parallel()
	v := newVolume(t, backup.Options{UID: 7, GID: 8})
	v.CommitTree(coldtest.StockBase(), nil)
	one := v.HeadSnapshot()
	v.StockEdit("echo more >>d/in; mkdir n; echo n >n/file; rm e/f; chmod +x b; mv x d/x")
	two := v.HeadSnapshot()
	sameLines(t, "by hand", v.diff(v.Side(one), v.Side(two)), []string{
		"m b mode",
		"M d/in content,size,mtime",
		"A d/x",
		"D e",
		"D e/f",
		"A n",
		"A n/file",
		"D x",
	})
	v.StockEdit("sleep 1.1; echo more >>n/file")
	three := v.HeadSnapshot()
	sameLines(t, "by hand again", v.diff(v.Side(two), v.Side(three)), []string{"M n/file content,size"})
}

// TestDiffDamage: a directory that cannot be read is an error that names it; the others are compared all the same.
func TestDiffDamage(t *testing.T) {
	v := newVolume(t, backup.Options{})
	f := coldtest.NewDir(0o755)
	f.Text("bad/f", "1")
	f.Text("good/f", "1")
	v.CommitTree(f, nil)
	before := v.HeadSnapshot()
	f.Text("bad/f", "2")
	f.Text("good/f", "2")
	v.CommitTree(f, nil)
	broken := &failingSide{Side: v.Side(before), at: "bad"}
	var got []string
	err := Diff(t.Context(), broken, v.Side(v.HeadSnapshot()), DiffOptions{}, func(c Change) error {
		got = append(got, c.Path)
		return nil
	})
	if !errors.Is(err, cold.ErrMissing) || !strings.Contains(err.Error(), `"bad"`) ||
		!slices.Equal(got, []string{"good/f"}) {
		t.Errorf("got %q, %v", got, err)
	}
}

type failingSide struct {
	Side
	at string
}

func (f *failingSide) List(ctx context.Context, at string, dir *cold.Entry) (cold.Listing, error) {
	if at == f.at {
		return cold.Listing{}, cold.ErrMissing
	}
	return f.Side.List(ctx, at, dir)
}
