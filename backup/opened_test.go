package backup

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

// commitOpened commits a tree with a list of opened files.
func (v *testVolume) commitOpened(f *coldtest.File, opened []string) cold.Snapshot {
	v.T.Helper()
	x, err := v.Begin(v.T.Context())
	coldtest.Check(v.T, err)
	defer x.Abort()
	coldtest.Check(v.T, coldtest.Put(v.T.Context(), x, f, nil, "", nil))
	id, err := x.Commit(v.T.Context(), cold.CommitOptions{Root: f.Dir(), Opened: opened})
	coldtest.Check(v.T, err)
	s, err := v.Snapshot(v.T.Context(), id)
	coldtest.Check(v.T, err)
	return s
}

func openedOf(t *testing.T, s cold.Snapshot) []string {
	t.Helper()
	paths, err := s.Opened(t.Context())
	if err != nil {
		t.Fatalf("Opened: %v", err)
	}
	return paths
}

// The list is passed on from commit to commit until another one, or an empty one, replaces it. It is not visible as a
// file.
func TestOpened(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{})
	f := coldtest.StockBase()
	first := f.Kids["a"]
	want := []string{"z/last", "a", "caf\xe9/\xff", "new\nline", ".git/x", `q"\`}
	s := v.commitOpened(f, want)
	if got := openedOf(t, s); !slices.Equal(got, want) {
		t.Errorf("Opened = %q, want %q", got, want)
	}
	root := coldtest.RootOf(s)
	coldtest.CompareTrees(t, v.ReadTree(s), f)
	f.Text("a", "other")
	next := v.commitOpened(f, nil)
	if got := openedOf(t, next); !slices.Equal(got, want) {
		t.Errorf("after a commit without a list: %q", got)
	}
	coldtest.CompareTrees(t, v.ReadTree(next), f)
	f.Text("a", "third")
	gone := v.commitOpened(f, []string{})
	if got := openedOf(t, gone); got != nil {
		t.Errorf("after a commit with an empty list: %q", got)
	}
	if names := coldtest.Git(t, v.Dir, "ls-tree", "--name-only", "main:.emberfs"); strings.Contains(names, "opened") {
		t.Errorf("an empty list has a file: %s", names)
	}
	f.Kids["a"] = first
	if again := v.commitOpened(f, []string{"a"}); coldtest.RootOf(again) != root {
		t.Error("the list changes the root's ids")
	}
	v.CheckGit()
}

func TestOpenedIsCutOff(t *testing.T) {
	var many []string
	for i := range 2 * maxOpened {
		many = append(many, fmt.Sprintf("%0*d", 10+i%3, i))
	}
	long := slices.Clone(many[:maxOpened])
	for i := range long {
		long[i] = strings.Repeat("d/", 100) + long[i]
	}
	for _, list := range [][]string{many, long} {
		data := encodeOpened(list)
		got, err := decodeOpened(data)
		if err != nil || len(data) > maxOpenedBlob || len(got) > maxOpened || len(got) < 1000 ||
			!slices.Equal(got, list[:len(got)]) {
			t.Errorf("%d paths, %d bytes, %v", len(got), len(data), err)
		}
	}
	got, err := decodeOpened(encodeOpened([]string{"", "/abs", "a/../b", "a//b", "nul\x00", strings.Repeat("a/", 3000) +
		"b", "good"}))
	if err != nil || !slices.Equal(got, []string{"good"}) {
		t.Errorf("%q, %v", got, err)
	}
}

// A lost list is an empty one, and the next commit does not name it any more.
func TestOpenedLost(t *testing.T) {
	v := newVolume(t, Options{})
	f := coldtest.StockBase()
	v.commitOpened(f, []string{"a"})
	blob := coldtest.Git(t, v.Dir, "rev-parse", "main:.emberfs/opened")
	coldtest.Explode(t, v.Dir)
	id, err := cold.ParseID(blob)
	coldtest.Check(t, err)
	coldtest.RemoveLoose(t, v.Dir, id)
	coldtest.Check(t, v.db.Refresh())
	if got := openedOf(t, v.HeadSnapshot()); got != nil {
		t.Errorf("Opened = %q", got)
	}
	f.Text("a", "b")
	if got := openedOf(t, v.commitOpened(f, nil)); got != nil {
		t.Errorf("Opened = %q", got)
	}
	if out := coldtest.Git(t, v.Dir, "ls-tree", "main:.emberfs"); strings.Contains(out, blob) {
		t.Errorf("the commit names it still: %s", out)
	}
}

// Valid agrees with ReadDir for each directory.
func TestValid(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{})
	f := coldtest.StockBase()
	f.Mkdir("void/er")
	f.Text("keep/x", "x")
	f.Text("change/y/z", "z")
	f.Text("move/m/n", "n")
	for i := range 600 {
		f.Text(fmt.Sprintf("many/%d", i), "")
	}
	v.CommitTree(f, nil)
	compare := func(invalid ...string) {
		t.Helper()
		s := v.HeadSnapshot()
		dirs := map[string]cold.DirID{}
		v.DirsOf(s, coldtest.RootOf(s), "", dirs)
		for p, d := range dirs {
			got, err := s.Valid(t.Context(), d)
			if want := !slices.Contains(invalid, p); got != want || err != nil {
				t.Errorf("%q: Valid = %v, %v", p, got, err)
			}
			l, err := s.ReadDir(t.Context(), d)
			if err != nil || l.Reconciled == got {
				t.Errorf("%q: Valid = %v, Reconciled = %v, %v", p, got, l.Reconciled, err)
			}
		}
	}
	compare()
	v.StockEdit("echo more >>change/y/z; mv move/m moved; mkdir new; echo n >new/n")
	// moved is a tree that its inherited metadata describes.
	compare("", "change", "change/y", "move", "new")
	s := v.HeadSnapshot()
	if ok, err := s.Valid(t.Context(), cold.DirID{Tree: coldtest.BlobID(t, "x"),
		Meta: coldtest.BlobID(t, "nothing of the kind")}); ok || !errors.Is(err, cold.ErrMissing) {
		t.Errorf("of metadata that are missing: %v, %v", ok, err)
	}
}
