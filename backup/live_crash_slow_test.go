//go:build slow

package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

// tryCommitBy is tryCommit for a given way to begin.
func (v *testVolume) tryCommitBy(ctx context.Context, begin func(context.Context) (cold.Tx, error),
	f *coldtest.File) error {
	tx, err := begin(ctx)
	if err != nil {
		return err
	}
	base := map[string]cold.DirID{}
	v.DirsOf(tx.Base(), coldtest.RootOf(tx.Base()), "", base)
	if err := coldtest.Put(ctx, tx, f, base, "", nil); err != nil {
		return err
	}
	_, err = tx.Commit(ctx, cold.CommitOptions{Root: f.Dir()})
	return err
}

// A crash at any step of a live commit, the first of its epoch or a later one, and of the commit to main that absorbs
// it, leaves the newest commit as it was or makes it the new one, whole, also after stock git's own cleaning; then
// everything goes on.
func TestCrashWithLive(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t) // where there is one, what is absorbed is kept; nothing is pushed
	for what, run := range map[string]struct {
		before int // live commits
		begin  func(v *testVolume) func(context.Context) (cold.Tx, error)
	}{
		"first live": {0, func(v *testVolume) func(context.Context) (cold.Tx, error) { return v.BeginLive }},
		"live":       {2, func(v *testVolume) func(context.Context) (cold.Tx, error) { return v.BeginLive }},
		"absorb":     {2, func(v *testVolume) func(context.Context) (cold.Tx, error) { return v.Begin }},
	} {
		for n := 1; ; n++ {
			dir := filepath.Join(t.TempDir(), "cold.git")
			v := openVolume(t, dir, Options{Source: remote})
			main := v.CommitTree(crashTree(1), nil)
			old := main
			for i := range run.before {
				old = v.commitLive(crashTree(2 + i))
			}
			was := crashTree(1 + run.before)
			c, err := crashAt(t, dir, Options{Source: remote}, n, func(v *testVolume) error {
				return v.tryCommitBy(t.Context(), run.begin(v), crashTree(7))
			})
			if len(c.steps) < n {
				if err != nil || n < 10 {
					t.Fatalf("%s without a crash: %v; %q", what, err, c.steps)
				}
				t.Logf("%s: %d steps", what, n-1)
				break
			}
			step := fmt.Sprintf("%s, %d %s", what, n, c.steps[n-1])
			if err != nil && !errors.Is(err, errCrash) {
				t.Errorf("%s: Commit = %v", step, err)
			}
			v = openVolume(t, dir, Options{Source: remote})
			newest := v.NewestSnapshot()
			want := was
			if newest.Info().ID != old {
				want = crashTree(7)
			} else if err == nil {
				t.Errorf("%s: a commit that was reported is not the newest", step)
			}
			coldtest.CompareTrees(t, v.ReadTree(newest), want)
			absorbed := what == "absorb" && v.HeadSnapshot().Info().ID != main
			if refs := coldtest.LiveRefs(t, dir); absorbed && len(refs) != 0 {
				t.Errorf("%s: left: %q", step, refs)
			}
			coldtest.Git(t, dir, "gc", "-q", "--prune=now")
			v = openVolume(t, v.CopyTo(filepath.Join(t.TempDir(), "copy.git")), Options{})
			coldtest.CompareTrees(t, v.ReadTree(v.NewestSnapshot()), want)
			v = openVolume(t, dir, Options{})
			v.commitLive(crashTree(3))
			coldtest.CompareTrees(t, v.ReadTree(v.NewestSnapshot()), crashTree(3))
			v.CommitTree(crashTree(4), nil)
			coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), crashTree(4))
			coldtest.Fsck(t, dir, step)
			if refs := coldtest.LiveRefs(t, dir); len(refs) != 0 {
				t.Errorf("%s: left at the end: %q", step, refs)
			}
			left, err := filepath.Glob(filepath.Join(dir, "refs/heads/emberfs-live/main/*"))
			if err != nil || len(left) > 0 {
				t.Errorf("%s: left behind: %q %v", step, left, err)
			}
		}
	}
}

// An error at any step instead of a crash.
func TestErrorWithLive(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		c := &crasher{at: n}
		v := newVolume(t, Options{Fail: c.fail})
		v.CommitTree(crashTree(1), nil)
		v.commitLive(crashTree(2))
		c.armed = true
		_, err := v.CommitBy(v.Begin, crashTree(3), cold.CommitOptions{})
		passed := c.steps
		c.armed = false
		if len(passed) < n {
			coldtest.Check(t, err)
			break
		}
		got := v.ReadTree(v.NewestSnapshot())
		coldtest.Fsck(t, v.Dir, passed[n-1])
		if got.Kids["only2"] == nil && got.Kids["only3"] == nil {
			t.Errorf("%s: %v", passed[n-1], got.Flat(""))
		}
	}
}

// A crash at any step of a fetch that brings main and live branches leaves a whole state, one of those the remote was
// in or ours, and the next fetch goes through.
func TestCrashInFetchWithLive(t *testing.T) {
	t.Parallel()
	remote, one, two, _ := twoAtLive(t)
	base := one.copyWhole()
	was := one.ReadTree(one.NewestSnapshot())
	g := two.ReadTree(two.NewestSnapshot())
	g.Text("critical", "absorbed unseen")
	two.commitLive(g)
	g.Text("a", "main")
	main := two.CommitTree(g, nil)
	between := two.ReadTree(two.HeadSnapshot())
	g.Text("critical", "next epoch")
	live := two.commitLive(g)
	two.MustPush()
	states := [][]string{was.Flat(""), between.Flat(""), g.Flat("")}
	for n := 1; ; n++ {
		dir := filepath.Join(t.TempDir(), "cold.git")
		coldtest.Check(t, os.CopyFS(dir, os.DirFS(base)))
		c, err := crashAt(t, dir, Options{Source: remote}, n, func(v *testVolume) error { return v.Fetch(t.Context()) })
		if len(c.steps) < n {
			if err != nil || n < 10 {
				t.Fatalf("fetch without a crash: %v; %q", err, c.steps)
			}
			t.Logf("%d steps", n-1)
			break
		}
		step := fmt.Sprint(n, " ", c.steps[n-1])
		v := openVolume(t, dir, Options{Source: remote})
		got := v.ReadTree(v.NewestSnapshot()).Flat("")
		if !slices.ContainsFunc(states, func(s []string) bool { return slices.Equal(s, got) }) {
			t.Errorf("%s: no state that there was: %q", step, got)
		}
		coldtest.Git(t, dir, "gc", "-q", "--prune=now")
		v.MustFetch()
		v.WantAt(step, main, live)
		v.wantPushed(step, live)
		coldtest.CompareTrees(t, v.ReadTree(v.NewestSnapshot()), g)
		if refs := coldtest.LiveRefs(t, dir); len(refs) != 1 {
			t.Errorf("%s: live branches: %q", step, refs)
		}
		if p := v.Stats().Problems; len(p) > 0 {
			t.Errorf("%s: problems: %q", step, p)
		}
		coldtest.Fsck(t, dir, step)
	}
}

// A crash at any step of a push, between its own notes as well: the next one goes through.
func TestCrashInPushWithLive(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		remote, one, _, f := twoAtLive(t)
		f.Text("a", "main")
		main := one.CommitTree(f, nil)
		f.Text("critical", "next epoch")
		live := one.commitLive(f)
		dir := one.copyWhole()
		c, err := crashAt(t, dir, Options{Source: remote}, n, func(v *testVolume) error { return v.Push(t.Context()) })
		v := openVolume(t, dir, Options{Source: remote})
		if err == nil {
			v.wantPushed("pushed", live)
		}
		v.MustPush()
		coldtest.WantRemote(t, fmt.Sprint(n), remote, main, live)
		v.wantPushed(fmt.Sprint(n), live)
		coldtest.Equal(t, coldtest.Git(t, v.Dir, "for-each-ref", "refs/emberfs/absorbed"), "", "%d: left:", n)
		if len(c.steps) < n {
			if err != nil || n < 5 {
				t.Fatalf("push without a crash: %v; %q", err, c.steps)
			}
			break
		}
	}
}
