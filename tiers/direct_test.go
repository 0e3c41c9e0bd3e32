package tiers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

const directBuild = "- {match: build/, ignore: true, io: passthrough}\n- {match: '**/*.o', ignore: true}\n"

// fakeBacking is a Backing that counts the files that it was given.
type fakeBacking struct {
	mu   sync.Mutex
	next int32
	open map[int32]bool
	fail error
}

func (b *fakeBacking) Register(fd int) (int32, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return 0, b.fail
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil {
		return 0, err
	}
	if b.open == nil {
		b.open = map[int32]bool{}
	}
	b.next++
	b.open[b.next] = true
	return b.next, nil
}

func (b *fakeBacking) Unregister(id int32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open[id] {
		panic("an id that is not registered")
	}
	delete(b.open, id)
}

func (b *fakeBacking) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.open)
}

// fakeKernel is an Invalidator that notes which inodes' attributes it is to forget.
type fakeKernel struct {
	mu    sync.Mutex
	inval map[uint64]int
}

func (*fakeKernel) InvalEntry(uint64, string) {}
func (*fakeKernel) InvalAttr(uint64)          {}
func (*fakeKernel) Prune([]uint64)            {}
func (*fakeKernel) CanPrune() bool            { return false }
func (k *fakeKernel) InvalInode(id uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.inval == nil {
		k.inval = map[uint64]int{}
	}
	k.inval[id]++
}

func (k *fakeKernel) times(n *Inode) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.inval[n.ID()]
}

// directVolume opens a volume with a directory build, whose files may be given to the kernel.
func directVolume(t *testing.T) (v *Volume, cold *memCold, b *fakeBacking, build *Inode) {
	t.Helper()
	v, cold = newVolume(t)
	b = &fakeBacking{}
	directOn(t, v, b)
	must(t, v.SetRulesText([]byte(directBuild)))
	return v, cold, b, mkdir(t, v, v.root, "build")
}

func directOn(t *testing.T, v *Volume, b *fakeBacking) {
	t.Helper()
	v.SetInvalidator(&fakeKernel{})
	if err := v.SetBacking(b); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, v *Volume, n *Inode, flags uint32) *Handle {
	t.Helper()
	h, err := v.Open(context.Background(), n, flags, false)
	must(t, err)
	return h
}

func wantIO(t *testing.T, h *Handle, want IO) {
	t.Helper()
	if io, id := h.IO(); io != want || (id != 0) != (want == IODirect) {
		t.Errorf("way %d with id %d, want way %d", io, id, want)
	}
}

// settledAlone waits until it is known that nobody has n open.
func settledAlone(t *testing.T, v *Volume, n *Inode) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); n.Untracked(); time.Sleep(time.Millisecond) {
		if v.endLingering(); time.Now().After(end) {
			t.Fatal("a file is taken for written though nobody has it open")
		}
	}
}

// openDirect opens n again and again until the kernel serves it, which is after the last commit has let go of it.
func openDirect(t *testing.T, v *Volume, n *Inode) *Handle {
	t.Helper()
	h := open(t, v, n, unix.O_RDONLY)
	for end := time.Now().Add(10 * time.Second); h.io != IODirect &&
		time.Now().Before(end); time.Sleep(time.Millisecond) {
		h.Release()
		h = open(t, v, n, unix.O_RDONLY)
	}
	wantIO(t, h, IODirect)
	return h
}

func TestDirectOneWayAtATime(t *testing.T) {
	v, _, b, build := directVolume(t)
	n, first, _, err := v.Create(context.Background(), build, "f", unix.O_RDWR, 0o644, me)
	must(t, err)
	wantIO(t, first, IODirect)
	second := open(t, v, n, unix.O_RDONLY)
	wantIO(t, second, IODirect)
	_, one := first.IO()
	if _, two := second.IO(); one != two || b.count() != 1 {
		t.Errorf("ids %d and %d, %d registered", one, two, b.count())
	}
	first.Release()
	// The file leaves build: while it is open the kernel goes on serving it.
	must(t, v.Rename(context.Background(), build, "f", v.root, "f", 0))
	third := open(t, v, n, unix.O_RDWR)
	wantIO(t, third, IODirect)
	third.Release()
	second.Release()
	if b.count() != 0 {
		t.Errorf("%d files are still registered", b.count())
	}
	settledAlone(t, v, n)
	cached := open(t, v, n, unix.O_RDWR)
	wantIO(t, cached, IOCached)
	// The file comes back: while it is open through the daemon, that goes on.
	must(t, v.Rename(context.Background(), v.root, "f", build, "f", 0))
	again := open(t, v, n, unix.O_RDONLY)
	wantIO(t, again, IOCached)
	cached.Release()
	again.Release()
	last := open(t, v, n, unix.O_RDONLY)
	wantIO(t, last, IODirect)
	last.Release()
	if b.count() != 0 {
		t.Errorf("%d files are still registered", b.count())
	}
}

func TestDirectOnlyWhereRulesSayAndNothingIsLost(t *testing.T) {
	v, _, b, build := directVolume(t)
	v.Start()
	for name, d := range map[string]*Inode{"plain": v.root, "a.o": v.root} {
		h := open(t, v, write(t, v, d, name, "x"), unix.O_RDONLY)
		wantIO(t, h, IOCached)
		h.Release()
	}
	// A file that a commit has is settled first.
	n := write(t, v, v.root, "f", "text")
	v.mustSync(t)
	must(t, v.Rename(context.Background(), v.root, "f", build, "f", 0))
	h := openDirect(t, v, n)
	h.Release()
	tmp, h, _, err := v.Tmpfile(context.Background(), build, unix.O_RDWR, 0o600, me)
	must(t, err)
	wantIO(t, h, IOCached)
	h.Release()
	v.Forget(tmp, 1)
	b.fail = errors.New("no")
	h = open(t, v, n, unix.O_RDONLY)
	wantIO(t, h, IOCached)
	h.Release()
}

// A commit under way reads what a file held at its boundary. Of a file that is written untracked nobody keeps that.
func TestDirectNotWhileACommitNeedsTheFile(t *testing.T) {
	v, _, _, build := directVolume(t)
	moved, stays := write(t, v, v.root, "f", "text"), write(t, v, build, "g", "text")
	settledAlone(t, v, stays)
	v.barrier.Lock()
	m := newBoundary(v, v.epoch.Add(1))
	v.boundary.Store(m)
	v.barrier.Unlock()
	must(t, v.Rename(context.Background(), v.root, "f", build, "f", 0))
	h := open(t, v, moved, unix.O_RDWR)
	wantIO(t, h, IOCached)
	h.Release()
	h = open(t, v, stays, unix.O_RDWR)
	wantIO(t, h, IODirect)
	h.Release()
	must(t, v.SetRulesText([]byte(directBuild+"- {match: other/, ignore: true}\n")))
	settledAlone(t, v, stays)
	h = open(t, v, stays, unix.O_RDWR)
	wantIO(t, h, IOCached)
	h.Release()
	m.close()
	h = open(t, v, stays, unix.O_RDWR)
	wantIO(t, h, IODirect)
	h.Release()
}

// program opens warm's file as the kernel does for a program. Its descriptor stands for the program's descriptors and
// mappings.
func program(t *testing.T, v *Volume, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(v.cfg.State, warm.DirName, path), os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestUnseenWriter(t *testing.T) {
	v, cold, _, build := directVolume(t)
	k := &fakeKernel{}
	v.SetInvalidator(k)
	n := write(t, v, build, "f", strings.Repeat("0", 2<<20))
	settledAlone(t, v, n)
	h := open(t, v, n, unix.O_RDWR)
	p := program(t, v, "build/f")
	if !n.Untracked() || k.times(n) != 1 {
		t.Errorf("untracked %v, %d invalidations", n.Untracked(), k.times(n))
	}
	store := func(text string) {
		t.Helper()
		_, err := p.WriteAt([]byte(text), 0)
		must(t, err)
	}
	store("one")
	h.Release()
	must(t, v.Rename(context.Background(), build, "f", v.root, "f", 0))
	for _, text := range []string{"two", "three", "four"} {
		store(text)
		if v.endLingering(); !n.Untracked() {
			t.Fatal("taken for nobody's while a program has it open")
		}
		if got := read(t, v, n); !strings.HasPrefix(got, text) {
			t.Errorf("reads as %q", got[:5])
		}
		v.mustSync(t)
		if got := string(cold.blobs[entryAt(t, cold, "f").ID]); len(got) != 2<<20 || !strings.HasPrefix(got, text) {
			t.Errorf("the commit has %d bytes, %q", len(got), got[:5])
		}
		always := func() bool { return true }
		if _, why, err := v.release(t.Context(), n, always, always); why == "" || err != nil {
			t.Fatalf("released while a program writes it: %q, %v", why, err)
		}
	}
	store("last")
	must(t, p.Close())
	settledAlone(t, v, n)
	if k.times(n) != 2 {
		t.Errorf("%d invalidations", k.times(n))
	}
	v.mustSync(t)
	if got := string(cold.blobs[entryAt(t, cold, "f").ID]); !strings.HasPrefix(got, "last") {
		t.Errorf("the commit has %q", got[:5])
	}
	n.mu.Lock()
	clean := n.mu.rec.Has(warm.FlagClean)
	n.mu.Unlock()
	if !clean {
		t.Error("not clean after the writer ended and a commit took the file")
	}
}

// entryAt returns the entry of a name in the root of the last commit.
func entryAt(t *testing.T, repo *memCold, name string) cold.Entry {
	t.Helper()
	head, err := repo.Head(t.Context())
	must(t, err)
	root := head.Root()
	l, err := head.ReadDir(t.Context(), root.Dir())
	must(t, err)
	for _, e := range l.Entries {
		if e.Name == name {
			return e
		}
	}
	t.Fatalf("%s is not in the commit", name)
	return cold.Entry{}
}

// A mapping keeps a file's bytes in warm, even if it is only for reading.
func TestUnseenReaderKeepsBytes(t *testing.T) {
	v, _, _, _ := directVolume(t)
	n := write(t, v, v.root, "f", strings.Repeat("x", 1<<20))
	v.mustSync(t)
	p, err := os.Open(filepath.Join(v.cfg.State, warm.DirName, "f"))
	must(t, err)
	always := func() bool { return true }
	if _, why, err := v.release(t.Context(), n, always, always); why != keptOpen || err != nil {
		t.Errorf("kept as %q, %v while somebody has it open", why, err)
	}
	must(t, p.Close())
	if bytes, why, err := v.release(t.Context(), n, always, always); bytes == 0 || err != nil {
		t.Errorf("kept as %q, %v", why, err)
	}
}

// Programs outlive the daemon that gave them files of warm. The next daemon finds that out before it opens or commits
// such a file.
func TestUnseenWriterOfAnEarlierDaemon(t *testing.T) {
	v, cold, _, build := directVolume(t)
	_, h, _, err := v.Create(context.Background(), build, "f", unix.O_RDWR, 0o644, me)
	must(t, err)
	p := program(t, v, "build/f")
	h.Release()
	must(t, v.Rename(context.Background(), build, "f", v.root, "f", 0))
	quiet := write(t, v, v.root, "quiet", "text")
	_ = quiet
	must(t, v.Close())

	next := openTest(t, v.cfg.State, cold)
	directOn(t, next, &fakeBacking{})
	if !next.direct.inherited {
		t.Fatal("nothing is known of the earlier daemon")
	}
	for _, text := range []string{"one", "two"} {
		_, err := p.WriteAt([]byte(text), 0)
		must(t, err)
		next.mustSync(t)
		if got := string(cold.blobs[entryAt(t, cold, "f").ID]); got != text {
			t.Errorf("the commit has %q, want %q", got, text)
		}
	}
	n, _, err := next.Lookup(context.Background(), next.root, "f")
	must(t, err)
	o := open(t, next, n, unix.O_RDONLY)
	wantIO(t, o, IODirect) // with the kernel's page cache in between it would miss the program's writes
	if !n.Untracked() {
		t.Error("taken for nobody's")
	}
	o.Release()
	q, _, err := next.Lookup(context.Background(), next.root, "quiet")
	must(t, err)
	o = open(t, next, q, unix.O_RDWR)
	wantIO(t, o, IOCached)
	o.Release()
	must(t, p.Close())
	settledAlone(t, next, n)
	next.mustSync(t)
	o = open(t, next, n, unix.O_RDONLY)
	wantIO(t, o, IOCached)
	o.Release()
}

// The kernel cannot be given files of warm any more, but a program has one from before: nothing is kept of what it
// writes.
func TestUnseenWriterWithoutBacking(t *testing.T) {
	v, cold, _, build := directVolume(t)
	_, h, _, err := v.Create(context.Background(), build, "f", unix.O_RDWR, 0o644, me)
	must(t, err)
	p := program(t, v, "build/f")
	h.Release()
	must(t, v.Close())
	next := openTest(t, v.cfg.State, cold)
	if err := next.SetBacking(&fakeBacking{fail: errors.New("no such kernel")}); err == nil {
		t.Fatal("a backing that fails is accepted")
	}
	if notes := strings.Join(next.Status().Notes, "\n"); !strings.Contains(notes, "no such kernel") {
		t.Errorf("notes: %s", notes)
	}
	d, _, err := next.Lookup(context.Background(), next.root, "build")
	must(t, err)
	n, _, err := next.Lookup(context.Background(), d, "f")
	must(t, err)
	o := open(t, next, n, unix.O_RDONLY)
	defer o.Release()
	wantIO(t, o, IOUncached)
	for _, text := range []string{"one", "two"} {
		_, err := p.WriteAt([]byte(text), 0)
		must(t, err)
		if got := read(t, next, n); got != text {
			t.Errorf("reads as %q, want %q", got, text)
		}
	}
}

// Rules that stop ignoring a file take effect while it is written untracked. If it is critical then, it is committed
// after each fsync.
func TestUnseenWriterUnderNewRules(t *testing.T) {
	v, cold, _, build := directVolume(t)
	n, h, _, err := v.Create(context.Background(), build, "f", unix.O_RDWR, 0o644, me)
	must(t, err)
	p := program(t, v, "build/f")
	v.mustSync(t)
	if head := committed(t, cold); len(head) != 0 {
		t.Fatalf("committed: %v", head)
	}
	must(t, v.SetRulesText([]byte("- {match: build/, class: critical, critical_delay: 100ms}\n")))
	commits := func() string {
		t.Helper()
		head, err := cold.Head(t.Context())
		must(t, err)
		root := head.Root()
		l, err := head.ReadDir(t.Context(), root.Dir())
		must(t, err)
		for _, e := range l.Entries {
			if e.Name != "build" {
				continue
			}
			l, err = head.ReadDir(t.Context(), e.Dir())
			must(t, err)
			for _, e := range l.Entries {
				return string(cold.blobs[e.ID])
			}
		}
		return ""
	}
	for _, text := range []string{"one", "two"} {
		_, err := p.WriteAt([]byte(text), 0)
		must(t, err)
		v.mustSync(t)
		if got := commits(); got != text {
			t.Errorf("the commit has %q, want %q", got, text)
		}
	}
	_, err = p.WriteAt([]byte("six"), 0)
	must(t, err)
	must(t, h.Fsync(context.Background(), true))
	if due, _ := v.critical.next(); due.IsZero() || v.Status().AtRisk.Files == 0 {
		t.Error("an fsync of a critical file that is written untracked asks for no commit")
	}
	h.Release()
	must(t, p.Close())
	settledAlone(t, v, n)
}
