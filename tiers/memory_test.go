package tiers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/rules"
	"emberfs/tiers/tmpfs"
	"emberfs/tiers/warm"
)

// openMemoryTest opens a volume whose directories of class memory are dirs. A test may end it by Close, or leave its
// tmpfs to the next volume as a killed daemon does (died). The cleanup unmounts what is left.
func openMemoryTest(t *testing.T, state string, cold cold.Cold, dirs ...string) *Volume {
	t.Helper()
	v, err := Open(t.Context(), Config{State: state, Cold: cold, Log: quiet(), Branch: "main", MemoryLimit: 64 << 20,
		MemoryClassLimit: 4 << 20, Rules: memorySet(t, dirs...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = v.Close()
		_ = unix.Unmount(filepath.Join(state, tmpfs.MemoryName), unix.MNT_DETACH)
	})
	return v
}

// memorySet returns rules that make dirs directories of class memory.
func memorySet(t *testing.T, dirs ...string) *rules.Set {
	t.Helper()
	var text strings.Builder
	for _, d := range dirs {
		fmt.Fprintf(&text, "- {match: %q, class: memory}\n", d+"/")
	}
	s, err := rules.Parse([]byte(text.String()))
	must(t, err)
	return s
}

// died makes Close do nothing, so that the volume is left as by a killed daemon.
func (v *Volume) died() { v.closed.Store(true) }

func mustLookup(t *testing.T, d *Inode, name string) *Inode {
	t.Helper()
	n, _, err := d.vol.Lookup(context.Background(), d, name)
	if err != nil {
		t.Fatalf("lookup %s: %v", name, err)
	}
	return n
}

func (v *Volume) warmNames(t *testing.T, at string) string {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(v.cfg.State, warm.DirName, at))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestMemoryCommitsNothing(t *testing.T) {
	v := openMemoryTest(t, t.TempDir(), newMemCold(), "mem")
	mem := mkdir(t, v, v.root, "mem")
	v.mustSync(t)
	if mem.vol == v || !v.rootClean() {
		t.Fatalf("in the area: %v; root clean: %v", mem.vol != v, v.rootClean())
	}
	sub := mkdir(t, mem.vol, mem, "sub")
	f := write(t, mem.vol, sub, "f", "secret")
	if got := read(t, f.vol, f); got != "secret" {
		t.Errorf("read %q", got)
	}
	mode := uint32(0o600)
	if _, err := f.vol.Setattr(context.Background(), f, nil, &SetAttr{Mode: &mode}); err != nil {
		t.Error(err)
	}
	if err := f.vol.Rename(context.Background(), sub, "f", mem, "g", 0); err != nil {
		t.Error(err)
	}
	if !v.rootClean() || v.risk.now() != (cold.AtRisk{}) || v.warmNames(t, "mem") != "" || v.warmNames(t, "") != "mem" {
		t.Errorf("after changes in memory: root clean %v, at risk %+v, warm has %q", v.rootClean(), v.risk.now(),
			v.warmNames(t, "mem"))
	}
	if rc := v.mustSync(t); rc.New {
		t.Errorf("a commit of changes in memory: %+v", rc)
	}
	if len(v.openedPaths()) != 0 || len(mem.vol.openedPaths()) != 0 {
		t.Errorf("opened files are noted: %q", mem.vol.openedPaths())
	}
	if v.Status().Tiers.Hot.Bytes != 0 {
		t.Error("hot has it too")
	}
	// The attributes of the directory itself are part of the volume.
	mode = 0o1777
	if _, err := mem.vol.Setattr(context.Background(), mem, nil, &SetAttr{Mode: &mode}); err != nil {
		t.Error(err)
	}
	if rc := v.mustSync(t); !rc.New {
		t.Error("the mode of the directory was not committed")
	}
	st := v.Status().Memory
	if st.Files != 2 || st.Directories != 1 || !st.Available || st.Limit != 4<<20 || st.Bytes == 0 {
		t.Errorf("status %+v", st)
	}
	fst, err := v.FileStatus(t.Context(), "mem/g")
	if err != nil || fst.Class != "memory" || fst.Safe || fst.Why == "" || fst.Size != 6 || fst.Path != "mem/g" {
		t.Errorf("status of a file: %+v, %v", fst, err)
	}
}

// TestMemoryHeals opens volumes as a kill leaves them between the two halves of making or removing a memory directory.
func TestMemoryHeals(t *testing.T) {
	state, cold := t.TempDir(), newMemCold()
	v := openMemoryTest(t, state, cold, "mem", "mem2")
	mem := mkdir(t, v, v.root, "mem")
	write(t, mem.vol, mem, "f", "kept")
	v.died()
	dir := filepath.Join(state, warm.DirName)
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "mem2"), 0o750),
		os.Mkdir(filepath.Join(state, tmpfs.MemoryName, tmpfs.TreeName, warm.TempPrefix+"half"), 0o700)); err != nil {
		t.Fatal(err)
	}

	v = openMemoryTest(t, state, cold, "mem", "mem2")
	if got := read(t, v.area.Load(), mustLookup(t, mustLookup(t, v.root, "mem"), "f")); got != "kept" {
		t.Errorf("after a kill: %q", got)
	}
	n, a, err := v.Lookup(context.Background(), v.root, "mem2")
	if err != nil || n.vol == v || a.Mode&0o7777 != 0o750 {
		t.Fatalf("made in warm alone: in the area: %v, mode %o, %v", n.vol != v, a.Mode, err)
	}
	if list, err := os.ReadDir(filepath.Join(state, tmpfs.MemoryName, tmpfs.TreeName)); err != nil || len(list) != 2 {
		t.Errorf("the tree holds %v, %v", list, err)
	}
	v.died()

	// Removed in memory, still there in warm.
	key := v.memory.graftAt(n.host.Load().ino, n.host.Load().gen).key
	if err := os.Remove(filepath.Join(state, tmpfs.MemoryName, tmpfs.TreeName, key)); err != nil {
		t.Fatal(err)
	}
	v = openMemoryTest(t, state, cold, "mem", "mem2")
	n = mustLookup(t, v.root, "mem2")
	write(t, n.vol, n, "g", "new")
	if v.warmNames(t, "mem2") != "" {
		t.Errorf("warm has %q", v.warmNames(t, "mem2"))
	}
	if err := v.Rmdir(context.Background(), v.root, "mem2"); err != unix.ENOTEMPTY {
		t.Errorf("rmdir with an entry: %v", err)
	}
	if err := errors.Join(n.vol.Unlink(context.Background(), n, "g"),
		v.Rmdir(context.Background(), v.root, "mem2")); err != nil {
		t.Errorf("rmdir: %v", err)
	}
	if v.warmNames(t, "") != "mem" || v.Status().Memory.Directories != 1 {
		t.Errorf("after rmdir warm has %q, %d memory directories", v.warmNames(t, ""), v.Status().Memory.Directories)
	}
	v.Start()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(state, tmpfs.MemoryName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
}

// TestMemoryKeptByFailedMount: a volume that is closed before it was started does not throw away what an earlier one
// left.
func TestMemoryKeptByFailedMount(t *testing.T) {
	state, cold := t.TempDir(), newMemCold()
	v := openMemoryTest(t, state, cold, "mem")
	mem := mkdir(t, v, v.root, "mem")
	write(t, mem.vol, mem, "f", "kept")
	v.died()
	if err := openMemoryTest(t, state, cold, "mem").Close(); err != nil {
		t.Fatal(err)
	}
	v = openMemoryTest(t, state, cold, "mem")
	if got := read(t, v.area.Load(), mustLookup(t, mustLookup(t, v.root, "mem"), "f")); got != "kept" {
		t.Errorf("read %q", got)
	}
	v.Start()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	fresh := openMemoryTest(t, state, cold, "mem")
	if err := fresh.Close(); err != nil { // a tmpfs that it mounted itself is unmounted
		t.Fatal(err)
	}
	if mounted, err := tmpfs.MountedAt(filepath.Join(state, tmpfs.MemoryName)); mounted ||
		!errors.Is(err, os.ErrNotExist) {
		t.Errorf("mounted: %v, %v", mounted, err)
	}
}

// TestMemoryRulesChange changes the rules under a volume: a directory stays what it is while it has entries.
func TestMemoryRulesChange(t *testing.T) {
	v := openMemoryTest(t, t.TempDir(), newMemCold())
	full, empty := mkdir(t, v, v.root, "full"), mkdir(t, v, v.root, "empty")
	write(t, v, full, "f", "disk")
	change := func(dirs ...string) {
		v.book.mu.Lock()
		v.putRules(memorySet(t, dirs...))
		v.book.mu.Unlock()
	}
	if v.area.Load() != nil {
		t.Fatal("a tmpfs that no rule asks for")
	}
	change("full", "empty")
	write(t, v, full, "g", "disk")
	if _, _, _, err := v.Create(context.Background(), empty, "f", unix.O_WRONLY, 0o600, me); err != unix.ESTALE {
		t.Errorf("create in a directory that is of class memory now: %v", err)
	}
	inside := mustLookup(t, v.root, "empty")
	write(t, inside.vol, inside, "f", "memory")
	if v.warmNames(t, "full") != "f g" || v.warmNames(t, "empty") != "" {
		t.Errorf("warm: %q and %q", v.warmNames(t, "full"), v.warmNames(t, "empty"))
	}
	if n := v.Status().Notes; len(n) != 1 || !strings.HasPrefix(n[0], "full ") {
		t.Errorf("notes %q", n)
	}
	change()
	if n := mustLookup(t, v.root, "empty"); n != inside {
		t.Error("a memory directory with entries became another one")
	}
	if n := v.Status().Notes; len(n) != 2 && !slices.ContainsFunc(n, func(s string) bool {
		return strings.HasPrefix(s, "empty ")
	}) {
		t.Errorf("notes %q", n)
	}
	if err := inside.vol.Unlink(context.Background(), inside, "f"); err != nil {
		t.Fatal(err)
	}
	v.memoryRulesChanged()
	if n := mustLookup(t, v.root, "empty"); n != empty {
		t.Error("an empty directory stays in memory after its rule went")
	}
	write(t, v, empty, "f", "disk")
	change("empty")
	if n := mustLookup(t, v.root, "empty"); n != empty || v.warmNames(t, "empty") != "f" {
		t.Errorf("a directory with entries on disk: warm has %q", v.warmNames(t, "empty"))
	}
}

// TestMemoryRoot: memoryRoot finds the topmost directories of class memory.
func TestMemoryRoot(t *testing.T) {
	v := &Volume{}
	v.book.set.Store(memorySet(t, "a", "b/c"))
	for at, want := range map[string]bool{"": false, "a": true, "a/b": false, "a/b/c": false, "ab": false, "b": false,
		"b/c": true, "b/c/d": false, "x/a": false} {
		if got := v.memoryRoot(at); got != want {
			t.Errorf("memoryRoot(%q) = %v", at, got)
		}
	}
}

// TestMemoryParallel makes, fills, moves and removes memory directories while commits run.
func TestMemoryParallel(t *testing.T) {
	state := t.TempDir()
	v := openMemoryTest(t, state, newMemCold(), "d0/mem", "d1/mem", "d2/mem")
	v.Start()
	var g sync.WaitGroup
	for i := range 3 {
		d := mkdir(t, v, v.root, fmt.Sprint("d", i))
		g.Go(func() {
			for round := range 60 {
				mem, _, err := v.Mkdir(context.Background(), d, "mem", 0o755, me)
				if err != nil {
					t.Errorf("mkdir: %v", err)
					return
				}
				n, h, _, err := mem.vol.Create(context.Background(), mem, "f", unix.O_WRONLY, 0o644, me)
				if err == nil {
					_, err = h.Write(context.Background(), []byte("secret"), 0, false)
					h.Release()
				}
				if err != nil {
					t.Errorf("in the area %v, create: %v", mem.vol != v, err)
					return
				}
				if round%3 == 0 {
					err = errors.Join(v.Rename(context.Background(), v.root, fmt.Sprint("d", i), v.root,
						fmt.Sprint("e", i), 0),
						v.Rename(context.Background(), v.root, fmt.Sprint("e", i), v.root, fmt.Sprint("d", i), 0))
				}
				again, _, lerr := v.Lookup(context.Background(), d, "mem")
				if again != mem {
					t.Errorf("another directory: %v", lerr)
					return
				}
				if err = errors.Join(err, lerr, mem.vol.Unlink(context.Background(), mem, "f"),
					v.Rmdir(context.Background(), d, "mem")); err != nil {
					t.Errorf("round %d: %v", round, err)
					return
				}
				n.vol.Forget(n, 1)
				mem.vol.Forget(mem, 2)
			}
		})
	}
	g.Go(func() {
		for range 20 {
			v.mustSync(t)
			_, _ = v.FileStatus(t.Context(), "d1/mem")
			v.Status()
		}
	})
	g.Wait()
	if st := v.Status().Memory; st.Files != 0 || st.Directories != 0 {
		t.Errorf("all was removed: %+v", st)
	}
	area := v.area.Load()
	if n := area.inodes(); n != 1 {
		t.Errorf("%d inodes in the area, want its root", n)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

// TestMemoryListing: node ids of the area are found through the volume, and an area that is gone has none.
func TestMemoryListing(t *testing.T) {
	v := openMemoryTest(t, t.TempDir(), newMemCold(), "mem")
	mem := mkdir(t, v, v.root, "mem")
	f := write(t, mem.vol, mem, "f", "x")
	if v.Inode(mem.id) != mem || v.Inode(f.id) != f || v.Inode(v.root.id) != v.root || f.id&areaBit == 0 {
		t.Errorf("by node id: %x, %x", mem.id, f.id)
	}
	d, err := mem.vol.OpenDir(context.Background(), mem)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got := map[string]uint64{}
	if err := d.ReadDir(context.Background(), 0, func(e warm.Dirent) bool {
		got[e.Name] = e.Ino
		return true
	}); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	a, err := f.vol.Getattr(context.Background(), f, nil)
	host := mem.host.Load()
	if err != nil || got["f"] != a.Ino || got["."] != host.ino || got[".."] != v.root.ino || a.Ino&areaBit == 0 {
		t.Errorf("listed %v; the file is %d, warm's directory %d, the root %d; %v", got, a.Ino, host.ino, v.root.ino,
			err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if n := v.Inode(f.id); n != nil {
		t.Error("an inode of an area that is gone")
	}
}
