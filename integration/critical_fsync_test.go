//go:build slow

package integration

import (
	"emberfs/integration/testprog"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCriticalFsyncRemote: with `fsync: remote` the remote has what fsync returned for, whatever becomes of the
// machine; where it can not be reached fsync fails with EIO, and log and status say why.
func TestCriticalFsyncRemote(t *testing.T) {
	deadline(t, 5*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	const text = `- {match: "db/", class: critical, critical_delay: 1h, fsync: remote}`
	data := strings.Repeat("0123456789", 10_000)
	for round := range 3 {
		v := newVolume(t, fmt.Sprint("machine", round), withSource(repo)).mount()
		if round == 0 {
			v.rules(text)
			mkdir(t, v.at("db"), user{})
			v.sync()
		}
		f, err := os.OpenFile(v.at("db/log"), os.O_CREATE|os.O_RDWR, 0o644)
		check(t, err)
		defer f.Close()
		for i := range 3 {
			_, err = f.WriteAt(fmt.Appendf(nil, "%d %d %s", round, i, data), 0)
			check(t, err)
			check(t, f.Sync())
		}
		check(t, replaceFile(v.at("db/replaced"), fmt.Sprint("replaced ", round)))
		dir, err := os.Open(v.at("db"))
		check(t, err)
		check(t, dir.Sync()) // the rename
		check(t, dir.Close())
		v.kill()
		check(t, os.RemoveAll(v.state))
		id := newestOf(t, repo)
		if !shows(t, repo, id, "db/log", fmt.Sprintf("%d 2 %s", round, data)) ||
			!shows(t, repo, id, "db/replaced", fmt.Sprint("replaced ", round)) {
			t.Fatalf("round %d: the remote lacks what fsync returned for", round)
		}
		fsck(t, repo)
	}
	v := newVolume(t, "last", withSource(repo), withOpts("fsync_timeout=2s")).mount()
	f, err := os.OpenFile(v.at("db/log"), os.O_RDWR, 0o644)
	check(t, err)
	defer f.Close()
	away := repo + ".away"
	check(t, os.Rename(repo, away))
	_, err = f.WriteAt([]byte("the remote is away"), 0)
	check(t, err)
	for range 2 { // a second one is no more successful
		if err := f.Sync(); !errors.Is(err, unix.EIO) {
			t.Errorf("fsync while the remote is away: %v", err)
		}
	}
	if s := v.status(); !strings.Contains(strings.Join(s.Errors, "\n"), "remote.git") {
		t.Errorf("status does not say why: %q", s.Errors)
	}
	if log, err := os.ReadFile(v.logFile()); err != nil || !strings.Contains(string(log), "not remotely") {
		t.Errorf("the log does not say why: %v", err)
	}
	if b, err := os.ReadFile(v.at("db/log")); err != nil || !strings.HasPrefix(string(b), "the remote is away") {
		t.Errorf("the program's data: %.30q, %v", b, err)
	}
	check(t, os.Rename(away, repo))
	check(t, f.Sync())
	if id := newestOf(t, repo); !strings.HasPrefix(command{args: []string{"git", "cat-file", "blob", id + ":db/log"},
		dir: repo}.run(t).stdout, "the remote is away") {
		t.Error("the remote is back and fsync returned: it lacks the bytes")
	}
	check(t, f.Close())
	v.umount()
	fsck(t, repo)
}

// TestCriticalFsyncRefused: a remote that refuses is tried again for each fsync, which does not wait for the pause
// after the failure.
func TestCriticalFsyncRefused(t *testing.T) {
	deadline(t, 2*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "one", withSource(repo)).mount()
	v.rules(`- {match: "*.db", class: critical, fsync: remote}`)
	v.sync()
	hook := repo + "/hooks/pre-receive"
	check(t, testprog.Write(hook, "#!/bin/sh\necho no such luck >&2\nexit 1\n"))
	f, err := os.Create(v.at("x.db"))
	check(t, err)
	defer f.Close()
	for i := range 3 {
		_, err = f.WriteAt(fmt.Append(nil, "version ", i), 0)
		check(t, err)
		if err := f.Sync(); !errors.Is(err, unix.EIO) {
			t.Errorf("fsync of what the remote refuses: %v", err)
		}
	}
	if s := v.status(); !strings.Contains(strings.Join(s.Errors, "\n"), "push") {
		t.Errorf("status does not say why: %q", s.Errors)
	}
	check(t, os.Remove(hook))
	check(t, f.Sync())
	if !shows(t, repo, newestOf(t, repo), "x.db", "version 2") {
		t.Error("the remote lacks it")
	}
	check(t, f.Close())
	v.umount()
}

// TestCriticalFsyncTimeout: while the remote takes longer than fsync_timeout, fsync fails with EIO after that time,
// other files are written and committed meanwhile, and once the remote has it, fsync succeeds.
func TestCriticalFsyncTimeout(t *testing.T) {
	deadline(t, 2*time.Minute)
	repo := newBareRepo(t, "remote.git", user{})
	v := newVolume(t, "one", withSource(repo), withOpts("fsync_timeout=1s", "backup_interval=1s")).mount()
	v.rules(`- {match: "*.db", class: critical, fsync: remote}`)
	v.sync()
	hook, letGo := repo+"/hooks/pre-receive", repo+"/go"
	check(t, testprog.Write(hook, "#!/bin/sh\nn=0\nwhile [ ! -e "+letGo+
		" ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n+1)); done\n"))
	f, err := os.Create(v.at("x.db"))
	check(t, err)
	defer f.Close()
	_, err = f.WriteString("content")
	check(t, err)
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- f.Sync() }()
	time.Sleep(100 * time.Millisecond)
	before := v.status().LastCommit
	check(t, os.WriteFile(v.at("other"), []byte("written beside it"), 0o644))
	if err := <-done; !errors.Is(err, unix.EIO) || time.Since(began) < time.Second {
		t.Errorf("fsync that the remote does not acknowledge: %v after %v", err, time.Since(began))
	}
	if !waitFor(30*time.Second, func() bool {
		c := v.status().LastCommit
		return c != nil && c.ID != before.ID && shows(t, v.cold(), c.ID, "other", "written beside it")
	}) {
		t.Error("no commit is made while a push hangs")
	}
	check(t, os.WriteFile(letGo, nil, 0o644))
	if !waitFor(30*time.Second, func() bool { return f.Sync() == nil }) {
		t.Fatal("fsync does not succeed once the remote answers")
	}
	check(t, f.Sync()) // and stays so
	if !shows(t, repo, newestOf(t, repo), "x.db", "content") {
		t.Error("the remote lacks it")
	}
	check(t, f.Close())
	v.umount()
}
