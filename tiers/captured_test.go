package tiers

import (
	"context"
	"testing"

	"golang.org/x/sys/unix"

	"emberfs/tiers/warm"
)

// TestOpenInCommitIsRecorded: a file that a commit took while it was open for writing, and that was closed unchanged,
// is recorded clean by the next one, and so can leave warm.
func TestOpenInCommitIsRecorded(t *testing.T) {
	v := openTiered(t, t.TempDir(), newMemCold())
	f, h, _, err := v.Create(context.Background(), v.root, "f", unix.O_RDWR, 0644, me)
	must(t, err)
	_, err = h.Write(context.Background(), []byte("some text"), 0, false)
	must(t, err)
	v.mustSync(t)
	h.Release()
	v.mustSync(t)
	f.mu.Lock()
	clean := f.mu.rec.Has(warm.FlagClean)
	f.mu.Unlock()
	if !clean {
		t.Error("not recorded clean")
	}
	if r := mustTier(t, v); r.Files != 1 {
		t.Fatalf("%+v", r)
	}
}
