//go:build slow

package integration

import (
	"emberfs/integration/testprog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLiveWorkOfLostMachine: what a machine pushed of its critical files before it was lost is not passed over, though
// somebody moved main with a stock client meanwhile: what main has not changed since comes back, of the rest main's
// version stands, and the other is named.
func TestLiveWorkOfLostMachine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what, stock string
		critical    string // what the next machine has
		conflict    bool
	}{
		{"another file", `echo theirs >other`, "two", false},
		{"a new file beside it", `echo theirs >db/new`, "two", false},
		{"the same file", `echo theirs >db/critical`, "theirs\n", true},
		{"its removal", `git rm -q db/critical`, "", true},
	} {
		t.Run(strings.ReplaceAll(c.what, " ", "_"), func(t *testing.T) {
			t.Parallel()
			deadline(t, 2*time.Minute)
			repo := newBareRepo(t, "remote.git", user{})
			one := newVolume(t, "one", withSource(repo), withOpts("critical_delay=100ms")).mount()
			one.rules("- {match: db/, class: critical}\n")
			check(t, os.MkdirAll(one.at("db/sub"), 0o750))
			for _, n := range []string{"db/critical", "db/kept", "db/gone", "other"} {
				check(t, os.WriteFile(one.at(n), []byte("one"), 0o640))
			}
			one.sync()
			main := revision(t, repo)
			check(t, os.WriteFile(one.at("db/critical"), []byte("two"), 0o640))
			check(t, os.WriteFile(one.at("db/sub/made"), []byte("two"), 0o600))
			check(t, os.Remove(one.at("db/gone")))
			live := func() string {
				return strings.TrimSpace(must(t, "/", "git", "-C", repo, "for-each-ref", "--format=%(refname)",
					"refs/heads/emberfs-live"))
			}
			if !waitFor(30*time.Second, func() bool {
				return live() != "" && (command{
					args: []string{"git", "-C", repo, "cat-file", "-e", live() + ":db/sub/made"}}).succeeds() &&
					!(command{args: []string{"git", "-C", repo, "cat-file", "-e", live() + ":db/gone"}}).succeeds()
			}) {
				t.Fatalf("the critical files are not pushed: %q", live())
			}
			one.kill()
			if r := one.emberfs("log", repo); r.code != 0 || strings.Contains(r.stderr, "of a machine that was lost") {
				t.Errorf("log while the live branch follows main: %v", r)
			}
			if got := revision(t, repo); got != main {
				t.Fatalf("main went from %s to %s", main, got)
			}
			clone := filepath.Join(testDir(t), "clone")
			shell(t, "/", "git clone -q "+repo+" "+clone+"; cd "+clone+"; "+c.stock+
				"; git add -A; git commit -qm stock; git push -q")

			two := newVolume(t, "two", withSource(repo))
			if r := two.emberfs("log", repo); r.code != 0 ||
				!strings.Contains(r.stderr, "has critical files of a machine that was lost") {
				t.Errorf("log before anybody took the live branch: %v", r)
			}
			two.mount()
			b, err := os.ReadFile(two.at("db/critical"))
			if string(b) != c.critical || (err != nil) != (c.critical == "") {
				t.Errorf("the next machine has %q, %v, want %q", b, err, c.critical)
			}
			wantFile(t, two.at("db/sub/made"), "two", "what was new:")
			if st, err := os.Stat(two.at("db/sub/made")); err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("its attributes: %v, %v", st, err)
			}
			if _, err := os.Stat(two.at("db/gone")); !os.IsNotExist(err) {
				t.Errorf("what was removed: %v", err)
			}
			if b, err := os.ReadFile(two.at("other")); err != nil ||
				string(b) != map[bool]string{true: "theirs\n", false: "one"}[c.what == "another file"] {
				t.Errorf("what the stock client changed: %q, %v", b, err)
			}
			r := two.emberfs("sync", two.mnt)
			said := strings.Contains(r.stdout, "emberfs-side/main/")
			if (r.code == 3) != c.conflict || said != c.conflict || r.code != 0 && r.code != 3 {
				t.Errorf("sync: %v", r)
			}
			if st := two.status(); strings.Contains(strings.Join(st.Errors, "\n"), "emberfs-side/main/") != c.conflict {
				t.Errorf("status: %q", st.Errors)
			}
			equal(t, live(), "", "the live branch is still there:")
			for _, verb := range []string{"log", "snapshots"} {
				if r := two.emberfs(verb, repo); r.code != 0 ||
					strings.Contains(r.stderr, "emberfs-side/main/") != c.conflict {
					t.Errorf("%s of the remote: %v", verb, r)
				}
			}
			side := strings.TrimSpace(must(t, "/", "git", "-C", repo, "for-each-ref", "--format=%(refname)",
				"refs/heads/emberfs-side"))
			if (side != "") != c.conflict {
				t.Errorf("side branches: %q", side)
			}
			if c.conflict {
				equal(t, show(t, repo, side+":db/critical"), "two", "the side branch has")
				must(t, repo, "git", "update-ref", "-d", side)
				two.sync() // it is resolved
			}
			two.umount()
			fsck(t, repo)
			three := newVolume(t, "three", withSource(repo)).mount()
			if b, _ := os.ReadFile(three.at("db/critical")); string(b) != c.critical {
				t.Errorf("the one after that has %q", b)
			}
			three.umount()
		})
	}
}

// TestStrayConflictIsKeptFirst: the live branch of a lost machine stays on the remote as long as what main did not take
// of it has no branch of its own there, whatever keeps that from being made.
func TestStrayConflictIsKeptFirst(t *testing.T) {
	t.Parallel()
	deadline(t, 2*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	refs := func(of string) string {
		return strings.TrimSpace(must(t, "/", "git", "-C", repo, "for-each-ref", "--format=%(refname)", "refs/heads/"+
			of))
	}
	one := newVolume(t, "one", withSource(repo), withOpts("critical_delay=100ms")).mount()
	one.rules("- {match: critical, class: critical}\n")
	check(t, os.WriteFile(one.at("critical"), []byte("one"), 0o640))
	one.sync()
	check(t, os.WriteFile(one.at("critical"), []byte("two"), 0o640))
	if !waitFor(30*time.Second, func() bool {
		return refs("emberfs-live") != "" && show(t, repo, refs("emberfs-live")+
			":critical") == "two"
	}) {
		t.Fatal("the critical file is not pushed")
	}
	one.kill()
	clone := filepath.Join(testDir(t), "clone")
	shell(t, "/", "git clone -q "+repo+" "+clone+"; cd "+clone+
		"; echo theirs >critical; git commit -qam stock; git push -q")
	hook := filepath.Join(repo, "hooks/pre-receive")
	check(t, os.MkdirAll(filepath.Dir(hook), 0o755))
	check(t, testprog.Write(hook, "#!/bin/sh\n! grep -q emberfs-side\n"))

	two := newVolume(t, "two", withSource(repo)).mount()
	check(t, os.WriteFile(two.at("more"), []byte("x"), 0o640))
	r := two.emberfs("sync", two.mnt)
	if refs("emberfs-live") == "" {
		t.Errorf("the only branch with the lost machine's version is gone: %v", r)
	}
	if st := two.status(); !strings.Contains(strings.Join(st.Errors, "\n"), "emberfs-live") {
		t.Errorf("status does not name it: %q", st.Errors)
	}
	two.kill()
	check(t, os.Remove(hook))

	three := newVolume(t, "three", withSource(repo)).mount()
	three.emberfs("sync", three.mnt)
	side := refs("emberfs-side")
	if side == "" || refs("emberfs-live") != "" {
		t.Fatalf("side branches %q, live branches %q", side, refs("emberfs-live"))
	}
	equal(t, show(t, repo, side+":critical"), "two", "the side branch has")
	fsck(t, repo)
}
