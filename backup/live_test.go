package backup

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

func (v *testVolume) commitLive(f *coldtest.File) cold.ID {
	v.T.Helper()
	id, err := v.CommitBy(v.BeginLive, f, cold.CommitOptions{Reason: "critical", Files: 1})
	coldtest.Check(v.T, err)
	return id
}

// Live commits are made beside main, whose next commit replaces them. Stock git only sees main.
func TestLiveBranch(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{VolumeID: "vol", MachineID: "m"})
	f := coldtest.NewDir(0o755)
	f.Text("a", "one")
	f.Text("db/critical", strings.Repeat("0", 5000))
	first := v.commitLive(f)
	v.WantAt("the first commit", first, cold.ID{})
	var live []cold.ID
	for i := range 3 {
		f.Text("db/critical", strings.Repeat(fmt.Sprint(i+1), 5000))
		live = append(live, v.commitLive(f))
		v.WantAt("live", first, live[i])
	}
	coldtest.CompareTrees(t, v.ReadTree(v.NewestSnapshot()), f)
	if info := v.NewestSnapshot().Info(); info.Parent != live[1] || info.Reason != "critical" || info.Machine != "m" {
		t.Errorf("%+v", info)
	}
	v.CheckGit()
	if got := coldtest.Git(t, v.Dir, "rev-list", "--count", "main"); got != "1" {
		t.Errorf("main has %s commits", got)
	}
	refs := coldtest.LiveRefs(t, v.Dir)
	if len(refs) != 1 || !strings.HasSuffix(refs[0], ":"+live[2].String()) {
		t.Fatalf("live branches: %q", refs)
	}
	clone := filepath.Join(t.TempDir(), "clone")
	coldtest.Git(t, ".", "clone", "-q", "--branch", "main", "--single-branch", "file://"+v.Dir, clone)
	if out, err := coldtest.GitTry(t, clone, nil, "cat-file", "-e", live[0].String()); err == nil {
		t.Error("a clone of main has the live commits", out)
	}

	again := openVolume(t, v.CopyTo(filepath.Join(t.TempDir(), "copy.git")), Options{})
	again.WantAt("opened again", first, live[2])

	packs := func() map[string]bool {
		list, err := filepath.Glob(filepath.Join(v.Dir, "objects/pack/*.idx"))
		coldtest.Check(t, err)
		set := map[string]bool{}
		for _, p := range list {
			set[p] = true
		}
		return set
	}
	before := packs()
	f.Text("a", "two")
	second := v.CommitTree(f, nil)
	v.WantAt("main", second, cold.ID{})
	info := v.HeadSnapshot().Info()
	if info.Parent != first || len(info.Absorbed) != 1 || info.Absorbed[0] != live[2] {
		t.Errorf("%+v", info)
	}
	if refs := coldtest.LiveRefs(t, v.Dir); len(refs) != 0 {
		t.Errorf("live branches: %q", refs)
	}
	coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), f)
	for p := range packs() {
		if !before[p] && strings.Contains(coldtest.Git(t, v.Dir, "verify-pack", "-v", p),
			f.Kids["db"].Kids["critical"].ID.String()) {
			t.Error("what the live branch had was stored again")
		}
	}
	coldtest.Git(t, v.Dir, "gc", "-q", "--prune=now")
	v.CheckGit()
	coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), f)
	if out, err := coldtest.GitTry(t, v.Dir, nil, "cat-file", "-e", live[2].String()); err == nil {
		t.Error("the live commits outlive a gc", out)
	}
	f.Text("db/critical", "next")
	third := v.commitLive(f)
	v.WantAt("the next epoch", second, third)
}

// Nothing has changed since the last live commit: main only catches up, and nothing need be put.
func TestMainCatchesUp(t *testing.T) {
	v := newVolume(t, Options{})
	f := coldtest.NewDir(0o755)
	f.Text("a", "one")
	first := v.CommitTree(f, nil)
	f.Text("a", "two")
	v.commitLive(f)
	commit := func(begin func(context.Context) (cold.Tx, error)) (cold.ID, error) {
		tx, err := begin(t.Context())
		coldtest.Check(t, err)
		defer tx.Abort()
		return tx.Commit(t.Context(), cold.CommitOptions{Reason: "sync", Root: coldtest.RootOf(tx.Base())})
	}
	if _, err := commit(v.BeginLive); err == nil {
		t.Error("a live commit without a root that was put")
	}
	id, err := commit(v.Begin)
	coldtest.Check(t, err)
	v.WantAt("caught up", id, cold.ID{})
	if v.HeadSnapshot().Info().Parent != first {
		t.Error("another parent than main's tip")
	}
	coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), f)
	v.CheckGit()
	if _, err := commit(v.Begin); err == nil {
		t.Error("a commit to main without a root that was put")
	}
}

// Somebody else moves one of the branches while a Tx is open: the Tx fails, and what they did stays.
func TestLiveRefMoved(t *testing.T) {
	t.Parallel()
	setup := func(t *testing.T) (*testVolume, *coldtest.File) {
		v := newVolume(t, Options{})
		f := coldtest.NewDir(0o755)
		f.Text("a", "one")
		v.CommitTree(f, nil)
		f.Text("a", "two")
		v.commitLive(f)
		return v, f
	}
	live := func(v *testVolume) string {
		return livePrefix + "main/" + strings.Split(coldtest.LiveRefs(v.T, v.Dir)[0], ":")[0]
	}
	moves := map[string]func(v *testVolume){
		"main":        func(v *testVolume) { v.StockEdit("echo -n by hand >hand") },
		"live":        func(v *testVolume) { coldtest.Git(v.T, v.Dir, "update-ref", live(v), stockChild(v, live(v))) },
		"live gone":   func(v *testVolume) { coldtest.Git(v.T, v.Dir, "update-ref", "-d", live(v)) },
		"main merged": func(v *testVolume) { coldtest.Git(v.T, v.Dir, "update-ref", "refs/heads/main", live(v)) },
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
				coldtest.Check(t, err)
				f.Text("a", "three")
				coldtest.Check(t, coldtest.Put(t.Context(), tx, f, map[string]cold.DirID{}, "", nil))
				move(v)
				before := coldtest.Git(t, v.Dir, "for-each-ref")
				if _, err := tx.Commit(t.Context(), cold.CommitOptions{Root: f.Dir()}); !errors.Is(err,
					cold.ErrRefMoved) {
					t.Errorf("Commit = %v", err)
				}
				tx.Abort()
				coldtest.Equal(t, coldtest.Git(t, v.Dir, "for-each-ref"), before, "the references are")
				v.sound(name)
			})
		}
	}
}

// stockChild makes an empty commit on a reference by stock git, without moving it.
func stockChild(v *testVolume, ref string) string {
	return coldtest.Git(v.T, v.Dir, "commit-tree", "-p", ref, "-m", "stock", ref+"^{tree}")
}

// BeginAt on main's tip must not commit past a live branch.
func TestBeginAtBesideLive(t *testing.T) {
	v := newVolume(t, Options{})
	f := coldtest.NewDir(0o755)
	f.Text("a", "one")
	first := v.CommitTree(f, nil)
	f.Text("a", "two")
	second := v.commitLive(f)
	for _, at := range []cold.ID{first, second} {
		begin := func(ctx context.Context) (cold.Tx, error) { return v.BeginAt(ctx, at) }
		if _, err := v.CommitBy(begin, f, cold.CommitOptions{}); !errors.Is(err, cold.ErrRefMoved) {
			t.Errorf("Commit at %s = %v", at, err)
		}
	}
	v.WantAt("after", first, second)
}

// The live branch that main absorbed is left behind, either because the process was killed, or because somebody moved
// main. In the first case the next start removes it; in the second it stays and is reported.
func TestStaleLiveBranches(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{})
	f := coldtest.NewDir(0o755)
	f.Text("a", "one")
	v.CommitTree(f, nil)
	f.Text("a", "two")
	absorbed := v.commitLive(f)
	ref := livePrefix + "main/" + strings.Split(coldtest.LiveRefs(t, v.Dir)[0], ":")[0]
	f.Text("a", "three")
	main := v.CommitTree(f, nil)
	coldtest.Git(t, v.Dir, "update-ref", ref, absorbed.String())
	coldtest.Check(t, v.Cold.retireAbsorbed(t.Context()))
	if refs := coldtest.LiveRefs(t, v.Dir); len(refs) != 0 || len(v.Stats().Problems) > 0 {
		t.Errorf("left: %q, %q", refs, v.Stats().Problems)
	}

	f.Text("a", "four")
	lost := v.commitLive(f)
	v.StockEdit("echo -n by hand >hand")
	again := openVolume(t, v.CopyTo(filepath.Join(t.TempDir(), "copy.git")), Options{})
	if refs := coldtest.LiveRefs(t, again.Dir); len(refs) != 1 || !strings.HasSuffix(refs[0], lost.String()) {
		t.Errorf("live branches: %q", refs)
	}
	if p := again.Stats().Problems; len(p) != 1 || !strings.Contains(p[0], livePrefix+"main/") {
		t.Errorf("problems: %q", p)
	}
	if info := again.NewestSnapshot().Info(); info.Live || info.Parent != main {
		t.Errorf("Newest is %+v", info)
	}
	got := again.ReadStock(again.HeadSnapshot())
	again.CommitTree(got, nil)
	again.commitLive(got)
	if refs := coldtest.LiveRefs(t, again.Dir); len(refs) != 2 {
		t.Errorf("live branches: %q", refs)
	}
}

func TestEpochOf(t *testing.T) {
	v := newVolume(t, Options{})
	coldtest.Git(t, v.Dir, "hash-object", "-w", "-t", "tree", "/dev/null")
	seen := map[string]bool{}
	for _, date := range []string{"1760000000 +0000", "1760000000 +0200", "0 +0000", "1099511627776 +0000",
		"99999999999999 +0000"} {
		tree := coldtest.Git(t, v.Dir, "hash-object", "-t", "tree", "/dev/null")
		raw := fmt.Sprintf("tree %s\nauthor a <a> %s\ncommitter a <a> %s\n\nm\n", tree, date, date)
		out, err := coldtest.GitTry(t, v.Dir, []byte(raw), "hash-object", "-w", "-t", "commit", "--stdin",
			"--literally")
		if err != nil {
			t.Fatal(out)
		}
		id, err := cold.ParseID(strings.TrimSpace(out))
		coldtest.Check(t, err)
		c, err := ReadCommit(v.db, id)
		coldtest.Check(t, err)
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
	f := coldtest.NewDir(0o755)
	f.Text("a", "one")
	v.CommitTree(f, nil)
	v.commitLive(f)
	if got := coldtest.Git(t, v.Dir, "for-each-ref", "--format=%(refname:lstrip=2)",
		"refs/heads/emberfs-live/team/a"); got == "" {
		t.Error("no live branch below team/a")
	}
}

// The commit that absorbs a live branch names the last commit of each other machine on it.
func TestAbsorbedOfSeveralMachines(t *testing.T) {
	v := newVolume(t, Options{})
	f := coldtest.NewDir(0o755)
	f.Text("a", "")
	v.CommitTree(f, nil)
	var want []cold.ID
	for i, m := range []string{"one", "one", "two", "one", "one"} {
		f.Text("a", fmt.Sprint(i))
		id, err := v.CommitBy(v.BeginLive, f, cold.CommitOptions{Reason: "critical", Machine: m, When: time.Now()})
		coldtest.Check(t, err)
		if i == 1 || i == 2 || i == 4 {
			want = append([]cold.ID{id}, want...)
		}
	}
	v.CommitTree(f, nil)
	if got := v.HeadSnapshot().Info().Absorbed; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Absorbed = %v, want %v", got, want)
	}
}
