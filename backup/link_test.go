package backup

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"emberfs/backup/format"
	"emberfs/tiers/cold"
)

// linkRemote is a remote with a pack and loose objects, and the volume that pushed them.
func linkRemote(t *testing.T) (remote string, v *testVolume, f *file) {
	t.Helper()
	remote = newRemote(t)
	git(t, remote, "config", "receive.unpackLimit", "100")
	v = newVolume(t, Options{Source: remote, ChunkThreshold: testThreshold})
	f = stockBase()
	for i := range 200 {
		f.text(fmt.Sprintf("many/%d", i), fmt.Sprint("text ", i))
	}
	f.text("big", string(noise(80, 6*format.MinChunk)))
	v.commit(f, nil)
	v.mustPush()
	f.text("late", "loose")
	v.commit(f, nil)
	v.mustPush()
	return remote, v, f
}

// shared are the packs of a volume that are the remote's files.
func (v *testVolume) shared(remote string) (packs []string) {
	v.t.Helper()
	list, err := filepath.Glob(filepath.Join(remote, "objects/pack/pack-*.pack"))
	if err != nil {
		v.t.Fatal(err)
	}
	for _, p := range list {
		ours := filepath.Join(v.dir, "objects/pack", filepath.Base(p))
		a, err1 := os.Stat(p)
		b, err2 := os.Stat(ours)
		if err1 == nil && err2 == nil && os.SameFile(a, b) {
			packs = append(packs, ours)
		}
	}
	return packs
}

func (v *testVolume) mustMaintain() {
	v.t.Helper()
	if err := v.Maintain(v.t.Context()); err != nil {
		v.t.Fatal(err)
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
	v.mustFetch()
	compareTrees(t, v.read(v.headSnapshot()), f)
	if v.Pushed() != v.headSnapshot().Info().ID {
		t.Errorf("Pushed = %s", v.Pushed())
	}
	if list := runCheck(t, v.dir, CheckOptions{Deep: true, Volume: true}); problemsOf(list) > 0 {
		t.Errorf("check: %s", describe(list))
	}
	for _, e := range []cold.Entry{v.entry("big"), v.entry("late")} {
		if err := v.Holds(t.Context(), e.ID, e.Size); err != nil {
			t.Errorf("Holds %s: %v", e.Name, err)
		}
	}

	f.text("more", "of the other")
	other.commit(f, nil)
	other.mustPush()
	v.mustFetch()
	compareTrees(t, v.read(v.headSnapshot()), f)
	f.text("mine", "of this one")
	v.commit(f, nil)
	v.mustPush()
	v.mustMaintain()
	if keeps, _ := filepath.Glob(filepath.Join(v.dir, "objects/pack/*.keep")); len(keeps) > 0 {
		t.Errorf("kept: %q", keeps)
	}
	git(t, remote, "gc", "-q", "--prune=now")
	if n := len(v.shared(remote)); n != 0 {
		t.Errorf("%d packs are shared after the remote's gc", n)
	}
	compareTrees(t, v.read(v.headSnapshot()), f)
	v.checkGit()
	if _, err := v.GC(t.Context(), cold.GCOptions{Grace: -1}); err != nil {
		t.Error(err)
	}
	git(t, remote, "fsck", "--strict")

	// A gc'd remote has one pack, with files beside it that we do not need.
	git(t, remote, "repack", "-a", "-d", "-q", "-b")
	third := newVolume(t, Options{Source: remote})
	third.mustFetch()
	if n := len(third.shared(remote)); n != 1 {
		t.Errorf("%d packs are shared with a packed remote", n)
	}
	compareTrees(t, third.read(third.headSnapshot()), f)
	third.checkGit()
}
