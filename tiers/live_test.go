package tiers

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// putLive commits all that is dirty to the live branch; without noted the daemon dies before it writes volume.json and
// records.
func (v *Volume) putLive(t *testing.T, noted bool) cold.ID {
	t.Helper()
	ctx := t.Context()
	tx, err := v.cold.BeginLive(ctx)
	must(t, err)
	defer tx.Abort()
	must(t, v.checkBase(ctx, tx.Base()))
	rc := &Receipt{Reason: "critical"}
	c := v.beginCapture(ctx, tx, &capture{})
	root, err := c.all()
	if err == nil {
		err = v.moveBranch(ctx, c, root, rc)
	}
	if err == nil && noted {
		v.noteHead(rc.Commit)
		c.recordClean()
	}
	c.finish(err)
	must(t, err)
	id, err := cold.ParseID(rc.Commit)
	must(t, err)
	return id
}

// killed makes the volume's state what a killed daemon leaves, and opens it again.
func (v *Volume) killed(t *testing.T, c *memCold) *Volume {
	t.Helper()
	must(t, v.Close())
	must(t, v.state.Update(func(s *warm.StateFile) { s.Clean = false }))
	return openTest(t, v.cfg.State, c)
}

// The last commit was a live one: the same machine sees itself in step, another one restores it, and the next backup
// absorbs it.
func TestStartAfterLiveCommit(t *testing.T) {
	v, c := newVolume(t)
	write(t, v, v.root, "f", "1")
	v.mustSync(t)
	main := c.head
	write(t, v, v.root, "critical", "2")
	live := v.putLive(t, true)
	if c.head != main || c.live != live || v.state.Head != live.String() || !v.rootClean() {
		t.Fatalf("main %s, live %s, Head %s, clean %v", c.head, c.live, v.state.Head, v.rootClean())
	}

	next := openTest(t, t.TempDir(), c)
	rsyncEqual(t, filepath.Join(v.cfg.State, "warm"), filepath.Join(next.cfg.State, "warm"))
	if next.state.Head != live.String() || next.lastCommit().ID != live.String() {
		t.Errorf("the next machine: Head %s, last commit %s", next.state.Head, next.lastCommit().ID)
	}

	v = v.killed(t, c)
	if s := v.Status(); len(s.Errors) > 0 || v.state.Head != live.String() || s.AtRisk.Files > 0 {
		t.Errorf("after a kill: Head %s, %+v", v.state.Head, s)
	}
	rc := v.mustSync(t)
	if !rc.New || rc.Commit != c.head.String() || !c.live.IsZero() {
		t.Errorf("the next backup: %+v, live %s", rc, c.live)
	}
	if info := c.commits[c.head].info; info.Parent != main || info.Absorbed[0] != live {
		t.Errorf("%+v", info)
	}
	if again := v.mustSync(t); again.New {
		t.Errorf("a commit of nothing: %+v", again)
	}
	// The other one comes back to a main that has absorbed what it is of.
	next = next.killed(t, c)
	if s := next.Status(); len(s.Errors) > 0 || next.state.Head != c.head.String() {
		t.Errorf("the other: Head %s, %+v", next.state.Head, s)
	}
	write(t, next, next.root, "g", "3")
	next.mustSync(t)
}

// The daemon dies between a commit and its note, with live commits and commits to main in turn: all of it is still our
// own work.
func TestLostHeadNoteWithLive(t *testing.T) {
	v, c := newVolume(t)
	write(t, v, v.root, "f", "1")
	v.mustSync(t)
	forget := func(head string) { must(t, v.state.Update(func(s *warm.StateFile) { s.Head = head })) }
	write(t, v, v.root, "a", "1")
	first := v.putLive(t, true)
	write(t, v, v.root, "b", "1")
	v.putLive(t, false)
	write(t, v, v.root, "c", "1")
	second := v.putLive(t, true)

	// The note of the commit to main is lost, and those before it.
	for i, head := range []cold.ID{second, first, c.head} {
		write(t, v, v.root, "f", string(rune('2'+i)))
		if i > 0 {
			forget(head.String())
		}
		v.mustSync(t)
		forget(head.String())
		v = v.killed(t, c)
		if s := v.Status(); len(s.Errors) > 0 {
			t.Errorf("%d: %v", i, s.Errors)
		}
		write(t, v, v.root, "g", string(rune('2'+i)))
		v.mustSync(t)
	}
	forget(second.String())
	delete(c.commits, second) // a gc took it: the commit that absorbed it names it
	write(t, v, v.root, "h", "1")
	v.mustSync(t)
}

// A live commit of another machine is not ours to extend, and main does not move past it.
func TestForeignLiveCommit(t *testing.T) {
	v, c := newVolume(t)
	write(t, v, v.root, "f", "1")
	v.mustSync(t)
	head := v.state.Head
	write(t, v, v.root, "critical", "2")
	live := v.putLive(t, true)
	c.commits[live].info.Machine = "another"
	must(t, v.state.Update(func(s *warm.StateFile) { s.Head = head }))
	write(t, v, v.root, "g", "3")
	if _, err := v.Sync(t.Context(), "test"); !errors.Is(err, cold.ErrRefMoved) {
		t.Errorf("Sync = %v", err)
	}
	if c.live != live {
		t.Error("the live branch moved")
	}
	if _, err := os.Stat(filepath.Join(v.cfg.State, "warm", "g")); err != nil {
		t.Error(err)
	}
}

// Bytes that only live commits brought are read after main has absorbed them and the live commits are gone.
func TestStubsOfLiveCommit(t *testing.T) {
	v, c := newVolume(t)
	write(t, v, v.root, "f", "1")
	v.mustSync(t)
	d := mkdir(t, v, v.root, "d")
	write(t, v, d, "critical", "from the live branch")
	live := v.putLive(t, true)
	next := openTest(t, t.TempDir(), c)
	next.mustSync(t)
	delete(c.commits, live)
	next = next.killed(t, c)
	if got := read(t, next, lookup(t, next, lookup(t, next, next.root, "d"),
		"critical")); got != "from the live branch" {
		t.Errorf("read %q", got)
	}
	if s := next.Status(); len(s.Errors) > 0 {
		t.Error(s.Errors)
	}
}
