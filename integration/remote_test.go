//go:build slow

package integration

import (
	"emberfs/integration/testprog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRemoteMovedOn: another clone pushes in between. The push is refused, never forced; sync and umount say so by exit
// 3, status by its errors; the work stays, and is pushed once the other's is out of the way.
func TestRemoteMovedOn(t *testing.T) {
	deadline(t, 2*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo)).mount()
	check(t, os.WriteFile(v.at("ours"), []byte("one"), 0o644))
	v.sync()
	before := revision(t, repo)
	clone := filepath.Join(testDir(t), "clone")
	shell(t, "/", `git clone -q `+repo+` `+clone+`; cd `+clone+
		`; echo theirs >theirs; git add -A; git commit -qm theirs; git push -q`)
	theirs := revision(t, repo)

	check(t, os.WriteFile(v.at("ours"), []byte("two"), 0o644))
	r := v.emberfs("sync", v.mnt)
	if r.code != 3 {
		t.Errorf("sync beside another machine's commits: want exit 3\n%v", r)
	}
	if got := revision(t, repo); got != theirs {
		t.Fatalf("the remote's branch went from %s to %s: another machine's work was overwritten", theirs, got)
	}
	st := v.status()
	if len(st.Errors) == 0 || st.AtRisk.Files == 0 {
		t.Errorf("status does not say it: errors %q, at risk %+v", st.Errors, st.AtRisk)
	}
	wantFile(t, v.at("ours"), "two", "the mount holds")
	equal(t, show(t, v.cold(), "main:ours"), "two", "cold holds")
	r = v.emberfs("umount", v.mnt)
	if r.code != 3 || strings.Contains(r.stdout, "COMPLETE:") && !strings.Contains(r.stdout, "INCOMPLETE") {
		t.Errorf("umount beside another machine's commits: want exit 3\n%v", r)
	}
	v.waitGone()
	if got := revision(t, repo); got != theirs {
		t.Fatalf("umount overwrote another machine's work")
	}
	// the next mount on this machine has the work still, and says that it is not safe
	v.mount()
	wantFile(t, v.at("ours"), "two", "the next mount holds")
	must(t, repo, "git", "update-ref", "refs/heads/main", before, theirs)
	v.umount()
	equal(t, show(t, repo, "main:ours"), "two", "the remote holds")
	fsck(t, repo)
}

// TestRemoteRefuses: a hook that says no is a permanent error: exit 3, named in status, the work stays in cold.
func TestRemoteRefuses(t *testing.T) {
	deadline(t, time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	hook := filepath.Join(repo, "hooks/pre-receive")
	check(t, os.MkdirAll(filepath.Dir(hook), 0o755))
	check(t, testprog.Write(hook, "#!/bin/sh\necho 'policy says no' >&2\nexit 1\n"))
	v := newVolume(t, "v", withSource(repo)).mount()
	check(t, os.WriteFile(v.at("f"), []byte("x"), 0o644))
	if r := v.emberfs("sync", v.mnt); r.code != 3 {
		t.Errorf("want exit 3\n%v", r)
	}
	if st := v.status(); len(st.Errors) == 0 || st.LastPush != nil {
		t.Errorf("status: errors %q, last push %+v", st.Errors, st.LastPush)
	}
	check(t, os.Remove(hook))
	v.umount()
	equal(t, show(t, repo, "main:f"), "x", "the remote holds")
}

// TestRemoteGone: the remote disappears while mounted; work goes on, sync says exit 3, and all is pushed when it is
// back.
func TestRemoteGone(t *testing.T) {
	deadline(t, time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo)).mount()
	check(t, os.WriteFile(v.at("f"), []byte("x"), 0o644))
	check(t, os.Rename(repo, repo+".away"))
	if r := v.emberfs("sync", v.mnt); r.code != 3 {
		t.Errorf("want exit 3\n%v", r)
	}
	if st := v.status(); st.LastCommit == nil || len(st.Errors) == 0 {
		t.Errorf("status: commit %+v, errors %q", st.LastCommit, st.Errors)
	}
	check(t, os.Rename(repo+".away", repo))
	v.umount()
	equal(t, show(t, repo, "main:f"), "x", "the remote holds")
}

// TestStockCommit: what somebody commits with a stock client is a valid next state of the volume.
func TestStockCommit(t *testing.T) {
	deadline(t, 2*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	one := newVolume(t, "one", withSource(repo)).mount()
	check(t, os.MkdirAll(one.at("d/kept"), 0o700))
	for _, n := range []string{"d/a", "d/b", "d/c", "script"} {
		check(t, os.WriteFile(one.at(n), []byte(n), 0o640))
	}
	check(t, os.Chown(one.at("d/a"), 12, 13))
	one.umount()
	clone := filepath.Join(testDir(t), "clone")
	shell(t, "/", `git clone -q `+repo+` `+clone+`; cd `+clone+`
		echo changed >d/a; git rm -q d/b; mkdir new; echo new >new/file; chmod +x script; git mv d/c d/moved; ln -s d/a link
		git add -A; git commit -qm 'by hand'; git push -q`)
	two := newVolume(t, "two", withSource(repo)).mount()
	got := scanTree(t, two.mnt)
	for p, want := range map[string]string{"/d/a": "mode 100640 uid 12 gid 13", "/new/file": "mode 100644 uid 0 gid 0",
		"/script": "mode 100750", "/d/moved": "mode 100", "/link": "mode 120", "/d/kept": "mode 40700"} {
		if !strings.HasPrefix(got[p], want) {
			t.Errorf("%s: %s, want %s", p, got[p], want)
		}
	}
	if _, ok := got["/d/b"]; ok {
		t.Errorf("a file that was removed by git is back")
	}
	wantFile(t, two.at("d/a"), "changed\n", "d/a:")
	two.umount()
	fsck(t, repo)
	three := newVolume(t, "three", withSource(repo)).mount()
	sameTree(t, scanTree(t, three.mnt), got, "the machine after that")
	three.umount()
}

// TestTwoMachinesTakeTurns: a machine whose marks say "changed" although nothing is uncommitted (a file with two names,
// a daemon that was killed) follows what the other machine pushed; one that has work of its own keeps it.
func TestTwoMachinesTakeTurns(t *testing.T) {
	deadline(t, 2*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	one, two := newVolume(t, "one", withSource(repo)), newVolume(t, "two", withSource(repo))
	one.mount()
	check(t, os.WriteFile(one.at("a"), []byte("a"), 0o644))
	check(t, os.Link(one.at("a"), one.at("b")))
	check(t, os.MkdirAll(one.at("d/e"), 0o755))
	check(t, os.WriteFile(one.at("d/e/old"), []byte("x"), 0o644))
	one.umount()
	two.mount()
	check(t, os.WriteFile(two.at("f"), []byte("from two"), 0o644))
	check(t, os.Rename(two.at("d/e/old"), two.at("d/new")))
	two.umount()

	one.startForeground()
	wantFile(t, one.at("f"), "from two", "after the other machine's turn f holds")
	if _, err := os.Lstat(one.at("d/e/old")); !os.IsNotExist(err) {
		t.Errorf("a file that the other machine moved is still there (%v)", err)
	}
	var a, b unix.Stat_t
	check(t, unix.Stat(one.at("a"), &a))
	check(t, unix.Stat(one.at("b"), &b))
	if a.Ino != b.Ino || a.Nlink != 2 {
		t.Errorf("a and b are inodes %d and %d with %d links", a.Ino, b.Ino, a.Nlink)
	}
	one.sync()
	one.kill() // nothing uncommitted, but nothing says so either

	two.mount()
	check(t, os.WriteFile(two.at("f"), []byte("second turn"), 0o644))
	two.umount()
	one.clearDeadMount()
	one.mount()
	wantFile(t, one.at("f"), "second turn", "after a kill and the other machine's turn f holds")
	one.umount()
	fsck(t, repo)
}

// TestClosedToItself: a plain user's files and directories without the owner's own bits are backed up and come back
// closed.
func TestClosedToItself(t *testing.T) {
	deadline(t, time.Minute)
	u := plainUser()
	openFuseDevice(t)
	sh := func(script string) string {
		return strings.TrimSpace(command{args: []string{"sh", "-euc", script}, as: u}.must(t))
	}
	repo := newBareRepo(t, "remote.git", u)
	one := newVolume(t, "one", withSource(repo), withUser(u)).mount()
	script := `cd ` + one.mnt + `; echo secret >f; chmod 0 f; mkdir d; echo inner >d/g; chmod 0 d; stat -c '%n %a' f d`
	if got := sh(script); got != "f 0\nd 0" {
		t.Fatalf("modes %q", got)
	}
	one.sync()
	equal(t, sh(`cd `+one.mnt+`; stat -c '%n %a' f d`), "f 0\nd 0", "modes after a commit")
	one.umount()
	two := newVolume(t, "two", withSource(repo), withUser(u)).mount()
	got := sh(`cd ` + two.mnt + `; stat -c '%n %a' f d; chmod 600 f; chmod 700 d; cat f d/g`)
	if got != "f 0\nd 0\nsecret\ninner" {
		t.Errorf("on the next machine: %q", got)
	}
	two.umount()
}
