//go:build slow

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// previous is what status and receipts of a start say of the session before it.
type previous struct {
	State    string     `json:"state"`
	Machine  string     `json:"machine"`
	Own      bool       `json:"own"`
	Commit   string     `json:"commit"`
	LastSign *time.Time `json:"last_sign"`
	AtRisk   struct {
		Files int64 `json:"files"`
		Bytes int64 `json:"bytes"`
	} `json:"at_risk"`
	Missing []string `json:"missing"`
	Text    string   `json:"text"`
}

// previous returns what the mount says of the session before it: status, which must agree with the receipt of the
// start.
func (v *volume) previous() (p previous) {
	v.t.Helper()
	check(v.t, json.Unmarshal(v.status().raw["previous"], &p))
	var receipt struct {
		Reason   string   `json:"reason"`
		Commit   string   `json:"commit"`
		Previous previous `json:"previous"`
	}
	if !waitFor(10*time.Second, func() bool { // it is written when the mount is there
		names, _ := filepath.Glob(filepath.Join(v.state, "receipts", "*-start.json"))
		return len(names) > 0 && v.readReceipt(names[len(names)-1], &receipt) && receipt.Reason == "start" &&
			receipt.Previous.State == p.State && receipt.Previous.Text == p.Text &&
			slices.Equal(receipt.Previous.Missing, p.Missing)
	}) {
		v.t.Errorf("the receipt of the start says %+v, status %+v", receipt, p)
	}
	return p
}

func (v *volume) readReceipt(name string, into any) bool {
	b, err := os.ReadFile(name)
	return err == nil && json.Unmarshal(b, into) == nil
}

// lastReceipt reads the newest receipt of an end.
func (v *volume) lastReceipt() (r struct {
	Complete bool   `json:"complete"`
	Clean    bool   `json:"clean"`
	Commit   string `json:"commit"`
	Tree     string `json:"tree"`
	Files    int64  `json:"volume_files"`
	AtRisk   struct {
		Files int64 `json:"files"`
	} `json:"at_risk"`
}) {
	v.t.Helper()
	names, err := filepath.Glob(filepath.Join(v.state, "receipts", "*Z.json"))
	check(v.t, err)
	if len(names) == 0 || !v.readReceipt(names[len(names)-1], &r) {
		v.t.Fatalf("no receipt of an end: %v", names)
	}
	return r
}

// wantPrevious mounts and requires what it says of the session before: on stderr, in status and in the receipt.
func (v *volume) wantPrevious(state string) previous {
	v.t.Helper()
	r := v.tryMount()
	if r.code != 0 {
		v.t.Fatalf("%v", r)
	}
	v.mustBeMounted()
	p := v.previous()
	if p.State != state {
		v.t.Fatalf("the session before was %s, want %s: %+v", p.State, state, p)
	}
	said := map[bool]string{strings.Contains(r.stderr, "INCOMPLETE: "): "incomplete",
		strings.Contains(r.stderr, "emberfs: COMPLETE: "): "complete"}[true]
	if want := state; !p.Own && want != "unknown" && said != want || p.Own && want != "incomplete" && said != "" {
		v.t.Errorf("stderr says %q, want %q\n%v", said, want, r)
	}
	for _, m := range p.Missing {
		if !strings.Contains(r.stderr, "missing: "+m) {
			v.t.Errorf("stderr lacks %q\n%v", m, r)
		}
	}
	return p
}

// trailer returns a trailer of a commit.
func trailer(t testing.TB, repo, commit, key string) string {
	t.Helper()
	return strings.TrimSpace(must(t, "/", "git", "-C", repo, "log", "-1", "--format=%(trailers:key="+key+",valueonly)",
		commit))
}

// references returns where all branches of a repository are.
func references(t testing.TB, repo string) string {
	t.Helper()
	return must(t, "/", "git", "-C", repo, "for-each-ref")
}

// TestPreviousSession: each mount says how the session before it ended, as far as the remote shows.
func TestPreviousSession(t *testing.T) {
	t.Parallel()
	deadline(t, 5*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	machines := 0
	next := func(opts ...string) *volume {
		machines++
		return newVolume(t, fmt.Sprint("machine", machines), withSource(repo), withOpts(opts...))
	}
	clean := func(want string) {
		t.Helper()
		equal(t, trailer(t, repo, "main", "Emberfs-Clean"), want, "Emberfs-Clean of %s", revision(t, repo))
	}

	a := next()
	if p := a.wantPrevious("unknown"); p.Commit != "" || p.LastSign != nil {
		t.Errorf("an empty remote: %+v", p)
	}
	check(t, os.WriteFile(a.at("f"), []byte("one"), 0o644))
	a.sync()
	clean("no")
	synced := revision(t, repo)
	a.umount() // nothing new: but the next machine has to know that it ended
	clean("yes")
	equal(t, must(t, repo, "git", "rev-parse", "main^{tree}"), must(t, repo, "git", "rev-parse", synced+"^{tree}"),
		"the tree of the commit that says so")
	if r := a.lastReceipt(); !r.Complete || !r.Clean || r.Commit != revision(t, repo) || r.AtRisk.Files != 0 ||
		r.Files != 1 || r.Tree+"\n" != must(t, repo, "git", "rev-parse", "main^{tree}") {
		t.Errorf("receipt: %+v", r)
	}

	// Who only looks says nothing.
	at := references(t, repo)
	b := next("require_complete")
	if p := b.wantPrevious("complete"); p.Machine == "" || p.Commit != revision(t, repo) || p.LastSign == nil ||
		len(p.Missing) != 0 {
		t.Errorf("after a clean end: %+v", p)
	}
	b.umount()
	equal(t, references(t, repo), at, "the branches after a look")

	// The machine that comes back to its own files.
	if p := a.wantPrevious("complete"); !p.Own {
		t.Errorf("its own clean end: %+v", p)
	}
	check(t, os.WriteFile(a.at("f"), []byte("two"), 0o644))
	a.kill()
	if p := a.wantPrevious("complete"); !p.Own || !strings.Contains(p.Text, "killed") {
		t.Errorf("its own killed daemon: %+v", p)
	}
	wantFile(t, a.at("f"), "two", "after the kill:")
	a.umount()
	clean("yes")

	// A stock client comes in between.
	stockCommit(t, repo, "g", "from git")
	c := next()
	if p := c.wantPrevious("complete"); !strings.Contains(p.Text, "git clients after that: 1") {
		t.Errorf("after a stock client: %+v", p)
	}
	check(t, os.WriteFile(c.at("f"), []byte("three"), 0o644))
	c.sync()
	sign := revision(t, repo)
	check(t, os.WriteFile(c.at("f"), []byte("four"), 0o644))
	c.kill()

	// It never took its final backup.
	d := next("require_complete")
	if r := d.tryMount(); r.code != 32 || !strings.Contains(r.stderr, "INCOMPLETE") ||
		!strings.Contains(r.stderr, "--require-complete") || mountAt(d.mnt) != nil {
		t.Errorf("want exit 32 and what to do\n%v", r)
	}
	if _, err := os.Lstat(d.state); !os.IsNotExist(err) {
		t.Errorf("the refused mount left its state directory: %v", err)
	}
	d.opts = nil
	p := d.wantPrevious("incomplete")
	made := strings.TrimSpace(must(t, repo, "git", "log", "-1", "--format=%ct", sign))
	if p.Commit != sign || p.LastSign == nil || fmt.Sprint(p.LastSign.Unix()) != made || len(p.Missing) == 0 {
		t.Errorf("after a killed machine: %+v, its last commit is %s of %s", p, sign, made)
	}
	wantFile(t, d.at("f"), "three", "what is here:")
	check(t, os.WriteFile(d.at("f"), []byte("five"), 0o644))
	d.umount()
	clean("yes")
	next().wantPrevious("complete")
	fsck(t, repo)
}

// stockCommit pushes one file to main by stock git.
func stockCommit(t testing.TB, repo, name, text string) {
	t.Helper()
	dir := filepath.Join(testDir(t), "stock")
	check(t, os.RemoveAll(dir))
	must(t, "/", "git", "clone", "-q", repo, dir)
	check(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	must(t, dir, "git", "add", name)
	must(t, dir, "git", "-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "by hand")
	must(t, dir, "git", "push", "-q", "origin", "HEAD:main")
}

// TestPreviousOfStockRepository: of a repository that only git clients have written nothing is known, which is no
// reason not to mount it.
func TestPreviousOfStockRepository(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	stockCommit(t, repo, "f", "from git")
	v := newVolume(t, "v", withSource(repo), withOpts("require_complete", "announce_delay=100ms"))
	v.wantPrevious("unknown")
	tip := revision(t, repo)
	check(t, os.WriteFile(v.at("g"), []byte("x"), 0o644))
	if !waitFor(30*time.Second, func() bool { return revision(t, repo) != tip }) {
		t.Fatal("the session does not show")
	}
	v.kill()
	newVolume(t, "next", withSource(repo)).wantPrevious("incomplete")
}

// TestPreviousIncompleteEnd: a final backup that could not take a file names it to the next machine.
func TestPreviousIncompleteEnd(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	lookPath(t, "strace")
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo), withOpts("tier_interval=none")).mount()
	check(t, os.WriteFile(v.at("bad"), []byte("hello"), 0o644))
	check(t, os.WriteFile(v.at("good"), []byte("hello"), 0o644))
	failing := v.failReads(v.state + "/warm/bad")
	r := v.emberfs("umount", v.mnt)
	failing()
	if r.code != 3 {
		t.Fatalf("want exit 3\n%v", r)
	}
	v.waitGone()
	if r := v.lastReceipt(); r.Complete || r.Clean || r.AtRisk.Files != 1 {
		t.Errorf("receipt: %+v", r)
	}
	next := newVolume(t, "next", withSource(repo))
	p := next.wantPrevious("incomplete")
	if p.AtRisk.Files != 1 || p.AtRisk.Bytes != 5 || !slices.Equal(p.Missing, []string{"bad"}) ||
		!strings.Contains(p.Text, "final backup") {
		t.Errorf("%+v", p)
	}
	if b, err := os.ReadFile(next.at(".emberfs/status.json")); err != nil || strings.Contains(string(b), `"bad"`) {
		t.Errorf("status.json, which everybody can read, names the file (%v):\n%s", err, b)
	}
	// The machine itself has the file.
	if p := v.wantPrevious("complete"); !p.Own {
		t.Errorf("%+v", p)
	}
	wantFile(t, v.at("bad"), "hello", "here:")
	v.umount()
	newVolume(t, "third", withSource(repo)).wantPrevious("complete")
}

// TestPreviousStray: a machine that was lost after its session was announced is not forgotten because somebody moved
// main without its live branch.
func TestPreviousStray(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo), withOpts("announce_delay=100ms")).mount()
	check(t, os.WriteFile(v.at("f"), []byte("one"), 0o644))
	v.umount()
	v.mount()
	at := references(t, repo)
	check(t, os.WriteFile(v.at("f"), []byte("two"), 0o644))
	if !waitFor(30*time.Second, func() bool { return references(t, repo) != at }) {
		t.Fatal("the session does not show")
	}
	machine := trailer(t, repo, "main", "Emberfs-Machine")
	v.kill()
	stockCommit(t, repo, "g", "from git")
	next := newVolume(t, "next", withSource(repo))
	if p := next.wantPrevious("incomplete"); p.Machine != machine {
		t.Errorf("machine %s was lost: %+v", machine, p)
	}
	wantFile(t, next.at("f"), "one", "what is here:")
	wantFile(t, next.at("g"), "from git", "what is here:")
	next.umount()
	if list := references(t, repo); strings.Contains(list, "emberfs-live") {
		t.Errorf("what was absorbed is still there:\n%s", list)
	}
	newVolume(t, "third", withSource(repo)).wantPrevious("complete")
}

// TestPreviousAfterReset: a machine that stopped without a clean stop cannot know what its disk lacks.
func TestPreviousAfterReset(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	v := newVolume(t, "v").mount()
	check(t, os.WriteFile(v.at("f"), []byte("one"), 0o644))
	v.kill()
	file := filepath.Join(v.state, "volume.json")
	b, err := os.ReadFile(file)
	check(t, err)
	var state map[string]any
	check(t, json.Unmarshal(b, &state))
	state["boot"] = "another"
	b, err = json.Marshal(state)
	check(t, err)
	check(t, os.WriteFile(file, b, 0o600))
	v.opts = []string{"require_complete"}
	for range 2 { // the second time it is the same boot
		if r := v.tryMount(); r.code != 32 || !strings.Contains(r.stderr, "INCOMPLETE") {
			t.Fatalf("want exit 32\n%v", r)
		}
	}
	v.opts = nil
	if p := v.wantPrevious("incomplete"); !p.Own || len(p.Missing) == 0 {
		t.Errorf("%+v", p)
	}
	v.umount()
	v.wantPrevious("complete")
	check(t, unix.Access(v.at("f"), unix.R_OK))
}
