package tiers

import (
	"context"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// TestReadErrorIsNotShort: where hot has the beginning of what is asked for and cold cannot give the rest, the read
// fails: of a short one the kernel would make the file's end, and show what follows as zeros or not at all.
func TestReadErrorIsNotShort(t *testing.T) {
	c := newMemCold()
	v := openTiered(t, t.TempDir(), c)
	f := write(t, v, v.root, "f", strings.Repeat("x", 3*hotPage))
	v.mustSync(t)
	mustTier(t, v)
	v.hot.newVersion(f)
	h, err := v.Open(context.Background(), f, unix.O_RDONLY, false)
	must(t, err)
	defer h.Release()
	if n, err := h.Read(context.Background(), make([]byte, hotPage), 0); n != hotPage || err != nil {
		t.Fatal(n, err)
	}
	f.mu.Lock()
	id := f.mu.rec.ID
	f.mu.Unlock()
	c.mu.Lock()
	delete(c.blobs, id)
	c.mu.Unlock()
	v.coldReads.drop()
	if n, err := h.Read(context.Background(), make([]byte, 3*hotPage), 0); n != 0 || !errors.Is(err, cold.ErrMissing) {
		t.Fatalf("read %d, %v", n, err)
	}
}
