package backup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"

	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

// TestNoBranch checks that a remote with other references is not taken for an empty volume unless Init says so, and
// that an empty one is.
func TestNoBranch(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t)
	coldtest.Git(t, remote, "symbolic-ref", "HEAD", "refs/heads/trunk")
	first := newVolume(t, Options{Source: remote, Branch: "trunk"})
	first.MustFetch() // it is empty
	tree := coldtest.Git(t, remote, "hash-object", "-w", "-t", "tree", "/dev/null")
	part := coldtest.Git(t, remote, "-c", "user.name=x", "-c", "user.email=x@x", "commit-tree", "-m", "part", tree)
	carrier := "refs/heads/emberfs-part/trunk/1700000000-" + part[:12]
	coldtest.Git(t, remote, "update-ref", carrier, part)
	first.MustFetch() // nor is a part of a first push that was broken a volume
	coldtest.Git(t, remote, "update-ref", "-d", carrier)
	f := coldtest.NewDir(0o755)
	f.Text("a", "a")
	tip := first.CommitTree(f, nil)
	first.MustPush()

	var missing *cold.NoBranchError
	v := newVolume(t, Options{Source: remote})
	if err := v.Fetch(t.Context()); !errors.As(err, &missing) || missing.Branch != "main" ||
		!slices.Equal(missing.Others, []string{"trunk"}) || v.Contact().IsZero() {
		t.Errorf("a wrong branch: %v", err)
	}
	coldtest.Git(t, remote, "update-ref", "refs/tags/v1", tip.String())
	coldtest.Git(t, remote, "update-ref", "-d", "refs/heads/trunk")
	if err := v.Fetch(t.Context()); !errors.As(err, &missing) || len(missing.Others) != 0 {
		t.Errorf("a repository with a tag alone: %v", err)
	}
	begun := newVolume(t, Options{Source: remote, Init: true})
	begun.MustFetch()
	begun.CommitTree(f, nil)
	begun.MustPush()
	v.MustFetch() // now it is there
}

// TestBranchDeleted checks that a branch which somebody deleted on the remote is pushed again, and the log says it.
func TestBranchDeleted(t *testing.T) {
	t.Parallel()
	remote := coldtest.NewRemote(t)
	log, said := test.NewNullLogger()
	v := newVolume(t, Options{Source: remote, Log: log})
	f := coldtest.NewDir(0o755)
	f.Text("a", "a")
	tip := v.CommitTree(f, nil)
	v.MustPush()
	v.MustFetch()
	warned := func() bool {
		return slices.ContainsFunc(said.AllEntries(), func(e *logrus.Entry) bool {
			return e.Level == logrus.WarnLevel && strings.Contains(e.Message, "branch main was deleted") &&
				strings.Contains(e.Message, tip.String())
		})
	}
	if warned() {
		t.Error("it says so of a branch that is there")
	}
	coldtest.Git(t, remote, "update-ref", "-d", "refs/heads/main")
	v.MustFetch()
	if !warned() {
		t.Error("the log does not say that the branch was deleted")
	}
	v.MustPush()
	coldtest.WantRemote(t, "after the push", remote, tip)
}

// TestSourceLater checks that a path which cannot be used is found out at each use, and used once it can be.
func TestSourceLater(t *testing.T) {
	t.Parallel()
	remote := filepath.Join(t.TempDir(), "later.git")
	dir := filepath.Join(t.TempDir(), "cold.git")
	if _, err := Open(dir, Options{Source: remote}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without SourceLater: %v", err)
	}
	v := newVolume(t, Options{Source: remote, SourceLater: true})
	for range 2 {
		if err := v.Fetch(t.Context()); !errors.Is(err, fs.ErrNotExist) || !v.Contact().IsZero() {
			t.Errorf("a path that is not there: %v", err)
		}
	}
	coldtest.Check(t, os.Symlink(coldtest.NewRemote(t), remote))
	v.MustFetch()
	f := coldtest.NewDir(0o755)
	f.Text("a", "a")
	tip := v.CommitTree(f, nil)
	v.MustPush()
	coldtest.WantRemote(t, "once it is there", remote, tip)
}
