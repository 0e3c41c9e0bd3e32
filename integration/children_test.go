//go:build slow

package integration

import (
	"emberfs/integration/testprog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestChildrenAreOrdinary: git and the hooks of SOURCE get what those of a user's git push get, whatever the daemon was
// started with and has made of itself; and nobody else can write what EmberFS makes.
func TestChildrenAreOrdinary(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	const hook = `#!/bin/sh
{
	echo "umask $(umask)"
	echo "open files $(ulimit -Sn) $(ulimit -Hn)"
	grep -E '^(SigIgn|SigBlk|NoNewPrivs)' /proc/self/status # the shell itself blocks all while it waits
	echo "descriptors" $(ls /proc/$$/fd)
	cut -d ' ' -f 5 /proc/$$/oom_score_adj
} > seen
env > env
`
	hooked := func(name string) (repo string, seen func() string) {
		repo = newBareRepo(t, name, user{})
		check(t, os.MkdirAll(repo+"/hooks", 0o755))
		check(t, testprog.Write(repo+"/hooks/post-receive", hook))
		return repo, func() string {
			b, err := os.ReadFile(repo + "/seen")
			check(t, err)
			return string(b)
		}
	}
	stock, stockSees := hooked("stock.git")
	clone := filepath.Join(testDir(t), "clone")
	shell(t, "/", `umask 022; git clone -q `+stock+` `+clone+`; cd `+clone+
		`; echo x >f; git add f; git commit -qm f; git push -q origin HEAD:main`)
	// CAP_SYS_RESOURCE.
	mayRaise := command{args: []string{"sh", "-c", "ulimit -n 512; ulimit -n 1024 2>/dev/null"}}.succeeds()
	for _, c := range []struct{ umask, files, child string }{
		{"022", "ulimit -n 512", "umask 0022\nopen files 512 512"}, // as many as it may: the daemon raises both limits
		{"000", "ulimit -Sn 256; ulimit -Hn 512", "umask 0022\nopen files 256 512"},
		{"077", "ulimit -Sn 256; ulimit -Hn 512", "umask 0077\nopen files 256 512"},
	} {
		repo, sees := hooked("of" + c.umask + ".git")
		v := newVolume(t, "v"+c.umask, withSource(repo))
		check(t, os.MkdirAll(v.mnt, 0o755))
		command{args: []string{"sh", "-c", "umask " + c.umask + "; " + c.files + `; exec "$@"`, "sh", env.bin, "mount",
			repo, v.mnt, "--state", v.state},
			env: []string{"EMBERFS_BRANCH=main", "SECRET_TOKEN=hidden", "NOTIFY_SOCKET=/nowhere",
				"GIT_DIR=/nowhere"}}.must(t)
		v.mustBeMounted()
		if limits := must(t, "/", "grep", "Max open files", "/proc/"+strconv.Itoa(v.daemon())+"/limits"); mayRaise &&
			strings.Contains(limits, " 512 ") {
			t.Errorf("the daemon itself has no more descriptors than others: %s", limits)
		}
		check(t, os.WriteFile(v.at("f"), []byte("x"), 0o644))
		v.sync()
		check(t, os.WriteFile(v.at("g"), make([]byte, 1<<20), 0o644))
		v.umount()
		want := regexp.MustCompile(`umask .*\nopen files .*`).ReplaceAllString(stockSees(), c.child)
		if got := sees(); got != want {
			t.Errorf("started with umask %s a hook sees\n%swith a user's push\n%s", c.umask, got, want)
		}
		b, err := os.ReadFile(repo + "/env")
		check(t, err)
		for _, v := range []string{"EMBERFS_", "SECRET_TOKEN", "NOTIFY_SOCKET", "/nowhere"} {
			if strings.Contains(string(b), v) {
				t.Errorf("a hook has %s in its environment:\n%s", v, b)
			}
		}
		equal(t, must(t, "/", "find", repo, v.state, "-perm", "/022", "!", "-type", "l"), "",
			"started with umask %s, others can write", c.umask)
	}
}
