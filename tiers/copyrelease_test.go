package tiers

import (
	"context"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCopyFromReleased: a file that is opened and copied while it is being released gives its bytes, not its hole.
func TestCopyFromReleased(t *testing.T) {
	var inRelease func()
	v := openTiered(t, t.TempDir(), newMemCold(), func(c *Config) {
		c.Fail = func(s string) error {
			if s == "release.record" && inRelease != nil {
				inRelease()
			}
			return nil
		}
	})
	text := strings.Repeat("text", 5000)
	f := write(t, v, v.root, "f", text)
	v.mustSync(t)
	out, h, _, err := v.Create(context.Background(), v.root, "copy", unix.O_RDWR, 0644, me)
	must(t, err)
	done := make(chan error, 1)
	inRelease = func() {
		go func() {
			from, err := v.Open(context.Background(), f, unix.O_RDONLY, false)
			if err == nil {
				_, err = v.CopyFileRange(context.Background(), from, 0, h, 0, int64(len(text)), false)
				from.Release()
			}
			done <- err
		}()
		time.Sleep(100 * time.Millisecond) // for the copy to wait
	}
	mustTier(t, v, "f")
	must(t, <-done)
	h.Release()
	if got := read(t, v, out); got != text {
		t.Fatalf("copied %d bytes, the first %q", len(got), got[:min(8, len(got))])
	}
}
