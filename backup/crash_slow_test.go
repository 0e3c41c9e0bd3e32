//go:build slow

package backup

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

// A crash at any step of a fetch leaves the branch where it was or moves it forward whole.
func TestCrashInFetch(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t)
	other := newVolume(t, Options{Source: remote})
	other.CommitTree(crashTree(1), nil)
	other.MustPush()
	for n := 1; ; n++ {
		dir := filepath.Join(t.TempDir(), "cold.git")
		c, err := crashAt(t, dir, Options{Source: remote}, n, func(v *testVolume) error { return v.Fetch(t.Context()) })
		if len(c.steps) < n {
			if err != nil || n < 10 {
				t.Fatalf("fetch without a crash: %v; %q", err, c.steps)
			}
			break
		}
		v := openVolume(t, dir, Options{Source: remote})
		if s, err := v.Head(t.Context()); err != nil {
			t.Errorf("%s: %v", c.steps[n-1], err)
		} else if s != nil {
			coldtest.CompareTrees(t, v.ReadTree(s), crashTree(1))
		}
		v.MustFetch()
		coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), crashTree(1))
		v.sound(c.steps[n-1])
	}
}

// A crash at any step of the first fetch: the next one goes through, and everything is there.
func TestFirstFetchCrashes(t *testing.T) {
	t.Parallel()
	remote, _, f := linkRemote(t)
	for n := 1; ; n++ {
		dir := filepath.Join(t.TempDir(), "cold.git")
		c, err := crashAt(t, dir, Options{Source: remote}, n, func(v *testVolume) error { return v.Fetch(t.Context()) })
		if err == nil {
			if n < 20 {
				t.Errorf("only %d steps: %q", n, c.steps)
			}
			return
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("step %d %q: %v", n, c.steps, err)
		}
		v := openVolume(t, dir, Options{Source: remote})
		v.MustFetch()
		coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), f)
		v.MustMaintain()
		if left, _ := filepath.Glob(filepath.Join(dir, "objects/pack/*.keep")); len(left) > 0 {
			t.Errorf("step %d %q: left %q", n, c.steps, left)
		}
		coldtest.Fsck(t, dir, "step ", n)
	}
}

// An error instead of a crash: the Tx is aborted, nothing stays, and the same Cold goes on.
func TestErrorInCommit(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		c := &crasher{at: n}
		v := newVolume(t, Options{Fail: c.fail})
		v.CommitTree(crashTree(1), nil)
		c.armed = true
		tx := v.MustBegin()
		f := crashTree(2)
		err := coldtest.Put(t.Context(), tx, f, map[string]cold.DirID{}, "", nil)
		if err == nil {
			_, err = tx.Commit(t.Context(), cold.CommitOptions{Root: f.Dir()})
		}
		passed := c.steps
		c.armed = false
		tx.Abort()
		tx.Abort()
		if len(passed) < n {
			coldtest.Check(t, err)
			break
		}
		if _, err := tx.PutFile(t.Context(), coldtest.Content(nil), cold.Base{}); err == nil {
			t.Errorf("%s: the Tx goes on", passed[n-1])
		}
		// What is there is whole, whichever tip it is.
		got := v.ReadTree(v.HeadSnapshot())
		coldtest.Fsck(t, v.Dir, passed[n-1])
		if got.Kids["only1"] == nil && got.Kids["only2"] == nil {
			t.Errorf("%s: %v", passed[n-1], got.Flat(""))
		}
		if passed[n-1] == "ref.lock" || strings.HasPrefix(passed[n-1], "ref.") {
			continue // a lock of our own living process stays, as after any such crash; the next start breaks it
		}
		v.CommitTree(crashTree(3), nil)
		coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), crashTree(3))
	}
}
