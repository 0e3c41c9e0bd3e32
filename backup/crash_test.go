package backup

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

var errCrash = errors.New("crash")

// crasher simulates a crash at the n-th step from now on; steps lists the steps that were passed.
type crasher struct {
	mu    sync.Mutex
	at    int
	steps []string
	armed bool
}

func (c *crasher) fail(step string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.armed {
		return nil
	}
	c.steps = append(c.steps, step)
	if len(c.steps) == c.at {
		return errCrash
	}
	return nil
}

// crashAt opens the volume at dir, runs do with a crash at the n-th step, and leaves everything as it is then.
func crashAt(t *testing.T, dir string, o Options, n int, do func(v *testVolume) error) (*crasher, error) {
	t.Helper()
	c := &crasher{at: n}
	o.Fail, o.Log = c.fail, coldtest.Quiet()
	cold, err := Open(dir, o)
	coldtest.Check(t, err)
	c.armed = true
	err = do(testVolumeOf(t, cold, dir))
	c.armed = false
	coldtest.Check(t, cold.Close())
	return c, err
}

// tryCommit commits without cleaning up after a failure.
func (v *testVolume) tryCommit(ctx context.Context, f *coldtest.File) error {
	tx, err := v.Begin(ctx)
	if err != nil {
		return err
	}
	base := map[string]cold.DirID{}
	if tx.Base() != nil {
		v.DirsOf(tx.Base(), coldtest.RootOf(tx.Base()), "", base)
	}
	if err := coldtest.Put(ctx, tx, f, base, "", nil); err != nil {
		return err
	}
	_, err = tx.Commit(ctx, cold.CommitOptions{Root: f.Dir()})
	return err
}

func crashTree(n int) *coldtest.File {
	f := coldtest.NewDir(0o755)
	for i := range 5 {
		f.Text(fmt.Sprintf("dir%d/f", i), fmt.Sprint("content ", i*n))
	}
	f.Text(fmt.Sprint("only", n), strings.Repeat("x", n))
	return f
}

// sound checks that the repository is sound, and returns its head.
func (v *testVolume) sound(what string) cold.ID {
	v.T.Helper()
	coldtest.Fsck(v.T, v.Dir, what)
	for _, pattern := range []string{"objects/pack/*.keep", "objects/pack/tmp_*", "refs/heads/*.lock*"} {
		if left, err := filepath.Glob(filepath.Join(v.Dir, pattern)); err != nil || len(left) > 0 {
			v.T.Errorf("%s: left behind: %v, %v", what, left, err)
		}
	}
	return v.HeadSnapshot().Info().ID
}

// Somebody else moves the branch while a Tx is open.
func TestRefMoved(t *testing.T) {
	v := newVolume(t, Options{})
	v.CommitTree(crashTree(1), nil)
	tx := v.MustBegin()
	f := crashTree(2)
	coldtest.Check(t, coldtest.Put(t.Context(), tx, f, map[string]cold.DirID{}, "", nil))
	v.StockEdit("echo -n by hand >hand")
	if _, err := tx.Commit(t.Context(), cold.CommitOptions{Root: f.Dir()}); !errors.Is(err, cold.ErrRefMoved) {
		t.Errorf("Commit = %v", err)
	}
	tx.Abort()
	got := v.ReadStock(v.HeadSnapshot())
	if got.Kids["hand"] == nil || got.Kids["only1"] == nil {
		t.Errorf("%v", got.Flat(""))
	}
	if out := coldtest.Git(t, v.Dir, "count-objects", "-v"); !strings.Contains(out, "garbage: 0") {
		t.Error(out)
	}
	v.sound("after a moved branch")
}

// One Tx at a time: the second waits, and gives up with its context.
func TestOneTx(t *testing.T) {
	v := newVolume(t, Options{})
	tx := v.MustBegin()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Begin(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("second Begin = %v", err)
	}
	began := make(chan error)
	go func() {
		second, err := v.Begin(t.Context())
		if err == nil {
			second.Abort()
		}
		began <- err
	}()
	tx.Abort()
	if err := <-began; err != nil {
		t.Error(err)
	}
}

// A crash at any step of a commit leaves the old tip or the new one, whole, and the next commit works.
func TestCrashInCommit(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		dir := filepath.Join(t.TempDir(), "cold.git")
		old := openVolume(t, dir, Options{}).CommitTree(crashTree(1), nil)
		c, err := crashAt(t, dir, Options{}, n, func(v *testVolume) error {
			return v.tryCommit(t.Context(), crashTree(2))
		})
		if len(c.steps) < n {
			if err != nil || n < 10 {
				t.Fatalf("commit without a crash: %v; %q", err, c.steps)
			}
			break
		}
		step := c.steps[n-1]
		released := step == "release.keep" || step == "ref.unlock"
		if (err == nil) != released && !errors.Is(err, errCrash) {
			t.Errorf("%s: Commit = %v", step, err)
		}
		v := openVolume(t, dir, Options{})
		head := v.sound(step)
		want := crashTree(1)
		if head != old {
			want = crashTree(2)
			if err != nil && !strings.HasPrefix(step, "ref.") {
				t.Errorf("%s: the branch moved", step)
			}
		}
		coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), want)
		v.CommitTree(crashTree(3), nil)
		coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), crashTree(3))
		v.sound(step)
	}
}
