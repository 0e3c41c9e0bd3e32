package fsck

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"emberfs/backup"
	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

// check takes the live branch for what it is, damage in it for damage, and what warm is of may be on it or absorbed.
func TestCheckWithLive(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t)
	v := newVolume(t, backup.Options{Source: remote})
	f, ids, _ := v.LiveHistory()
	coldtest.Check(t, v.Close())
	o := Options{Volume: true, Deep: true, Source: remote, Head: ids[3]}
	list := runCheck(t, v.Dir, o)
	if problemsOf(list) > 0 || !hasFinding(list, cold.Risk, "not on the remote", ids[3].String()) || len(list) != 1 {
		t.Errorf("not pushed: %s", describe(list))
	}
	work := func(do func(v *testVolume)) {
		again := openVolume(t, v.Dir, backup.Options{Source: remote})
		do(again)
		again.MustPush()
		coldtest.Check(t, again.Close())
	}
	work(func(*testVolume) {})
	if list := runCheck(t, v.Dir, o); len(list) > 0 {
		t.Errorf("pushed: %s", describe(list))
	}
	o.Head = ids[1]
	if list := runCheck(t, v.Dir, o); len(list) != 1 || !hasFinding(list, cold.Note, "2 commits behind") {
		t.Errorf("warm is behind: %s", describe(list))
	}
	damaged := v.CopyTo(filepath.Join(t.TempDir(), "damaged.git"))
	coldtest.Explode(t, damaged)
	coldtest.RemoveLoose(t, damaged, f.Kids["f"].ID)
	if list := runCheck(t, damaged, Options{}); !hasFinding(list, cold.Damaged, f.Kids["f"].ID.String()) {
		t.Errorf("damaged: %s", describe(list))
	}
	f.Text("f", "main again")
	work(func(v *testVolume) { v.CommitTree(f, nil) })
	o.Head = ids[3]
	if list := runCheck(t, v.Dir, o); len(list) != 1 || !hasFinding(list, cold.Note, "absorbed") {
		t.Errorf("absorbed: %s", describe(list))
	}
}

// main's reference is gone, and warm is of a live commit: main gets back the commit where the live branch begins.
func TestRepairMainBelowLive(t *testing.T) {
	remote := coldtest.NewRemote(t)
	v := newVolume(t, backup.Options{Source: remote})
	f, ids, _ := v.LiveHistory()
	coldtest.Check(t, v.Close())
	coldtest.Git(t, v.Dir, "update-ref", "-d", v.TrackingRef())
	coldtest.Check(t, os.WriteFile(filepath.Join(v.Dir, "refs/heads/main"), []byte("rubbish\n"), 0o644))
	r := runRepair(t, v.Dir, Options{Volume: true, Head: ids[3]}, nil)
	if problemsOf(r.before) == 0 || problemsOf(r.after) > 0 {
		t.Errorf("before: %s\nafter: %s", describe(r.before), describe(r.after))
	}
	again := openVolume(t, v.Dir, backup.Options{})
	again.WantAt("repaired", ids[1], ids[3])
	coldtest.CompareTrees(t, again.ReadTree(again.NewestSnapshot()), f)
}

// A note of the remote's live branch that is damaged is forgotten.
func TestRepairLiveNotes(t *testing.T) {
	remote := coldtest.NewRemote(t)
	v := newVolume(t, backup.Options{Source: remote})
	_, ids, _ := v.LiveHistory()
	coldtest.Check(t, v.Close())
	for _, ref := range []string{"refs/emberfs/remote-live/main", "refs/emberfs/absorbed/main/17"} {
		path := filepath.Join(v.Dir, ref)
		coldtest.Check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		coldtest.Check(t, os.WriteFile(path, []byte(strings.Repeat("12", 20)+"\n"), 0o644))
	}
	r := runRepair(t, v.Dir, Options{Volume: true, Head: ids[3]}, nil)
	if problemsOf(r.before) != 2 || problemsOf(r.after) > 0 {
		t.Errorf("before: %s\nafter: %s", describe(r.before), describe(r.after))
	}
	again := openVolume(t, v.Dir, backup.Options{Source: remote})
	again.MustPush()
	coldtest.WantRemote(t, "after", remote, ids[1], ids[3])
}
