//go:build slow

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
)

// loggedCommit is what `emberfs log --json` and `snapshots --json` print of a commit.
type loggedCommit struct {
	ID        string    `json:"id"`
	Parents   []string  `json:"parents"`
	Time      time.Time `json:"time"`
	Emberfs   bool      `json:"emberfs"`
	Reason    string    `json:"reason"`
	Machine   string    `json:"machine"`
	Files     int64     `json:"files"`
	Bytes     int64     `json:"bytes"`
	AtRisk    int64     `json:"at_risk"`
	Author    string    `json:"author"`
	Subject   string    `json:"subject"`
	TreeFiles *int64    `json:"tree_files"`
	TreeBytes *int64    `json:"tree_bytes"`
	Remote    *bool     `json:"remote"`
	Refs      []string  `json:"refs"`
}

// loggedChange is what `emberfs diff --json` prints of a path.
type loggedChange struct {
	Status string   `json:"status"`
	Path   string   `json:"path"`
	Path64 []byte   `json:"path64"`
	Fields []string `json:"fields"`
}

// jsonIn runs emberfs in a directory and reads the list that it prints.
func jsonIn[T any](t *testing.T, dir string, args ...string) []T {
	t.Helper()
	r := command{args: append([]string{env.bin}, args...), dir: dir, limit: 2 * time.Minute}.run(t)
	if r.code != 0 || r.stderr != "" {
		t.Fatalf("%v", r)
	}
	var list []T
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil {
		t.Fatalf("%v\n%v", err, r)
	}
	return list
}

func idsOf(list []loggedCommit) []string {
	var ids []string
	for _, c := range list {
		ids = append(ids, c.ID)
	}
	return ids
}

// TestHistory: commits of two machines and of a stock client as log, snapshots and restore --commit tell them, by
// mountpoint, state directory and repository alike; nothing of it writes.
func TestHistory(t *testing.T) {
	deadline(t, 4*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	one := newVolume(t, "one", withSource(repo)).mount()
	latin := "caf\xe9"
	write := func(v *volume, name, content string) {
		t.Helper()
		check(t, os.MkdirAll(filepath.Dir(v.at(name)), 0o755))
		check(t, os.WriteFile(v.at(name), []byte(content), 0o644))
	}
	write(one, "a", "1")
	write(one, "d/.git/config", "x")
	write(one, "d/new\nline", "x")
	write(one, latin, "x")
	check(t, os.Link(one.at("a"), one.at("d/hard")))
	check(t, os.MkdirAll(one.at("void/void"), 0o755))
	check(t, unix.Mkfifo(one.at("fifo"), 0o600))
	one.sync() // 0
	write(one, "d/new\nline", "y")
	check(t, os.Chmod(one.at("void/void"), 0o700))
	one.sync() // 1
	check(t, os.Rename(one.at("d"), one.at("moved")))
	check(t, os.Remove(one.at("fifo")))
	one.sync()   // 2
	one.umount() // 3: it says that the session has ended
	clone := filepath.Join(testDir(t), "clone")
	shell(t, "/", `git clone -q `+repo+` `+clone+`; cd `+clone+`; sleep 1.1
		echo stock >a; echo s >`+"caf\xe9"+`; git add -A; git commit -qm 'by hand'; git push -q`) // 4
	two := newVolume(t, "two", withSource(repo)).mount()
	time.Sleep(1100 * time.Millisecond) // git keeps seconds, and one test below names a commit by its own
	write(two, "last", "x")
	two.sync() // 5
	git := strings.Fields(must(t, "/", "git", "-C", repo, "rev-list", "--reverse", "main"))
	if len(git) != 6 {
		t.Fatalf("commits: %q", git)
	}
	newest := slices.Clone(git)
	slices.Reverse(newest)
	shell(t, clone, "git pull -q")
	for _, at := range []struct {
		dir  string
		args []string
	}{{"/", []string{two.mnt}}, {two.at("moved"), nil}, {"/", []string{two.state}}, {"/", []string{two.cold()}},
		{"/", []string{repo}}, {"/", []string{clone}}} {
		if got := idsOf(jsonIn[loggedCommit](t, at.dir,
			append([]string{"log", "--json"}, at.args...)...)); !slices.Equal(got, newest) {
			t.Errorf("log in %s of %q: %q, want %q", at.dir, at.args, got, newest)
		}
	}
	list := jsonIn[loggedCommit](t, "/", "log", "--json", two.mnt)
	if c := list[1]; c.Emberfs || c.Author != "Test" || c.Subject != "by hand" || c.Reason != "" {
		t.Errorf("the stock client's commit: %+v", c)
	}
	if c := list[0]; !c.Emberfs || c.Reason != "sync" || c.Files != 1 || c.Bytes != 1 || c.AtRisk != 0 ||
		c.Machine == "" || c.Machine == list[2].Machine {
		t.Errorf("the last commit: %+v", c)
	}
	if c := list[2]; c.Reason != "unmount" || !slices.Equal(c.Parents, git[2:3]) {
		t.Errorf("the commit of the unmount: %+v", c)
	}
	for _, c := range []struct {
		dir, path string
		want      []int
	}{
		{two.mnt, "a", []int{4, 0}},
		{two.at("moved"), "../a", []int{4, 0}},
		{two.mnt, latin, []int{4, 0}},
		{two.mnt, "d/new\nline", []int{2, 1, 0}},
		{two.at("moved"), "new\nline", []int{2}},
		{two.mnt, "moved/.git/config", []int{2}},
		{two.mnt, "fifo", []int{2, 0}},
		{two.mnt, "void", []int{1, 0}},
		{two.mnt, "void/void", []int{1, 0}},
		{"/", two.at("last"), []int{5}},
		{two.mnt, "nothing", nil},
	} {
		var want []string
		for _, i := range c.want {
			want = append(want, git[i])
		}
		// A hard link's name gone is a change of the file's other names too.
		if got := idsOf(jsonIn[loggedCommit](t, c.dir, "log", "--json", two.mnt, "--", c.path)); !slices.Equal(got,
			want) {
			t.Errorf("log of %q in %s: %q, want %q", c.path, c.dir, got, want)
		}
	}
	if got := jsonIn[loggedCommit](t, "/", "log", "--json", "-n", "2", repo, "a"); len(got) != 2 ||
		got[1].ID != git[0] {
		t.Errorf("log -n 2 of a: %+v", got)
	}

	points := jsonIn[loggedCommit](t, "/", "snapshots", "--json", two.mnt)
	if !slices.Equal(idsOf(points), newest) {
		t.Errorf("snapshots: %q", idsOf(points))
	}
	for i, p := range points {
		if p.Remote == nil || !*p.Remote || p.TreeFiles == nil || i == 0 &&
			(*p.TreeFiles != 6 || !slices.Equal(p.Refs, []string{"main", "remote: main"})) {
			t.Errorf("snapshot %d: %+v", i, p)
		}
	}

	must(t, "/", "git", "-C", repo, "tag", "-a", "-m", "m", "v1", git[1])
	when := strings.TrimSpace(must(t, "/", "git", "-C", repo, "log", "-1", "--format=%cI", git[4]))
	for i, rev := range []struct {
		rev  string
		want int
	}{{git[0][:8], 0}, {"HEAD~4", 1}, {"v1", 1}, {"main~3", 2}, {when, 4}, {"main", 5}} {
		to := filepath.Join(testDir(t), fmt.Sprint("restored-", i))
		r := two.emberfs("restore", "--from", repo, "--commit", rev.rev, "--to", to)
		if r.code != 0 || !strings.Contains(r.stdout, git[rev.want]) || r.stderr != "" {
			t.Errorf("%s: want %s\n%v", rev.rev, git[rev.want], r)
		}
	}
	sameFile := func(path, want string) {
		t.Helper()
		wantFile(t, filepath.Join(testDir(t), path), want, "%s:", path)
	}
	sameFile("restored-0/d/new\nline", "x")
	sameFile("restored-1/d/new\nline", "y")
	sameFile("restored-4/a", "stock\n")

	quiet := filesOf(t, two.cold())
	for _, args := range [][]string{{"log"}, {"snapshots"}, {"diff"}, {"diff", "HEAD~1", "HEAD"}} {
		r := command{args: append([]string{env.bin}, args...), dir: two.mnt}.run(t)
		if r.code != 0 || r.stderr != "" || r.stdout == "" && len(args) > 1 {
			t.Errorf("%v", r)
		}
	}
	if now := filesOf(t, two.cold()); now != quiet {
		t.Errorf("reading changed the repository:\n%s\nwas\n%s", now, quiet)
	}

	// The daemon tries again as soon as the remote is back, so this comes last.
	check(t, os.Rename(repo, repo+".away"))
	write(two, "unpushed", "x")
	if r := two.emberfs("sync", two.mnt); r.code != 3 {
		t.Errorf("sync without the remote: %v", r)
	}
	points = jsonIn[loggedCommit](t, "/", "snapshots", "--json", two.mnt, "--limit", "2")
	check(t, os.Rename(repo+".away", repo))
	if len(points) != 2 || *points[0].Remote || !*points[1].Remote {
		t.Errorf("with a commit that is not pushed: %+v", points)
	}
	two.umount()
}

// filesOf describes the files of a repository.
func filesOf(t *testing.T, dir string) string {
	t.Helper()
	return must(t, dir, "find", ".", "-printf", "%p %s %T@ %C@\n")
}

// TestHistoryBesideWriter: whoever reads history while commits are made sees commits that are whole.
func TestHistoryBesideWriter(t *testing.T) {
	deadline(t, 15*time.Minute)
	v := newVolume(t, "one").mount()
	check(t, os.WriteFile(v.at("f"), []byte("start\n"), 0o644))
	v.sync()
	var g sync.WaitGroup
	stop := make(chan struct{})
	commits := 1
	g.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			commits++
			check(t, os.WriteFile(v.at("f"), fmt.Appendf(nil, "%d\n", commits), 0o644))
			check(t, os.WriteFile(v.at(fmt.Sprintf("f%d", commits%7)), nil, 0o644))
			if r, err := (command{args: []string{env.bin, "sync", v.mnt}}).try(); err != nil || r.code != 0 {
				t.Errorf("%v %v", err, r)
				return
			}
		}
	})
	last := 0
	for range effort.Count(t, 10, 200) {
		n := len(jsonIn[loggedCommit](t, "/", "log", "--json", v.mnt))
		if n < last {
			t.Errorf("%d commits, %d before", n, last)
		}
		last = n
		for _, args := range [][]string{{"diff", v.mnt}, {"diff", v.state, "HEAD~", "HEAD"}, {"snapshots", v.mnt},
			{"log", v.mnt, "f"}} {
			if args[len(args)-2] == "HEAD~" && n < 2 {
				continue
			}
			if r := v.emberfs(args...); r.code != 0 || r.stderr != "" {
				t.Errorf("%v", r)
			}
		}
	}
	close(stop)
	g.Wait()
	v.umount()
	if n := len(jsonIn[loggedCommit](t, "/", "log", "--json", v.state)); n < commits {
		t.Errorf("%d commits, want at least %d", n, commits)
	}
	fsck(t, v.cold())
}

// TestDiffAfterCrash: in the state directory of a daemon that was killed, diff shows what no commit has.
func TestDiffAfterCrash(t *testing.T) {
	deadline(t, 2*time.Minute)
	for _, u := range []user{{}, plainUser()} {
		v := newVolume(t, fmt.Sprint("user", u.uid), withUser(u)).mount()
		run := func(script string) {
			t.Helper()
			if r := (command{args: []string{"sh", "-euc", script}, as: u, dir: v.mnt}).run(t); r.code != 0 {
				t.Fatalf("%v", r)
			}
		}
		run("echo same >same; echo old >changed; mkdir d; echo x >d/gone; echo m >mode; sleep 2.2")
		v.sync()
		run("echo new >changed; rm d/gone; echo n >d/new; chmod 600 mode; touch -d 2001-01-01 same")
		want := "M\tchanged\nD\td/gone\nA\td/new\nm\tmode\nm\tsame\n"
		if r := v.emberfs("diff", v.mnt, "--name-only"); r.code != 0 || r.stdout != want {
			t.Errorf("mounted: want %q\n%v", want, r)
		}
		v.kill()
		if r := v.emberfs("diff", v.state, "--name-only"); r.code != 0 || r.stdout != want || r.stderr != "" {
			t.Errorf("after a crash: want %q\n%v", want, r)
		}
		v.mount()
		v.umount()
		if r := v.emberfs("diff", v.state, "--name-only"); r.code != 0 || r.stdout != "" {
			t.Errorf("after a clean stop: %v", r)
		}
		if r := v.emberfs("diff", v.state, "HEAD~1", "HEAD", "--name-only"); r.code != 0 || r.stdout != want {
			t.Errorf("between the commits: want %q\n%v", want, r)
		}
	}
}
