package tiers

import (
	"context"
	"sync"
	"testing"
	"time"

	"emberfs/integration/effort"
)

// TestStatusBesideChanges: asking for a file's status while names come and go in its directory blocks nobody.
func TestStatusBesideChanges(t *testing.T) {
	v := openTiered(t, t.TempDir(), newMemCold())
	d := mkdir(t, v, v.root, "d")
	f := write(t, v, d, "f", "x")
	v.mustSync(t)
	d.dir.mu.Lock()
	d.dir.mu.tracking = false // as after a start with an old record
	d.dir.mu.Unlock()
	write(t, v, d, "f2", "x")
	limit := effort.Time(t, time.Second, time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var wg sync.WaitGroup
	repeat := func(f func()) {
		wg.Go(func() {
			for ctx.Err() == nil {
				f()
			}
		})
	}
	repeat(func() { _, _ = v.FileStatus(t.Context(), "d/f") })
	repeat(func() {
		_, _ = v.Link(ctx, f, d, "g")
		_ = v.Unlink(ctx, d, "g")
	})
	repeat(func() {
		_ = v.Rename(ctx, d, "f2", d, "f3", 0)
		_ = v.Rename(ctx, d, "f3", d, "f2", 0)
	})
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(limit + 10*time.Second):
		t.Fatal("deadlock")
	}
}
