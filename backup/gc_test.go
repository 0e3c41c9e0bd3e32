package backup

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	"emberfs/backup/odb"
	"emberfs/integration/effort"
	"emberfs/tiers/cold"
)

// commitBesideGit commits as soon as the reference is free: git at work all the time holds its lock for longer than a commit waits for
// it where the machine has much to do.
func (v *testVolume) commitBesideGit(begin func(context.Context) (cold.Tx, error), f *file, links map[string][]string) {
	v.t.Helper()
	var err error
	for range 100 {
		if _, err = v.commitWith(begin, f, links, cold.CommitOptions{Reason: "test", Files: 1}); !errors.Is(err, odb.ErrLocked) {
			break
		}
	}
	if err != nil {
		v.t.Fatal(err)
	}
}

// Stock git repacks and prunes all the time while commits are made: nothing is ever lost, and what it packed as deltas reads
// the same.
func TestCommitsUnderGC(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{})
	f, links := oddTree()
	for i := range 600 {
		f.text(fmt.Sprintf("many/f%03d", i), fmt.Sprint("some text that makes a delta ", i))
	}
	v.commit(f, links)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var rounds atomic.Int64
	go func() {
		for ctx.Err() == nil {
			for _, args := range [][]string{{"gc", "-q", "--prune=now"}, {"repack", "-adfq"}, {"pack-refs", "--all"}} {
				cmd := exec.Command("git", args...)
				cmd.Dir = v.dir
				cmd.Env = append(cmd.Environ(), "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
				if out, err := cmd.CombinedOutput(); err != nil {
					done <- fmt.Errorf("git %q: %w: %s", args, err, out)
					return
				}
			}
			rounds.Add(1)
		}
		done <- nil
	}()
	count := effort.Count(t, 8, 400)
	for i := 0; i < count || rounds.Load() < 3 && i < count+1000; i++ {
		f.text(fmt.Sprintf("many/f%03d", i%600), fmt.Sprint("changed in commit ", i))
		f.text(fmt.Sprintf("dir/new%d", i%5), fmt.Sprint(i)).Mtime = cold.Time{Sec: int64(i)}
		delete(f.kids["names"].kids, fmt.Sprint(i))
		v.commitBesideGit(v.Begin, f, links)
		// An aborted commit in between leaves nothing that a later one could rely on.
		tx, err := v.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		g := newDir(0o755)
		g.text("never", fmt.Sprint("aborted ", i))
		if err := put(ctx, tx, g, map[string]cold.DirID{}, "", nil); err != nil {
			t.Fatal(err)
		}
		tx.Abort()
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	compareTrees(t, v.read(v.headSnapshot()), f)
	git(t, v.dir, "gc", "-q", "--aggressive", "--prune=now")
	compareTrees(t, v.read(v.headSnapshot()), f)
	v.checkGit()
	again := openVolume(t, v.copyTo(filepath.Join(t.TempDir(), "copy.git")), Options{})
	compareTrees(t, again.read(again.headSnapshot()), f)
}

// copyTo makes a mirror with stock git.
func (v *testVolume) copyTo(dir string) string {
	v.t.Helper()
	git(v.t, ".", "clone", "-q", "--mirror", "--no-hardlinks", v.dir, dir)
	return dir
}
