package tiers

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWritersBesideReturn: while files come back in the background, slowly since programs read from cold all the time,
// emptying one of them holds up neither a commit nor those who write other files.
func TestWritersBesideReturn(t *testing.T) {
	v := openTiered(t, t.TempDir(), newMemCold())
	var batch []*Inode
	for i := range 20 {
		batch = append(batch, write(t, v, v.root, fmt.Sprint(i), "text"))
	}
	other := write(t, v, v.root, "other", "x")
	v.mustSync(t)
	mustTier(t, v)
	v.moved.foreground.Store(1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer v.moved.foreground.Store(0)
	wg.Go(func() { v.recallBatch(t.Context(), batch) })
	time.Sleep(300 * time.Millisecond)
	started := time.Now()
	wg.Go(func() {
		h, err := v.Open(context.Background(), batch[0], unix.O_WRONLY|unix.O_TRUNC, false)
		if err == nil {
			h.Release()
		}
		if took := time.Since(started); err != nil || took > time.Second {
			t.Errorf("emptying took %v, %v", took, err)
		}
	})
	time.Sleep(20 * time.Millisecond)
	wg.Go(func() { _, _ = v.Sync(context.Background(), "test") }) // its boundary
	time.Sleep(20 * time.Millisecond)
	h, err := v.Open(context.Background(), other, unix.O_RDWR, false)
	must(t, err)
	_, err = h.Write(context.Background(), []byte("y"), 0, false)
	must(t, err)
	h.Release()
	if took := time.Since(started); took > time.Second {
		t.Errorf("a writer of another file waited for %v", took)
	}
}

// TestEmptyBesideReturn: who empties a file whose bytes are coming back waits without holding up anybody.
func TestEmptyBesideReturn(t *testing.T) {
	v := openTiered(t, t.TempDir(), newMemCold())
	f := write(t, v, v.root, "f", "text")
	v.mustSync(t)
	mustTier(t, v)
	f.back.Lock() // its bytes come back
	ended := make(chan error, 1)
	go func() {
		_, err := v.Setattr(context.Background(), f, nil, &SetAttr{Size: new(uint64(0))})
		ended <- err
	}()
	time.Sleep(50 * time.Millisecond)
	if !v.barrier.TryLock() {
		t.Error("a commit cannot begin")
	} else {
		v.barrier.Unlock()
	}
	f.back.Unlock()
	must(t, <-ended)
	if read(t, v, f) != "" {
		t.Error("not empty")
	}
}
