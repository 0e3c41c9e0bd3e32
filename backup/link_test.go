package backup

import (
	"path/filepath"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

// linkRemote is a remote with a pack and loose objects, and the volume that pushed them.
func linkRemote(t *testing.T) (remote string, v *testVolume, f *coldtest.File) {
	t.Helper()
	remote = coldtest.NewRemote(t)
	v = newVolume(t, Options{Source: remote, ChunkThreshold: testThreshold})
	return remote, v, v.PushPackAndLoose(remote)
}

// The first fetch links the remote's packs; what follows is as after any other.
func TestFirstFetchLinks(t *testing.T) {
	t.Parallel()
	remote, other, f := linkRemote(t)
	v := newVolume(t, Options{Source: remote, ChunkThreshold: testThreshold})
	v.wantPeek(true, "Peek")
	if n := len(v.Shared(remote)); n != 1 {
		t.Errorf("%d packs are shared after Peek", n)
	}
	v.MustFetch()
	coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), f)
	if v.Pushed() != v.HeadSnapshot().Info().ID {
		t.Errorf("Pushed = %s", v.Pushed())
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
	v.MustMaintain()
	if keeps, _ := filepath.Glob(filepath.Join(v.Dir, "objects/pack/*.keep")); len(keeps) > 0 {
		t.Errorf("kept: %q", keeps)
	}
	coldtest.Git(t, remote, "gc", "-q", "--prune=now")
	if n := len(v.Shared(remote)); n != 0 {
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
	if n := len(third.Shared(remote)); n != 1 {
		t.Errorf("%d packs are shared with a packed remote", n)
	}
	coldtest.CompareTrees(t, third.ReadTree(third.HeadSnapshot()), f)
	third.CheckGit()
}

// The first fetch by hard link brings the live branch too.
func TestLinkedLive(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t)
	v := newVolume(t, Options{Source: remote})
	f, ids, _ := v.LiveHistory()
	v.MustPush()
	coldtest.Git(t, remote, "gc", "-q")
	two := newVolume(t, Options{Source: remote})
	two.MustFetch()
	if len(two.Shared(remote)) == 0 {
		t.Fatal("nothing was linked")
	}
	two.WantAt("linked", ids[1], ids[3])
	two.MustMaintain()
	coldtest.CompareTrees(t, two.ReadTree(two.NewestSnapshot()), f)
	two.CheckGit()
	coldtest.Equal(t, two.Pushed(), ids[3], "Pushed =")
}
