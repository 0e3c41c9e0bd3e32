package tiers

import (
	"context"
	"testing"
	"time"
)

// TestRemovedWhileRead: a commit that reads a file which would take hours begins again without it once it is removed.
func TestRemovedWhileRead(t *testing.T) {
	cold := newMemCold()
	began := make(chan struct{}, 1)
	cold.skim = func(size int64) bool { // reads, and keeps nothing
		if size < 1<<40 {
			return false
		}
		select {
		case began <- struct{}{}:
		default:
		}
		return true
	}
	v := openTest(t, t.TempDir(), cold)
	write(t, v, v.Root(), "small", "x")
	n := write(t, v, v.Root(), "vast", "")
	size := uint64(1 << 40)
	_, err := v.Setattr(context.Background(), n, nil, &SetAttr{Size: &size})
	must(t, err)
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() {
		_, err := v.Sync(ctx, "test")
		done <- err
	}()
	<-began
	must(t, v.Unlink(ctx, v.Root(), "vast"))
	must(t, <-done)
	wantCommitted(t, cold, "small")
	if st := v.Status(); st.AtRisk.Files != 0 {
		t.Errorf("at risk: %+v", st.AtRisk)
	}
	must(t, v.Close())
}
