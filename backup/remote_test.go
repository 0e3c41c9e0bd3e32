package backup

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/backup/wire"
	"emberfs/tiers/cold"
)

func newRemote(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "remote.git")
	git(t, ".", "init", "-q", "-b", "main", "--bare", dir)
	git(t, dir, "config", "receive.fsckObjects", "true")
	return dir
}

func (v *testVolume) mustPush() {
	v.t.Helper()
	if err := v.Push(v.t.Context()); err != nil {
		v.t.Fatal(err)
	}
}

func (v *testVolume) mustFetch() {
	v.t.Helper()
	if err := v.Fetch(v.t.Context()); err != nil {
		v.t.Fatal(err)
	}
}

// A volume goes to the next machine and back.
func TestTwoMachines(t *testing.T) {
	t.Parallel()
	remote := newRemote(t)
	one := newVolume(t, Options{Source: remote, VolumeID: "vol", MachineID: "one"})
	one.mustFetch()
	one.mustPush() // nothing to push yet
	f, links := oddTree()
	tip := one.commit(f, links)
	if !one.Pushed().IsZero() {
		t.Error("pushed before the push")
	}
	one.mustPush()
	if one.Pushed() != tip || git(t, remote, "rev-parse", "main") != tip.String() {
		t.Errorf("remote is at %s, Pushed says %s, want %s", git(t, remote, "rev-parse", "main"), one.Pushed(), tip)
	}
	git(t, remote, "fsck", "--strict")

	two := newVolume(t, Options{Source: remote, VolumeID: "unused", MachineID: "two"})
	two.mustFetch()
	if two.VolumeID() != "vol" || two.Pushed() != tip {
		t.Errorf("VolumeID %q, Pushed %s", two.VolumeID(), two.Pushed())
	}
	compareTrees(t, two.read(two.headSnapshot()), f)
	two.checkGit()
	g := two.read(two.headSnapshot())
	g.text("dir/new", "from two")
	delete(g.kids, "suid")
	two.commit(g, links)
	second := two.commit(g, links)
	two.mustPush()
	git(t, remote, "gc", "-q", "--prune=now")

	one.mustFetch()
	if id := one.headSnapshot().Info(); id.ID != second || id.Machine != "two" || id.Reason != "test" {
		t.Errorf("head is %+v, want %s", id, second)
	}
	compareTrees(t, one.read(one.headSnapshot()), g)
	one.mustFetch()
	one.mustPush()
	one.checkGit()
}

// Reverted content is sent again: the remote may hold no more than its tip's tree.
func TestPushReverted(t *testing.T) {
	remote := newRemote(t)
	v := newVolume(t, Options{Source: remote})
	f := newDir(0o755)
	f.text("a", "first")
	f.text("dir/keep", "kept")
	v.commit(f, nil)
	f.text("a", "second")
	v.commit(f, nil)
	v.mustPush()
	f.text("a", "first")
	v.commit(f, nil)
	before := git(t, remote, "rev-parse", "main")
	old, err := cold.ParseID(before)
	if err != nil {
		t.Fatal(err)
	}
	commits, reached, err := v.newCommits(t.Context(), v.headSnapshot().Info().ID, old)
	if err != nil || !reached || len(commits) != 1 {
		t.Fatalf("newCommits = %v, %v, %v", commits, reached, err)
	}
	ids, err := v.collect(t.Context(), commits, old)
	if err != nil {
		t.Fatal(err)
	}
	sent := map[cold.ID]bool{}
	for _, id := range ids {
		sent[id] = true
	}
	if !sent[blobID(t, "first")] || sent[blobID(t, "kept")] || sent[blobID(t, "second")] {
		t.Errorf("first %v, kept %v, second %v", sent[blobID(t, "first")], sent[blobID(t, "kept")], sent[blobID(t, "second")])
	}
	v.mustPush()
	git(t, remote, "fsck", "--strict", "--connectivity-only")
}

func TestDiverged(t *testing.T) {
	t.Parallel()
	remote := newRemote(t)
	one := newVolume(t, Options{Source: remote, MachineID: "one"})
	f := newDir(0o755)
	f.text("a", "a")
	one.commit(f, nil)
	one.mustPush()
	two := newVolume(t, Options{Source: remote, MachineID: "two"})
	two.mustFetch()
	g := two.read(two.headSnapshot())
	g.text("b", "two")
	two.commit(g, nil)
	two.mustPush()
	theirs := git(t, remote, "rev-parse", "main")

	f.text("c", "one")
	ours := one.commit(f, nil)
	if err := one.Push(t.Context()); !errors.Is(err, cold.ErrDiverged) {
		t.Errorf("Push = %v", err)
	}
	if err := one.Fetch(t.Context()); !errors.Is(err, cold.ErrDiverged) {
		t.Errorf("Fetch = %v", err)
	}
	if err := one.Push(t.Context()); !errors.Is(err, cold.ErrDiverged) {
		t.Errorf("Push after Fetch = %v", err)
	}
	if now := git(t, remote, "rev-parse", "main"); now != theirs || one.headSnapshot().Info().ID != ours {
		t.Errorf("remote moved from %s to %s, ours from %s", theirs, now, ours)
	}
	if one.Pushed().String() != theirs {
		t.Errorf("Pushed = %s, want %s", one.Pushed(), theirs)
	}
	// What was fetched stays, even through a gc.
	git(t, one.dir, "gc", "-q", "--prune=now")
	git(t, one.dir, "cat-file", "-e", theirs+"^{tree}")
	// A merge by a stock client settles it.
	clone := filepath.Join(t.TempDir(), "clone")
	git(t, ".", "clone", "-q", one.dir, clone)
	git(t, clone, "pull", "-q", "--no-rebase", "--no-edit", "-X", "ours", remote, "main")
	git(t, clone, "push", "-q", remote, "HEAD:main")
	one.mustFetch()
	got := &file{Entry: one.headSnapshot().Root()}
	one.readDir(one.headSnapshot(), got, "", true)
	for _, name := range []string{"a", "b", "c"} {
		if got.kids[name] == nil {
			t.Errorf("%s is not in the merge", name)
		}
	}
	one.commit(got, nil)
	one.mustPush()
}

func TestRefused(t *testing.T) {
	remote := newRemote(t)
	v := newVolume(t, Options{Source: remote})
	f := newDir(0o755)
	f.text("a", "a")
	v.commit(f, nil)
	hook := filepath.Join(remote, "hooks", "pre-receive")
	if err := os.MkdirAll(filepath.Dir(hook), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hook, []byte("#!/bin/sh\necho quota exceeded >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	err := v.Push(t.Context())
	var refused *cold.RefusedError
	if !errors.As(err, &refused) || !strings.Contains(refused.Reason, "quota exceeded") {
		t.Fatalf("Push = %v", err)
	}
	if !v.Pushed().IsZero() {
		t.Error("Pushed after a refusal")
	}
	if err := os.Remove(hook); err != nil {
		t.Fatal(err)
	}
	v.mustPush()
	if v.Pushed() != v.headSnapshot().Info().ID {
		t.Error("not pushed after all")
	}
}

// The remote's branch is rewound, deleted, or pushed by somebody from the same history.
func TestRemoteMoves(t *testing.T) {
	t.Parallel()
	remote := newRemote(t)
	v := newVolume(t, Options{Source: remote})
	f := newDir(0o755)
	f.text("a", "1")
	first := v.commit(f, nil)
	f.text("a", "2")
	v.commit(f, nil)
	v.mustPush()
	f.text("a", "3")
	tip := v.commit(f, nil)
	// Behind what we saw, but an ancestor: pushed from there.
	git(t, remote, "update-ref", "refs/heads/main", first.String())
	git(t, remote, "gc", "-q", "--prune=now")
	v.mustPush()
	if now := git(t, remote, "rev-parse", "main"); now != tip.String() {
		t.Errorf("remote is at %s", now)
	}
	git(t, remote, "fsck", "--strict")
	// Deleted: made again, with all its history.
	git(t, remote, "update-ref", "-d", "refs/heads/main")
	git(t, remote, "gc", "-q", "--prune=now")
	v.mustFetch()
	if !v.Pushed().IsZero() {
		t.Errorf("Pushed = %s with the branch gone", v.Pushed())
	}
	v.mustPush()
	if n := git(t, remote, "rev-list", "--count", "main"); n != "3" {
		t.Errorf("%s commits on the remote", n)
	}
}

// brokenRemote fails where it is told to.
type brokenRemote struct {
	remote
	refs, fetch, push error
}

func (b *brokenRemote) Refs(ctx context.Context) (map[string]cold.ID, error) {
	if b.refs != nil {
		return nil, b.refs
	}
	return b.remote.Refs(ctx)
}

func (b *brokenRemote) Fetch(ctx context.Context, db *odb.DB, ref string, have []cold.ID) (cold.ID, func() error, error) {
	if b.fetch != nil {
		return cold.ID{}, nil, b.fetch
	}
	return b.remote.Fetch(ctx, db, ref, have)
}

func (b *brokenRemote) Link(ctx context.Context, db *odb.DB, tip cold.ID) (func() error, error) {
	if b.fetch != nil {
		return nil, b.fetch
	}
	return b.remote.Link(ctx, db, tip)
}

func (b *brokenRemote) Push(ctx context.Context, updates []wire.Update, pack func(io.Writer) error) error {
	if b.push != nil {
		return errors.Join(pack(io.Discard), b.push)
	}
	return b.remote.Push(ctx, updates, pack)
}

// A failed fetch or push leaves everything as it was, and the next one works.
func TestRemoteFails(t *testing.T) {
	remote := newRemote(t)
	other := newVolume(t, Options{Source: remote})
	f := newDir(0o755)
	f.text("a", "1")
	other.commit(f, nil)
	other.mustPush()

	v := newVolume(t, Options{Source: remote})
	broken := &brokenRemote{remote: v.remote}
	v.remote = broken
	gone := errors.New("the network is gone")
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, gone) {
			t.Errorf("%s = %v", what, err)
		}
	}
	broken.refs = gone
	check("Fetch", v.Fetch(t.Context()))
	broken.refs, broken.fetch = nil, gone
	check("Fetch", v.Fetch(t.Context()))
	if s, err := v.Head(t.Context()); s != nil || err != nil {
		t.Errorf("Head = %v, %v", s, err)
	}
	broken.fetch = nil
	v.mustFetch()
	g := v.read(v.headSnapshot())
	g.text("b", "2")
	tip := v.commit(g, nil)
	pushed := v.Pushed()
	broken.push = gone
	check("Push", v.Push(t.Context()))
	broken.refs = gone
	check("Push", v.Push(t.Context()))
	if v.Pushed() != pushed || v.headSnapshot().Info().ID != tip {
		t.Error("a failed push changed something")
	}
	broken.refs, broken.push = nil, nil
	v.mustPush()
	if v.Pushed() != tip {
		t.Error("not pushed after all")
	}
}

// A remote of a newer format changes nothing here.
func TestFetchNewerFormat(t *testing.T) {
	remote := newRemote(t)
	clone := filepath.Join(t.TempDir(), "clone")
	git(t, ".", "init", "-q", "-b", "main", clone)
	writeFile(t, filepath.Join(clone, ".emberfs/volume.json"), `{"format":2,"volume":"v"}`)
	git(t, clone, "add", "-A")
	git(t, clone, "commit", "-q", "-m", "newer")
	git(t, clone, "push", "-q", remote, "main")
	v := newVolume(t, Options{Source: remote})
	if err := v.Fetch(t.Context()); !errors.Is(err, format.ErrNewerFormat) {
		t.Errorf("Fetch = %v", err)
	}
	if s, err := v.Head(t.Context()); s != nil || err != nil || !v.Pushed().IsZero() {
		t.Errorf("Head = %v, %v; Pushed = %v", s, err, v.Pushed())
	}
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Peek brings the remote's commits and moves nothing; BeginAt finds out whether a tree differs from any commit.
func TestPeekAndBeginAt(t *testing.T) {
	remote := newRemote(t)
	one := newVolume(t, Options{Source: remote})
	if moved, err := one.Peek(t.Context()); moved || err != nil {
		t.Errorf("Peek of an empty remote = %v, %v", moved, err)
	}
	f := hostileBase()
	first := one.commit(f, nil)
	base := rootOf(one.headSnapshot())
	one.mustPush()
	if moved, err := one.Peek(t.Context()); moved || err != nil {
		t.Errorf("Peek = %v, %v", moved, err)
	}
	two := newVolume(t, Options{Source: remote})
	two.mustFetch()
	g := two.read(two.headSnapshot())
	g.text("new", "n")
	second := two.commit(g, nil)
	two.mustPush()
	moved, err := one.Peek(t.Context())
	if !moved || err != nil {
		t.Errorf("Peek = %v, %v", moved, err)
	}
	if id := one.headSnapshot().Info().ID; id != first || one.Pushed() != second {
		t.Errorf("head %s, pushed %s; want %s, %s", id, one.Pushed(), first, second)
	}
	one.mustFetch()
	if id := one.headSnapshot().Info().ID; id != second {
		t.Errorf("head %s, want %s", id, second)
	}
	// On the commit that f is of, f is no change; a commit there would throw the second away and is refused.
	tx, err := one.BeginAt(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Abort()
	dirs := map[string]cold.DirID{}
	one.dirs(tx.Base(), rootOf(tx.Base()), "", dirs)
	if err := put(t.Context(), tx, f, dirs, "", nil); err != nil || f.Dir() != base {
		t.Errorf("root is %v, was %v: %v", f.Dir(), base, err)
	}
	if _, err := tx.Commit(t.Context(), cold.CommitOptions{Root: f.Dir()}); !errors.Is(err, cold.ErrRefMoved) {
		t.Errorf("Commit = %v", err)
	}
}
