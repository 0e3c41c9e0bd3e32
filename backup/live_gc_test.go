package backup

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"emberfs/integration/effort"
	"emberfs/tiers/cold"
)

// Stock git repacks and prunes all the time while live commits and commits to main take turns: nothing is ever lost.
func TestLiveUnderGC(t *testing.T) {
	t.Parallel()
	// Names before and behind "emberfs-live": in one of the two orders stock git reads main before the live branch.
	for _, branch := range []string{"a", "main"} {
		t.Run(branch, func(t *testing.T) {
			v := newVolume(t, Options{Branch: branch})
			f := newDir(0o755)
			for i := range 50 {
				f.text(fmt.Sprintf("many/f%03d", i), fmt.Sprint("some text that makes a delta ", i))
			}
			v.commit(f, nil)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			var rounds atomic.Int64
			go func() {
				for ctx.Err() == nil {
					for _, args := range [][]string{{"gc", "-q", "--prune=now"}, {"repack", "-adfq"}, {"prune", "--expire=now"}, {"pack-refs", "--all"}} {
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
			count := effort.Count(t, 12, 200)
			for i := 0; i < count || rounds.Load() < 3 && i < count+1000; i++ {
				for j := range i % 4 {
					f.text("many/critical", fmt.Sprint("critical ", i, j))
					v.commitBesideGit(v.BeginLive, f, nil)
				}
				f.text(fmt.Sprintf("many/f%03d", i%50), fmt.Sprint("changed in commit ", i))
				v.commitBesideGit(v.Begin, f, nil)
			}
			f.text("many/critical", "the last")
			v.commitBesideGit(v.BeginLive, f, nil)
			cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			compareTrees(t, v.read(v.newestSnapshot()), f)
			git(t, v.dir, "gc", "-q", "--aggressive", "--prune=now")
			compareTrees(t, v.read(v.newestSnapshot()), f)
			if out := git(t, v.dir, "fsck", "--strict", "--no-dangling"); out != "" {
				t.Errorf("git fsck: %s", out)
			}
			if n := strings.Count(git(t, v.dir, "rev-list", branch), "\n") + 1; n < count+1 {
				t.Errorf("%d commits on %s", n, branch)
			}
		})
	}
}

// Our own GC beside them, without a grace period.
func TestLiveUnderOwnGC(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{Branch: "a"})
	f := newDir(0o755)
	f.text("x", "x")
	v.commit(f, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var rounds atomic.Int64
	go func() {
		for ctx.Err() == nil {
			if _, err := v.GC(context.Background(), cold.GCOptions{Grace: -1}); err != nil {
				done <- err
				return
			}
			rounds.Add(1)
		}
		done <- nil
	}()
	count := effort.Count(t, 25, 1000)
	for i := 0; i < count || rounds.Load() < 3 && i < count+1000; i++ {
		for j := range i % 3 {
			f.text("many/critical", fmt.Sprint("critical ", i, j))
			v.commitLive(f)
		}
		f.text("x", fmt.Sprint(i))
		v.commit(f, nil)
	}
	f.text("x", "live")
	v.commitLive(f)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	compareTrees(t, v.read(v.newestSnapshot()), f)
	if out := git(t, v.dir, "fsck", "--strict", "--no-dangling"); out != "" {
		t.Errorf("git fsck: %s", out)
	}
}
