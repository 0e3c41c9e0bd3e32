package tiers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

var me = Caller{}

func quiet() logrus.FieldLogger {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return l
}

func openTest(t *testing.T, state string, cold cold.Cold) *Volume {
	t.Helper()
	v, err := Open(t.Context(), Config{State: state, Cold: cold, Log: quiet(), Branch: "main", MemoryLimit: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.over)
	return v
}

// over closes a test's volume, and the descriptors of its directories, which a daemon leaves to the end of its process:
// a test with a volume for each of many seeds would have none left.
func (v *Volume) over() {
	_ = v.Close()
	v.dirs.mu.Lock()
	list := slices.Collect(maps.Keys(v.dirs.elems))
	v.dirs.mu.Unlock()
	for _, n := range list {
		v.dirs.drop(n)
	}
}

func newVolume(t *testing.T) (*Volume, *memCold) {
	c := newMemCold()
	return openTest(t, t.TempDir(), c), c
}

func (v *Volume) mustSync(t *testing.T) *Receipt {
	t.Helper()
	rc, err := v.Sync(context.Background(), "test")
	if err != nil || !rc.Complete {
		t.Fatalf("sync: %v %+v", err, rc)
	}
	return rc
}

func mkdir(t *testing.T, v *Volume, d *Inode, name string) *Inode {
	t.Helper()
	n, _, err := v.Mkdir(context.Background(), d, name, 0755, me)
	if err != nil {
		t.Fatalf("mkdir %s: %v", name, err)
	}
	return n
}

func write(t *testing.T, v *Volume, d *Inode, name, data string) *Inode {
	t.Helper()
	n, h, _, err := v.Create(context.Background(), d, name, unix.O_WRONLY|unix.O_TRUNC, 0644, me)
	if err != nil {
		t.Fatalf("create %s: %v", name, err)
	}
	defer h.Release()
	if m, err := h.Write(context.Background(), []byte(data), 0, false); err != nil || m != len(data) {
		t.Fatalf("write %s: %d %v", name, m, err)
	}
	return n
}

func read(t *testing.T, v *Volume, n *Inode) string {
	t.Helper()
	h, err := v.Open(context.Background(), n, unix.O_RDONLY, false)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	buf := make([]byte, 16<<20)
	m, err := h.Read(context.Background(), buf, 0)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:m])
}

// rsyncEqual fails if rsync(1) finds a difference between two directories, in contents or attributes.
func rsyncEqual(t *testing.T, a, b string) {
	t.Helper()
	out, err := exec.Command("rsync", "-aHAXn", "--checksum", "--delete", "--itemize-changes", "--modify-window=-1",
		"--filter=-x trusted.emberfs*", a+"/", b+"/").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Fatalf("trees differ: %v\n%s", err, out)
	}
}

func TestCommitAndRestore(t *testing.T) {
	v, c := newVolume(t)
	a := mkdir(t, v, v.root, "a")
	b := mkdir(t, v, a, "b")
	f := write(t, v, b, "f", "hello")
	write(t, v, v.root, "odd \n\xe9", "x")
	if _, err := v.Link(context.Background(), f, v.root, "f2"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := v.Symlink(context.Background(), a, "link", "b/f", me); err != nil {
		t.Fatal(err)
	}
	if _, _, err := v.Mknod(context.Background(), a, "fifo", unix.S_IFIFO|0600, 0, me); err != nil {
		t.Fatal(err)
	}
	if err := v.Setxattr(context.Background(), f, "user.k", []byte("\x00\xff"), 0, false, me); err != nil {
		t.Fatal(err)
	}
	when := cold.Time{Sec: -5, Nsec: 123456789}
	if _, err := v.Setattr(context.Background(), f, nil, &SetAttr{Mtime: &when}); err != nil {
		t.Fatal(err)
	}
	first := v.mustSync(t)
	if !first.New {
		t.Fatal("nothing committed")
	}
	if again := v.mustSync(t); again.New {
		t.Fatalf("a commit of nothing: %+v", again)
	}
	next := openTest(t, t.TempDir(), c)
	rsyncEqual(t, filepath.Join(v.cfg.State, "warm"), filepath.Join(next.cfg.State, "warm"))
	if rc := next.mustSync(t); rc.New {
		t.Fatalf("the next machine commits what it restored: %+v", rc)
	}
}

// TestCleanFollowsChange checks that directories are clean exactly where nothing changed, and that a commit reads only
// what did.
func TestCleanFollowsChange(t *testing.T) {
	v, c := newVolume(t)
	if !v.records {
		t.Fatal("this test needs trusted.* attributes: run it as root on ext4, xfs, btrfs or tmpfs")
	}
	a, b := mkdir(t, v, v.root, "a"), mkdir(t, v, v.root, "b")
	fa := write(t, v, a, "f", "1")
	write(t, v, b, "f", "1")
	v.mustSync(t)
	clean := func(n *Inode) bool { n.mu.Lock(); defer n.mu.Unlock(); return n.mu.rec.Has(warm.FlagClean) }
	for _, n := range []*Inode{v.root, a, b, fa} {
		if !clean(n) {
			t.Fatalf("inode %d is not clean after a sync", n.id)
		}
	}
	before, _ := v.Getattr(context.Background(), a, nil)
	c.reads = 0
	h, err := v.Open(context.Background(), fa, unix.O_RDWR, false)
	if err != nil {
		t.Fatal(err)
	}
	if clean(v.root) || clean(a) || !clean(b) {
		t.Fatal("opening for writing must unmark the directories above, and no other")
	}
	if after, _ := v.Getattr(context.Background(), a, nil); after != before {
		t.Fatalf("marking changed what stat shows: %+v, was %+v", after, before)
	}
	if _, err := h.Write(context.Background(), []byte("2"), 0, false); err != nil {
		t.Fatal(err)
	}
	v.mustSync(t)
	if clean(v.root) || clean(a) || clean(fa) {
		t.Fatal("clean below an open writer")
	}
	if c.reads != 1 {
		t.Fatalf("%d files read for one change", c.reads)
	}
	v.mustSync(t)
	if c.reads != 1 {
		t.Fatal("an open file that nobody wrote was read again")
	}
	h.Release()
	v.mustSync(t)
	if !clean(v.root) || !clean(a) {
		t.Fatal("not clean after the writer went")
	}
}

// TestFailedCommitKeepsMarks: what a failed commit was to store is stored by the next one.
func TestFailedCommitKeepsMarks(t *testing.T) {
	v, c := newVolume(t)
	d := mkdir(t, v, v.root, "d")
	write(t, v, d, "one", "1")
	v.mustSync(t)
	c.failTx = errors.New("disk full")
	write(t, v, d, "two", "2")
	if _, err := v.Sync(t.Context(), "test"); !errors.Is(err, c.failTx) {
		t.Fatalf("got %v", err)
	}
	if r := v.Status().AtRisk; r.Files == 0 || r.Bytes == 0 {
		t.Fatalf("at risk after a failed commit: %+v", r)
	}
	c.failTx = nil
	v.mustSync(t)
	if r := v.Status().AtRisk; r.Files != 0 || r.Bytes != 0 || r.Seconds != 0 {
		t.Fatalf("at risk after a commit: %+v", r)
	}
	next := openTest(t, t.TempDir(), c)
	rsyncEqual(t, filepath.Join(v.cfg.State, "warm"), filepath.Join(next.cfg.State, "warm"))
}

// TestUntrustedStart: after a start that follows neither a clean stop nor an earlier start in the same boot, a record
// that lies is found out.
func TestUntrustedStart(t *testing.T) {
	c := newMemCold()
	state := t.TempDir()
	v := openTest(t, state, c)
	write(t, v, v.root, "f", "old!")
	v.mustSync(t)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	// A power cut that kept the clean record and new bytes of the same size and mtime.
	f := filepath.Join(state, "warm", "f")
	fi, err := os.Stat(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f, []byte("new!"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(f, fi.ModTime(), fi.ModTime()); err != nil {
		t.Fatal(err)
	}
	s, err := warm.LoadState(state)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Update(func(f *warm.StateFile) { f.Clean, f.Boot = false, "another boot" }); err != nil {
		t.Fatal(err)
	}
	again := openTest(t, state, c)
	if again.Status().Verified {
		t.Fatal("verified without looking")
	}
	again.mustSync(t)
	if !again.Status().Verified {
		t.Fatal("not verified after a commit")
	}
	next := openTest(t, t.TempDir(), c)
	n, _, err := next.Lookup(context.Background(), next.root, "f")
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, next, n); got != "new!" {
		t.Fatalf("committed %q", got)
	}
}

func TestInvisibleRecord(t *testing.T) {
	v, _ := newVolume(t)
	n := write(t, v, v.root, "f", "x")
	before, _ := v.Getattr(context.Background(), n, nil)
	v.mustSync(t)
	after, err := v.Getattr(context.Background(), n, nil)
	if err != nil || after != before {
		t.Fatalf("a commit changed what stat shows (%v):\n%+v\n%+v", err, before, after)
	}
	if size, err := v.Listxattr(n, nil); err != nil || size != 0 {
		t.Fatalf("listxattr shows %d bytes (%v)", size, err)
	}
	if _, err := v.Getxattr(n, warm.RecordAttr, nil); err != unix.ENODATA {
		t.Fatalf("getxattr of the record: %v", err)
	}
	if err := v.Setxattr(context.Background(), n, warm.RecordAttr, []byte("x"), 0, false, me); err != unix.EPERM {
		t.Fatalf("setxattr of the record: %v", err)
	}
	mode := uint32(0600)
	changed, err := v.Setattr(context.Background(), n, nil, &SetAttr{Mode: &mode})
	if err != nil || !before.Ctime.Before(changed.Ctime) {
		t.Fatalf("chmod does not move ctime: %v %v (%v)", before.Ctime, changed.Ctime, err)
	}
}

// TestTruncateReadOnly: O_RDONLY|O_TRUNC truncates on Linux.
func TestTruncateReadOnly(t *testing.T) {
	v, _ := newVolume(t)
	n := write(t, v, v.root, "f", "x")
	h, err := v.Open(context.Background(), n, unix.O_RDONLY|unix.O_TRUNC, false)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	if a, err := v.Getattr(context.Background(), n, nil); err != nil || a.Size != 0 {
		t.Fatalf("size %d (%v)", a.Size, err)
	}
}

// TestLostHeadNote: a daemon that is killed between moving the branch and noting that in volume.json, twice in a row,
// leaves a volume that goes on.
func TestLostHeadNote(t *testing.T) {
	c := newMemCold()
	state := t.TempDir()
	v := openTest(t, state, c)
	write(t, v, v.root, "f", "1")
	v.mustSync(t)
	head := v.state.Head
	for i := range 2 {
		write(t, v, v.root, fmt.Sprint("g", i), "2")
		v.mustSync(t)
		if err := v.state.Update(func(s *warm.StateFile) { s.Head = head }); err != nil {
			t.Fatal(err)
		}
	}
	write(t, v, v.root, "h", "3")
	v.mustSync(t)
	// A commit of another machine is not ours to extend.
	c.mu.Lock()
	c.commits[c.head].info.Machine = "another"
	c.mu.Unlock()
	if err := v.state.Update(func(s *warm.StateFile) { s.Head = head }); err != nil {
		t.Fatal(err)
	}
	write(t, v, v.root, "i", "4")
	if _, err := v.Sync(t.Context(), "test"); !errors.Is(err, cold.ErrRefMoved) {
		t.Fatalf("got %v", err)
	}
}

// TestBranchMovedBack: a branch that is behind the files (moved back by hand, or an older copy of cold) takes nothing
// away.
func TestBranchMovedBack(t *testing.T) {
	c := newMemCold()
	state := t.TempDir()
	v := openTest(t, state, c)
	write(t, v, v.root, "old", "1")
	v.mustSync(t)
	old := c.head
	write(t, v, v.root, "new", "2")
	v.mustSync(t)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	c.head = old
	again := openTest(t, state, c)
	if _, err := os.Stat(filepath.Join(state, "warm", "new")); err != nil {
		t.Fatalf("the only copy is gone: %v", err)
	}
	if len(again.Status().Errors) == 0 {
		t.Fatal("status says nothing of it")
	}
}
