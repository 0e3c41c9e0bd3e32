package backup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"emberfs/tiers/cold"
)

// liveHistory is a volume with main at two commits and a live branch of two, an hour apart each, of which all but the last is on the
// remote. The ids come in the order of making.
func liveHistory(t *testing.T) (*testVolume, *file, []cold.ID, time.Time) {
	t.Helper()
	v := newVolume(t, Options{Source: newRemote(t)})
	f := newDir(0o755)
	when := time.Unix(1_700_000_000, 0)
	var ids []cold.ID
	for i := range 4 {
		f.text("f", fmt.Sprint(i))
		begin := v.Begin
		if i >= 2 {
			begin = v.BeginLive
		}
		id, err := v.commitBy(begin, f, cold.CommitOptions{Reason: "test", When: when.Add(time.Duration(i) * time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		if ids = append(ids, id); i == 2 {
			v.mustPush()
		}
	}
	return v, f, ids, when
}

// What lists commits knows live ones, and a time means the newest of both.
func TestLiveInHistory(t *testing.T) {
	v, f, ids, when := liveHistory(t)
	ref := strings.TrimPrefix(livePrefix, "refs/heads/") + "main/" + strings.Split(liveRefs(t, v.dir)[0], ":")[0]
	var got []string
	for p, err := range v.Points(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d live %v remote %v %s", slices.Index(ids, p.ID), p.Live, p.Remote, strings.Join(p.Refs, ";")))
	}
	want := []string{"3 live true remote false " + ref, "2 live true remote true remote: main, live", "1 live false remote true main;remote: main", "0 live false remote true "}
	if !slices.Equal(got, want) {
		t.Errorf("Points: got %q\nwant %q", got, want)
	}
	for _, dir := range []string{v.dir, v.copyTo(filepath.Join(t.TempDir(), "copy.git"))} {
		ro := openVolumeReadOnly(t, dir)
		compareTrees(t, ro.read(ro.newestSnapshot()), f)
		ro.wantAt("read only", ids[1], ids[3])
		for rev, want := range map[string]int{
			"HEAD": 1, "main": 1, ref: 3, ref + "~1": 2, ref + "~2": 1,
			when.Add(10 * time.Hour).Format(time.RFC3339): 3, when.Add(150 * time.Minute).Format(time.RFC3339): 2,
			when.Add(90 * time.Minute).Format(time.RFC3339): 1,
		} {
			if id, err := ro.Resolve(t.Context(), rev, when); err != nil || id != ids[want] {
				t.Errorf("Resolve(%s) = %s, %v, want %s", rev, id, err, ids[want])
			}
		}
	}
}

// check takes the live branch for what it is, damage in it for damage, and what warm is of may be on it or absorbed.
func TestCheckWithLive(t *testing.T) {
	t.Parallel()
	v, f, ids, _ := liveHistory(t)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	o := CheckOptions{Volume: true, Deep: true, Source: v.o.Source, Head: ids[3]}
	list := runCheck(t, v.dir, o)
	if problemsOf(list) > 0 || !hasFinding(list, cold.Risk, "not on the remote", ids[3].String()) || len(list) != 1 {
		t.Errorf("not pushed: %s", describe(list))
	}
	work := func(do func(v *testVolume)) {
		again := openVolume(t, v.dir, Options{Source: v.o.Source})
		do(again)
		again.mustPush()
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
	work(func(*testVolume) {})
	if list := runCheck(t, v.dir, o); len(list) > 0 {
		t.Errorf("pushed: %s", describe(list))
	}
	o.Head = ids[1]
	if list := runCheck(t, v.dir, o); len(list) != 1 || !hasFinding(list, cold.Note, "2 commits behind") {
		t.Errorf("warm is behind: %s", describe(list))
	}
	damaged := v.copyTo(filepath.Join(t.TempDir(), "damaged.git"))
	explode(t, damaged)
	removeLoose(t, damaged, f.kids["f"].ID)
	if list := runCheck(t, damaged, CheckOptions{}); !hasFinding(list, cold.Damaged, f.kids["f"].ID.String()) {
		t.Errorf("damaged: %s", describe(list))
	}
	f.text("f", "main again")
	work(func(v *testVolume) { v.commit(f, nil) })
	o.Head = ids[3]
	if list := runCheck(t, v.dir, o); len(list) != 1 || !hasFinding(list, cold.Note, "absorbed") {
		t.Errorf("absorbed: %s", describe(list))
	}
}

// main's reference is gone, and warm is of a live commit: main gets back the commit where the live branch begins.
func TestRepairMainBelowLive(t *testing.T) {
	v, f, ids, _ := liveHistory(t)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	git(t, v.dir, "update-ref", "-d", v.trackingRef())
	if err := os.WriteFile(filepath.Join(v.dir, "refs/heads/main"), []byte("rubbish\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := runRepair(t, v.dir, CheckOptions{Volume: true, Head: ids[3]}, nil)
	if problemsOf(r.before) == 0 || problemsOf(r.after) > 0 {
		t.Errorf("before: %s\nafter: %s", describe(r.before), describe(r.after))
	}
	again := openVolume(t, v.dir, Options{})
	again.wantAt("repaired", ids[1], ids[3])
	compareTrees(t, again.read(again.newestSnapshot()), f)
}

// A note of the remote's live branch that is damaged is forgotten.
func TestRepairLiveNotes(t *testing.T) {
	v, _, ids, _ := liveHistory(t)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{v.sharedRef(), v.absorbedRef("17")} {
		path := filepath.Join(v.dir, ref)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.Repeat("12", 20)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := runRepair(t, v.dir, CheckOptions{Volume: true, Head: ids[3]}, nil)
	if problemsOf(r.before) != 2 || problemsOf(r.after) > 0 {
		t.Errorf("before: %s\nafter: %s", describe(r.before), describe(r.after))
	}
	again := openVolume(t, v.dir, Options{Source: v.o.Source})
	again.mustPush()
	wantRemote(t, "after", v.o.Source, ids[1], ids[3])
}

// The first fetch by hard link brings the live branch too.
func TestLinkedLive(t *testing.T) {
	t.Parallel()
	v, f, ids, _ := liveHistory(t)
	v.mustPush()
	git(t, v.o.Source, "gc", "-q")
	two := newVolume(t, Options{Source: v.o.Source})
	two.mustFetch()
	if len(two.shared(v.o.Source)) == 0 {
		t.Fatal("nothing was linked")
	}
	two.wantAt("linked", ids[1], ids[3])
	two.mustMaintain()
	compareTrees(t, two.read(two.newestSnapshot()), f)
	two.checkGit()
	if got := two.Pushed(); got != ids[3] {
		t.Errorf("Pushed = %s", got)
	}
}
