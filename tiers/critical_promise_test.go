package tiers

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// eventually waits until the newest commit has this content under a path.
func eventually(t *testing.T, cold *memCold, path, content string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); newest(t, cold)[path] != content; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s is not committed with %q: %v", path, content, newest(t, cold))
		}
	}
}

// TestBecomesCritical: what was changed before a rule says critical of it is committed within that rule's delay.
func TestBecomesCritical(t *testing.T) {
	cold := newMemCold()
	v := openTiered(t, t.TempDir(), cold, func(c *Config) { c.CriticalDelay, c.BackupInterval = time.Hour, time.Hour })
	must(t, v.SetRulesText([]byte("- {match: build/, ignore: true}\n")))
	v.Start()
	write(t, v, v.Root(), "plain", "1")
	v.mustSync(t)
	write(t, v, mkdir(t, v, v.Root(), "state"), "a", "a")
	_, h, _, err := v.Create(context.Background(), v.Root(), "open.db", unix.O_RDWR, 0o600, me)
	must(t, err)
	defer h.Release()
	_, err = h.Write(context.Background(), []byte("open"), 0, false)
	must(t, err)
	must(t, v.SetRulesText([]byte(criticalState+
		"- {match: build/, ignore: true}\n- {match: x, class: critical, critical_delay: 100ms}\n")))
	eventually(t, cold, "state/a", "a")
	eventually(t, cold, "open.db", "open")
	// A file that was ignored has no noted change. It becomes critical all the same.
	write(t, v, mkdir(t, v, v.Root(), "build"), "out", "1")
	v.mustSync(t)
	must(t, v.SetRulesText([]byte("- {match: build/, class: critical, critical_delay: 100ms}\n")))
	eventually(t, cold, "build/out", "1")
	// Nothing is committed where nothing waits.
	v.mustSync(t)
	commits := len(cold.commits)
	must(t, v.SetRulesText(nil))
	time.Sleep(200 * time.Millisecond)
	if len(cold.commits) != commits {
		t.Error("a commit that nobody asked for")
	}
}

// TestCriticalWithoutClose: changes that no close and no fsync ends are committed too, and so are those by another name
// of a file.
func TestCriticalWithoutClose(t *testing.T) {
	cold := newMemCold()
	v := openCritical(t, cold, criticalState+"- {match: fresh/, class: critical}\n- {match: '**', class: session}\n")
	v.Start()
	state, other := mkdir(t, v, v.Root(), "state"), mkdir(t, v, v.Root(), "other")
	a := write(t, v, state, "a", "one")
	v.mustSync(t)
	t.Run("truncate", func(t *testing.T) {
		size := uint64(2)
		_, err := v.Setattr(context.Background(), a, nil, &SetAttr{Size: &size})
		must(t, err)
		eventually(t, cold, "state/a", "on")
	})
	t.Run("a directory that another rule would match as a file", func(t *testing.T) {
		mkdir(t, v, v.Root(), "fresh")
		eventually(t, cold, "fresh", "/")
	})
	t.Run("another name", func(t *testing.T) {
		_, err := v.Link(context.Background(), a, other, "b")
		must(t, err)
		eventually(t, cold, "other/b", "on")
		v.mustSync(t)
		// Now it is known by a name that is not critical.
		if _, _, err := v.Lookup(context.Background(), other, "b"); err != nil {
			t.Fatal(err)
		}
		overwrite(t, v, a, "two")
		eventually(t, cold, "state/a", "two")
		mode := uint32(0o600)
		_, err = v.Setattr(context.Background(), a, nil, &SetAttr{Mode: &mode})
		must(t, err)
		if due, _ := v.critical.next(); due.IsZero() {
			t.Error("a change of its mode is not critical")
		}
	})
}

// TestFsyncRemoteWaits: fsync of a file of `fsync: remote` succeeds only when the remote has it. That holds also where
// another commit has taken the change and is being pushed, or could not be pushed.
func TestFsyncRemoteWaits(t *testing.T) {
	repo := newMemCold()
	repo.remote = true
	v := openCritical(t, repo, "- {match: '*.db', class: critical, fsync: remote, critical_delay: 1h}\n- {match: d/, "+
		"class: critical, fsync: remote, critical_delay: 1h}\n")
	v.Start()
	d := mkdir(t, v, v.Root(), "d")
	v.mustSync(t)
	_, h, _, err := v.Create(context.Background(), v.Root(), "x.db", unix.O_RDWR, 0o600, me)
	must(t, err)
	defer h.Release()
	put := func(s string) {
		t.Helper()
		_, err := h.Write(context.Background(), []byte(s), 0, false)
		must(t, err)
	}
	onRemote := func(path, want string) {
		t.Helper()
		repo.mu.Lock()
		pushed, at := repo.pushed, repo.live
		if at.IsZero() {
			at = repo.head
		}
		repo.mu.Unlock()
		if pushed != at || newest(t, repo)[path] != want {
			t.Fatalf("after fsync the remote is at %v, the newest commit %v has %v", pushed, at, newest(t, repo))
		}
	}
	reached, open := make(chan bool, 10), make(chan bool)
	let := sync.OnceFunc(func() { close(open) })
	t.Cleanup(let) // before the volume is closed
	repo.mu.Lock()
	repo.pushing = func() { reached <- true; <-open }
	repo.mu.Unlock()
	put("one")
	go func() { _, _ = v.Sync(t.Context(), "test") }()
	<-reached
	done := make(chan error)
	go func() { done <- h.Fsync(context.Background(), true) }()
	select {
	case err := <-done:
		t.Fatalf("fsync while the commit is being pushed: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	let()
	must(t, <-done)
	onRemote("x.db", "one")

	refuse := func(err error) {
		repo.mu.Lock()
		repo.pushing, repo.failPush = nil, err
		repo.mu.Unlock()
	}
	refuse(&cold.RefusedError{Reason: "a hook says no"}) // such a push would be tried again only after half an hour
	put("two")
	for range 3 {
		if err := h.Fsync(context.Background(), true); err == nil || !strings.Contains(err.Error(), "not remotely") {
			t.Fatalf("fsync of what the remote refuses: %v", err)
		}
	}
	refuse(nil)
	must(t, h.Fsync(context.Background(), true))
	onRemote("x.db", "two")

	// fsync of a directory waits for the names that were made in it.
	sd, err := v.OpenDir(context.Background(), d)
	must(t, err)
	defer sd.Close()
	for i := range 3 {
		write(t, v, d, fmt.Sprint("n", i), "n")
		must(t, sd.Fsync(context.Background(), false))
		onRemote(fmt.Sprint("d/n", i), "n")
	}
	refuse(unix.ECONNREFUSED)
	write(t, v, d, "last", "n")
	if err := sd.Fsync(context.Background(), false); err == nil {
		t.Error("fsync of a directory that the remote does not have")
	}
	if err := sd.Fsync(context.Background(), false); err == nil {
		t.Error("and again")
	}
	refuse(nil)
	must(t, sd.Fsync(context.Background(), false))
	onRemote("d/last", "n")

	// That holds for a directory that no rule is about, but a name in it is. Other directories have nothing to wait
	// for.
	root, err := v.OpenDir(context.Background(), v.Root())
	must(t, err)
	defer root.Close()
	free, err := v.OpenDir(context.Background(), mkdir(t, v, v.Root(), "free"))
	must(t, err)
	defer free.Close()
	refuse(unix.ECONNREFUSED)
	write(t, v, v.Root(), "y.db", "y")
	for i := range 3 {
		if err := root.Fsync(context.Background(), false); err == nil {
			t.Errorf("fsync %d of a directory that has a name which the remote does not have", i)
		}
	}
	must(t, free.Fsync(context.Background(), false))
	refuse(nil)
	must(t, root.Fsync(context.Background(), false))
	onRemote("y.db", "y")
	if v.critical.unsent != nil {
		t.Error("a directory is kept")
	}
}

// TestLiveMoves: a file that is moved from a critical name is in each live commit under one of its names. The same
// holds for link and unlink.
func TestLiveMoves(t *testing.T) {
	cold := newMemCold()
	v := openCritical(t, cold, criticalState+"- {match: build/, ignore: true}\n")
	state, other := mkdir(t, v, v.Root(), "state"), mkdir(t, v, v.Root(), "other")
	build := mkdir(t, v, v.Root(), "build")
	for _, name := range []string{"a", "b", "c"} {
		write(t, v, state, name, name)
	}
	write(t, v, other, "d", "d")
	v.mustSync(t)
	must(t, v.Rename(context.Background(), state, "a", other, "a", 0))
	must(t, v.Rename(context.Background(), other, "d", state, "d", 0))
	mustCritical(t, v)
	want := map[string]string{"state": "/", "state/b": "b", "state/c": "c", "state/d": "d", "other": "/",
		"other/a": "a"}
	wantNewest(t, cold, want)
	if cold.live.IsZero() {
		t.Error("it took a commit of everything")
	}
	must(t, v.Rename(context.Background(), state, "d", other, "d", 0)) // it moves on before a commit comes
	must(t, v.Rename(context.Background(), other, "d", v.Root(), "d", 0))
	mustCritical(t, v)
	delete(want, "state/d")
	want["d"] = "d"
	wantNewest(t, cold, want)
	_, err := v.Link(context.Background(), mustFind(t, v, "state/b"), other, "b")
	must(t, err)
	must(t, v.Unlink(context.Background(), state, "b"))
	mustCritical(t, v)
	delete(want, "state/b")
	want["other/b"] = "b"
	wantNewest(t, cold, want)
	must(t, v.Rename(context.Background(), state, "c", build, "c", 0))
	mustCritical(t, v)
	delete(want, "state/c")
	wantNewest(t, cold, want)
}
