package backup

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"emberfs/backup/coldtest"
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
			f := coldtest.NewDir(0o755)
			for i := range 50 {
				f.Text(fmt.Sprintf("many/f%03d", i), fmt.Sprint("some text that makes a delta ", i))
			}
			v.CommitTree(f, nil)
			git := v.besideGit([]string{"gc", "-q", "--prune=now"}, []string{"repack", "-adfq"},
				[]string{"prune", "--expire=now"}, []string{"pack-refs", "--all"})
			count := effort.Count(t, 12, 200)
			for i := 0; i < count || git.rounds.Load() < 3 && i < count+1000; i++ {
				for j := range i % 4 {
					f.Text("many/critical", fmt.Sprint("critical ", i, j))
					v.commitBesideGit(v.BeginLive, f, nil)
				}
				f.Text(fmt.Sprintf("many/f%03d", i%50), fmt.Sprint("changed in commit ", i))
				v.commitBesideGit(v.Begin, f, nil)
			}
			f.Text("many/critical", "the last")
			v.commitBesideGit(v.BeginLive, f, nil)
			git.stop()
			coldtest.CompareTrees(t, v.ReadTree(v.NewestSnapshot()), f)
			coldtest.Git(t, v.Dir, "gc", "-q", "--aggressive", "--prune=now")
			coldtest.CompareTrees(t, v.ReadTree(v.NewestSnapshot()), f)
			coldtest.Fsck(t, v.Dir)
			if n := strings.Count(coldtest.Git(t, v.Dir, "rev-list", branch), "\n") + 1; n < count+1 {
				t.Errorf("%d commits on %s", n, branch)
			}
		})
	}
}

// Our own GC beside them, without a grace period.
func TestLiveUnderOwnGC(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{Branch: "a"})
	f := coldtest.NewDir(0o755)
	f.Text("x", "x")
	v.CommitTree(f, nil)
	gc := v.beside(func() error {
		_, err := v.GC(context.Background(), cold.GCOptions{Grace: -1})
		return err
	})
	count := effort.Count(t, 25, 1000)
	for i := 0; i < count || gc.rounds.Load() < 3 && i < count+1000; i++ {
		for j := range i % 3 {
			f.Text("many/critical", fmt.Sprint("critical ", i, j))
			v.commitLive(f)
		}
		f.Text("x", fmt.Sprint(i))
		v.CommitTree(f, nil)
	}
	f.Text("x", "live")
	v.commitLive(f)
	gc.stop()
	coldtest.CompareTrees(t, v.ReadTree(v.NewestSnapshot()), f)
	coldtest.Fsck(t, v.Dir)
}
