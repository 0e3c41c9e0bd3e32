package log

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"emberfs/backup"
	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

func TestPoints(t *testing.T) {
	remote := coldtest.NewRemote(t)
	v := newVolume(t, backup.Options{Source: remote})
	f := coldtest.NewDir(0o755)
	when := time.Unix(1_700_000_000, 0)
	var c []cold.ID
	add := func() {
		f.Text("f", fmt.Sprint(len(c)))
		c = append(c, v.commitAt(f, when.Add(time.Duration(len(c))*48*time.Hour)))
	}
	add()
	add()
	v.MustPush()
	add()
	coldtest.Git(t, v.Dir, "tag", "-a", "-m", "m", "v1", c[0].String())
	coldtest.Git(t, v.Dir, "tag", "blob", coldtest.Git(t, v.Dir, "rev-parse", "main:f"))
	coldtest.Git(t, v.Dir, "branch", "emberfs-side/main/m-1", coldtest.Git(t, v.Dir, "commit-tree", "-p", c[0].String(),
		"-m", "side", c[0].String()+"^{tree}"))
	if known, err := v.HasTracking(); !known || err != nil {
		t.Errorf("HasTracking: %v, %v", known, err)
	}
	var got []string
	for p, err := range v.Points(t.Context()) {
		coldtest.Check(t, err)
		name := "side"
		if i := slices.Index(c, p.ID); i >= 0 {
			name = fmt.Sprint(i)
		}
		got = append(got, fmt.Sprintf("%s %v %s", name, p.Remote, strings.Join(p.Refs, ",")))
	}
	want := []string{"side false emberfs-side/main/m-1", "2 false main", "1 true remote: main", "0 true tag: v1"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// TestSameSecond: of commits of one second children come first, however they are found.
func TestSameSecond(t *testing.T) {
	v := newVolume(t, backup.Options{})
	f := coldtest.NewDir(0o755)
	when := time.Unix(1_700_000_000, 0)
	var c []cold.ID
	for i := range 6 {
		f.Text("f", fmt.Sprint(i))
		c = append(c, v.commitAt(f, when))
		coldtest.Git(t, v.Dir, "tag", fmt.Sprint("t", i), c[i].String())
	}
	want := slices.Clone(c)
	slices.Reverse(want)
	for i := range c { // each commit a tip of its own, in each order
		tips := append(slices.Clone(c[i:]), c[:i]...)
		var got []cold.ID
		for commit, err := range v.Log(t.Context(), tips, nil) {
			coldtest.Check(t, err)
			got = append(got, commit.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("tips %v: got %v", tips, got)
		}
	}
	n := 0
	for p, err := range v.Points(t.Context()) {
		if err != nil || p.ID != want[n] {
			t.Errorf("point %d: %v, %v", n, p.ID, err)
		}
		n++
	}
}

func TestTotals(t *testing.T) {
	v := newVolume(t, backup.Options{})
	f := coldtest.NewDir(0o755)
	f.Text("a", "12345")
	f.Text("d/b", "123")
	f.Mkdir("d/void")
	f.Symlink("l", "a")
	f.Special("fifo", cold.KindFIFO, 0)
	v.CommitTree(f, nil)
	first := v.HeadSnapshot()
	f.Text("a", "1")
	v.CommitTree(f, nil)
	want := Totals{Files: 4, Entries: 6, Bytes: 8}
	if got, ok := v.Totals(t.Context(), first, 100); !ok || got != want {
		t.Errorf("got %+v, %v", got, ok)
	}
	if got, ok := v.Totals(t.Context(), first, 7); ok {
		t.Errorf("counted beyond the limit: %+v", got)
	}
	n := v.Counter(9 + 5) // the root twice, d and void once
	for _, s := range []cold.Snapshot{first, v.HeadSnapshot(), first} {
		got, ok := n.Count(t.Context(), s)
		if want.Bytes = 8; s != first {
			want.Bytes = 4
		}
		if !ok || got != want {
			t.Errorf("got %+v, %v; want %+v", got, ok, want)
		}
	}
}

// TestPointsWithoutCarriers: what a push that was broken left of its parts can be restored by nobody.
func TestPointsWithoutCarriers(t *testing.T) {
	v := newVolume(t, backup.Options{})
	f := coldtest.NewDir(0o755)
	f.Text("a", "1")
	tip := v.CommitTree(f, nil)
	carrier := coldtest.Git(t, v.Dir, "-c", "user.name=x", "-c", "user.email=x@x", "commit-tree", "-m", "part",
		coldtest.Git(t, v.Dir, "rev-parse", "main^{tree}"))
	coldtest.Git(t, v.Dir, "update-ref", "refs/heads/emberfs-part/main/1700000000-"+carrier[:12], carrier)
	for p, err := range v.Points(t.Context()) {
		coldtest.Check(t, err)
		if p.ID != tip {
			t.Errorf("it lists %s, %q", p.ID, p.Refs)
		}
	}
}
