//go:build slow

package integration

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestCriticalAfterStockCommit: the first change after a commit of a stock client is one of a critical file. What is
// beside it, in the directory that the client changed and in others, is in the next commit, whichever branch that goes
// to.
func TestCriticalAfterStockCommit(t *testing.T) {
	deadline(t, 2*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	one := newVolume(t, "one", withSource(repo)).mount()
	one.rules(criticalState)
	files := []string{"state/sub/a", "state/sub/b", "state/c", "plain/d"}
	for _, n := range files {
		check(t, os.MkdirAll(filepath.Dir(one.at(n)), 0o755))
		check(t, os.WriteFile(one.at(n), []byte(n), 0o644))
	}
	one.umount()
	clone := filepath.Join(testDir(t), "clone")
	shell(t, "/", `git clone -q `+repo+` `+clone+`; cd `+clone+`
		echo changed >plain/e; echo changed >state/sub/f; git add -A; git commit -qm 'by hand'; git push -q`)

	two := one // it has been in step with these rules before
	two.mount()
	check(t, os.WriteFile(two.at("state/sub/a"), []byte("newer"), 0o644))
	id := soon(t, repo, "state/sub/a", "newer")
	for _, n := range append(files[1:], "plain/e", "state/sub/f") {
		want := n
		if filepath.Base(n) == "e" || filepath.Base(n) == "f" {
			want = "changed\n"
		}
		if !shows(t, repo, id, n, want) {
			t.Errorf("the commit with the critical change has not %s", n)
		}
	}
	want := scanTree(t, two.mnt)
	two.kill()
	three := newVolume(t, "three", withSource(repo)).mount()
	sameTree(t, scanTree(t, three.mnt), want, "the machine after that")
	three.umount()
	fsck(t, repo)
}
