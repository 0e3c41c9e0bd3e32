package tiers

import (
	"context"
	"strings"
	"testing"
	"time"

	"emberfs/tiers/inspect"
)

func (v *Volume) coldSays(t *testing.T, what string, want int64) {
	t.Helper()
	if got := v.Status().Tiers.Cold.Files; got != want {
		t.Errorf("%s: cold has %d files, want %d", what, got, want)
	}
}

// eventually waits until status says so many files.
func (v *Volume) eventually(t *testing.T, what string, want int64) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if v.Status().Tiers.Cold.Files == want {
			return
		}
	}
	v.coldSays(t, what, want)
}

// TestColdFiles: cold's files are those of the last commit, listed or not, released or not, removed since or not.
func TestColdFiles(t *testing.T) {
	v, c := newVolume(t)
	v.coldSays(t, "no commit", 0)
	sample(t, v)
	v.coldSays(t, "no commit yet", 0)
	v.mustSync(t)
	const files = 30 + 2 + 2 + 2 // linked files, a symlink, a FIFO
	v.eventually(t, "committed", files)
	must(t, v.Unlink(context.Background(), mustFind(t, v, "a"), "fifo"))
	v.coldSays(t, "removed, not committed", files)
	v.mustSync(t)
	v.eventually(t, "removed", files-1)
	next := openTiered(t, t.TempDir(), c)
	next.coldSays(t, "the next machine, which has listed nothing", files-1)
	mustFind(t, next, "a/b/file 3")
	mustTier(t, next)
	next.coldSays(t, "listed", files-1)
}

// TestColdFilesSlow: status does not wait for a count that takes long, and closing ends it.
func TestColdFilesSlow(t *testing.T) {
	v, c := newVolume(t)
	write(t, v, v.root, "f", "x")
	v.mustSync(t)
	v.eventually(t, "counted", 1)
	c.counting = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	write(t, v, v.root, "g", "x")
	v.mustSync(t)
	v.coldCount.mu.Lock()
	v.coldCount.next = time.Time{}
	v.coldCount.mu.Unlock()
	v.coldSays(t, "while it is counted", 1)
	must(t, v.Close())
	v.coldCount.mu.Lock()
	if v.coldCount.running != nil {
		t.Error("it still counts")
	}
	v.coldCount.mu.Unlock()
	next := openTest(t, v.cfg.State, c)
	next.coldSays(t, "while it is counted for the first time", 2)
}

// TestStubsWithAttributes: a stub whose attributes take a block of their own is counted as one.
func TestStubsWithAttributes(t *testing.T) {
	v := openTiered(t, t.TempDir(), newMemCold())
	f := write(t, v, v.root, "f", strings.Repeat("x", 50_000))
	must(t, v.Setxattr(context.Background(), f, "user.long", make([]byte, 2000), 0, false, me))
	v.mustSync(t)
	mustTier(t, v)
	if w := v.Status().Tiers.Warm; w.Stubs != 1 || w.Files != 0 {
		t.Errorf("%+v, with %d blocks", w, warmBlocks(t, v, "f"))
	}
	if files, _, err := inspect.ColdOnly(v.cfg.State); err != nil || files != 1 {
		t.Errorf("%d files in cold only, %v", files, err)
	}
}
