package warm

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"emberfs/tiers/cold"
)

// TestDataOfShrinkingFile checks that if a file is truncated between the two calls that look for its data, the error is
// ErrSizeChanged.
func TestDataOfShrinkingFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = f.WriteAt(make([]byte, 8192), 0)
				_ = f.Truncate(0)
			}
		}
	}()
	defer func() { close(stop); <-done }()
	c := NewContent(int(f.Fd()), 8192)
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); {
		if _, _, err := c.Data(4096); err != nil && !errors.Is(err, cold.ErrSizeChanged) {
			t.Fatal(err)
		}
	}
}
