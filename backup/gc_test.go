package backup

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/backup/odb"
	"emberfs/integration/effort"
	"emberfs/tiers/cold"
)

// commitBesideGit commits as soon as the reference is free: git at work all the time holds its lock for longer than a
// commit waits for it where the machine has much to do.
func (v *testVolume) commitBesideGit(begin func(context.Context) (cold.Tx, error), f *coldtest.File,
	links map[string][]string) {
	v.T.Helper()
	var err error
	for range 100 {
		if _, err = v.CommitWith(begin, f, links, cold.CommitOptions{Reason: "test", Files: 1}); !errors.Is(err,
			odb.ErrLocked) {
			break
		}
	}
	coldtest.Check(v.T, err)
}

// loop is what goes on beside a test, again and again.
type loop struct {
	rounds atomic.Int64
	stop   func() // ends it, and fails the test where it failed
}

// beside runs f again and again until it fails or is stopped.
func (v *testVolume) beside(f func() error) *loop {
	ctx, cancel := context.WithCancel(v.T.Context())
	done, l := make(chan error, 1), &loop{}
	go func() {
		for ctx.Err() == nil {
			if err := f(); err != nil {
				done <- err
				return
			}
			l.rounds.Add(1)
		}
		done <- nil
	}()
	l.stop = func() {
		v.T.Helper()
		cancel()
		coldtest.Check(v.T, <-done)
	}
	return l
}

// besideGit runs commands of stock git again and again.
func (v *testVolume) besideGit(commands ...[]string) *loop {
	return v.beside(func() error {
		for _, args := range commands {
			cmd := exec.Command("git", args...)
			cmd.Dir = v.Dir
			cmd.Env = append(cmd.Environ(), "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory",
				"GIT_CONFIG_VALUE_0=*")
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("git %q: %w: %s", args, err, out)
			}
		}
		return nil
	})
}

// Stock git repacks and prunes all the time while commits are made: nothing is ever lost, and what it packed as deltas
// reads the same.
func TestCommitsUnderGC(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{})
	f, links := oddTree()
	for i := range 600 {
		f.Text(fmt.Sprintf("many/f%03d", i), fmt.Sprint("some text that makes a delta ", i))
	}
	v.CommitTree(f, links)
	git := v.besideGit([]string{"gc", "-q", "--prune=now"}, []string{"repack", "-adfq"}, []string{"pack-refs", "--all"})
	count := effort.Count(t, 8, 400)
	for i := 0; i < count || git.rounds.Load() < 3 && i < count+1000; i++ {
		f.Text(fmt.Sprintf("many/f%03d", i%600), fmt.Sprint("changed in commit ", i))
		f.Text(fmt.Sprintf("dir/new%d", i%5), fmt.Sprint(i)).Mtime = cold.Time{Sec: int64(i)}
		delete(f.Kids["names"].Kids, fmt.Sprint(i))
		v.commitBesideGit(v.Begin, f, links)
		// An aborted commit in between leaves nothing that a later one could rely on.
		tx := v.MustBegin()
		g := coldtest.NewDir(0o755)
		g.Text("never", fmt.Sprint("aborted ", i))
		coldtest.Check(t, coldtest.Put(t.Context(), tx, g, map[string]cold.DirID{}, "", nil))
		tx.Abort()
	}
	git.stop()
	coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), f)
	coldtest.Git(t, v.Dir, "gc", "-q", "--aggressive", "--prune=now")
	coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), f)
	v.CheckGit()
	again := openVolume(t, v.CopyTo(filepath.Join(t.TempDir(), "copy.git")), Options{})
	coldtest.CompareTrees(t, again.ReadTree(again.HeadSnapshot()), f)
}
