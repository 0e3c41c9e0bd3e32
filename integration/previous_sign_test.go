//go:build slow

package integration

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/integration/testprog"
)

// TestPreviousOfFirstSession: a machine that was lost in the first session of a volume leaves a sign of it too.
func TestPreviousOfFirstSession(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo), withOpts("announce_delay=100ms")).mount()
	check(t, os.WriteFile(v.at("f"), []byte("one"), 0o644))
	if !waitFor(30*time.Second, func() bool { return references(t, repo) != "" }) {
		t.Error("the session does not show")
	}
	v.kill()
	newVolume(t, "next", withSource(repo)).wantPrevious("incomplete")
}

// TestPreviousWriterOutlivesBackup: what a program writes after the backup before the unmount, and that does not reach
// the remote any more, makes the session incomplete, although that backup had everything.
func TestPreviousWriterOutlivesBackup(t *testing.T) {
	t.Parallel()
	deadline(t, 2*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo))
	v.startForeground()
	check(t, os.WriteFile(v.at("early"), []byte("early"), 0o644))
	f, err := os.Create(v.at("busy"))
	check(t, err)
	defer f.Close()
	check(t, v.fg.Process.Signal(unix.SIGTERM))
	if !waitFor(30*time.Second, func() bool { return references(t, repo) != "" && mountAt(v.mnt) == nil }) {
		t.Fatal("there is no backup before the unmount")
	}
	hook := filepath.Join(repo, "hooks/pre-receive")
	check(t, os.MkdirAll(filepath.Dir(hook), 0o755))
	check(t, testprog.Write(hook, "#!/bin/sh\nexit 1\n"))
	_, err = f.WriteString("late")
	check(t, err)
	check(t, f.Close())
	if code := v.waitForeground(time.Minute); code != 3 {
		t.Errorf("the daemon ended with %d", code)
	}
	check(t, os.Remove(hook))
	next := newVolume(t, "next", withSource(repo))
	next.wantPrevious("incomplete")
	wantFile(t, next.at("early"), "early", "what is here:")
	wantFile(t, next.at("busy"), "", "what is here:")
}

// TestPreviousBehindMerge: a merge by a stock client does not hide the machine whose work it merged.
func TestPreviousBehindMerge(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	first := newVolume(t, "first", withSource(repo)).mount()
	check(t, os.WriteFile(first.at("f"), []byte("one"), 0o644))
	first.umount()
	clone := filepath.Join(testDir(t), "clone")
	must(t, "/", "git", "clone", "-q", repo, clone)
	check(t, os.WriteFile(filepath.Join(clone, "g"), []byte("from git"), 0o644))
	must(t, clone, "git", "config", "user.name", "n")
	must(t, clone, "git", "config", "user.email", "e")
	must(t, clone, "git", "add", "g")
	must(t, clone, "git", "commit", "-qm", "by hand")
	lost := newVolume(t, "lost", withSource(repo)).mount()
	check(t, os.WriteFile(lost.at("h"), []byte("two"), 0o644))
	lost.sync()
	machine := trailer(t, repo, "main", "Emberfs-Machine")
	lost.kill()
	must(t, clone, "git", "pull", "-q", "--no-rebase", "--no-edit")
	must(t, clone, "git", "push", "-q", "origin", "HEAD:main")
	if p := newVolume(t, "next", withSource(repo)).wantPrevious("incomplete"); p.Machine != machine {
		t.Errorf("machine %s was lost: %+v", machine, p)
	}
}

// TestPreviousOfClone: a machine that was made from a copy of another one's disk does not take what that one left
// afterwards for its own.
func TestPreviousOfClone(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo)).mount()
	check(t, os.WriteFile(v.at("f"), []byte("one"), 0o644))
	v.umount()
	clone := newVolume(t, "clone", withSource(repo))
	must(t, "/", "cp", "-a", v.state, clone.state)
	v.mount()
	check(t, os.WriteFile(v.at("f"), []byte("two"), 0o644))
	v.sync()
	v.kill()
	if p := clone.wantPrevious("incomplete"); p.Own {
		t.Errorf("%+v", p)
	}
}

// TestPreviousAfterBusyUnmount: an unmount that fails because the mount is in use does not say that the session ended.
func TestPreviousAfterBusyUnmount(t *testing.T) {
	t.Parallel()
	deadline(t, time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "v", withSource(repo)).mount()
	check(t, os.WriteFile(v.at("f"), []byte("one"), 0o644))
	f, err := os.Open(v.at("f"))
	check(t, err)
	if r := v.emberfs("umount", v.mnt); r.code != 1 && r.code != 32 {
		t.Fatalf("the mount is busy: %v", r)
	}
	equal(t, show(t, repo, "main:f"), "one", "the remote has")
	equal(t, trailer(t, repo, "main", "Emberfs-Clean"), "no", "Emberfs-Clean")
	check(t, os.WriteFile(v.at("f"), []byte("two"), 0o644))
	v.kill(func() { _ = f.Close() })
	newVolume(t, "next", withSource(repo)).wantPrevious("incomplete")
}
