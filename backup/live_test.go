package backup

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"emberfs/tiers/cold"
)

// commitBy commits the tree by one of the ways to begin.
func (v *testVolume) commitBy(begin func(context.Context) (cold.Tx, error), f *file, o cold.CommitOptions) (cold.ID, error) {
	v.t.Helper()
	return v.commitWith(begin, f, nil, o)
}

func (v *testVolume) commitWith(begin func(context.Context) (cold.Tx, error), f *file, links map[string][]string, o cold.CommitOptions) (cold.ID, error) {
	v.t.Helper()
	ctx := v.t.Context()
	tx, err := begin(ctx)
	if err != nil {
		return cold.ID{}, err
	}
	defer tx.Abort()
	base := map[string]cold.DirID{}
	if tx.Base() != nil {
		v.dirs(tx.Base(), rootOf(tx.Base()), "", base)
	}
	if err := put(ctx, tx, f, base, "", links); err != nil {
		return cold.ID{}, err
	}
	o.Root = f.Dir()
	return tx.Commit(ctx, o)
}

func (v *testVolume) commitLive(f *file) cold.ID {
	v.t.Helper()
	id, err := v.commitBy(v.BeginLive, f, cold.CommitOptions{Reason: "critical", Files: 1})
	if err != nil {
		v.t.Fatal(err)
	}
	return id
}

func (v *testVolume) newestSnapshot() cold.Snapshot {
	v.t.Helper()
	s, err := v.Newest(v.t.Context())
	if err != nil || s == nil {
		v.t.Fatalf("Newest: %v, %v", s, err)
	}
	return s
}

// wantAt checks where main and the live branch are; live zero: there is none.
func (v *testVolume) wantAt(what string, main, live cold.ID) {
	v.t.Helper()
	if got := v.headSnapshot().Info(); got.ID != main || got.Live {
		v.t.Errorf("%s: Head is %s (live %v), want %s", what, got.ID, got.Live, main)
	}
	want := live
	if live.IsZero() {
		want = main
	}
	if got := v.newestSnapshot().Info(); got.ID != want || got.Live != !live.IsZero() {
		v.t.Errorf("%s: Newest is %s (live %v), want %s", what, got.ID, got.Live, want)
	}
}

// liveRefs lists the live branches of a repository, as "EPOCH ID".
func liveRefs(t *testing.T, dir string) []string {
	t.Helper()
	return strings.Fields(strings.ReplaceAll(git(t, dir, "for-each-ref", "--format=%(refname:lstrip=-1):%(objectname)", "refs/heads/emberfs-live"), "\n", " "))
}

func mainRefOf(t *testing.T, dir string) string { return git(t, dir, "rev-parse", "refs/heads/main") }

// Live commits go beside main, which takes their place with its next commit; stock git sees main alone.
func TestLiveBranch(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{VolumeID: "vol", MachineID: "m"})
	f := newDir(0o755)
	f.text("a", "one")
	f.text("db/critical", strings.Repeat("0", 5000))
	first := v.commitLive(f)
	v.wantAt("the first commit", first, cold.ID{})
	var live []cold.ID
	for i := range 3 {
		f.text("db/critical", strings.Repeat(fmt.Sprint(i+1), 5000))
		live = append(live, v.commitLive(f))
		v.wantAt("live", first, live[i])
	}
	compareTrees(t, v.read(v.newestSnapshot()), f)
	if info := v.newestSnapshot().Info(); info.Parent != live[1] || info.Reason != "critical" || info.Machine != "m" {
		t.Errorf("%+v", info)
	}
	v.checkGit()
	if got := git(t, v.dir, "rev-list", "--count", "main"); got != "1" {
		t.Errorf("main has %s commits", got)
	}
	refs := liveRefs(t, v.dir)
	if len(refs) != 1 || !strings.HasSuffix(refs[0], ":"+live[2].String()) {
		t.Fatalf("live branches: %q", refs)
	}
	clone := filepath.Join(t.TempDir(), "clone")
	git(t, ".", "clone", "-q", "--branch", "main", "--single-branch", "file://"+v.dir, clone)
	if out, err := gitTry(t, clone, nil, "cat-file", "-e", live[0].String()); err == nil {
		t.Error("a clone of main has the live commits", out)
	}

	again := openVolume(t, v.copyTo(filepath.Join(t.TempDir(), "copy.git")), Options{})
	again.wantAt("opened again", first, live[2])

	packs := func() map[string]bool {
		list, err := filepath.Glob(filepath.Join(v.dir, "objects/pack/*.idx"))
		if err != nil {
			t.Fatal(err)
		}
		set := map[string]bool{}
		for _, p := range list {
			set[p] = true
		}
		return set
	}
	before := packs()
	f.text("a", "two")
	second := v.commit(f, nil)
	v.wantAt("main", second, cold.ID{})
	info := v.headSnapshot().Info()
	if info.Parent != first || len(info.Absorbed) != 1 || info.Absorbed[0] != live[2] {
		t.Errorf("%+v", info)
	}
	if refs := liveRefs(t, v.dir); len(refs) != 0 {
		t.Errorf("live branches: %q", refs)
	}
	compareTrees(t, v.read(v.headSnapshot()), f)
	for p := range packs() {
		if !before[p] && strings.Contains(git(t, v.dir, "verify-pack", "-v", p), f.kids["db"].kids["critical"].ID.String()) {
			t.Error("what the live branch had was stored again")
		}
	}
	git(t, v.dir, "gc", "-q", "--prune=now")
	v.checkGit()
	compareTrees(t, v.read(v.headSnapshot()), f)
	if out, err := gitTry(t, v.dir, nil, "cat-file", "-e", live[2].String()); err == nil {
		t.Error("the live commits outlive a gc", out)
	}
	f.text("db/critical", "next")
	third := v.commitLive(f)
	v.wantAt("the next epoch", second, third)
}

// Nothing was changed since the last live commit: main only catches up, and nothing need be put.
func TestMainCatchesUp(t *testing.T) {
	v := newVolume(t, Options{})
	f := newDir(0o755)
	f.text("a", "one")
	first := v.commit(f, nil)
	f.text("a", "two")
	v.commitLive(f)
	commit := func(begin func(context.Context) (cold.Tx, error)) (cold.ID, error) {
		tx, err := begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Abort()
		return tx.Commit(t.Context(), cold.CommitOptions{Reason: "sync", Root: rootOf(tx.Base())})
	}
	if _, err := commit(v.BeginLive); err == nil {
		t.Error("a live commit without a root that was put")
	}
	id, err := commit(v.Begin)
	if err != nil {
		t.Fatal(err)
	}
	v.wantAt("caught up", id, cold.ID{})
	if v.headSnapshot().Info().Parent != first {
		t.Error("another parent than main's tip")
	}
	compareTrees(t, v.read(v.headSnapshot()), f)
	v.checkGit()
	if _, err := commit(v.Begin); err == nil {
		t.Error("a commit to main without a root that was put")
	}
}

// Somebody else moves one of the branches while a Tx is open: it fails, and whatever they did stays.
func TestLiveRefMoved(t *testing.T) {
	t.Parallel()
	setup := func(t *testing.T) (*testVolume, *file) {
		v := newVolume(t, Options{})
		f := newDir(0o755)
		f.text("a", "one")
		v.commit(f, nil)
		f.text("a", "two")
		v.commitLive(f)
		return v, f
	}
	live := func(v *testVolume) string {
		return livePrefix + "main/" + strings.Split(liveRefs(v.t, v.dir)[0], ":")[0]
	}
	moves := map[string]func(v *testVolume){
		"main":        func(v *testVolume) { v.stockEdit("echo -n by hand >hand") },
		"live":        func(v *testVolume) { git(v.t, v.dir, "update-ref", live(v), stockChild(v, live(v))) },
		"live gone":   func(v *testVolume) { git(v.t, v.dir, "update-ref", "-d", live(v)) },
		"main merged": func(v *testVolume) { git(v.t, v.dir, "update-ref", "refs/heads/main", live(v)) },
	}
	for name, move := range moves {
		for what, toLive := range map[string]bool{"Begin": false, "BeginLive": true} {
			t.Run(name+"/"+what, func(t *testing.T) {
				v, f := setup(t)
				begin := v.Begin
				if toLive {
					begin = v.BeginLive
				}
				tx, err := begin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				f.text("a", "three")
				if err := put(t.Context(), tx, f, map[string]cold.DirID{}, "", nil); err != nil {
					t.Fatal(err)
				}
				move(v)
				before := git(t, v.dir, "for-each-ref")
				if _, err := tx.Commit(t.Context(), cold.CommitOptions{Root: f.Dir()}); !errors.Is(err, cold.ErrRefMoved) {
					t.Errorf("Commit = %v", err)
				}
				tx.Abort()
				if after := git(t, v.dir, "for-each-ref"); after != before {
					t.Errorf("references moved from\n%s\nto\n%s", before, after)
				}
				v.sound(name)
			})
		}
	}
}

// stockChild makes an empty commit on a reference by stock git, without moving it.
func stockChild(v *testVolume, ref string) string {
	return git(v.t, v.dir, "commit-tree", "-p", ref, "-m", "stock", ref+"^{tree}")
}

// BeginAt on main's tip must not commit past a live branch.
func TestBeginAtBesideLive(t *testing.T) {
	v := newVolume(t, Options{})
	f := newDir(0o755)
	f.text("a", "one")
	first := v.commit(f, nil)
	f.text("a", "two")
	second := v.commitLive(f)
	for _, at := range []cold.ID{first, second} {
		begin := func(ctx context.Context) (cold.Tx, error) { return v.BeginAt(ctx, at) }
		if _, err := v.commitBy(begin, f, cold.CommitOptions{}); !errors.Is(err, cold.ErrRefMoved) {
			t.Errorf("Commit at %s = %v", at, err)
		}
	}
	v.wantAt("after", first, second)
}

// The live branch that main absorbed stays behind when the process is killed in between, or is somebody's who moved main: the first goes
// at the next start, the second stays and is reported.
func TestStaleLiveBranches(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{})
	f := newDir(0o755)
	f.text("a", "one")
	v.commit(f, nil)
	f.text("a", "two")
	absorbed := v.commitLive(f)
	ref := livePrefix + "main/" + strings.Split(liveRefs(t, v.dir)[0], ":")[0]
	f.text("a", "three")
	main := v.commit(f, nil)
	git(t, v.dir, "update-ref", ref, absorbed.String())
	if err := v.Cold.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if refs := liveRefs(t, v.dir); len(refs) != 0 || len(v.Stats().Problems) > 0 {
		t.Errorf("left: %q, %q", refs, v.Stats().Problems)
	}

	f.text("a", "four")
	lost := v.commitLive(f)
	v.stockEdit("echo -n by hand >hand")
	again := openVolume(t, v.copyTo(filepath.Join(t.TempDir(), "copy.git")), Options{})
	if refs := liveRefs(t, again.dir); len(refs) != 1 || !strings.HasSuffix(refs[0], lost.String()) {
		t.Errorf("live branches: %q", refs)
	}
	if p := again.Stats().Problems; len(p) != 1 || !strings.Contains(p[0], livePrefix+"main/") {
		t.Errorf("problems: %q", p)
	}
	if info := again.newestSnapshot().Info(); info.Live || info.Parent != main {
		t.Errorf("Newest is %+v", info)
	}
	got := again.readStock(again.headSnapshot())
	again.commit(got, nil)
	again.commitLive(got)
	if refs := liveRefs(t, again.dir); len(refs) != 2 {
		t.Errorf("live branches: %q", refs)
	}
}

func TestEpochOf(t *testing.T) {
	v := newVolume(t, Options{})
	git(t, v.dir, "hash-object", "-w", "-t", "tree", "/dev/null")
	seen := map[string]bool{}
	for _, date := range []string{"1760000000 +0000", "1760000000 +0200", "0 +0000", "1099511627776 +0000", "99999999999999 +0000"} {
		tree := git(t, v.dir, "hash-object", "-t", "tree", "/dev/null")
		raw := fmt.Sprintf("tree %s\nauthor a <a> %s\ncommitter a <a> %s\n\nm\n", tree, date, date)
		out, err := gitTry(t, v.dir, []byte(raw), "hash-object", "-w", "-t", "commit", "--stdin", "--literally")
		if err != nil {
			t.Fatal(out)
		}
		id, err := cold.ParseID(strings.TrimSpace(out))
		if err != nil {
			t.Fatal(err)
		}
		c, err := readCommit(v.db, id)
		if err != nil {
			t.Fatal(err)
		}
		e := epochOf(id, &c)
		if !epochName.MatchString(e) || seen[e] {
			t.Errorf("%s: %q", date, e)
		}
		seen[e] = true
	}
}

func TestReservedBranches(t *testing.T) {
	for _, name := range []string{"emberfs-live", "emberfs-live/main/1", "emberfs-side/x"} {
		if c, err := Open(filepath.Join(t.TempDir(), "c.git"), Options{Branch: name}); err == nil {
			t.Errorf("branch %s was taken", name)
			_ = c.Close()
		}
	}
	// git keeps branches a and a/b apart itself; one with slashes is like any other.
	v := newVolume(t, Options{Branch: "team/a"})
	f := newDir(0o755)
	f.text("a", "one")
	v.commit(f, nil)
	v.commitLive(f)
	if got := git(t, v.dir, "for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads/emberfs-live/team/a"); got == "" {
		t.Error("no live branch below team/a")
	}
}

// The commits of another machine on the same live branch are named where they end, by the commit that absorbs them.
func TestAbsorbedOfSeveralMachines(t *testing.T) {
	v := newVolume(t, Options{})
	f := newDir(0o755)
	f.text("a", "")
	v.commit(f, nil)
	var want []cold.ID
	for i, m := range []string{"one", "one", "two", "one", "one"} {
		f.text("a", fmt.Sprint(i))
		id, err := v.commitBy(v.BeginLive, f, cold.CommitOptions{Reason: "critical", Machine: m, When: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 || i == 2 || i == 4 {
			want = append([]cold.ID{id}, want...)
		}
	}
	v.commit(f, nil)
	if got := v.headSnapshot().Info().Absorbed; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Absorbed = %v, want %v", got, want)
	}
}
