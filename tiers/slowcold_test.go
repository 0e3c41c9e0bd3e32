package tiers

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// gatedCold is a repository that lets some of its readers wait until they are let go, whatever becomes of their
// contexts: it is as one on a network file system whose server is gone.
type gatedCold struct {
	*memCold
	reads, opens, lists atomic.Pointer[gate] // nil: nobody waits
}

// gate is where readers wait.
type gate struct {
	id      cold.ID       // whose readers wait; zero: all
	arrived chan struct{} // gets a token for each of them
	open    chan struct{}
	once    sync.Once
}

func newGate(t *testing.T, id cold.ID) *gate {
	g := &gate{id: id, arrived: make(chan struct{}, 100), open: make(chan struct{})}
	t.Cleanup(g.letGo)
	return g
}

func (g *gate) letGo() { g.once.Do(func() { close(g.open) }) }

func (g *gate) pass(id cold.ID) {
	if g != nil && (g.id.IsZero() || g.id == id) {
		g.arrived <- struct{}{}
		<-g.open
	}
}

// await waits until somebody waits at the gate.
func (g *gate) await(t *testing.T) {
	t.Helper()
	select {
	case <-g.arrived:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody asked cold")
	}
}

type gatedBlob struct {
	cold.BlobAt
	c  *gatedCold
	id cold.ID
}

func (b gatedBlob) ReadAt(p []byte, off int64) (int, error) {
	b.c.reads.Load().pass(b.id)
	return b.BlobAt.ReadAt(p, off)
}

func (c *gatedCold) OpenAt(ctx context.Context, id cold.ID, size int64) (cold.BlobAt, error) {
	b, err := c.memCold.OpenAt(ctx, id, size)
	return gatedBlob{b, c, id}, err
}

func (c *gatedCold) Open(ctx context.Context, id cold.ID, size int64) (cold.Blob, error) {
	c.opens.Load().pass(id)
	return c.memCold.Open(ctx, id, size)
}

type gatedSnapshot struct {
	cold.Snapshot
	c *gatedCold
}

func (s gatedSnapshot) ReadNames(ctx context.Context, d cold.DirID) (cold.Listing, error) {
	s.c.lists.Load().pass(d.Tree)
	return s.Snapshot.ReadNames(ctx, d)
}

func (s gatedSnapshot) ReadDir(ctx context.Context, d cold.DirID) (cold.Listing, error) {
	s.c.lists.Load().pass(d.Tree)
	return s.Snapshot.ReadDir(ctx, d)
}

func (s gatedSnapshot) Sizes(ctx context.Context, d cold.DirID, names cold.Listing) (cold.Listing, error) {
	s.c.lists.Load().pass(d.Tree)
	return s.Snapshot.Sizes(ctx, d, names)
}

func (c *gatedCold) Snapshot(ctx context.Context, id cold.ID) (cold.Snapshot, error) {
	s, err := c.memCold.Snapshot(ctx, id)
	if err != nil {
		return nil, err
	}
	return gatedSnapshot{s, c}, nil
}

func (c *gatedCold) Newest(ctx context.Context) (cold.Snapshot, error) {
	s, err := c.memCold.Newest(ctx)
	if err != nil || s == nil {
		return nil, err
	}
	return gatedSnapshot{s, c}, nil
}

// soon runs f, which must not wait for cold.
func soon(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s waits for a reader of cold", what)
	}
}

// slowVolume has a, b and c in cold, and lets the readers of a wait.
func slowVolume(t *testing.T) (*Volume, *gatedCold, map[string]*Inode) {
	c := &gatedCold{memCold: newMemCold()}
	v := openTiered(t, t.TempDir(), c)
	files := map[string]*Inode{}
	for _, name := range []string{"a", "b", "c"} {
		files[name] = write(t, v, v.root, name, strings.Repeat(name, 100_000))
	}
	v.mustSync(t)
	mustTier(t, v)
	for name, n := range files {
		if !n.stub.Load() {
			t.Fatalf("%s is still in warm", name)
		}
		v.hot.newVersion(n)
	}
	return v, c, files
}

func recordID(n *Inode) cold.ID {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.rec.ID
}

// TestSlowRead: while one read waits for cold, its file is truncated, a commit has its boundary, and programs write and
// read. The read then gives what the file holds by that time.
func TestSlowRead(t *testing.T) {
	v, c, files := slowVolume(t)
	a := files["a"]
	g := newGate(t, recordID(a))
	c.reads.Store(g)
	h, err := v.Open(t.Context(), a, unix.O_RDONLY, false)
	must(t, err)
	defer h.Release()
	type result struct {
		n   int
		err error
	}
	first := make(chan result, 1)
	go func() {
		n, err := h.Read(t.Context(), make([]byte, 1000), 0)
		first <- result{n, err}
	}()
	g.await(t)

	// Another reader of the same bytes is killed.
	ctx, kill := context.WithCancel(t.Context())
	second := make(chan result, 1)
	go func() {
		n, err := h.Read(ctx, make([]byte, 1000), 5000)
		second <- result{n, err}
	}()
	g.await(t)
	kill()
	soon(t, "a killed reader", func() {
		if r := <-second; !errors.Is(r.err, context.Canceled) || r.n != 0 {
			t.Errorf("the killed reader got %+v", r)
		}
	})
	soon(t, "a reader of another file in cold", func() {
		if got := read(t, v, files["b"]); got != strings.Repeat("b", 100_000) {
			t.Errorf("b holds %d bytes", len(got))
		}
	})
	soon(t, "a truncation", func() {
		var none uint64
		if _, err := v.Setattr(t.Context(), a, nil, &SetAttr{Size: &none}); err != nil {
			t.Error(err)
		}
	})
	soon(t, "a new file", func() { write(t, v, v.root, "new", "new") })
	soon(t, "a commit", func() { v.mustSync(t) })
	soon(t, "a change after the commit", func() { write(t, v, v.root, "after", "after") })
	select {
	case r := <-first:
		t.Fatalf("the first reader got %+v although cold has not answered", r)
	default:
	}
	g.letGo()
	soon(t, "the first reader", func() {
		if r := <-first; r.err != nil || r.n != 0 {
			t.Errorf("the first reader got %+v of an empty file", r)
		}
	})
}

// TestSlowReadOfChanged: a read that waits for cold does not give, or keep in hot, what a writer replaced meanwhile.
func TestSlowReadOfChanged(t *testing.T) {
	v, c, files := slowVolume(t)
	a := files["a"]
	g := newGate(t, recordID(a))
	c.reads.Store(g)
	h, err := v.Open(t.Context(), a, unix.O_RDWR, false)
	must(t, err)
	defer h.Release()
	got := make(chan string, 1)
	go func() {
		buf := make([]byte, 10)
		n, err := h.Read(t.Context(), buf, 0)
		if err != nil {
			t.Error(err)
		}
		got <- string(buf[:n])
	}()
	g.await(t)
	soon(t, "a writer", func() {
		if _, err := h.Write(t.Context(), []byte("XYZ"), 0, false); err != nil {
			t.Error(err)
		}
	})
	g.letGo()
	if s := <-got; s != "XYZaaaaaaa" {
		t.Errorf("the reader got %q", s)
	}
	if s := read(t, v, a); s != "XYZ"+strings.Repeat("a", 100_000-3) {
		t.Errorf("a holds %.20q", s)
	}
}

// TestSlowReturn: a killed writer does not wait for the bytes of its file, others do, and get them.
func TestSlowReturn(t *testing.T) {
	v, c, files := slowVolume(t)
	a := files["a"]
	g := newGate(t, recordID(a))
	c.opens.Store(g)
	h, err := v.Open(t.Context(), a, unix.O_RDWR, false)
	must(t, err)
	defer h.Release()
	ctx, kill := context.WithCancel(t.Context())
	killed, other := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := h.Write(ctx, []byte("killed"), 0, false)
		killed <- err
	}()
	g.await(t)
	go func() {
		_, err := h.Write(t.Context(), []byte("other"), 50, false)
		other <- err
	}()
	kill()
	soon(t, "a killed writer", func() {
		if err := <-killed; !errors.Is(err, context.Canceled) {
			t.Errorf("the killed writer got %v", err)
		}
	})
	soon(t, "a commit", func() { v.mustSync(t) })
	soon(t, "a new file", func() { write(t, v, v.root, "new", "new") })
	g.letGo()
	soon(t, "the other writer", func() { must(t, <-other) })
	if s := read(t, v, a); s != strings.Repeat("a", 50)+"other"+strings.Repeat("a", 100_000-55) {
		t.Errorf("a holds %.70q", s)
	}
}

// TestSlowListing: while a directory that is not listed yet waits for cold, the rest of the volume goes on, and who was
// killed leaves.
func TestSlowListing(t *testing.T) {
	c := &gatedCold{memCold: newMemCold()}
	first := openTiered(t, t.TempDir(), c)
	write(t, first, mkdir(t, first, first.root, "slow"), "f", "text")
	write(t, first, mkdir(t, first, first.root, "other"), "f", "other text")
	first.mustSync(t)
	must(t, first.Close())

	v := openTiered(t, t.TempDir(), c)
	slow, other := mustFind(t, v, "slow"), mustFind(t, v, "other")
	if !slow.dir.lazy.Load() {
		t.Fatal("the directory is listed")
	}
	g := newGate(t, recordID(slow))
	c.lists.Store(g)
	ctx, kill := context.WithCancel(t.Context())
	killed, patient := make(chan error, 1), make(chan error, 1)
	go func() {
		_, _, err := v.Lookup(ctx, slow, "f")
		killed <- err
	}()
	g.await(t)
	go func() {
		_, _, err := v.Lookup(t.Context(), slow, "f")
		patient <- err
	}()
	kill()
	soon(t, "a killed program", func() {
		if err := <-killed; !errors.Is(err, context.Canceled) {
			t.Errorf("the killed lookup got %v", err)
		}
	})
	soon(t, "a new file", func() { write(t, v, other, "new", "new") })
	soon(t, "a commit", func() { v.mustSync(t) })
	g.letGo()
	soon(t, "the other lookup", func() { must(t, <-patient) })
	if s := read(t, v, mustFind(t, v, "slow/f")); s != "text" {
		t.Errorf("slow/f holds %q", s)
	}
}

// TestSlowClose: a volume whose repository does not answer is closed all the same, not as in order; the next start has
// everything.
func TestSlowClose(t *testing.T) {
	v, c, files := slowVolume(t)
	g := newGate(t, recordID(files["a"]))
	c.reads.Store(g)
	h, err := v.Open(t.Context(), files["a"], unix.O_RDONLY, false)
	must(t, err)
	ctx, kill := context.WithCancel(t.Context())
	killed := make(chan error, 1)
	go func() {
		_, err := h.Read(ctx, make([]byte, 1000), 0)
		killed <- err
	}()
	g.await(t)
	kill()
	if err := <-killed; !errors.Is(err, context.Canceled) {
		t.Errorf("the killed reader got %v", err)
	}
	h.Release()
	write(t, v, v.root, "new", "new")
	v.patience = 50 * time.Millisecond
	soon(t, "closing", func() {
		if err := v.Close(); err == nil {
			t.Error("closing says nothing of a repository that does not answer")
		}
	})
	if v.state.Clean {
		t.Error("the stop counts as clean")
	}
	g.letGo()
	c.reads.Store(nil)
	next := openTiered(t, v.cfg.State, c)
	for name, want := range map[string]string{"a": strings.Repeat("a", 100_000), "new": "new"} {
		if got := read(t, next, mustFind(t, next, name)); got != want {
			t.Errorf("%s holds %.20q", name, got)
		}
	}
}
