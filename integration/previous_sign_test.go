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
