package coldtest

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"testing"
	"time"

	"emberfs/tiers/cold"
)

// Opened gives what open opens; the test's end closes it, and fails where that does.
func Opened[C cold.Cold](t *testing.T, open func() (C, error)) C {
	t.Helper()
	c, err := open()
	Check(t, err)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// Volume is a repository in a directory, for a test. Whatever goes wrong in its methods ends the test.
type Volume struct {
	Cold cold.Cold
	T    *testing.T
	Dir  string
}

// MustBegin begins a commit to main.
func (v *Volume) MustBegin() cold.Tx {
	v.T.Helper()
	tx, err := v.Cold.Begin(v.T.Context())
	Check(v.T, err)
	return tx
}

// CommitTree stores the tree and makes a commit of it.
func (v *Volume) CommitTree(f *File, links map[string][]string) cold.ID {
	v.T.Helper()
	ctx := v.T.Context()
	tx := v.MustBegin()
	defer tx.Abort()
	base := map[string]cold.DirID{}
	if tx.Base() != nil {
		v.DirsOf(tx.Base(), RootOf(tx.Base()), "", base)
	}
	Check(v.T, Put(ctx, tx, f, base, "", links))
	id, err := tx.Commit(ctx, cold.CommitOptions{Reason: "test", Files: 1, Root: f.Dir(), When: time.Now()})
	Check(v.T, err)
	return id
}

// DirsOf collects the directories of a snapshot by path.
func (v *Volume) DirsOf(s cold.Snapshot, dir cold.DirID, at string, into map[string]cold.DirID) {
	v.T.Helper()
	into[at] = dir
	l, err := s.ReadDir(v.T.Context(), dir)
	Check(v.T, err)
	for _, e := range l.Entries {
		if e.Kind == cold.KindDir {
			v.DirsOf(s, e.Dir(), path.Join(at, e.Name), into)
		}
	}
}

// HeadSnapshot opens main's tip.
func (v *Volume) HeadSnapshot() cold.Snapshot {
	v.T.Helper()
	s, err := v.Cold.Head(v.T.Context())
	if err != nil || s == nil {
		v.T.Fatalf("Head: %v, %v", s, err)
	}
	return s
}

// ReadTree reads a snapshot whole, contents included. Problems fail the test.
func (v *Volume) ReadTree(s cold.Snapshot) *File {
	v.T.Helper()
	root := &File{Entry: s.Root()}
	v.ReadDirTree(s, root, "", false)
	return root
}

// ReadDirTree reads one directory of a snapshot with all below. Only where reconciled is set may a listing be so.
func (v *Volume) ReadDirTree(s cold.Snapshot, f *File, at string, reconciled bool) {
	v.T.Helper()
	l, err := s.ReadDir(v.T.Context(), f.Dir())
	if err != nil {
		v.T.Fatalf("ReadDir %q: %v", at, err)
	}
	for _, p := range l.Problems {
		v.T.Errorf("ReadDir %q: problem: %v", at, p)
	}
	if l.Reconciled && !reconciled {
		v.T.Errorf("ReadDir %q: reconciled", at)
	}
	f.Kids = map[string]*File{}
	for i, e := range l.Entries {
		if i > 0 && l.Entries[i-1].Name >= e.Name {
			v.T.Errorf("ReadDir %q: %q is out of order", at, e.Name)
		}
		k := &File{Entry: e}
		f.Kids[e.Name] = k
		switch e.Kind {
		case cold.KindDir:
			v.ReadDirTree(s, k, path.Join(at, e.Name), reconciled)
		case cold.KindFile:
			k.Data = v.ContentOf(e.ID, e.Size)
		}
	}
}

// ContentOf reads a file whole.
func (v *Volume) ContentOf(id cold.ID, size int64) []byte {
	v.T.Helper()
	b, err := v.Cold.Open(v.T.Context(), id, size)
	Check(v.T, err)
	data, err := io.ReadAll(b)
	Check(v.T, err)
	Check(v.T, b.Close())
	return data
}

// CheckGit runs git fsck, a clone, and a push to a repository that checks what it receives.
func (v *Volume) CheckGit() {
	v.T.Helper()
	Fsck(v.T, v.Dir)
	clone := filepath.Join(v.T.TempDir(), "clone")
	Git(v.T, v.Dir, "clone", "-q", "--no-hardlinks", "--no-checkout", v.Dir, clone)
	strict := filepath.Join(v.T.TempDir(), "strict.git")
	Git(v.T, v.Dir, "init", "-q", "--bare", strict)
	Git(v.T, strict, "config", "receive.fsckObjects", "true")
	Git(v.T, clone, "push", "-q", strict, "HEAD:refs/heads/main")
}

// StockEdit clones the volume with stock git, runs a shell script in the work tree, commits and pushes what it made.
func (v *Volume) StockEdit(script string) {
	v.T.Helper()
	clone := filepath.Join(v.T.TempDir(), "clone")
	Git(v.T, ".", "clone", "-q", "--no-hardlinks", v.Dir, clone)
	if out := Git(v.T, clone, "status", "--porcelain"); out != "" {
		v.T.Fatalf("a fresh clone is not clean:\n%s", out)
	}
	cmd := exec.CommandContext(v.T.Context(), "sh", "-euc", script)
	cmd.Dir = clone
	if out, err := cmd.CombinedOutput(); err != nil {
		v.T.Fatalf("%s: %v\n%s", script, err, out)
	}
	Git(v.T, clone, "add", "-A")
	Git(v.T, clone, "commit", "-q", "-m", "by hand")
	Git(v.T, clone, "push", "-q", "origin", "HEAD:main")
}

// ReadStock reads a snapshot that has directories to reconcile. Problems are logged only.
func (v *Volume) ReadStock(s cold.Snapshot) *File {
	v.T.Helper()
	f := &File{Entry: s.Root()}
	v.ReadAny(s, f)
	return f
}

// ReadAny reads a directory with all below, whatever is wrong with it, and gives the problems.
func (v *Volume) ReadAny(s cold.Snapshot, f *File) []error {
	v.T.Helper()
	l, err := s.ReadDir(v.T.Context(), f.Dir())
	Check(v.T, err)
	problems := l.Problems
	f.Kids = map[string]*File{}
	for _, e := range l.Entries {
		if e.Kind == cold.KindOther { // no directory can hold it
			problems = append(problems, fmt.Errorf("entry %q: %s", e.Other.Stored, e.Other.Why))
			continue
		}
		k := &File{Entry: e}
		f.Kids[e.Name] = k
		switch e.Kind {
		case cold.KindDir:
			problems = append(problems, v.ReadAny(s, k)...)
		case cold.KindFile:
			k.Data = v.ContentOf(e.ID, e.Size)
		}
	}
	return problems
}

// MustPush pushes.
func (v *Volume) MustPush() {
	v.T.Helper()
	Check(v.T, v.Cold.Push(v.T.Context()))
}

// MustFetch fetches.
func (v *Volume) MustFetch() {
	v.T.Helper()
	Check(v.T, v.Cold.Fetch(v.T.Context()))
}

// CopyTo makes a mirror with stock git.
func (v *Volume) CopyTo(dir string) string {
	v.T.Helper()
	Git(v.T, ".", "clone", "-q", "--mirror", "--no-hardlinks", v.Dir, dir)
	return dir
}

// CommitBy commits the tree by one of the ways to begin.
func (v *Volume) CommitBy(begin func(context.Context) (cold.Tx, error), f *File, o cold.CommitOptions) (cold.ID,
	error) {
	v.T.Helper()
	return v.CommitWith(begin, f, nil, o)
}

// CommitWith commits a tree with its link groups by one of the ways to begin.
func (v *Volume) CommitWith(begin func(context.Context) (cold.Tx, error), f *File, links map[string][]string,
	o cold.CommitOptions) (cold.ID, error) {
	v.T.Helper()
	ctx := v.T.Context()
	tx, err := begin(ctx)
	if err != nil {
		return cold.ID{}, err
	}
	defer tx.Abort()
	base := map[string]cold.DirID{}
	if tx.Base() != nil {
		v.DirsOf(tx.Base(), RootOf(tx.Base()), "", base)
	}
	if err := Put(ctx, tx, f, base, "", links); err != nil {
		return cold.ID{}, err
	}
	o.Root = f.Dir()
	return tx.Commit(ctx, o)
}

// NewestSnapshot opens the newest commit, which may be a live one.
func (v *Volume) NewestSnapshot() cold.Snapshot {
	v.T.Helper()
	s, err := v.Cold.Newest(v.T.Context())
	if err != nil || s == nil {
		v.T.Fatalf("Newest: %v, %v", s, err)
	}
	return s
}

// WantAt checks where main and the live branch are; live zero: there is none.
func (v *Volume) WantAt(what string, main, live cold.ID) {
	v.T.Helper()
	if got := v.HeadSnapshot().Info(); got.ID != main || got.Live {
		v.T.Errorf("%s: Head is %s (live %v), want %s", what, got.ID, got.Live, main)
	}
	want := live
	if live.IsZero() {
		want = main
	}
	if got := v.NewestSnapshot().Info(); got.ID != want || got.Live != !live.IsZero() {
		v.T.Errorf("%s: Newest is %s (live %v), want %s", what, got.ID, got.Live, want)
	}
}

// LiveHistory makes two commits of main and a live branch of two, an hour apart each, of which all but the last is on
// the remote. The ids come in the order of making; the time is the first one's.
func (v *Volume) LiveHistory() (*File, []cold.ID, time.Time) {
	v.T.Helper()
	f := NewDir(0o755)
	when := time.Unix(1_700_000_000, 0)
	var ids []cold.ID
	for i := range 4 {
		f.Text("f", fmt.Sprint(i))
		begin := v.Cold.Begin
		if i >= 2 {
			begin = v.Cold.BeginLive
		}
		id, err := v.CommitBy(begin, f, cold.CommitOptions{
			Reason: "test", When: when.Add(time.Duration(i) * time.Hour)})
		Check(v.T, err)
		if ids = append(ids, id); i == 2 {
			v.MustPush()
		}
	}
	return f, ids, when
}

// Shared are the packs of a volume that are the remote's files.
func (v *Volume) Shared(remote string) (packs []string) {
	v.T.Helper()
	list, err := filepath.Glob(filepath.Join(remote, "objects/pack/pack-*.pack"))
	Check(v.T, err)
	for _, p := range list {
		ours := filepath.Join(v.Dir, "objects/pack", filepath.Base(p))
		a, err1 := os.Stat(p)
		b, err2 := os.Stat(ours)
		if err1 == nil && err2 == nil && os.SameFile(a, b) {
			packs = append(packs, ours)
		}
	}
	return packs
}

// MustMaintain keeps the repository quick to read.
func (v *Volume) MustMaintain() {
	v.T.Helper()
	Check(v.T, v.Cold.Maintain(v.T.Context()))
}

// PushPackAndLoose makes two commits, one that the remote keeps as a pack and one that it keeps as loose objects.
func (v *Volume) PushPackAndLoose(remote string) *File {
	v.T.Helper()
	Git(v.T, remote, "config", "receive.unpackLimit", "100")
	f := StockBase()
	for i := range 200 {
		f.Text(fmt.Sprintf("many/%d", i), fmt.Sprint("text ", i))
	}
	f.Text("big", string(Noise(80, 6*64<<10)))
	v.CommitTree(f, nil)
	v.MustPush()
	f.Text("late", "loose")
	v.CommitTree(f, nil)
	v.MustPush()
	return f
}
