package tiers

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// openTiered opens a volume whose files leave warm.
func openTiered(t *testing.T, state string, cold cold.Cold, change ...func(*Config)) *Volume {
	t.Helper()
	c := Config{State: state, Cold: cold, Log: quiet(), Branch: "main", MemoryLimit: 64 << 20, Tiering: true}
	for _, f := range change {
		f(&c)
	}
	v, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.over)
	if !v.records {
		t.Fatal("this test needs trusted.* attributes: run it as root on ext4, xfs, btrfs or tmpfs")
	}
	return v
}

func mustTier(t *testing.T, v *Volume, paths ...string) TierReport {
	t.Helper()
	r, err := v.Tier(context.Background(), paths)
	if err != nil {
		t.Fatalf("tier: %v %+v", err, r)
	}
	return r
}

// warmBlocks returns the number of blocks that warm has for a path.
func warmBlocks(t *testing.T, v *Volume, at string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(v.cfg.State, "warm", at), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}

func mustFind(t *testing.T, v *Volume, at string) *Inode {
	t.Helper()
	n, err := v.find(t.Context(), at)
	if err != nil {
		t.Fatalf("find %q: %v", at, err)
	}
	return n
}

func mustAttr(t *testing.T, v *Volume, n *Inode) Attr {
	t.Helper()
	a, err := v.Getattr(context.Background(), n, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestReleaseShowsNothing: nothing that a program sees changes when bytes leave warm, are read, and come back.
func TestReleaseShowsNothing(t *testing.T) {
	c := newMemCold()
	v := openTiered(t, t.TempDir(), c)
	text := strings.Repeat("0123456789abcdef", 5000)
	f := write(t, v, v.root, "f", text)
	v.mustSync(t)
	time.Sleep(20 * time.Millisecond) // else a new ctime might be the same: ctimes move in ticks
	before := mustAttr(t, v, f)
	if r := mustTier(t, v); r.Files != 1 || r.Bytes < int64(len(text)) {
		t.Fatalf("released %+v", r)
	}
	if n := warmBlocks(t, v, "f"); n != 0 {
		t.Fatalf("warm still holds %d blocks", n)
	}
	if a := mustAttr(t, v, f); a != before {
		t.Fatalf("release shows: %+v, before %+v", a, before)
	}
	v.hot.newVersion(f) // drops what hot has of it
	if read(t, v, f) != text {
		t.Fatal("content differs")
	}
	before.Atime = mustAttr(t, v, f).Atime // relatime moves the atime at the first read after a write
	if n := warmBlocks(t, v, "f"); n != 0 {
		t.Fatalf("reading wrote %d blocks to warm", n)
	}
	if err := v.recall(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if a := mustAttr(t, v, f); a != before {
		t.Fatalf("return shows: %+v, before %+v", a, before)
	}
	if read(t, v, f) != text || warmBlocks(t, v, "f") == 0 {
		t.Fatal("it did not come back")
	}
	if rc := v.mustSync(t); rc.New {
		t.Fatalf("a commit of nothing: %+v", rc)
	}
	if r := mustTier(t, v); r.Files != 1 {
		t.Fatalf("released %+v", r)
	}
	// Another daemon of the same boot knows as much.
	next := openTiered(t, v.cfg.State, c)
	g := mustFind(t, next, "f")
	if a := mustAttr(t, next, g); a != before {
		t.Fatalf("a restart shows: %+v, before %+v", a, before)
	}
	if read(t, next, g) != text {
		t.Fatal("content differs")
	}
}

// TestChangedStubReturns: the ctime that a chmod gave a stub stays when its bytes come back, also if that fails at the
// last step, and after a restart.
func TestChangedStubReturns(t *testing.T) {
	for _, failing := range []bool{false, true} {
		state, c := t.TempDir(), newMemCold()
		fail := func(*Config) {}
		if failing {
			fail = func(cfg *Config) {
				cfg.Fail = func(step string) error {
					if step == "return.record" {
						return unix.EIO
					}
					return nil
				}
			}
		}
		v := openTiered(t, state, c, fail)
		f := write(t, v, v.root, "f", strings.Repeat("x", 100_000))
		mustTier(t, v)
		mode := uint32(0600)
		shown, err := v.Setattr(context.Background(), f, nil, &SetAttr{Mode: &mode})
		must(t, err)
		time.Sleep(20 * time.Millisecond) // else a new ctime might be the same: ctimes move in ticks
		if err := v.recall(t.Context(), f); (err != nil) != failing {
			t.Fatal(err)
		}
		if a := mustAttr(t, v, f); a != shown {
			t.Errorf("return shows: %+v, before %+v", a, shown)
		}
		must(t, v.Close())
		v = openTiered(t, state, c)
		f = mustFind(t, v, "f")
		if a := mustAttr(t, v, f); a != shown {
			t.Errorf("the next start shows: %+v, before %+v", a, shown)
		}
		v.unref(f, 1)
		must(t, v.Close())
	}
}

// TestStubChanges: each way to change a stub's bytes gives what the same change of a plain file gives.
func TestStubChanges(t *testing.T) {
	text := strings.Repeat("0123456789abcdef", 1000)
	for name, change := range map[string]func(v *Volume, n *Inode, h *Handle) error{
		"append": func(v *Volume, n *Inode, h *Handle) error {
			_, err := h.Write(context.Background(), []byte("more"), int64(len(text)), false)
			return err
		},
		"overwrite": func(v *Volume, n *Inode, h *Handle) error {
			_, err := h.Write(context.Background(), []byte("middle"), 5000, false)
			return err
		},
		"shorter": func(v *Volume, n *Inode, h *Handle) error {
			_, err := v.Setattr(context.Background(), n, nil, &SetAttr{Size: new(uint64(777))})
			return err
		},
		"longer": func(v *Volume, n *Inode, h *Handle) error {
			_, err := v.Setattr(context.Background(), n, h, &SetAttr{Size: new(uint64(77777))})
			return err
		},
		"empty": func(v *Volume, n *Inode, h *Handle) error {
			_, err := v.Setattr(context.Background(), n, h, &SetAttr{Size: new(uint64(0))})
			return err
		},
		"empty and longer": func(v *Volume, n *Inode, h *Handle) error {
			if _, err := v.Setattr(context.Background(), n, h, &SetAttr{Size: new(uint64(0))}); err != nil {
				return err
			}
			_, err := v.Setattr(context.Background(), n, h, &SetAttr{Size: new(uint64(len(text)))})
			return err
		},
		"open with O_TRUNC": func(v *Volume, n *Inode, h *Handle) error {
			g, err := v.Open(context.Background(), n, unix.O_WRONLY|unix.O_TRUNC, false)
			if err == nil {
				g.Release()
			}
			return err
		},
		"punch": func(v *Volume, n *Inode, h *Handle) error {
			return h.Fallocate(context.Background(), 3, 4096, 4096)
		},
		"allocate": func(v *Volume, n *Inode, h *Handle) error {
			return h.Fallocate(context.Background(), 1, 0, 1<<20)
		},
		"copy in": func(v *Volume, n *Inode, h *Handle) error {
			src := mustFind(t, v, "other")
			from, err := v.Open(context.Background(), src, unix.O_RDONLY, false)
			if err != nil {
				return err
			}
			defer from.Release()
			for off := int64(0); off < 10000; {
				m, err := v.CopyFileRange(context.Background(), from, off, h, off+100, 10000-off, false)
				if err != nil || m == 0 {
					return fmt.Errorf("copied %d: %w", m, err)
				}
				off += int64(m)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newMemCold()
			v := openTiered(t, t.TempDir(), c)
			write(t, v, v.root, "other", strings.Repeat("OTHER", 3000))
			stub, plain := write(t, v, v.root, "stub", text), write(t, v, v.root, "plain", text)
			v.mustSync(t)
			mustTier(t, v, "stub", "other")
			if warmBlocks(t, v, "stub") != 0 || warmBlocks(t, v, "plain") == 0 {
				t.Fatal("not released as asked")
			}
			for _, n := range []*Inode{stub, plain} {
				h, err := v.Open(context.Background(), n, unix.O_RDWR, false)
				if err != nil {
					t.Fatal(err)
				}
				if err := change(v, n, h); err != nil {
					t.Fatal(err)
				}
				h.Release()
			}
			if a, b := read(t, v, stub), read(t, v, plain); a != b {
				t.Fatalf("%d bytes, a plain file has %d: they differ", len(a), len(b))
			}
			v.mustSync(t)
			next := openTiered(t, t.TempDir(), c)
			if a, b := read(t, next, mustFind(t, next, "stub")), read(t, v, plain); a != b {
				t.Fatal("committed otherwise")
			}
		})
	}
}

// TestVoidStub: a daemon that is killed after it emptied a stub, but before it changed the record, leaves an empty
// file. Its old bytes do not come back when it grows again.
func TestVoidStub(t *testing.T) {
	c := newMemCold()
	v := openTiered(t, t.TempDir(), c)
	write(t, v, v.root, "f", "some text")
	v.mustSync(t)
	mustTier(t, v)
	if err := unix.Truncate(filepath.Join(v.cfg.State, "warm/f"), 0); err != nil {
		t.Fatal(err)
	}
	next := openTiered(t, v.cfg.State, c)
	f := mustFind(t, next, "f")
	if got := read(t, next, f); got != "" {
		t.Fatalf("holds %q", got)
	}
	if _, err := next.Setattr(context.Background(), f, nil, &SetAttr{Size: new(uint64(9))}); err != nil {
		t.Fatal(err)
	}
	third := openTiered(t, v.cfg.State, c)
	if got := read(t, third, mustFind(t, third, "f")); got != strings.Repeat("\x00", 9) {
		t.Fatalf("holds %q", got)
	}
}

// TestKilledInRelease: whatever step a daemon was killed at, the file holds what it held.
func TestKilledInRelease(t *testing.T) {
	text := strings.Repeat("text", 5000)
	died := errors.New("died")
	for _, next := range []bool{false, true} {
		testKilledInRelease(t, text, died, next)
	}
}

func testKilledInRelease(t *testing.T, text string, died error, next bool) {
	for _, step := range []string{"release.record", "release.punch", "release.time", "return.write", "return.durable",
		"return.record"} {
		t.Run(fmt.Sprint(step, " next daemon ", next), func(t *testing.T) {
			c := newMemCold()
			armed := false
			v := openTiered(t, t.TempDir(), c, func(c *Config) {
				c.Fail = func(s string) error {
					if armed && s == step {
						return died
					}
					return nil
				}
			})
			f := write(t, v, v.root, "f", text)
			v.mustSync(t)
			before := mustAttr(t, v, f)
			armed = true
			if _, err := v.Tier(t.Context(), nil); (err != nil) != strings.HasPrefix(step, "release") {
				t.Fatal(err)
			}
			if strings.HasPrefix(step, "return") {
				if err := v.recall(t.Context(), f); !errors.Is(err, died) {
					t.Fatal(err)
				}
			}
			armed = false
			w := v
			if next {
				w = openTiered(t, v.cfg.State, c)
			}
			g := mustFind(t, w, "f")
			if a := mustAttr(t, w, g); a != before {
				t.Fatalf("%+v, before %+v", a, before)
			}
			if read(t, w, g) != text {
				t.Fatal("content differs")
			}
			h, err := w.Open(context.Background(), g, unix.O_RDWR, false)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.Write(context.Background(), []byte("more"), int64(len(text)), false); err != nil {
				t.Fatal(err)
			}
			h.Release()
			if read(t, w, g) != text+"more" {
				t.Fatal("content differs after a write")
			}
		})
	}
}

// TestMissingObject: a stub whose object is gone is an error of that file alone, never zeros.
func TestMissingObject(t *testing.T) {
	c := newMemCold()
	v := openTiered(t, t.TempDir(), c)
	f, g := write(t, v, v.root, "f", "first"), write(t, v, v.root, "g", "second")
	v.mustSync(t)
	mustTier(t, v)
	v.hot.newVersion(f)
	f.mu.Lock()
	id := f.mu.rec.ID
	f.mu.Unlock()
	c.mu.Lock()
	delete(c.blobs, id)
	c.mu.Unlock()
	h, err := v.Open(context.Background(), f, unix.O_RDWR, false)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	if n, err := h.Read(context.Background(), make([]byte, 10), 0); n != 0 || !errors.Is(err, cold.ErrMissing) {
		t.Fatalf("read %d, %v", n, err)
	}
	if n, err := h.Write(context.Background(), []byte("x"), 0, false); n != 0 || !errors.Is(err, cold.ErrMissing) {
		t.Fatalf("wrote %d, %v", n, err)
	}
	if read(t, v, g) != "second" {
		t.Fatal("another file suffers")
	}
	if _, err := v.Setattr(context.Background(), f, h, &SetAttr{Size: new(uint64(0))}); err != nil {
		t.Fatal(err)
	}
	if read(t, v, f) != "" {
		t.Fatal("not empty")
	}
	// What cold has not got is not released again.
	w := write(t, v, v.root, "w", "third")
	v.mustSync(t)
	w.mu.Lock()
	id = w.mu.rec.ID
	w.mu.Unlock()
	c.mu.Lock()
	delete(c.blobs, id)
	c.mu.Unlock()
	if r, err := v.Tier(t.Context(), nil); err == nil || r.Kept[keptMissing] != 1 || warmBlocks(t, v, "w") == 0 {
		t.Fatalf("%+v %v", r, err)
	}
}

// TestSeekStub: the hole that a stub has in warm is not visible.
func TestSeekStub(t *testing.T) {
	v := openTiered(t, t.TempDir(), newMemCold())
	f := write(t, v, v.root, "f", strings.Repeat("x", 10000))
	v.mustSync(t)
	mustTier(t, v)
	h, err := v.Open(context.Background(), f, unix.O_RDONLY, false)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	for _, s := range []struct {
		off    int64
		whence uint32
		want   int64
		err    error
	}{{0, unix.SEEK_DATA, 0, nil}, {5000, unix.SEEK_DATA, 5000, nil}, {0, unix.SEEK_HOLE, 10000, nil},
		{10000, unix.SEEK_DATA, 0, unix.ENXIO}, {10000, unix.SEEK_HOLE, 0, unix.ENXIO}} {
		if got, err := h.SeekData(context.Background(), s.off, s.whence); got != s.want || err != s.err {
			t.Errorf("seek %d %d: %d %v, want %d %v", s.off, s.whence, got, err, s.want, s.err)
		}
	}
}
