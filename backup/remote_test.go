package backup

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/backup/format"
	"emberfs/backup/odb"
	"emberfs/backup/wire"
	"emberfs/integration/testprog"
	"emberfs/tiers/cold"
)

// A volume goes to the next machine and back.
func TestTwoMachines(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t)
	one := newVolume(t, Options{Source: remote, VolumeID: "vol", MachineID: "one"})
	one.MustFetch()
	one.MustPush() // nothing to push yet
	f, links := oddTree()
	tip := one.CommitTree(f, links)
	if !one.Pushed().IsZero() {
		t.Error("pushed before the push")
	}
	one.MustPush()
	if one.Pushed() != tip || coldtest.Git(t, remote, "rev-parse", "main") != tip.String() {
		t.Errorf("remote is at %s, Pushed says %s, want %s", coldtest.Git(t, remote, "rev-parse", "main"), one.Pushed(),
			tip)
	}
	coldtest.Git(t, remote, "fsck", "--strict")

	two := newVolume(t, Options{Source: remote, VolumeID: "unused", MachineID: "two"})
	two.MustFetch()
	if two.VolumeID() != "vol" || two.Pushed() != tip {
		t.Errorf("VolumeID %q, Pushed %s", two.VolumeID(), two.Pushed())
	}
	coldtest.CompareTrees(t, two.ReadTree(two.HeadSnapshot()), f)
	two.CheckGit()
	g := two.ReadTree(two.HeadSnapshot())
	g.Text("dir/new", "from two")
	delete(g.Kids, "suid")
	two.CommitTree(g, links)
	second := two.CommitTree(g, links)
	two.MustPush()
	coldtest.Git(t, remote, "gc", "-q", "--prune=now")

	one.MustFetch()
	if id := one.HeadSnapshot().Info(); id.ID != second || id.Machine != "two" || id.Reason != "test" {
		t.Errorf("head is %+v, want %s", id, second)
	}
	coldtest.CompareTrees(t, one.ReadTree(one.HeadSnapshot()), g)
	one.MustFetch()
	one.MustPush()
	one.CheckGit()
}

// Reverted content is sent again: the remote may hold no more than its tip's tree.
func TestPushReverted(t *testing.T) {
	remote := coldtest.NewRemote(t)
	v := newVolume(t, Options{Source: remote})
	f := coldtest.NewDir(0o755)
	f.Text("a", "first")
	f.Text("dir/keep", "kept")
	v.CommitTree(f, nil)
	f.Text("a", "second")
	v.CommitTree(f, nil)
	v.MustPush()
	f.Text("a", "first")
	v.CommitTree(f, nil)
	before := coldtest.Git(t, remote, "rev-parse", "main")
	old, err := cold.ParseID(before)
	coldtest.Check(t, err)
	commits, reached, err := v.NewCommits(t.Context(), v.HeadSnapshot().Info().ID, old)
	if err != nil || !reached || len(commits) != 1 {
		t.Fatalf("newCommits = %v, %v, %v", commits, reached, err)
	}
	ids, err := v.collect(t.Context(), commits, old)
	coldtest.Check(t, err)
	sent := map[cold.ID]bool{}
	for _, id := range ids {
		sent[id] = true
	}
	if !sent[coldtest.BlobID(t, "first")] || sent[coldtest.BlobID(t, "kept")] || sent[coldtest.BlobID(t, "second")] {
		t.Errorf("first %v, kept %v, second %v", sent[coldtest.BlobID(t, "first")], sent[coldtest.BlobID(t, "kept")],
			sent[coldtest.BlobID(t, "second")])
	}
	v.MustPush()
	coldtest.Git(t, remote, "fsck", "--strict", "--connectivity-only")
}

func TestDiverged(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t)
	one := newVolume(t, Options{Source: remote, MachineID: "one"})
	f := coldtest.NewDir(0o755)
	f.Text("a", "a")
	one.CommitTree(f, nil)
	one.MustPush()
	two := newVolume(t, Options{Source: remote, MachineID: "two"})
	two.MustFetch()
	g := two.ReadTree(two.HeadSnapshot())
	g.Text("b", "two")
	two.CommitTree(g, nil)
	two.MustPush()
	theirs := coldtest.Git(t, remote, "rev-parse", "main")

	f.Text("c", "one")
	ours := one.CommitTree(f, nil)
	coldtest.WantErr(t, one.Push(t.Context()), cold.ErrDiverged, "Push")
	coldtest.WantErr(t, one.Fetch(t.Context()), cold.ErrDiverged, "Fetch")
	coldtest.WantErr(t, one.Push(t.Context()), cold.ErrDiverged, "Push after Fetch")
	if now := coldtest.Git(t, remote, "rev-parse", "main"); now != theirs || one.HeadSnapshot().Info().ID != ours {
		t.Errorf("remote moved from %s to %s, ours from %s", theirs, now, ours)
	}
	if one.Pushed().String() != theirs {
		t.Errorf("Pushed = %s, want %s", one.Pushed(), theirs)
	}
	// What was fetched stays, even through a gc.
	coldtest.Git(t, one.Dir, "gc", "-q", "--prune=now")
	coldtest.Git(t, one.Dir, "cat-file", "-e", theirs+"^{tree}")
	// A merge by a stock client settles it.
	clone := filepath.Join(t.TempDir(), "clone")
	coldtest.Git(t, ".", "clone", "-q", one.Dir, clone)
	coldtest.Git(t, clone, "pull", "-q", "--no-rebase", "--no-edit", "-X", "ours", remote, "main")
	coldtest.Git(t, clone, "push", "-q", remote, "HEAD:main")
	one.MustFetch()
	got := &coldtest.File{Entry: one.HeadSnapshot().Root()}
	one.ReadDirTree(one.HeadSnapshot(), got, "", true)
	for _, name := range []string{"a", "b", "c"} {
		if got.Kids[name] == nil {
			t.Errorf("%s is not in the merge", name)
		}
	}
	one.CommitTree(got, nil)
	one.MustPush()
}

func TestRefused(t *testing.T) {
	remote := coldtest.NewRemote(t)
	v := newVolume(t, Options{Source: remote})
	f := coldtest.NewDir(0o755)
	f.Text("a", "a")
	v.CommitTree(f, nil)
	hook := filepath.Join(remote, "hooks", "pre-receive")
	coldtest.Check(t, os.MkdirAll(filepath.Dir(hook), 0o755))
	coldtest.Check(t, testprog.Write(hook, "#!/bin/sh\necho quota exceeded >&2\nexit 1\n"))
	err := v.Push(t.Context())
	var refused *cold.RefusedError
	if !errors.As(err, &refused) || !strings.Contains(refused.Reason, "quota exceeded") {
		t.Fatalf("Push = %v", err)
	}
	if !v.Pushed().IsZero() {
		t.Error("Pushed after a refusal")
	}
	coldtest.Check(t, os.Remove(hook))
	v.MustPush()
	if v.Pushed() != v.HeadSnapshot().Info().ID {
		t.Error("not pushed after all")
	}
}

// The remote's branch is rewound, deleted, or pushed by somebody from the same history.
func TestRemoteMoves(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t)
	v := newVolume(t, Options{Source: remote})
	f := coldtest.NewDir(0o755)
	f.Text("a", "1")
	first := v.CommitTree(f, nil)
	f.Text("a", "2")
	v.CommitTree(f, nil)
	v.MustPush()
	f.Text("a", "3")
	tip := v.CommitTree(f, nil)
	// Behind what we saw, but an ancestor: pushed from there.
	coldtest.Git(t, remote, "update-ref", "refs/heads/main", first.String())
	coldtest.Git(t, remote, "gc", "-q", "--prune=now")
	v.MustPush()
	coldtest.Equal(t, coldtest.Git(t, remote, "rev-parse", "main"), tip.String(), "remote is at")
	coldtest.Git(t, remote, "fsck", "--strict")
	// Deleted: made again, with all its history.
	coldtest.Git(t, remote, "update-ref", "-d", "refs/heads/main")
	coldtest.Git(t, remote, "gc", "-q", "--prune=now")
	v.MustFetch()
	if !v.Pushed().IsZero() {
		t.Errorf("Pushed = %s with the branch gone", v.Pushed())
	}
	v.MustPush()
	if n := coldtest.Git(t, remote, "rev-list", "--count", "main"); n != "3" {
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

func (b *brokenRemote) Fetch(ctx context.Context, db *odb.DB, ref string, have []cold.ID) (cold.ID, func() error,
	error) {
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

func (b *brokenRemote) Send(ctx context.Context, plan wire.Plan) error {
	if b.refs != nil {
		return b.refs
	}
	return b.remote.Send(ctx, func(refs map[string]cold.ID) ([]wire.Update, func(io.Writer) error, error) {
		updates, pack, err := plan(refs)
		if err == nil && b.push != nil {
			err = errors.Join(pack(io.Discard), b.push)
		}
		return updates, pack, err
	})
}

// A failed fetch or push leaves everything as it was, and the next one works.
func TestRemoteFails(t *testing.T) {
	remote := coldtest.NewRemote(t)
	other := newVolume(t, Options{Source: remote})
	f := coldtest.NewDir(0o755)
	f.Text("a", "1")
	other.CommitTree(f, nil)
	other.MustPush()

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
	v.MustFetch()
	g := v.ReadTree(v.HeadSnapshot())
	g.Text("b", "2")
	tip := v.CommitTree(g, nil)
	pushed := v.Pushed()
	broken.push = gone
	check("Push", v.Push(t.Context()))
	broken.refs = gone
	check("Push", v.Push(t.Context()))
	if v.Pushed() != pushed || v.HeadSnapshot().Info().ID != tip {
		t.Error("a failed push changed something")
	}
	broken.refs, broken.push = nil, nil
	v.MustPush()
	if v.Pushed() != tip {
		t.Error("not pushed after all")
	}
}

// A remote of a newer format changes nothing here.
func TestFetchNewerFormat(t *testing.T) {
	remote := coldtest.NewRemote(t)
	clone := filepath.Join(t.TempDir(), "clone")
	coldtest.Git(t, ".", "init", "-q", "-b", "main", clone)
	coldtest.PutFile(t, filepath.Join(clone, ".emberfs/volume.json"), `{"format":2,"volume":"v"}`)
	coldtest.Git(t, clone, "add", "-A")
	coldtest.Git(t, clone, "commit", "-q", "-m", "newer")
	coldtest.Git(t, clone, "push", "-q", remote, "main")
	v := newVolume(t, Options{Source: remote})
	coldtest.WantErr(t, v.Fetch(t.Context()), format.ErrNewerFormat, "Fetch")
	if s, err := v.Head(t.Context()); s != nil || err != nil || !v.Pushed().IsZero() {
		t.Errorf("Head = %v, %v; Pushed = %v", s, err, v.Pushed())
	}
}

// Peek brings the remote's commits and moves nothing; BeginAt finds out whether a tree differs from any commit.
func TestPeekAndBeginAt(t *testing.T) {
	remote := coldtest.NewRemote(t)
	one := newVolume(t, Options{Source: remote})
	one.wantPeek(false, "Peek of an empty remote")
	f := hostileBase()
	first := one.CommitTree(f, nil)
	base := coldtest.RootOf(one.HeadSnapshot())
	one.MustPush()
	one.wantPeek(false, "Peek")
	two := newVolume(t, Options{Source: remote})
	two.MustFetch()
	g := two.ReadTree(two.HeadSnapshot())
	g.Text("new", "n")
	second := two.CommitTree(g, nil)
	two.MustPush()
	moved, err := one.Peek(t.Context())
	if !moved || err != nil {
		t.Errorf("Peek = %v, %v", moved, err)
	}
	if id := one.HeadSnapshot().Info().ID; id != first || one.Pushed() != second {
		t.Errorf("head %s, pushed %s; want %s, %s", id, one.Pushed(), first, second)
	}
	one.MustFetch()
	coldtest.Equal(t, one.HeadSnapshot().Info().ID, second, "head")
	// On the commit that f is of, f is no change; a commit there would throw the second away and is refused.
	tx, err := one.BeginAt(t.Context(), first)
	coldtest.Check(t, err)
	defer tx.Abort()
	dirs := map[string]cold.DirID{}
	one.DirsOf(tx.Base(), coldtest.RootOf(tx.Base()), "", dirs)
	if err := coldtest.Put(t.Context(), tx, f, dirs, "", nil); err != nil || f.Dir() != base {
		t.Errorf("root is %v, was %v: %v", f.Dir(), base, err)
	}
	if _, err := tx.Commit(t.Context(), cold.CommitOptions{Root: f.Dir()}); !errors.Is(err, cold.ErrRefMoved) {
		t.Errorf("Commit = %v", err)
	}
}
