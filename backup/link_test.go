package backup

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/backup/format"
	"emberfs/tiers/cold"
)

// linkRemote is a remote with a pack and loose objects, and the volume that pushed them.
func linkRemote(t *testing.T) (remote string, v *testVolume, f *coldtest.File) {
	t.Helper()
	remote = coldtest.NewRemote(t)
	coldtest.Git(t, remote, "config", "receive.unpackLimit", "100")
	v = newVolume(t, Options{Source: remote, ChunkThreshold: testThreshold})
	f = coldtest.StockBase()
	for i := range 200 {
		f.Text(fmt.Sprintf("many/%d", i), fmt.Sprint("text ", i))
	}
	f.Text("big", string(coldtest.Noise(80, 6*format.MinChunk)))
	v.CommitTree(f, nil)
	v.MustPush()
	f.Text("late", "loose")
	v.CommitTree(f, nil)
	v.MustPush()
	return remote, v, f
}

// shared are the packs of a volume that are the remote's files.
func (v *testVolume) shared(remote string) (packs []string) {
	v.T.Helper()
	list, err := filepath.Glob(filepath.Join(remote, "objects/pack/pack-*.pack"))
	if err != nil {
		v.T.Fatal(err)
	}
	for _, p := range list {
		ours := filepath.Join(v.Dir, "objects/pack", filepath.Base(p))
		a, err1 := os.Stat(p)
		b, err2 := os.Stat(ours)
		if err1 == nil && err2 == nil && os.SameFile(a, b) {
			packs = append(packs, ours)
		}
	}
	return packs
}

func (v *testVolume) mustMaintain() {
	v.T.Helper()
	if err := v.Maintain(v.T.Context()); err != nil {
		v.T.Fatal(err)
	}
}

// The first fetch links the remote's packs; what follows is as after any other.
func TestFirstFetchLinks(t *testing.T) {
	t.Parallel()
	remote, other, f := linkRemote(t)
	v := newVolume(t, Options{Source: remote, ChunkThreshold: testThreshold})
	if moved, err := v.Peek(t.Context()); !moved || err != nil {
		t.Fatalf("Peek = %v, %v", moved, err)
	}
	if n := len(v.shared(remote)); n != 1 {
		t.Errorf("%d packs are shared after Peek", n)
	}
	v.MustFetch()
	coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), f)
	if v.Pushed() != v.HeadSnapshot().Info().ID {
		t.Errorf("Pushed = %s", v.Pushed())
	}
	if list := runCheck(t, v.Dir, CheckOptions{Deep: true, Volume: true}); problemsOf(list) > 0 {
		t.Errorf("check: %s", describe(list))
	}
	for _, e := range []cold.Entry{v.entry("big"), v.entry("late")} {
		if err := v.Holds(t.Context(), e.ID, e.Size); err != nil {
			t.Errorf("Holds %s: %v", e.Name, err)
		}
	}

	f.Text("more", "of the other")
	other.CommitTree(f, nil)
	other.MustPush()
	v.MustFetch()
	coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), f)
	f.Text("mine", "of this one")
	v.CommitTree(f, nil)
	v.MustPush()
	v.mustMaintain()
	if keeps, _ := filepath.Glob(filepath.Join(v.Dir, "objects/pack/*.keep")); len(keeps) > 0 {
		t.Errorf("kept: %q", keeps)
	}
	coldtest.Git(t, remote, "gc", "-q", "--prune=now")
	if n := len(v.shared(remote)); n != 0 {
		t.Errorf("%d packs are shared after the remote's gc", n)
	}
	coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), f)
	v.CheckGit()
	if _, err := v.GC(t.Context(), cold.GCOptions{Grace: -1}); err != nil {
		t.Error(err)
	}
	coldtest.Git(t, remote, "fsck", "--strict")

	// A gc'd remote has one pack, with files beside it that we do not need.
	coldtest.Git(t, remote, "repack", "-a", "-d", "-q", "-b")
	third := newVolume(t, Options{Source: remote})
	third.MustFetch()
	if n := len(third.shared(remote)); n != 1 {
		t.Errorf("%d packs are shared with a packed remote", n)
	}
	coldtest.CompareTrees(t, third.ReadTree(third.HeadSnapshot()), f)
	third.CheckGit()
}
