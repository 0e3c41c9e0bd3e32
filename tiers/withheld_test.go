package tiers

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// TestUntrustedKeepsDevices: a device that an untrusted restore did not make stays in the volume, whatever else changes
// beside it.
func TestUntrustedKeepsDevices(t *testing.T) {
	for _, tiering := range []bool{true, false} {
		v, c := newVolume(t)
		d := mkdir(t, v, v.root, "d")
		write(t, v, d, "f", "text")
		if _, _, err := v.Mknod(context.Background(), d, "null", unix.S_IFCHR|0666, 1<<8|3, me); err != nil {
			t.Fatal(err)
		}
		v.mustSync(t)
		state := t.TempDir()
		// The second round knows nothing of the first but what is on disk.
		for round, text := range []string{"one", "two"} {
			w := openTiered(t, state, c, func(c *Config) { c.Untrusted, c.Tiering = true, tiering })
			write(t, w, mustFind(t, w, "d"), "g"+text, text)
			w.mustSync(t)
			if _, err := w.Open(context.Background(), mustFind(t, w, "d/null"), unix.O_RDONLY, false); !errors.Is(err,
				unix.EIO) {
				t.Fatalf("round %d: what stands in for the device opens: %v", round, err)
			}
			if st := w.Status(); len(st.LeftOut) != 1 ||
				!strings.Contains(st.LeftOut[0], "d/null: this char: the source is not trusted") {
				t.Errorf("round %d: status lists %q", round, st.LeftOut)
			}
			must(t, w.Close())
		}
		trusting := openTiered(t, t.TempDir(), c)
		a := mustAttr(t, trusting, mustFind(t, trusting, "d/null"))
		if a.Mode&unix.S_IFMT != unix.S_IFCHR || a.Rdev != 1<<8|3 {
			t.Errorf("tiering %v: %+v", tiering, a)
		}
		if read(t, trusting, mustFind(t, trusting, "d/gtwo")) != "two" {
			t.Error("what was written beside it is not there")
		}
	}
}

// TestReadMeetsRelease: a commit that takes a file for changed, and finds it released when it comes to read it, stores
// what it stands for and not the hole.
func TestReadMeetsRelease(t *testing.T) {
	c := newMemCold()
	v := openTiered(t, t.TempDir(), c)
	f := write(t, v, v.root, "f", "what it holds")
	v.mustSync(t)
	mustTier(t, v)
	tx, err := c.Begin(t.Context())
	must(t, err)
	dirfd, err := v.dirFD(v.root)
	must(t, err)
	defer v.unpin(v.root)
	var st unix.Statx_t
	must(t, warm.StatAt(dirfd, "f", &st))
	e := warm.EntryOf("f", &st)
	run := &capture{v: v, ctx: t.Context(), tx: tx, base: tx.Base(), boundary: newBoundary(v, v.epoch.Load())}
	if _, err := run.content(f, &preimage{attr: attrOf(&st)}, &e, cold.ID{}); err != nil {
		t.Fatal(err)
	}
	run.boundary.close()
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.ID != f.mu.rec.ID || e.Mtime != f.mu.rec.Mtime {
		t.Errorf("stored as %s of %v, it is %s of %v", e.ID, e.Mtime, f.mu.rec.ID, f.mu.rec.Mtime)
	}
}

// TestVoidMarkMustGo: as long as the mark of an emptied stub could not be taken away, its bytes do not change: the mark
// would be true again at its old size.
func TestVoidMarkMustGo(t *testing.T) {
	c := newMemCold()
	v := openTiered(t, t.TempDir(), c)
	write(t, v, v.root, "f", "some text")
	v.mustSync(t)
	mustTier(t, v)
	path := filepath.Join(v.cfg.State, "warm/f")
	must(t, unix.Truncate(path, 0))
	next := openTiered(t, v.cfg.State, c)
	f := mustFind(t, next, "f") // removes the mark; put it back as a failed removal leaves it
	stale := warm.Record{Flags: warm.FlagClean | warm.FlagStub | warm.FlagBlocks, Trust: next.trust, ID: cold.ID{1},
		Size: 9, Blocks: 8}
	must(t, unix.Setxattr(path, warm.RecordAttr, stale.Encode(nil), 0))
	f.mu.Lock()
	f.mu.rec = voidStub(&stale)
	f.mu.Unlock()
	h, err := next.Open(context.Background(), f, unix.O_RDWR, false)
	must(t, err)
	_, err = h.Write(context.Background(), []byte("new text!"), 0, false)
	must(t, err)
	h.Release()
	third := openTiered(t, v.cfg.State, c)
	if got := read(t, third, mustFind(t, third, "f")); got != "new text!" {
		t.Errorf("holds %q", got)
	}
}
