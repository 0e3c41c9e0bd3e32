//go:build slow

package integration

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"emberfs/integration/powercut"
)

// checkPowerCut mounts a disk as a power cut left it, and the volume on it, and holds both to what had been promised.
func checkPowerCut(t *testing.T, job cutJob) {
	lap := laps(t)
	anotherBoot(t, job)
	var h powercut.History
	check(t, readJSON(job.History, &h))
	v := powerCutVolume(t, mountDisk(t, job, job.Image))
	lap("disk")
	v.mount()
	lap("mount")
	for _, bad := range h.Judge(job.Seen, job.Age, treeAfter(t, v.mnt)) {
		t.Error(bad)
	}
	lap("judge")
	v.sync()
	lap("sync")
	want := contentsAfter(t, v.mnt)
	v.umount() // git fsck does not bear packs that are merged meanwhile
	lap("umount")
	soundAfter(t, v, &h, job)
	lap("fsck")
	// What the commit has is what the files have: no record was believed that should not be.
	back := filepath.Join(job.Dir, "back")
	if r := v.emberfs("restore", "--from", v.state, "--to", back); r.code != 0 {
		t.Errorf("%v", r)
	}
	sameTree(t, contentsAfter(t, back), want, "the commit after the cut")
	lap("restore")
	if r := v.emberfs("check", v.state, "--deep"); r.code != 0 {
		t.Errorf("%v", r)
	}
	lap("check")
	if t.Failed() {
		t.Logf("%d events had been told: operations %v", job.Seen, h.Ops)
	}
}

// laps logs how long each step takes.
func laps(t testing.TB) func(string) {
	last := time.Now()
	return func(step string) {
		t.Logf("%-8s %v", step, time.Since(last).Round(time.Millisecond))
		last = time.Now()
	}
}

// treeAfter reads all that is in the mount.
func treeAfter(t testing.TB, dir string) map[string]powercut.Node {
	t.Helper()
	tree := map[string]powercut.Node{}
	check(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, p)
		if err != nil || rel == "." {
			return err
		}
		n := powercut.Node{Dir: d.IsDir()}
		if !n.Dir {
			n.Data, err = os.ReadFile(p)
		}
		tree[rel] = n
		return err
	}))
	return tree
}

// contentsAfter is scanTree but for holes: a cut may leave zeros that take space, a restore has none.
func contentsAfter(t testing.TB, dir string) map[string]string {
	t.Helper()
	tree := scanTree(t, dir)
	for p, what := range tree {
		tree[p] = strings.TrimSuffix(what, " sparse")
	}
	return tree
}

// soundAfter looks at the repository: it is sound to the letter, and the branch has every commit that was reported.
func soundAfter(t testing.TB, v *volume, h *powercut.History, job cutJob) {
	t.Helper()
	fsck(t, v.cold())
	commits := job.Commits
	for _, e := range h.Events[:job.Seen] {
		if e.Commit != "" {
			commits = append(commits, e.Commit)
		}
	}
	r := command{args: []string{"git", "-C", v.cold(), "rev-list", "main"}}.run(t)
	for _, c := range commits {
		if !strings.Contains(r.stdout, c) {
			t.Errorf("commit %s, which was reported, is not on the branch\n%v", c, r)
		}
	}
}
