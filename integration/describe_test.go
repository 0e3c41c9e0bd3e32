//go:build slow

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestStockDescribed: the first change of a repository that a stock client made brings the metadata of all of it, and
// makes nothing in warm of what nobody looked at. What is looked at afterwards, changed, or restored elsewhere is as
// the stock client had it.
func TestStockDescribed(t *testing.T) {
	t.Parallel()
	deadline(t, 3*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	dir := testDir(t)
	shell(t, dir, `git clone -q remote.git work 2>/dev/null; cd work
		for d in 1 2 3 4 5 6 7 8; do mkdir -p top/d$d/sub; for f in 1 2 3 4 5; do echo "$d $f" >top/d$d/sub/f$f; done; echo $d >top/d$d/f; done
		chmod +x top/d3/f; ln -s f top/d4/link; echo '* text' >top/d5/.gitattributes; printf 'x\200' >"top/d6/$(printf 'odd\377')"
		git update-index --add --cacheinfo "160000,$(printf '%040d' 7),top/d7/mod"
		git add .; git -c user.name=u -c user.email=u@example.org commit -qm stock; git push -q origin main`)
	before := stockTree(t, repo)
	one := newVolume(t, "one", withSource(repo)).mount()
	if got := must(t, one.mnt, "cat", "top/d1/sub/f1"); got != "1 1\n" {
		t.Fatalf("read %q", got)
	}
	must(t, one.mnt, "ls", "top/d2") // names are told, its directories are made
	check(t, os.WriteFile(one.at("new"), []byte("new"), 0o644))
	one.sync()
	made := strings.Fields(must(t, filepath.Join(one.state, "warm"), "find", ".", "-mindepth", "1"))
	for _, at := range made {
		for _, d := range []string{"d3/f", "d4/link", "d5/sub", "d8/sub"} {
			if strings.HasSuffix(at, "top/"+d) {
				t.Errorf("%s was made in warm, and nobody looked there", at)
			}
		}
	}
	same := func(what string) {
		t.Helper()
		var rest []string
		for _, l := range stockTree(t, repo) {
			if !strings.HasSuffix(l, "\tnew") {
				rest = append(rest, l)
			}
		}
		if strings.Join(rest, "\n") != strings.Join(before, "\n") {
			t.Errorf("%s: the branch has\n%s\nbefore\n%s", what, strings.Join(rest, "\n"), strings.Join(before, "\n"))
		}
	}
	same("after the first commit")
	if n := strings.Count(must(t, "/", "git", "-C", repo, "ls-tree", "-r", "--name-only", "main", ".emberfs/meta"),
		"entries"); n != 18 {
		t.Errorf("%d directories are described, want 18", n)
	}
	one.mustBeSound(one.mnt)
	r := one.emberfs("sync", one.mnt)
	if !strings.Contains(r.stdout, "nothing new") {
		t.Errorf("a sync of nothing: %v", r)
	}
	// Looked at, changed beside, after a kill, and moved.
	want := must(t, one.mnt, "sh", "-c", "ls -lR --time-style=+%s top; cat top/d?/f top/d?/sub/*")
	one.sync()
	one.kill()
	one.mount()
	equal(t, must(t, one.mnt, "sh", "-c", "ls -lR --time-style=+%s top; cat top/d?/f top/d?/sub/*"), want,
		"after a kill")
	check(t, os.Rename(one.at("top/d8"), one.at("top/d9")))
	check(t, os.Rename(one.at("top/d9"), one.at("top/d8")))
	one.umount()
	same("after a look at all of it")
	fsck(t, repo)

	for _, tiering := range []string{"on", "off"} {
		two := newVolume(t, "two-"+tiering, withSource(repo), withOpts("tiering="+tiering)).mount()
		equal(t, must(t, two.mnt, "sh", "-c", "ls -lR --time-style=+%s top; cat top/d?/f top/d?/sub/*"), want,
			"the next machine, tiering %s, has", tiering)
		check(t, os.WriteFile(two.at("new"), []byte("of "+tiering), 0o644))
		two.umount()
		same("after the next machine")
	}
}
